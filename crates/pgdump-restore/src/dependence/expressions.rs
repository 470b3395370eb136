//! Expressions of tables and types: whether they may call code that reads rows of any table.

use std::collections::HashSet;

use pgdump_archive::Token;

/// Built-in functions that read or change what other statements do, by name or prefix.
const READING: [&str; 24] = [
    "currval",
    "cursor_to_xml",
    "database_to_xml",
    "lastval",
    "lo_",
    "loread",
    "lowrite",
    "nextval",
    "pg_indexes_size",
    "pg_read_",
    "pg_relation_size",
    "pg_sequence_last_value",
    "pg_table_size",
    "pg_total_relation_size",
    "query_to_xml",
    "random",
    "schema_to_xml",
    "set_config",
    "setval",
    "table_to_xml",
    "ts_rewrite",
    "ts_stat",
    "txid_",
    "xmltable",
];

/// Functions of common extensions that depend on their arguments only.
const PURE: [&str; 46] = [
    "array_to_string",
    "crypt",
    "cube",
    "digest",
    "earth_distance",
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "geometrytype",
    "hmac",
    "hstore",
    "immutable_unaccent",
    "isempty",
    "ll_to_earth",
    "nlevel",
    "ndims",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "similarity",
    "soundex",
    "srid",
    "st_area",
    "st_asgeojson",
    "st_astext",
    "st_centroid",
    "st_coorddim",
    "st_envelope",
    "st_geometrytype",
    "st_isempty",
    "st_isvalid",
    "st_length",
    "st_makepoint",
    "st_ndims",
    "st_npoints",
    "st_point",
    "st_setsrid",
    "st_srid",
    "st_x",
    "st_y",
    "text2ltree",
    "unaccent",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuid_generate_v5",
];

/// Words that may precede a parenthesis and are not functions, or are functions of the grammar.
const GRAMMAR: [&str; 70] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "bit",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "decimal",
    "default",
    "distinct",
    "else",
    "end",
    "exclude",
    "exists",
    "extract",
    "filter",
    "float",
    "for",
    "from",
    "greatest",
    "hash",
    "ilike",
    "in",
    "include",
    "interval",
    "is",
    "key",
    "least",
    "like",
    "list",
    "nchar",
    "not",
    "null",
    "nullif",
    "numeric",
    "or",
    "over",
    "overlaps",
    "overlay",
    "position",
    "range",
    "references",
    "row",
    "similar",
    "some",
    "stored",
    "substring",
    "symmetric",
    "then",
    "time",
    "timestamp",
    "to",
    "trim",
    "unique",
    "using",
    "values",
    "varbit",
    "varchar",
    "varying",
    "when",
    "where",
    "with",
];

/// Built-in functions that depend on their arguments only, for text in which an unqualified name may belong
/// to anybody.
const SERVERS: [&str; 88] = [
    "abs",
    "age",
    "array_append",
    "array_dims",
    "array_length",
    "array_lower",
    "array_ndims",
    "array_position",
    "array_remove",
    "array_to_json",
    "array_to_string",
    "array_upper",
    "ascii",
    "bit_length",
    "btrim",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "clock_timestamp",
    "concat",
    "concat_ws",
    "current_database",
    "date",
    "date_part",
    "date_trunc",
    "decode",
    "encode",
    "floor",
    "format",
    "gen_random_uuid",
    "hashtext",
    "initcap",
    "int4range",
    "int8range",
    "isfinite",
    "json_array_length",
    "json_build_object",
    "json_typeof",
    "jsonb_array_length",
    "jsonb_build_object",
    "jsonb_typeof",
    "left",
    "length",
    "lower",
    "lower_inc",
    "lpad",
    "ltrim",
    "make_date",
    "masklen",
    "md5",
    "mod",
    "now",
    "num_nonnulls",
    "num_nulls",
    "octet_length",
    "pg_column_size",
    "power",
    "quote_ident",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "rpad",
    "rtrim",
    "setweight",
    "sha256",
    "sign",
    "split_part",
    "sqrt",
    "starts_with",
    "statement_timestamp",
    "strpos",
    "substr",
    "timezone",
    "to_char",
    "to_date",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsvector",
    "translate",
    "trunc",
    "upper",
];

/// How to interpret function names in one dump.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// Functions that the dump creates, without their schemas.
    pub defined: HashSet<String>,
    /// An unqualified name is a built-in function: the dump has an empty search path.
    pub is_path_empty: bool,
}

impl Functions {
    /// Whether these tokens call anything that may read rows.
    pub(super) fn may_read(&self, t: &[Token<'_>]) -> bool {
        (0..t.len()).any(|i| self.is_reading_operator(t, i) || self.is_reading_call(t, i))
    }

    /// `OPERATOR(s.=)`
    fn is_reading_operator(&self, t: &[Token<'_>], i: usize) -> bool {
        let is_one = t[i].is("operator") && t.get(i + 1).is_some_and(|w| w.is_symbol(b'('));
        is_one
            && t.get(i + 2)
                .and_then(Token::name)
                .is_some_and(|schema| schema != "pg_catalog")
    }

    fn is_reading_call(&self, t: &[Token<'_>], i: usize) -> bool {
        let Some(name) = t[i]
            .name()
            .filter(|_| t.get(i + 1).is_some_and(|w| w.is_symbol(b'(')))
        else {
            return false;
        };
        let schema = (i >= 2 && t[i - 1].is_symbol(b'.'))
            .then(|| t[i - 2].name())
            .flatten();
        let first = if schema.is_some() { i - 2 } else { i };
        // `::numeric(10,2)`
        if first > 0 && t[first - 1].is_symbol(b':') {
            return false;
        }
        let is_quoted = t[i].name().is_some() && t[i].text.starts_with('"');
        match schema.as_deref() {
            Some("pg_catalog") => reads(&name),
            Some(_) => self.defined.contains(&name) || !PURE.contains(&name.as_str()),
            None if !is_quoted && (t[i].is("operator") || GRAMMAR.contains(&name.as_str())) => {
                false
            }
            None if self.is_path_empty => reads(&name),
            None if self.defined.contains(&name) => true,
            None => !SERVERS.contains(&name.as_str()) && !PURE.contains(&name.as_str()),
        }
    }
}

fn reads(name: &str) -> bool {
    READING.iter().any(|r| {
        name.strip_prefix(r)
            .is_some_and(|rest| rest.is_empty() || is_family(r, rest))
    })
}

/// `lo_` and `txid_` are prefixes of many; others have variants such as `query_to_xml_and_xmlschema`.
fn is_family(prefix: &str, rest: &str) -> bool {
    prefix.ends_with('_') || rest.starts_with("_and_") || rest.starts_with("schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_archive::{Dialect, tokens};

    fn may_read(functions: &Functions, sql: &str) -> bool {
        functions.may_read(&tokens(sql, Dialect::default()))
    }

    #[test]
    fn ordinary_expressions_read_nothing() {
        let f = Functions {
            defined: HashSet::from(["lower".to_owned()]),
            is_path_empty: true,
        };
        for sql in [
            "CHECK ((amount > (0)::numeric))",
            "CHECK (((lower((name)::text) <> ''::text) AND (length((name)::text) < 20)))",
            "CHECK (((state)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying(9)])::text[])))",
            "CHECK ((a = pg_catalog.upper(b)))",
            "CHECK ((public.st_srid(geom) = 4326))",
            "CHECK ((x)::numeric(10,2) > 0.5 AND (y)::public.geometry(Point,4326) IS NOT NULL)",
            "GENERATED ALWAYS AS (to_tsvector('english'::regconfig, COALESCE(title, ''::text))) STORED",
            "CHECK ((EXTRACT(year FROM d) > (2000)::numeric) AND (d OPERATOR(pg_catalog.>) now()))",
        ] {
            assert!(!may_read(&f, sql), "{sql}");
        }
    }

    #[test]
    fn unknown_functions_may_read_rows() {
        let f = Functions {
            is_path_empty: true,
            ..Functions::default()
        };
        for sql in [
            "CHECK (public.ok(v))",
            "CHECK (\"S\".\"Ok\"(v))",
            "CHECK ((v OPERATOR(public.===) 3))",
            "CHECK ((query_to_xml('select 1'::text, true, true, ''::text) IS NOT NULL))",
            "CHECK ((pg_catalog.query_to_xml_and_xmlschema('x', true, true, '') IS NOT NULL))",
            "CHECK ((lo_get(v) IS NOT NULL))",
            "GENERATED ALWAYS AS (public.st_transform(geom, 3857)) STORED",
            "DEFAULT nextval('public.t_id_seq'::regclass)",
        ] {
            assert!(may_read(&f, sql), "{sql}");
        }
    }

    #[test]
    fn unqualified_names_may_be_functions_of_the_dump() {
        let f = Functions {
            defined: HashSet::from(["lower".to_owned()]),
            is_path_empty: false,
        };
        for (sql, expected) in [
            ("CHECK (lower(v) = v)", true),
            ("CHECK (upper(v) = v AND v IN ('a'))", false),
            ("CHECK (of_an_extension(v))", true),
            ("CHECK (pg_catalog.lower(v) = v)", false),
        ] {
            assert_eq!(may_read(&f, sql), expected, "{sql}");
        }
    }
}
