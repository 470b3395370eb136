-- One narrow table: two integers and a key, in order. :rows is the number of rows.
CREATE TABLE narrow (id bigint PRIMARY KEY, a int NOT NULL, b int);
INSERT INTO narrow SELECT g, hashint8(g) & 65535, g % 1000 FROM generate_series(1, :rows) g;
CREATE INDEX ON narrow (a);
