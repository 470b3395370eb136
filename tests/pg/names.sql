-- Names that need quotes, in every place where a name can occur.
CREATE SCHEMA "select"; CREATE SCHEMA "Ünï çode ☃"; CREATE SCHEMA "a.b"; CREATE SCHEMA "semi;colon --x";
CREATE TABLE "select"."table" ("from" int PRIMARY KEY, "order by" text, "quote""d" int, "back\slash" int, "tab	" int);
INSERT INTO "select"."table" VALUES (1, 'x', 2, 3, 4);
CREATE TABLE "Ünï çode ☃"."ñame with $1 and $$" ("col:umn" int, "🐘" text); INSERT INTO "Ünï çode ☃"."ñame with $1 and $$" VALUES (1, '🐘');
CREATE TABLE "a.b"."c.d" ("e.f" int UNIQUE); CREATE TABLE "semi;colon --x"."'; DROP TABLE x; --" (a int REFERENCES "a.b"."c.d" ("e.f"));
CREATE TABLE "semi;colon --x"."new
line" (a int); INSERT INTO "semi;colon --x"."new
line" VALUES (7);
CREATE TABLE aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa (bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb serial PRIMARY KEY);
CREATE INDEX "index "" with
 newline" ON "select"."table" ("order by"); CREATE VIEW "select"."VIEW" AS SELECT * FROM "select"."table";
CREATE FUNCTION "a.b"."fn (x)"("in" int, OUT "out" int) LANGUAGE sql AS 'SELECT $1'; CREATE TYPE "a.b"."en;um" AS ENUM ('a''b', 'ü', ';'); COMMENT ON TABLE "a.b"."c.d" IS E'it''s \\ a\n"comment"; --';
ALTER TABLE "a.b"."c.d" OWNER TO "Röle ""C"""; GRANT SELECT ON "select"."table" TO "Röle ""C""";
