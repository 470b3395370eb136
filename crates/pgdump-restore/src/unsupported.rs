//! Restores that are rejected before the first statement runs, whatever the server would say.

use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::policy::Selection;
use pgdump_archive::{Archive, Dialect, TocEntry, TokenKind, first_tokens, statements};

/// Of SQL text, a part is only what statements say of themselves: their kind and name. Data alone goes only into existing
/// tables. Definitions alone are the whole of a text without rows.
pub(super) fn check_part_of_text(
    archive: &Archive,
    selection: &Selection,
) -> Result<(), RestoreError> {
    let selection = &Selection {
        skip: vec![],
        only_kinds: vec![],
        ..selection.clone()
    };
    let rows = Selection {
        data_only: true,
        ..Selection::default()
    };
    let definitions = Selection {
        schema_only: true,
        ..Selection::default()
    };
    let renamed = Selection {
        rename_schemas: vec![],
        ..selection.clone()
    };
    let what = match (archive.has_rows_only(), selection.data_only) {
        (true, true) if *selection == rows => return Ok(()),
        (false, false) if renamed.is_everything() => return Ok(()),
        (false, false) if renamed == definitions && !archive.shows_rows() => return Ok(()),
        (true, false) => {
            "the SQL text has data but no tables (pg_dump --data-only): restore its schema first, then this data \
             into that database with --data-only and --on-existing replace"
        }
        (false, true) if renamed == rows => {
            "--data-only needs SQL text that has nothing but data (pg_dump --data-only), or an archive \
             with a table of contents (pg_dump -Fc, -Fd, -Ft)"
        }
        _ => {
            "a part can be restored only from an archive with a table of contents (pg_dump -Fc, -Fd, -Ft); \
             of SQL text, --skip and --only-kinds choose statements by kind and name"
        }
    };
    Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
}

/// A transaction that a backup prepares would outlive its session, with all its locks.
pub(super) fn refuse_prepared(entries: &[TocEntry]) -> Result<(), RestoreError> {
    let may_name =
        |sql: &str| memchr::memmem::find(sql.to_ascii_lowercase().as_bytes(), b"prepare").is_some();
    for e in entries.iter().filter(|e| may_name(&e.defn)) {
        for sql in statements(&e.defn, Dialect::default()) {
            let t = first_tokens(sql, Dialect::default(), 3);
            if let [first, second, third] = t.as_slice()
                && (first.is("prepare") && second.is("transaction") || second.is("prepared"))
                && third.kind == TokenKind::StringConstant
            {
                let what = format!(
                    "{}: a prepared transaction (PREPARE TRANSACTION), which pg_dump never writes",
                    e.name()
                );
                return Err(ValidationError::new(ValidationKind::ArchiveUnsupported, what).into());
            }
        }
    }
    Ok(())
}
