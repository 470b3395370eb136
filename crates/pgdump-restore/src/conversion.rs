//! Converts text of a dump that is not in UTF-8, with PostgreSQL's own tables. Text is sent in UTF-8 if that
//! gives the target database the same bytes as the dump's own encoding would; a statement with other text is
//! sent as the dump's bytes, and the server converts and executes it.

use std::collections::HashMap;

use tokio_postgres::Row;

use crate::error::{JobError, JobKind, RestoreError};
use crate::postgres::{Server, Session, map_error_of_rows, map_pg_error};
use pgdump_archive::{
    Archive, Dialect, Statement, TextEncoding, TocEntry, TokenKind, has_undecoded, statements,
    tokens, undecoded_byte,
};

/// Limits of one query: number of texts, and their bytes.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 << 20;

/// Converts from the encoding of a dump to that of a database.
#[derive(Debug, Clone)]
pub(crate) struct Conversion {
    from: TextEncoding,
    into: String,
}

impl Conversion {
    /// # Errors
    /// `archive_unsupported` if no session is possible in a database of that encoding.
    pub(crate) fn new(from: &TextEncoding, into: &str) -> Result<Self, RestoreError> {
        if TextEncoding::new(into).is_mule() {
            let what = "the database's encoding is MULE_INTERNAL, which PostgreSQL cannot convert to UTF8: dump it with \
                        --encoding, and restore the dump into a database with another encoding";
            return Err(JobError::new(JobKind::NotConvertible, what).into());
        }
        Ok(Conversion {
            from: from.clone(),
            into: into.to_owned(),
        })
    }

    /// These texts in UTF-8; those that must be sent as bytes are missing.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) async fn converted_texts(
        &self,
        session: &Session,
        texts: Vec<String>,
    ) -> Result<HashMap<String, String>, RestoreError> {
        let mut found = HashMap::new();
        for batch in batches(texts) {
            if let Some(converted) = self.ask(session, &batch).await? {
                found.extend(converted);
            } else if batch.len() > 1 {
                for one in batch {
                    found.extend(self.ask(session, &[one]).await?.into_iter().flatten());
                }
            }
        }
        Ok(found)
    }

    /// Converts texts; `None` if one of them cannot be converted.
    async fn ask(
        &self,
        session: &Session,
        texts: &[String],
    ) -> Result<Option<Vec<(String, String)>>, RestoreError> {
        let bytes: Vec<Vec<u8>> = texts.iter().map(|t| self.from.bytes_of(t)).collect();
        let (from, into) = (self.from.name(), self.into.as_str());
        // Via the database's encoding if there is no direct conversion, as from MULE_INTERNAL.
        let ways = [
            "convert(b, $2, 'UTF8')",
            "convert(convert(b, $2, $3), $3, 'UTF8')",
        ];
        for way in ways {
            let sql = format!(
                "SELECT u, convert(u, 'UTF8', $3) = convert(b, $2, $3) \
                 FROM (SELECT {way} AS u, b FROM unnest($1::bytea[]) WITH ORDINALITY AS x(b, n) ORDER BY n) y"
            );
            match session.client().query(&sql, &[&bytes, &from, &into]).await {
                Ok(rows) => return Ok(Some(converted_rows(texts, &rows))),
                Err(e) if is_about_text(&e) => {}
                Err(e) => return Err(map_pg_error(&e, "converting text of the dump").into()),
            }
        }
        Ok(None)
    }

    /// Replaces the dump's own bytes in the table of contents with text in UTF-8.
    ///
    /// # Errors
    /// `archive_unsupported` for a name that cannot be converted.
    pub(crate) async fn of_contents(
        &self,
        session: &Session,
        archive: &mut Archive,
    ) -> Result<(), RestoreError> {
        let texts = archive.undecoded_texts();
        if texts.is_empty() {
            return Ok(());
        }
        let converted_texts = self.converted_texts(session, texts).await?;
        archive.replace_texts(|text| converted_texts.get(text).cloned());
        archive
            .entries()
            .iter()
            .try_for_each(|e| self.check_names(e))
    }

    /// Names are compared with the server's, so they must be text in the session's encoding.
    fn check_names(&self, e: &TocEntry) -> Result<(), RestoreError> {
        if e.names().any(|name| self.from.has_undecoded(name)) {
            Err(self.unconvertible_name(&e.name()))
        } else {
            Ok(())
        }
    }

    fn unconvertible_name(&self, what: &str) -> RestoreError {
        let (from, into, what) = (self.from.name(), &self.into, self.from.for_display(what));
        let what = format!(
            "{what}: a name in {from} that PostgreSQL cannot convert to UTF8 and back for a database in {into}: \
             rename it in the source, or restore the dump with pg_restore or psql"
        );
        JobError::new(JobKind::NotConvertible, what).into()
    }
}

/// Texts in batches that fit into one query.
fn batches(texts: Vec<String>) -> Vec<Vec<String>> {
    let (mut batches, mut size) = (vec![], BATCH_BYTES);
    for text in texts {
        match batches.last_mut() {
            Some(batch) if size < BATCH_BYTES && Vec::len(batch) < BATCH => {
                size += text.len();
                batch.push(text);
            }
            _ => {
                size = text.len();
                batches.push(vec![text]);
            }
        }
    }
    batches
}

/// Each text with the server's answer, unless it must be sent as bytes.
fn converted_rows(texts: &[String], rows: &[Row]) -> Vec<(String, String)> {
    let converted = |(text, row): (&String, &Row)| {
        let converted = String::from_utf8(row.get(0)).ok();
        // A dump must not be able to inject the characters that stand for bytes.
        let converted = converted.filter(|c| row.get(1) && !has_undecoded(c))?;
        Some((text.clone(), converted))
    };
    texts.iter().zip(rows).filter_map(converted).collect()
}

/// Converts SQL text as it arrives, over a session of its own.
pub(super) struct Converter {
    server: Server,
    database: String,
    from: TextEncoding,
    asked: Option<(Conversion, Session)>,
}

impl Converter {
    pub(crate) fn new(server: &Server, database: &str, from: &TextEncoding) -> Self {
        let (server, database) = (server.clone(), database.to_owned());
        Converter {
            server,
            database,
            from: from.clone(),
            asked: None,
        }
    }

    async fn converted_texts(
        &mut self,
        texts: Vec<String>,
    ) -> Result<HashMap<String, String>, RestoreError> {
        let (conversion, session) = match self.asked.take() {
            Some(asked) => asked,
            None => self.open().await?,
        };
        let converted_texts = conversion.converted_texts(&session, texts).await;
        self.asked = Some((conversion, session));
        converted_texts
    }

    async fn open(&self) -> Result<(Conversion, Session), RestoreError> {
        let session = self.server.connect(&self.database, "conversion").await?;
        let sql = "SELECT pg_catalog.getdatabaseencoding()::text";
        let row = session.client().query_one(sql, &[]).await;
        let row = row.map_err(|e| map_pg_error(&e, "querying the database's encoding"))?;
        let conversion = Conversion::new(&self.from, row.get(0))?;
        Ok((conversion, session))
    }

    fn check(&self, names: bool, what: &str) -> Result<(), RestoreError> {
        match (&self.asked, names) {
            (Some((conversion, _)), true) => Err(conversion.unconvertible_name(what)),
            _ => Ok(()),
        }
    }

    /// Converts the texts of an entry to UTF-8.
    ///
    /// # Errors
    /// `archive_unsupported` for a name that cannot be converted, and those of the connection.
    pub(crate) async fn entry(&mut self, e: &mut TocEntry) -> Result<(), RestoreError> {
        let kept = e.texts_mut().filter(|t| self.from.has_undecoded(t));
        let kept: Vec<String> = kept.map(|t| t.clone()).collect();
        if kept.is_empty() {
            return Ok(());
        }
        let converted_texts = self.converted_texts(kept).await?;
        for text in e.texts_mut() {
            if let Some(converted) = converted_texts.get(text.as_str()) {
                text.clone_from(converted);
            }
        }
        self.check(e.names().any(|name| has_undecoded(name)), &e.name())
    }

    /// The same for a statement; if it cannot be converted it stays unchanged, provided that no name is affected.
    ///
    /// # Errors
    /// As [`Converter::entry`].
    pub(crate) async fn statement(&mut self, s: &mut Statement) -> Result<(), RestoreError> {
        if !self.from.has_undecoded(&s.text) {
            return Ok(());
        }
        if let Some(converted) = self
            .converted_texts(vec![s.text.clone()])
            .await?
            .remove(&s.text)
        {
            s.text = converted;
            return Ok(());
        }
        self.check(names_something(&s.text), &format!("line {}", s.line))
    }
}

/// Whether a statement has a name that is not text in UTF-8.
fn names_something(sql: &str) -> bool {
    let t = tokens(sql, Dialect::default());
    let head = t.iter().take_while(|w| !w.is_symbol(b'(') && !w.is("as"));
    let mut names =
        head.filter(|w| matches!(w.kind, TokenKind::Word | TokenKind::QuotedIdentifier));
    t.first().is_some_and(|w| w.is("create") || w.is("alter"))
        && names.any(|w| has_undecoded(w.text))
}

/// Whether the text is invalid in its encoding, or cannot be converted by this server.
fn is_about_text(e: &tokio_postgres::Error) -> bool {
    // 42883: there is no conversion between the two encodings.
    e.code()
        .is_some_and(|c| c.code().starts_with("22") || c.code() == "42883")
}

/// Converts an archive's texts in its own encoding with the server's tables. `into` is the encoding of the
/// target database.
///
/// # Errors
/// `archive_unsupported` for a name that cannot be converted, and for a database whose encoding no session can
/// use; those of the connection.
pub async fn convert_texts(
    session: &Session,
    archive: &mut Archive,
    into: &str,
) -> Result<(), RestoreError> {
    let conversion = Conversion::new(archive.encoding(), into)?;
    conversion.of_contents(session, archive).await
}

/// SQL as it is sent: if it still has bytes of the dump, wrapped so that the server converts and runs it.
pub(crate) fn sendable(sql: String, encoding: &TextEncoding) -> String {
    if !encoding.has_undecoded(&sql) {
        return sql;
    }
    format!(
        "DO LANGUAGE plpgsql $pgrestored$BEGIN EXECUTE {}; END$pgrestored$;",
        parts(&sql, encoding)
    )
}

/// Runs INSERT statements as the dump's own bytes; returns the number of rows that the server counted. `sql`: as
/// [`TextEncoding::decode`] returns them.
///
/// # Errors
/// The server's error, and those of the connection.
pub(crate) async fn insert(
    session: &Session,
    encoding: &TextEncoding,
    sql: &str,
) -> Result<u64, RestoreError> {
    let failed = |e| RestoreError::from(map_error_of_rows(&e, "INSERT"));
    let client = session.client();
    let strings = "SELECT current_setting('standard_conforming_strings') = 'on'";
    let strings = client.query_one(strings, &[]).await.map_err(failed)?;
    let dialect = Dialect {
        standard_strings: strings.get(0),
        ..Dialect::default()
    };
    let run = counting_block(sql, dialect, encoding);
    client.batch_execute(&run).await.map_err(failed)?;
    let rows = "SELECT pg_catalog.current_setting('pgrestored.rows')::pg_catalog.int8";
    let rows = client.query_one(rows, &[]).await.map_err(failed)?;
    Ok(u64::try_from(rows.get::<_, i64>(0)).unwrap_or_default())
}

/// A statement that runs all of these and stores the number of their rows in a setting.
fn counting_block(sql: &str, dialect: Dialect, encoding: &TextEncoding) -> String {
    let mut body =
        String::from("DECLARE one pg_catalog.int8; all_rows pg_catalog.int8 := 0; BEGIN ");
    for statement in statements(sql, dialect) {
        body.push_str(&format!(
            "EXECUTE {}; GET DIAGNOSTICS one = ROW_COUNT; all_rows := all_rows OPERATOR(pg_catalog.+) one; ",
            parts(statement, encoding)
        ));
    }
    format!(
        "DO LANGUAGE plpgsql $pgrestored${body} \
         PERFORM pg_catalog.set_config('pgrestored.rows', all_rows::pg_catalog.text, false); END$pgrestored$"
    )
}

/// An expression for the text that consists of ASCII only.
fn parts(sql: &str, encoding: &TextEncoding) -> String {
    let (mut parts, mut run, mut converted) = (Vec::new(), Vec::<u8>::new(), false);
    let part = |run: &[u8], converted: bool| {
        let name = if converted { "UTF8" } else { encoding.name() };
        let hex: String = run.iter().map(|b| format!("{b:02x}")).collect();
        let name = crate::postgres::literal(name);
        format!("pg_catalog.convert_from(pg_catalog.decode('{hex}', 'hex'), {name})")
    };
    for c in sql.chars() {
        // ASCII is appended to the preceding part.
        if !c.is_ascii() && undecoded_byte(c).is_none() != converted {
            if !run.is_empty() {
                parts.push(part(&std::mem::take(&mut run), converted));
            }
            converted = !converted;
        }
        match undecoded_byte(c) {
            Some(b) => run.push(b),
            None => run.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    parts.push(part(&run, converted));
    parts.join(" OPERATOR(pg_catalog.||) ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unconverted_text_is_sent_as_bytes() {
        let latin1 = TextEncoding::new("LATIN1");
        let kept = latin1
            .decode(b"COMMENT ON TABLE t IS '\xe9';".to_vec())
            .unwrap();
        assert_eq!(sendable("SELECT 'é';".into(), &latin1), "SELECT 'é';");
        let sent = sendable(format!("{kept} ALTER TABLE \"表\" OWNER TO x;"), &latin1);
        assert!(sent.is_ascii(), "{sent}");
        let hex = |text: &[u8]| text.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (first, second) = (
            b"COMMENT ON TABLE t IS '\xe9'; ALTER TABLE \"",
            "表\" OWNER TO x;".as_bytes(),
        );
        assert!(
            sent.contains(&format!(
                "decode('{}', 'hex'), 'LATIN1') OPERATOR",
                hex(first)
            )),
            "{sent}"
        );
        assert!(
            sent.contains(&format!("decode('{}', 'hex'), 'UTF8');", hex(second))),
            "{sent}"
        );
        // In UTF-8 every character stands for itself.
        let private = "SELECT '\u{10ff27}';".to_owned();
        assert_eq!(
            sendable(private.clone(), &TextEncoding::new("UTF8")),
            private
        );
    }

    #[test]
    fn names_are_distinguished_from_other_text() {
        let latin1 = TextEncoding::new("LATIN1");
        let names = |sql: &[u8]| names_something(&latin1.decode(sql.to_vec()).unwrap());
        assert!(names(b"CREATE TABLE \"\xe9\" (a int);"));
        assert!(names(b"ALTER TABLE public.\"\xe9\" OWNER TO x;"));
        assert!(!names(b"CREATE TABLE t (a text DEFAULT '\xe9');"));
        assert!(!names(b"COMMENT ON TABLE t IS '\xe9';"));
        assert!(!names(
            b"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT '\xe9'$$;"
        ));
    }
}
