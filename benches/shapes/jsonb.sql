-- Documents with a GIN index and one over an expression. :rows is the number of rows.
CREATE TABLE documents (id bigint PRIMARY KEY, doc jsonb NOT NULL);
INSERT INTO documents SELECT g, jsonb_build_object('id', g, 'name', md5(g::text), 'tags', jsonb_build_array(g % 50, 'tag' || g % 300, g % 7 = 0),
    'price', g * 1.37 % 1000, 'nested', jsonb_build_object('city', 'city ' || g % 2000, 'at', timestamptz '2024-01-01' + g * interval '1 min'))
  FROM generate_series(1, :rows) g;
CREATE INDEX ON documents USING gin (doc jsonb_path_ops);
CREATE INDEX ON documents ((doc->>'name'));
