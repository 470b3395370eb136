//! Compares what is read again with what earlier attempts are recorded to have restored of it: their rows were committed
//! before the checksum of the whole was known. Pure.

use std::collections::VecDeque;

use crate::error::{JobError, JobKind, RestoreError};
use crate::work_record::DataSpan;
use pgdump_archive::Crc32c;

/// The spans of one unit, which is read in order.
#[derive(Debug, Default)]
pub(super) struct SpanCheck {
    /// Those that have not ended, in order.
    spans: VecDeque<DataSpan>,
    /// Checksum of what has passed of the first one.
    seen: Crc32c,
}

/// A span that has another checksum than what was read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordDiffers {
    pub from: u64,
    pub to: u64,
}

impl RecordDiffers {
    /// The error of the attempt. `what` was restored differently, in this `measure`.
    pub(super) fn of(self, what: &str, measure: &str) -> RestoreError {
        let RecordDiffers { from, to } = self;
        let what = format!(
            "{what}: {measure} {from} to {to} differ from those that an earlier attempt restored, so what it restored is not \
             used"
        );
        JobError::new(JobKind::RecordDiffers, what).into()
    }
}

impl SpanCheck {
    /// A check of disjoint spans.
    pub(super) fn of(spans: &[DataSpan]) -> Self {
        let mut spans = spans.to_vec();
        spans.sort_unstable_by_key(|span| (span.from, span.to));
        SpanCheck {
            spans: spans.into(),
            seen: Crc32c::default(),
        }
    }

    /// These bytes of the unit's data were read, and all before them.
    pub(super) fn pass(&mut self, at: u64, bytes: &[u8]) -> Result<(), RecordDiffers> {
        let end = at + bytes.len() as u64;
        while let Some(span) = self.spans.front() {
            let (from, to) = (span.from.max(at), span.to.min(end));
            if from < to {
                self.seen = self.seen.append(&bytes[within(at, from)..within(at, to)]);
            }
            if end < span.to {
                break;
            }
            self.compare()?;
        }
        Ok(())
    }

    /// The statement of this number was read, and all before it. A span of statements has the checksums of their texts,
    /// each of which counts as one byte.
    pub(super) fn pass_statement(
        &mut self,
        number: u64,
        crc32c: Crc32c,
    ) -> Result<(), RecordDiffers> {
        while let Some(span) = self.spans.front() {
            if number < span.from {
                break;
            }
            if number < span.to {
                self.seen = self.seen.combine(crc32c, 1);
            }
            if number + 1 < span.to {
                break;
            }
            self.compare()?;
        }
        Ok(())
    }

    /// Everything was read.
    pub(super) fn end(&self) -> Result<(), RecordDiffers> {
        self.spans.front().map_or(Ok(()), |span| Err(differs(span)))
    }

    /// The first span has ended.
    fn compare(&mut self) -> Result<(), RecordDiffers> {
        let seen = std::mem::take(&mut self.seen);
        match self.spans.pop_front() {
            Some(span) if span.crc32c != seen => Err(differs(&span)),
            _ => Ok(()),
        }
    }
}

fn differs(span: &DataSpan) -> RecordDiffers {
    RecordDiffers {
        from: span.from,
        to: span.to,
    }
}

/// The place of byte `n` of the data in a chunk that begins at `at`.
pub(super) fn within(at: u64, n: u64) -> usize {
    usize::try_from(n.saturating_sub(at)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(data: &[u8], from: u64, to: u64) -> DataSpan {
        DataSpan {
            from,
            to,
            crc32c: Crc32c::of(&data[from as usize..to as usize]),
        }
    }

    /// Passes the data in chunks of this length.
    fn check(spans: &[DataSpan], data: &[u8], length: usize) -> Result<(), RecordDiffers> {
        let mut check = SpanCheck::of(spans);
        let mut at = 0;
        for chunk in data.chunks(length) {
            check.pass(at, chunk)?;
            at += chunk.len() as u64;
        }
        check.end()
    }

    #[test]
    fn every_byte_of_a_span_is_compared_however_it_arrives() {
        let data: Vec<u8> = (0..40u8).collect();
        let spans = [
            span(&data, 30, 40),
            span(&data, 0, 7),
            span(&data, 7, 8),
            span(&data, 12, 29),
        ];
        for length in 1..=data.len() {
            assert_eq!(check(&spans, &data, length), Ok(()), "{length}");
            for at in 0..data.len() {
                let mut bad = data.clone();
                bad[at] ^= 16;
                let of = |s: &&DataSpan| (s.from..s.to).contains(&(at as u64));
                let wanted = spans.iter().find(of).map_or(Ok(()), |s| Err(differs(s)));
                assert_eq!(check(&spans, &bad, length), wanted, "{length} {at}");
            }
        }
    }

    #[test]
    fn data_that_ends_before_a_span_differs() {
        let data = [1, 2, 3, 4, 5];
        let spans = [span(&data, 1, 5)];
        let wanted = Err(RecordDiffers { from: 1, to: 5 });
        assert_eq!(check(&spans, &data[..4], 2), wanted);
        assert_eq!(check(&spans, &data[..1], 2), wanted);
        assert_eq!(check(&[], &[], 1), Ok(()));
    }

    #[test]
    fn statements_are_compared_by_their_number_and_text() {
        let texts = ["a;", "b;", "", "d;", "e;"];
        let of_text = |text: &str| Crc32c::of(text.as_bytes());
        let of_texts = |texts: &[&str]| {
            let all = texts.iter().map(|t| of_text(t));
            all.fold(Crc32c::default(), |all, one| all.combine(one, 1))
        };
        let spans = [
            DataSpan {
                from: 0,
                to: 3,
                crc32c: of_texts(&texts[..3]),
            },
            DataSpan {
                from: 4,
                to: 5,
                crc32c: of_texts(&texts[4..]),
            },
        ];
        let check = |texts: &[&str]| {
            let mut check = SpanCheck::of(&spans);
            for (number, text) in (0..).zip(texts) {
                check.pass_statement(number, of_text(text))?;
            }
            check.end()
        };
        assert_eq!(check(&texts), Ok(()));
        assert_eq!(check(&["a;", "b;", "", "x;", "e;"]), Ok(()));
        let first = Err(RecordDiffers { from: 0, to: 3 });
        let last = Err(RecordDiffers { from: 4, to: 5 });
        assert_eq!(check(&["a;", "x;", "", "d;", "e;"]), first);
        assert_eq!(check(&["b;", "a;", "", "d;", "e;"]), first);
        assert_eq!(check(&["a;", "b;", "", "d;", "d;"]), last);
        assert_eq!(check(&texts[..4]), last);
    }

    #[test]
    fn the_error_says_what_differs_and_is_worth_a_retry() {
        let e = RecordDiffers { from: 1, to: 5 }.of("TABLE DATA t", "bytes");
        assert!(
            e.to_string()
                .starts_with("TABLE DATA t: bytes 1 to 5 differ from")
        );
        assert!(matches!(&e, RestoreError::Job(e) if e.kind() == JobKind::RecordDiffers));
    }
}
