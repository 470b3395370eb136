-- An extension that only the service's servers have: a row of the catalog, and what ALTER EXTENSION … ADD makes its member.
CREATE FUNCTION pg_temp.extension(name text, schema text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
        SELECT pg_nextoid('pg_extension', 'oid', 'pg_extension_oid_index'), name, 10, schema::regnamespace, false, '1.0';
    INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype)
        SELECT 'pg_extension'::regclass, oid, 0, 'pg_namespace'::regclass, extnamespace, 0, 'n' FROM pg_extension WHERE extname = name;
    INSERT INTO pg_description (objoid, classoid, objsubid, description)
        SELECT oid, 'pg_extension'::regclass, 0, 'extension of the service' FROM pg_extension WHERE extname = name $$;
-- A table of an extension whose rows are the user's.
CREATE FUNCTION pg_temp.configuration(name text, relation text) RETURNS void LANGUAGE sql AS $$
    UPDATE pg_extension SET extconfig = ARRAY[relation::regclass::oid], extcondition = ARRAY[''] WHERE extname = name $$;
-- A label of a provider that only some servers load.
CREATE FUNCTION pg_temp.label(relation text, provider text, label text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO pg_seclabel (objoid, classoid, objsubid, provider, label)
        SELECT relation::regclass, 'pg_class'::regclass, 0, provider, label $$;
