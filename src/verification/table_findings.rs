//! What is counted of the rows of a table that is read back.

use pgdump_archive::RowDigest;

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub name: String,
    pub kind: String,
    pub has_span: bool,
}

/// What was read back of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct TableFindings {
    pub rows: RowDigest,
    pub nulls: Vec<u64>,
    pub spans: Vec<Option<(Vec<u8>, Vec<u8>)>>,
    /// Some of the rows were tuples.
    pub has_tuples: bool,
}

impl TableFindings {
    pub(super) fn of(columns: usize) -> Self {
        TableFindings {
            rows: RowDigest::default(),
            nulls: vec![0; columns],
            spans: vec![None; columns],
            has_tuples: false,
        }
    }

    pub(super) fn line(&mut self, line: &[u8], columns: &[Column], scratch: &mut Vec<u8>) {
        self.rows.add_row(line, scratch);
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\t', line).chain(std::iter::once(line.len()));
        for (i, end) in ends.enumerate().take(columns.len()) {
            let field = &line[start..end];
            start = end + 1;
            self.field(i, Some(field).filter(|f| *f != b"\\N"), columns);
        }
    }

    /// A field of a row; `None`: NULL.
    pub(super) fn field(&mut self, column: usize, field: Option<&[u8]>, columns: &[Column]) {
        match field {
            None => self.nulls[column] += 1,
            // Years with more than four digits, and BC, do not sort as text.
            Some(field)
                if columns[column].has_span
                    && field.get(4) == Some(&b'-')
                    && !field.ends_with(b"BC") =>
            {
                widen(&mut self.spans[column], field);
            }
            Some(_) => {}
        }
    }

    pub(super) fn merge(&mut self, other: TableFindings) {
        self.rows.merge(&other.rows);
        self.has_tuples |= other.has_tuples;
        self.nulls
            .iter_mut()
            .zip(&other.nulls)
            .for_each(|(a, b)| *a += b);
        for (span, other) in self.spans.iter_mut().zip(other.spans) {
            if let Some((a, b)) = other {
                widen(span, &a);
                widen(span, &b);
            }
        }
    }
}

fn widen(span: &mut Option<(Vec<u8>, Vec<u8>)>, value: &[u8]) {
    match span {
        None => *span = Some((value.to_vec(), value.to_vec())),
        Some((min, _)) if value < min.as_slice() => *min = value.to_vec(),
        Some((_, max)) if value > max.as_slice() => *max = value.to_vec(),
        Some(_) => {}
    }
}
