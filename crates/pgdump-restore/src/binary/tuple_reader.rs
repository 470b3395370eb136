//! Reads what `COPY … TO STDOUT (FORMAT binary)` sends, as rows of COPY text.

use super::{Columns, HEADER, TRAILER};

/// Most bytes of a tuple; see [`super::text::MAX_ROW_TEXT`].
const MAX_TUPLE: usize = 2 << 20;

/// The server sent what is not certain to be written as its text would be: the rows have to be read as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotExact;

/// Reads one COPY, message by message. The server sends each tuple in a message of its own.
#[derive(Debug)]
pub struct TupleReader<'a> {
    columns: &'a Columns,
    row: Vec<u8>,
    has_begun: bool,
    has_ended: bool,
}

impl<'a> TupleReader<'a> {
    /// Has read nothing of the tuples of such columns.
    pub fn new(columns: &'a Columns) -> Self {
        TupleReader {
            columns,
            row: Vec::new(),
            has_begun: false,
            has_ended: false,
        }
    }

    /// The row of COPY text, without its newline, of the tuple in this message, if it has one. `each` gets its fields as in
    /// [`Columns::row`].
    ///
    /// # Errors
    /// [`NotExact`]: neither this row nor what follows can be read so.
    pub fn read(
        &mut self,
        message: &[u8],
        each: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<Option<&[u8]>, NotExact> {
        let mut tuple = message;
        if !self.has_begun {
            tuple = message.strip_prefix(HEADER).ok_or(NotExact)?;
            self.has_begun = true;
        }
        if self.has_ended {
            return Err(NotExact);
        }
        if tuple == TRAILER {
            self.has_ended = true;
        }
        if tuple.is_empty() || self.has_ended {
            return Ok(None);
        }
        if tuple.len() > MAX_TUPLE {
            return Err(NotExact);
        }
        self.row.clear();
        let read = self.columns.row(tuple, &mut self.row, each);
        read.ok_or(NotExact)?;
        Ok(Some(&self.row))
    }

    /// Whether the COPY was read to its end.
    pub fn is_complete(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Type;

    use super::*;

    fn one() -> Vec<u8> {
        vec![0, 1, 0, 0, 0, 4, 0, 0, 0, 7]
    }

    #[test]
    fn a_copy_is_read_message_by_message() {
        let columns = Columns::of(&[Type::INT4]).unwrap();
        let first = [HEADER, &one()].concat();
        let null = vec![0, 1, 255, 255, 255, 255];
        let messages = [first, null, TRAILER.to_vec()];
        let mut reader = TupleReader::new(&columns);
        let mut fields = vec![];
        let rows: Vec<Option<Vec<u8>>> = messages
            .iter()
            .map(|message| {
                let each = |i, field: Option<&[u8]>| fields.push((i, field.map(<[u8]>::to_vec)));
                let row = reader.read(message, each).unwrap();
                row.map(<[u8]>::to_vec)
            })
            .collect();
        assert_eq!(rows, [Some(b"7".to_vec()), Some(br"\N".to_vec()), None]);
        assert_eq!(fields, [(0, Some(b"7".to_vec())), (0, None)]);
        assert!(reader.is_complete());
    }

    #[test]
    fn rows_of_an_empty_table_are_read_to_their_end() {
        let columns = Columns::of(&[Type::INT4]).unwrap();
        for messages in [
            vec![[HEADER, TRAILER].concat()],
            vec![HEADER.to_vec(), TRAILER.to_vec()],
        ] {
            let mut reader = TupleReader::new(&columns);
            for message in &messages {
                assert_eq!(reader.read(message, |_, _| ()), Ok(None));
            }
            assert!(reader.is_complete());
        }
    }

    /// Of a row that takes much memory, there is only one copy.
    #[test]
    fn long_rows_are_left_to_text() {
        let columns = Columns::of(&[Type::TEXT, Type::NUMERIC_ARRAY]).unwrap();
        let field = |value: &[u8]| {
            let length = u32::try_from(value.len()).unwrap();
            [&length.to_be_bytes()[..], value].concat()
        };
        // Each of these numbers has a few bytes and some thousand digits.
        let numbers = |count: u32, digits: u16| {
            let of = Type::NUMERIC.oid();
            let head = [1, 0, of, count, 1].map(u32::to_be_bytes).concat();
            let one = [0, 0, 0, digits].map(u16::to_be_bytes).concat();
            let all = field(&one).repeat(usize::try_from(count).unwrap());
            field(&[head, all].concat())
        };
        for (text, numbers, is_read) in [
            (10, numbers(3, 10), true),
            (MAX_TUPLE, numbers(3, 10), false),
            (10, numbers(10_000, 1000), false),
            (10, numbers(1, 0x3FFF), false),
        ] {
            let text = field(&vec![b'x'; text]);
            let message = [HEADER, &[0, 2], &text, &numbers].concat();
            let mut reader = TupleReader::new(&columns);
            let read = reader.read(&message, |_, _| ());
            assert_eq!(read.is_ok(), is_read);
        }
    }

    /// Whatever else arrives is read as text instead.
    #[test]
    fn anything_but_tuples_of_these_columns_is_not_read() {
        let columns = Columns::of(&[Type::INT4]).unwrap();
        let cut = one()[..9].to_vec();
        let others: [Vec<u8>; 6] = [
            b"7\n".to_vec(),
            [HEADER, b"7\n"].concat(),
            [HEADER, &cut].concat(),
            [HEADER, &one(), &one()].concat(),
            [HEADER, &[0, 2], &one()[2..], &one()[2..]].concat(),
            [HEADER, &[0, 1, 0, 0, 0, 2, 0, 7]].concat(),
        ];
        for message in &others {
            let mut reader = TupleReader::new(&columns);
            let read = reader.read(message, |_, _| ());
            assert_eq!(read, Err(NotExact), "{}", message.escape_ascii());
            assert!(!reader.is_complete());
        }
        let mut reader = TupleReader::new(&columns);
        assert!(reader.read(&[HEADER, &one()].concat(), |_, _| ()).is_ok());
        assert!(!reader.is_complete());
    }
}
