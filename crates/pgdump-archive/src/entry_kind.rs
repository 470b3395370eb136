//! The kinds of objects that a table of contents lists.

use std::fmt;

/// Declares [`EntryKind`] with one variant for each text, so that the two directions cannot differ.
macro_rules! entry_kinds {
    ($($variant:ident = $text:literal,)*) => {
        /// The kind of a [`TocEntry`](crate::TocEntry): its `desc` in PostgreSQL's `pg_backup_archiver.h`, as `pg_dump`
        /// from PostgreSQL 9.0 to 18 writes it.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum EntryKind {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// A kind that this crate does not know, in the archive's words.
            Other(Box<str>),
        }

        impl EntryKind {
            /// The text that the archive has.
            pub fn as_str(&self) -> &str {
                match self {
                    $(EntryKind::$variant => $text,)*
                    EntryKind::Other(text) => text,
                }
            }
        }

        impl From<&str> for EntryKind {
            fn from(text: &str) -> Self {
                match text {
                    $($text => EntryKind::$variant,)*
                    other => EntryKind::Other(other.into()),
                }
            }
        }

        #[cfg(test)]
        const KNOWN: &[(EntryKind, &str)] = &[$((EntryKind::$variant, $text),)*];
    };
}

entry_kinds! {
    AccessMethod = "ACCESS METHOD",
    Acl = "ACL",
    AclLanguage = "ACL LANGUAGE",
    Aggregate = "AGGREGATE",
    Blob = "BLOB",
    BlobComments = "BLOB COMMENTS",
    BlobMetadata = "BLOB METADATA",
    Blobs = "BLOBS",
    Cast = "CAST",
    CheckConstraint = "CHECK CONSTRAINT",
    Collation = "COLLATION",
    Comment = "COMMENT",
    Constraint = "CONSTRAINT",
    Conversion = "CONVERSION",
    Database = "DATABASE",
    DatabaseProperties = "DATABASE PROPERTIES",
    Default = "DEFAULT",
    DefaultAcl = "DEFAULT ACL",
    Domain = "DOMAIN",
    Encoding = "ENCODING",
    EventTrigger = "EVENT TRIGGER",
    Extension = "EXTENSION",
    FkConstraint = "FK CONSTRAINT",
    ForeignDataWrapper = "FOREIGN DATA WRAPPER",
    ForeignServer = "FOREIGN SERVER",
    ForeignTable = "FOREIGN TABLE",
    Function = "FUNCTION",
    Index = "INDEX",
    IndexAttach = "INDEX ATTACH",
    LargeObjects = "LARGE OBJECTS",
    MaterializedView = "MATERIALIZED VIEW",
    MaterializedViewData = "MATERIALIZED VIEW DATA",
    Operator = "OPERATOR",
    OperatorClass = "OPERATOR CLASS",
    OperatorFamily = "OPERATOR FAMILY",
    Policy = "POLICY",
    ProceduralLanguage = "PROCEDURAL LANGUAGE",
    Procedure = "PROCEDURE",
    Publication = "PUBLICATION",
    PublicationTable = "PUBLICATION TABLE",
    PublicationTablesInSchema = "PUBLICATION TABLES IN SCHEMA",
    RowSecurity = "ROW SECURITY",
    Rule = "RULE",
    Schema = "SCHEMA",
    SearchPath = "SEARCHPATH",
    SecurityLabel = "SECURITY LABEL",
    Sequence = "SEQUENCE",
    SequenceOwnedBy = "SEQUENCE OWNED BY",
    SequenceSet = "SEQUENCE SET",
    Server = "SERVER",
    ShellType = "SHELL TYPE",
    Statistics = "STATISTICS",
    StatisticsData = "STATISTICS DATA",
    StdStrings = "STDSTRINGS",
    Subscription = "SUBSCRIPTION",
    SubscriptionTable = "SUBSCRIPTION TABLE",
    Table = "TABLE",
    TableAttach = "TABLE ATTACH",
    TableData = "TABLE DATA",
    TextSearchConfiguration = "TEXT SEARCH CONFIGURATION",
    TextSearchDictionary = "TEXT SEARCH DICTIONARY",
    TextSearchParser = "TEXT SEARCH PARSER",
    TextSearchTemplate = "TEXT SEARCH TEMPLATE",
    Transform = "TRANSFORM",
    Trigger = "TRIGGER",
    Type = "TYPE",
    UserMapping = "USER MAPPING",
    View = "VIEW",
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_as_it_is_written_and_others_keep_their_text() {
        for (kind, text) in KNOWN {
            assert_eq!((&EntryKind::from(*text), kind.as_str()), (kind, *text));
        }
        let other = EntryKind::from("PROPERTY GRAPH");
        assert_eq!(other, EntryKind::Other("PROPERTY GRAPH".into()));
        assert_eq!(other.to_string(), "PROPERTY GRAPH");
    }
}
