//! Lexes PostgreSQL's SQL as `psql` and the server do, as far as needed to find where words, constants,
//! comments and statements end. The rules are those of `psqlscan.l`.

/// Properties of a dump that determine how its text is lexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// `standard_conforming_strings`: a backslash in `'…'` is an ordinary character.
    pub standard_strings: bool,
    /// How to find the length of characters that may contain a byte which looks like a quote or backslash.
    pub multibyte: Multibyte,
}

/// The length of characters in the client-only encodings, as in `pg_wchar.c`. In all other encodings no byte of a
/// multibyte character looks like ASCII, so each byte may be treated as a character.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Multibyte {
    /// Every byte of a multibyte character is above 0x7f.
    #[default]
    AsciiSafe,
    /// BIG5, GBK, UHC: two bytes from 0x80 on.
    Double,
    /// SJIS: half-width katakana, 0xa1 to 0xdf, are one byte.
    Sjis,
    /// GB18030: four bytes if the second one is a digit.
    Gb18030,
    /// JOHAB: three bytes after 0x8f.
    Johab,
}

impl Multibyte {
    /// Bytes of the character at the start of `buf`; `None` if another byte is needed.
    pub fn length(self, buf: &[u8]) -> Option<usize> {
        let first = *buf.first()?;
        Some(match self {
            _ if first < 0x80 => 1,
            Multibyte::AsciiSafe => 1,
            Multibyte::Double => 2,
            Multibyte::Sjis => 1 + usize::from(!(0xa1..=0xdf).contains(&first)),
            Multibyte::Gb18030 => 2 + 2 * usize::from(buf.get(1)?.is_ascii_digit()),
            Multibyte::Johab => 2 + usize::from(first == 0x8f),
        })
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect {
            standard_strings: true,
            multibyte: Multibyte::AsciiSafe,
        }
    }
}

/// The kind of a lexeme, by the rules of `psqlscan.l`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Spaces, tabs, line ends, vertical tabs and form feeds.
    Whitespace,
    /// `-- …` up to the end of the line, or `/* … */`, which nests.
    Comment,
    /// A key word or an unquoted name.
    Word,
    /// A name in double quotes.
    QuotedIdentifier,
    /// A string constant of any form.
    StringConstant,
    /// A number, or a parameter such as `$1`.
    Number,
    /// Any other byte.
    Symbol(u8),
}

/// A quote or comment that does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unterminated(pub &'static str);

fn starts_word(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn in_word(b: u8) -> bool {
    starts_word(b) || b.is_ascii_digit() || b == b'$'
}

/// How far an incomplete lexeme has been scanned, so that the same bytes are not scanned again when more arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Bytes of the lexeme that need not be scanned again.
    at: usize,
    /// Depth of block comments; length of a dollar quote's tag, once known.
    depth: usize,
}

impl Scanned {
    /// Length of the run of bytes that satisfy `more`; `None` if its end is not in the buffer.
    fn run(&mut self, buf: &[u8], more: fn(u8) -> bool) -> Option<usize> {
        let from = self.at.min(buf.len());
        let found = buf[from..].iter().position(|b| !more(*b)).map(|n| from + n);
        self.at = found.unwrap_or(buf.len());
        found
    }
}

/// The lexeme at the start of `buf` and its length; `None` if more bytes could change it.
///
/// # Errors
/// With `at_end`, a quote or comment that is still open at the end of the text.
pub(crate) fn lexeme(
    buf: &[u8],
    dialect: Dialect,
    at_end: bool,
) -> Result<Option<(TokenKind, usize)>, Unterminated> {
    lexeme_after(buf, dialect, at_end, &mut Scanned::default())
}

/// The same, with `scanned` of the lexeme known from earlier calls with fewer bytes.
fn lexeme_after(
    buf: &[u8],
    dialect: Dialect,
    at_end: bool,
    scanned: &mut Scanned,
) -> Result<Option<(TokenKind, usize)>, Unterminated> {
    let Some(&first) = buf.first() else {
        return Ok(None);
    };
    let mut run = |kind, more: fn(u8) -> bool| match scanned.run(buf, more) {
        Some(n) => Some((kind, n)),
        None => at_end.then_some((kind, buf.len())),
    };
    let second = buf.get(1).copied();
    if second.is_none() && !at_end {
        return Ok(None);
    }
    match first {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Ok(run(TokenKind::Whitespace, is_whitespace)),
        b'-' if second == Some(b'-') => Ok(run(TokenKind::Comment, |b| b != b'\n')),
        b'/' if second == Some(b'*') => match block_comment(buf, scanned) {
            Some(n) => Ok(Some((TokenKind::Comment, n))),
            None if at_end => Err(Unterminated("a comment")),
            None => Ok(None),
        },
        b'\'' => {
            let end = quoted(
                buf,
                0,
                !dialect.standard_strings,
                dialect.multibyte,
                scanned,
            );
            closed(end, buf.len(), at_end, TokenKind::StringConstant)
        }
        b'"' => closed(
            quoted(buf, 0, false, dialect.multibyte, scanned),
            buf.len(),
            at_end,
            TokenKind::QuotedIdentifier,
        ),
        b'$' => dollar(buf, at_end, scanned),
        b if b.is_ascii_digit() => Ok(run(TokenKind::Number, |b| {
            b.is_ascii_alphanumeric() || b == b'.'
        })),
        b if starts_word(b) => word(buf, dialect, at_end, scanned),
        b => Ok(Some((TokenKind::Symbol(b), 1))),
    }
}

/// What `psql` treats as blank.
pub(super) fn is_whitespace(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// A closing quote in the last byte could still turn out to be doubled.
fn closed(
    end: Option<usize>,
    len: usize,
    at_end: bool,
    kind: TokenKind,
) -> Result<Option<(TokenKind, usize)>, Unterminated> {
    match end {
        Some(n) if n < len || at_end => Ok(Some((kind, n))),
        None if at_end => Err(Unterminated("a quote")),
        _ => Ok(None),
    }
}

/// Index after the quote that closes the one at `start`.
fn quoted(
    buf: &[u8],
    start: usize,
    escapes: bool,
    multibyte: Multibyte,
    scanned: &mut Scanned,
) -> Option<usize> {
    let quote = buf[start];
    let mut at = scanned.at.max(start + 1);
    loop {
        scanned.at = at;
        let rest = buf.get(at..)?;
        let found = match (escapes, multibyte == Multibyte::AsciiSafe) {
            (_, false) => rest
                .iter()
                .position(|b| *b == quote || *b >= 0x80 || (escapes && *b == b'\\')),
            (true, true) => memchr::memchr2(quote, b'\\', rest),
            (false, true) => memchr::memchr(quote, rest),
        };
        let Some(found) = found else {
            scanned.at = buf.len();
            return None;
        };
        at += found;
        scanned.at = at;
        match buf[at] {
            b if b >= 0x80 => at += multibyte.length(&buf[at..])?,
            b if b != quote => at += 2,
            _ if buf.get(at + 1) == Some(&quote) => at += 2,
            _ => return Some(at + 1),
        }
    }
}

fn block_comment(buf: &[u8], scanned: &mut Scanned) -> Option<usize> {
    if scanned.at == 0 {
        *scanned = Scanned { at: 2, depth: 1 };
    }
    while scanned.depth > 0 {
        let Some(n) = memchr::memchr2(b'*', b'/', &buf[scanned.at..]) else {
            scanned.at = buf.len();
            return None;
        };
        scanned.at += n;
        match (buf[scanned.at], buf.get(scanned.at + 1)?) {
            (b'*', b'/') => {
                scanned.depth -= 1;
                scanned.at += 2;
            }
            (b'/', b'*') => {
                scanned.depth += 1;
                scanned.at += 2;
            }
            _ => scanned.at += 1,
        }
    }
    Some(scanned.at)
}

/// `$tag$…$tag$`, or a parameter such as `$1`, or a lone dollar sign.
fn dollar(
    buf: &[u8],
    at_end: bool,
    scanned: &mut Scanned,
) -> Result<Option<(TokenKind, usize)>, Unterminated> {
    let symbol = Ok(Some((TokenKind::Symbol(b'$'), 1)));
    scanned.at = scanned.at.max(1);
    if buf.get(1).is_some_and(u8::is_ascii_digit) {
        let digits = scanned.run(buf, |b| b.is_ascii_digit());
        return Ok(digits
            .or(at_end.then_some(buf.len()))
            .map(|n| (TokenKind::Number, n)));
    }
    if scanned.depth == 0 {
        let Some(tag) = scanned.run(buf, |b| in_word(b) && b != b'$') else {
            return if at_end { symbol } else { Ok(None) };
        };
        if buf[tag] != b'$' {
            return symbol;
        }
        *scanned = Scanned {
            at: tag + 1,
            depth: tag + 1,
        };
    }
    match memchr::memmem::find(&buf[scanned.at..], &buf[..scanned.depth]) {
        Some(n) => Ok(Some((
            TokenKind::StringConstant,
            scanned.at + n + scanned.depth,
        ))),
        None if at_end => Err(Unterminated("a dollar quote")),
        None => {
            // The last bytes may be the beginning of the tag.
            scanned.at = (buf.len() + 1 - scanned.depth).max(scanned.at);
            Ok(None)
        }
    }
}

/// The end of a word that may have multibyte characters; `None` if it may continue.
fn word_end(buf: &[u8], multibyte: Multibyte, scanned: &mut Scanned) -> Option<usize> {
    while let Some(&b) = buf.get(scanned.at) {
        scanned.at += match b {
            0x80.. => multibyte.length(&buf[scanned.at..])?,
            b if in_word(b) => 1,
            _ => return Some(scanned.at),
        };
    }
    None
}

fn word(
    buf: &[u8],
    dialect: Dialect,
    at_end: bool,
    scanned: &mut Scanned,
) -> Result<Option<(TokenKind, usize)>, Unterminated> {
    let next = buf.get(1).copied();
    if buf[0] >= 0x80 || next.is_some_and(in_word) {
        let end = match dialect.multibyte {
            Multibyte::AsciiSafe => scanned.run(buf, in_word),
            multibyte => word_end(buf, multibyte, scanned),
        };
        return Ok(end
            .or(at_end.then_some(buf.len()))
            .map(|n| (TokenKind::Word, n)));
    }
    let prefix = buf[0].to_ascii_lowercase();
    if next == Some(b'\'') && matches!(prefix, b'e' | b'b' | b'x' | b'n') {
        let escapes = prefix == b'e' || (prefix == b'n' && !dialect.standard_strings);
        return closed(
            quoted(buf, 1, escapes, dialect.multibyte, scanned),
            buf.len(),
            at_end,
            TokenKind::StringConstant,
        );
    }
    if prefix == b'u' && next == Some(b'&') {
        let kind = match buf.get(2).copied() {
            None if !at_end => return Ok(None),
            Some(b'\'') => TokenKind::StringConstant,
            Some(b'"') => TokenKind::QuotedIdentifier,
            _ => return Ok(Some((TokenKind::Word, 1))),
        };
        return closed(
            quoted(buf, 2, false, dialect.multibyte, scanned),
            buf.len(),
            at_end,
            kind,
        );
    }
    Ok(Some((TokenKind::Word, 1)))
}

/// What [`StatementEnd::find`] says of a backslash outside quotes, which is at its `position` less one.
pub(crate) const COMMAND_IN_STATEMENT: &str = "a psql command in a statement";

/// Number of words that classify a statement.
const MAX_WORDS: usize = 4;
/// Most `psql` variables that are recorded per statement.
const MAX_VARIABLES: usize = 100;

/// Finds the semicolon that ends a statement, over several calls as its bytes arrive.
#[derive(Debug, Default)]
pub(crate) struct StatementEnd {
    /// Bytes that are complete lexemes.
    pub position: usize,
    /// Progress within the lexeme at `position`.
    scanned: Scanned,
    parens: usize,
    /// Depth of `BEGIN ATOMIC … END` in a function's body.
    begins: usize,
    /// The first words, in lower case.
    words: Vec<String>,
    /// A single colon directly precedes `position`.
    after_colon: bool,
    /// Names directly after a colon, which `psql` would replace by its variables.
    variables: Vec<String>,
    /// `VALUES` was found, followed by nothing but constants.
    values: Option<bool>,
}

impl StatementEnd {
    /// Length of the statement at the start of `buf`, including its semicolon; `None` if there is no such
    /// semicolon yet.
    ///
    /// # Errors
    /// An open quote at the end, or a backslash outside quotes: a `psql` command.
    pub(crate) fn find(
        &mut self,
        buf: &[u8],
        dialect: Dialect,
        at_end: bool,
    ) -> Result<Option<usize>, Unterminated> {
        loop {
            let found = lexeme_after(&buf[self.position..], dialect, at_end, &mut self.scanned)?;
            let Some((kind, n)) = found else {
                return Ok(None);
            };
            self.scanned = Scanned::default();
            let text = &buf[self.position..self.position + n];
            self.position += n;
            self.variable(kind, text);
            match kind {
                TokenKind::Symbol(b';') if self.parens == 0 && self.begins == 0 => {
                    return Ok(Some(self.position));
                }
                TokenKind::Symbol(b'(') => self.parens += 1,
                TokenKind::Symbol(b')') => self.parens = self.parens.saturating_sub(1),
                TokenKind::Symbol(b'\\') => {
                    return Err(Unterminated(COMMAND_IN_STATEMENT));
                }
                TokenKind::Word => self.word(text),
                TokenKind::QuotedIdentifier if self.values == Some(true) => {
                    self.values = Some(false)
                }
                _ => {}
            }
        }
    }

    /// Whether the statement begins with these words, in lower case (at most four).
    pub(crate) fn is(&self, words: &[&str]) -> bool {
        words.len() <= self.words.len() && words.iter().zip(&self.words).all(|(a, b)| a == b)
    }

    /// Whether a parenthesis or a function's body is open.
    pub(crate) fn is_open(&self) -> bool {
        self.parens > 0 || self.begins > 0
    }

    /// Names that `psql` would replace by its variables of these names, if they were set.
    pub(crate) fn variables(&self) -> &[String] {
        &self.variables
    }

    fn variable(&mut self, kind: TokenKind, text: &[u8]) {
        let after_colon = std::mem::take(&mut self.after_colon);
        let name = match (after_colon, kind) {
            (true, TokenKind::Word) => text,
            (true, TokenKind::StringConstant | TokenKind::QuotedIdentifier) => {
                text.get(1..text.len() - 1).unwrap_or_default()
            }
            (true, TokenKind::Symbol(b'{')) => b"{",
            // A double colon is a cast.
            (before, TokenKind::Symbol(b':')) => return self.after_colon = !before,
            _ => return,
        };
        if self.variables.len() < MAX_VARIABLES && name.len() <= 64 {
            self.variables
                .push(String::from_utf8_lossy(name).into_owned());
        }
    }

    /// Whether an INSERT has only constants, as `pg_dump` writes it, and thus nothing that needs a lookup.
    pub(crate) fn inserts_constants(&self) -> bool {
        self.values == Some(true)
    }

    /// Checks a word in the values of an INSERT.
    fn value(&mut self, text: &[u8]) {
        const CONSTANTS: [&str; 9] = [
            "null", "true", "false", "default", "values", "on", "conflict", "do", "nothing",
        ];
        let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
        match &mut self.values {
            None if is("values") => self.values = Some(true),
            None if is("select") => self.values = Some(false),
            Some(constants) => *constants &= CONSTANTS.iter().any(|word| is(word)),
            None => {}
        }
    }

    fn word(&mut self, text: &[u8]) {
        if self.is(&["insert"]) {
            self.value(text);
        }
        let word = || String::from_utf8_lossy(&text[..text.len().min(64)]).to_ascii_lowercase();
        if self.words.len() < MAX_WORDS {
            self.words.push(word());
        }
        if self.parens == 0 && text.len() <= 5 && self.creates_routine() {
            match word().as_str() {
                "begin" => self.begins += 1,
                "case" if self.begins > 0 => self.begins += 1,
                "end" => self.begins = self.begins.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn creates_routine(&self) -> bool {
        let word = |i: usize| self.words.get(i).map_or("", String::as_str);
        let kind = if word(1) == "or" { word(3) } else { word(1) };
        word(0) == "create" && matches!(kind, "function" | "procedure")
    }
}

/// Most bytes of a name.
const MAX_NAME: usize = 63;

/// A word, constant or symbol of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its kind; never `Blank` or `Comment`.
    pub kind: TokenKind,
    /// The token as written in the statement, with its quotes.
    pub text: &'a str,
    /// Offset in bytes.
    pub at: usize,
}

impl Token<'_> {
    /// Whether it is this key word.
    pub fn is(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// The text in lower case, if it is no longer than a name.
    pub fn short(&self) -> Option<String> {
        (self.text.len() <= 64).then(|| self.text.to_lowercase())
    }

    /// Whether it is this symbol.
    pub fn is_symbol(&self, symbol: u8) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }

    /// The name that a word stands for: unquoted, or in lower case, and cut off where PostgreSQL cuts it off.
    pub fn name(&self) -> Option<String> {
        let mut name = match self.kind {
            TokenKind::Word => self.text.to_lowercase(),
            TokenKind::QuotedIdentifier => self
                .text
                .strip_prefix('"')?
                .strip_suffix('"')?
                .replace("\"\"", "\""),
            _ => return None,
        };
        let mut end = name.len().min(MAX_NAME);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        Some(name)
    }

    /// The text of a string constant without escapes; `None` for anything else.
    pub fn string(&self) -> Option<String> {
        if self.kind != TokenKind::StringConstant {
            return None;
        }
        let text = self.text.trim_start_matches(['e', 'E', 'n', 'N']);
        text.strip_prefix('\'')?
            .strip_suffix('\'')
            .map(|t| t.replace("''", "'"))
    }
}

/// The tokens of a statement without blanks and comments, as far as it can be lexed.
pub fn tokens(sql: &str, dialect: Dialect) -> Vec<Token<'_>> {
    first_tokens(sql, dialect, usize::MAX)
}

/// The same for at most this many tokens.
pub fn first_tokens(sql: &str, dialect: Dialect, most: usize) -> Vec<Token<'_>> {
    let (mut found, mut at) = (Vec::new(), 0);
    let dialect = Dialect {
        multibyte: Multibyte::AsciiSafe,
        ..dialect
    };
    while found.len() < most
        && let Ok(Some((kind, n))) = lexeme(&sql.as_bytes()[at..], dialect, true)
    {
        if !matches!(kind, TokenKind::Whitespace | TokenKind::Comment) {
            // Every lexeme ends before a byte below 0x80, or at the end.
            let Some(text) = sql.get(at..at + n) else {
                break;
            };
            found.push(Token { kind, text, at });
        }
        at += n;
    }
    found
}

/// Where a quote or comment begins that does not end, and what it is.
pub fn unterminated(sql: &str, dialect: Dialect) -> Option<(usize, &'static str)> {
    let mut at = 0;
    let dialect = Dialect {
        multibyte: Multibyte::AsciiSafe,
        ..dialect
    };
    loop {
        match lexeme(&sql.as_bytes()[at..], dialect, true) {
            Ok(Some((_, n))) => at += n,
            Ok(None) => return None,
            Err(Unterminated(what)) => return Some((at, what)),
        }
    }
}

/// Splits SQL text into its statements, each with its semicolon.
pub fn statements(sql: &str, dialect: Dialect) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), sql);
    let dialect = Dialect {
        multibyte: Multibyte::AsciiSafe,
        ..dialect
    };
    while !rest.trim().is_empty() {
        let end = StatementEnd::default().find(rest.as_bytes(), dialect, true);
        let n = end
            .ok()
            .flatten()
            .filter(|n| rest.is_char_boundary(*n))
            .unwrap_or(rest.len());
        found.push(rest[..n].trim());
        rest = &rest[n..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str) -> Vec<&str> {
        statements(sql, Dialect::default())
    }

    #[test]
    fn names_end_where_the_server_cuts_them_off() {
        let name = |sql: &str| tokens(sql, Dialect::default())[0].name().unwrap();
        assert_eq!(name(&"A".repeat(70)), "a".repeat(63));
        // Not within a character.
        let quoted = format!("\"{}\"", "é".repeat(40));
        assert_eq!(name(&quoted), "é".repeat(31));
    }

    #[test]
    fn statements_end_at_their_own_semicolons() {
        for one in [
            "SELECT ';', \"a;b\", $$;$$, $x$ $$;$y$ $x$, E'\\';', U&'\\0061;', U&\"a;\" ;",
            "SELECT 1 /* ; /* ; */ ; */ + 2 -- ;\n;",
            "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b;);",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;",
            "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC INSERT INTO t VALUES (1); END;",
            "SELECT a$b$c, $1;",
            "SELECT 'it''s;';",
            "SELECT 'back\\';",
        ] {
            let twice = format!("{one}\n{one}\n");
            assert_eq!(split(&twice), [one, one]);
        }
        let old = Dialect {
            standard_strings: false,
            multibyte: Multibyte::AsciiSafe,
        };
        assert_eq!(statements("SELECT 'a\\';'; SELECT 2;", old).len(), 2);
    }

    #[test]
    fn what_does_not_end_is_found() {
        let found = |sql| unterminated(sql, Dialect::default());
        assert_eq!(found("SELECT 'a', \"b\", $$c$$; -- d"), None);
        assert_eq!(found("SELECT 'a"), Some((7, "a quote")));
        assert_eq!(found("SELECT $x$a$$"), Some((7, "a dollar quote")));
        assert_eq!(found("SELECT 1 /* /* */"), Some((9, "a comment")));
    }

    #[test]
    fn bytes_of_multibyte_characters_are_never_quotes() {
        for (multibyte, first) in [
            (
                Multibyte::Sjis,
                &b"SELECT '\x83\x5c', '\xb1', '\x81\x27';"[..],
            ),
            (Multibyte::Sjis, b"SELECT \xb1 AS \"\x95\x5c\";"),
            (
                Multibyte::Double,
                b"SELECT '\xa5\x5c', \"\x81\x5c\", \x81\x5c;",
            ),
            (
                Multibyte::Gb18030,
                b"SELECT '\x81\x30\x81\x30', '\x81\x5c', \"\x90\x30\x81\x35\";",
            ),
            (
                Multibyte::Johab,
                b"SELECT '\x88\x5c', \x88\x3b, '\x8f\xa1\x5c';",
            ),
        ] {
            for standard_strings in [true, false] {
                let dialect = Dialect {
                    standard_strings,
                    multibyte,
                };
                let text = [first, b"SELECT 2;"].concat();
                for seen in 1..text.len() {
                    let mut scan = StatementEnd::default();
                    let found = match scan.find(&text[..seen], dialect, false).unwrap() {
                        Some(n) => n,
                        None => scan.find(&text, dialect, true).unwrap().unwrap(),
                    };
                    assert_eq!(found, first.len(), "{multibyte:?}, {seen} bytes at first");
                }
            }
        }
    }

    #[test]
    fn open_quotes_and_psql_commands_are_refused() {
        for bad in [
            "SELECT 'a;",
            "SELECT $a$ ;",
            "SELECT \"a;",
            "SELECT 1 /* ;",
            "SELECT 1 \\gexec",
        ] {
            let end = StatementEnd::default().find(bad.as_bytes(), Dialect::default(), true);
            assert!(end.is_err(), "{bad}");
        }
    }

    #[test]
    fn names_after_a_single_colon_are_variables() {
        let of = |sql: &str| {
            let mut scan = StatementEnd::default();
            scan.find(sql.as_bytes(), Dialect::default(), true).unwrap();
            scan.variables().to_vec()
        };
        assert_eq!(
            of("SELECT :a, :'b', :\"c\", a::text, x := y, t[1:2], 'x:d', :{?e};"),
            ["a", "b", "c", "{"]
        );
    }

    #[test]
    fn an_incomplete_lexeme_is_scanned_once() {
        for open in ["'", "\"", "E'", "$a$", "$", "/*", "a", "1", "-- ", " "] {
            let mut scan = StatementEnd::default();
            let mut text = open.as_bytes().to_vec();
            for _ in 0..10 {
                text.extend_from_slice(&[b'1'; 100]);
                let blank = if open == " " { vec![b' '; 100] } else { vec![] };
                text.extend_from_slice(&blank);
                assert_eq!(
                    scan.find(&text, Dialect::default(), false).unwrap(),
                    None,
                    "{open}"
                );
                let seen = scan.position + scan.scanned.at;
                assert!(seen + 8 > text.len(), "{open}: {seen} of {}", text.len());
            }
        }
    }

    #[test]
    fn tokens_decode_names_and_strings() {
        let t = tokens("GRANT Select ON \"T\"\"x\" TO 'it''s'", Dialect::default());
        let names: Vec<_> = t.iter().filter_map(Token::name).collect();
        assert_eq!(names, ["grant", "select", "on", "T\"x", "to"]);
        assert_eq!(t.last().unwrap().string().unwrap(), "it's");
        assert!(t[0].is("grant"));
    }

    /// More of them in `make soak`.
    fn cases() -> u32 {
        let is_full_campaign = std::env::var("CAMPAIGN").is_ok_and(|c| c == "full");
        if is_full_campaign { 1024 } else { 256 }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(cases()))]

        /// However the bytes arrive, the statement ends at the same place, and no byte of an incomplete lexeme is
        /// scanned twice.
        #[test]
        fn any_chunking_gives_the_same_end(
            text in "(E'|e''|U&'|u&\"|\\$|\\$a\\$|/\\*|\\*/|--|:|[-a-eE'\"$;/*() \n\\\\0-2\u{80}-\u{90}]){0,40}",
            cuts in proptest::collection::vec(0usize..60, 0..12),
            standard_strings: bool,
            multibyte in proptest::sample::select(vec![Multibyte::AsciiSafe, Multibyte::Double, Multibyte::Sjis, Multibyte::Gb18030, Multibyte::Johab]),
        ) {
            let bytes = text.as_bytes();
            let dialect = Dialect { standard_strings, multibyte };
            let mut once = StatementEnd::default();
            let whole = once.find(bytes, dialect, true);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c <= bytes.len()).collect();
            cuts.sort_unstable();
            let mut scan = StatementEnd::default();
            let mut early = None;
            for cut in cuts {
                match scan.find(&bytes[..cut], dialect, false) {
                    Ok(None) => {}
                    other => { early = Some(other); break }
                }
            }
            let chunks = match early {
                Some(found) => found,
                None => scan.find(bytes, dialect, true),
            };
            proptest::prop_assert_eq!(whole, chunks);
            proptest::prop_assert_eq!(once.variables(), scan.variables());
        }
    }
}
