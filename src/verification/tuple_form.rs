//! Tables that are read back as tuples of COPY's binary format, which the server writes with less work than text. They are
//! written as text here, so that the same is compared.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::postgres::Session;
use pgdump_archive::TextEncoding;
use pgdump_restore::Columns;

/// Tables smaller than this are read as text: looking up the types of their columns takes a round trip.
const MIN_BYTES: i64 = 64 << 10;

/// Whether a table is read as tuples. All sessions that read it share what one of them has found.
#[derive(Debug, Clone, Default)]
pub(super) struct TupleForm(Arc<Mutex<Known>>);

#[derive(Debug, Clone, Default)]
enum Known {
    #[default]
    Text,
    NotAsked,
    Tuples(Arc<Columns>),
}

impl TupleForm {
    /// Of a table of this size whose archive has this encoding; `None`: of unknown size. The server writes tuples in the
    /// encoding of the connection, UTF-8.
    pub(super) fn of(bytes: Option<i64>, encoding: &str) -> Self {
        let is_large = bytes.is_none_or(|bytes| bytes >= MIN_BYTES);
        let known = if is_large && TextEncoding::new(encoding).is_utf8() {
            Known::NotAsked
        } else {
            Known::Text
        };
        TupleForm(Arc::new(Mutex::new(known)))
    }

    /// The columns of this query, if tuples of them can be read.
    pub(super) async fn columns(&self, session: &Session, select: &str) -> Option<Arc<Columns>> {
        let known = self.0.lock().clone();
        match known {
            Known::Text => return None,
            Known::Tuples(columns) => return Some(columns),
            Known::NotAsked => {}
        }
        // If this fails, COPY says why.
        let asked = session.client().prepare(select).await.ok();
        let types = asked.as_ref().map(|asked| asked.columns().iter());
        let columns = types.and_then(|types| Columns::of(types.map(|c| c.type_())));
        let columns = columns.map(Arc::new);
        let mut known = self.0.lock();
        if matches!(*known, Known::NotAsked) {
            *known = columns.clone().map_or(Known::Text, Known::Tuples);
        }
        columns
    }

    /// It has a value whose text is not certain: the rest of it is read as text.
    pub(super) fn give_up(&self) {
        *self.0.lock() = Known::Text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_tables_in_utf8_are_asked_for_their_columns() {
        for (bytes, encoding, is_asked) in [
            (Some(MIN_BYTES), "UTF8", true),
            (None, "UTF8", true),
            (Some(MIN_BYTES - 1), "UTF8", false),
            (Some(MIN_BYTES), "LATIN1", false),
            (Some(MIN_BYTES), "SQL_ASCII", false),
        ] {
            let known = TupleForm::of(bytes, encoding).0.lock().clone();
            assert_eq!(
                matches!(known, Known::NotAsked),
                is_asked,
                "{bytes:?} {encoding}"
            );
        }
    }
}
