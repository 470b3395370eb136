//! Bounds what a server sends. The client reads each protocol message whole, and a message may have up to 1
//! GiB: a dump that contains `SELECT repeat('x', 1000000000)` would take that much memory. This stream
//! therefore parses the frames (<https://www.postgresql.org/docs/current/protocol-message-formats.html>)
//! below the client, inside TLS: large notices are dropped, large errors keep the beginning of each field,
//! and a large row is dropped if nobody reads it, or replaced by an error that names the limit. The same
//! applies to a result of many rows, which the client collects before it returns any.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Messages up to this many bytes always pass.
const ALWAYS: usize = 1 << 20;
/// Bytes that a large error keeps of each field.
const FIELD: usize = 4096;
/// Memory in bytes that the client needs for a row in addition to its values.
const ROW: usize = 256;
/// Bytes per read.
const READ: usize = 16 << 10;

/// Messages after which a new result may begin: CommandComplete, EmptyQueryResponse, PortalSuspended,
/// ErrorResponse and ReadyForQuery.
const ENDS_ROWS: &[u8] = b"CIsEZ";

/// SQLSTATE of the error that replaces a message above the limit, in a class that PostgreSQL does not use.
pub(super) const TOO_LARGE: &str = "XL001";

/// Which messages pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageBounds {
    /// Limit in bytes of one row that the client reads.
    pub(super) max_row: usize,
    /// Limit in bytes of all rows of one result.
    pub(super) max_rows: usize,
    /// Nobody reads the rows: they answer statements of a dump.
    pub(super) discards_rows: bool,
}

/// The filter's position in the stream of messages.
#[derive(Debug)]
enum Position {
    /// Before the single byte that answers an SSLRequest.
    Negotiation,
    /// Within a message's type and length.
    Header { bytes: [u8; 5], known: usize },
    /// Within a message that passes, with this many bytes to come.
    Passing(usize),
    /// Within a message that is dropped.
    Skipping(usize),
    /// Within an error that is too large.
    Error(LargeError),
}

const START: Position = Position::Header {
    bytes: [0; 5],
    known: 0,
};

/// An ErrorResponse whose fields are truncated.
#[derive(Debug)]
struct LargeError {
    left: usize,
    fields: Vec<u8>,
    /// Bytes of the current field, including its type byte; 0 before it.
    field: usize,
}

impl LargeError {
    /// Consumes what has arrived of the message; returns the new message once it is complete.
    fn take(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        for byte in input {
            let ends = *byte == 0;
            if ends || self.field < FIELD {
                self.fields.push(*byte);
            }
            self.field = if ends { 0 } else { self.field + 1 };
        }
        self.left -= input.len();
        (self.left == 0).then(|| framed(b'E', &self.fields))
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// An ErrorResponse as the server would send it.
fn refusal(answer: &str, limit: &str, max: usize) -> Vec<u8> {
    let message = format!(
        "the server sent {answer}, but this worker accepts {limit} of at most {} MiB: give it more memory \
         (its container's limit, or RESTORE_MEMORY_MIB)",
        max >> 20
    );
    framed(
        b'E',
        format!("SERROR\0VERROR\0C{TOO_LARGE}\0M{message}\0\0").as_bytes(),
    )
}

/// Filters the messages into what the client sees.
#[derive(Debug)]
struct MessageFilter {
    bounds: MessageBounds,
    position: Position,
    /// Bytes of this result's rows so far. Beyond the limit, the remaining rows are dropped.
    rows: usize,
}

impl MessageFilter {
    fn new(bounds: MessageBounds, position: Position) -> Self {
        MessageFilter {
            bounds,
            position,
            rows: 0,
        }
    }

    /// Appends to `out` what passes of `input`.
    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            let used = self.step(input, out);
            input = &input[used..];
        }
    }

    /// Bytes of `input` that were consumed.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        match &mut self.position {
            Position::Negotiation => {
                out.push(input[0]);
                self.position = START;
                1
            }
            Position::Header { bytes, known } => {
                let used = input.len().min(bytes.len() - *known);
                bytes[*known..*known + used].copy_from_slice(&input[..used]);
                *known += used;
                if *known == bytes.len() {
                    let header = *bytes;
                    self.position = self.begin(header, out);
                }
                used
            }
            Position::Passing(left) | Position::Skipping(left) => {
                let used = input.len().min(*left);
                *left -= used;
                let is_over = *left == 0;
                if matches!(self.position, Position::Passing(_)) {
                    out.extend_from_slice(&input[..used]);
                }
                if is_over {
                    self.position = START;
                }
                used
            }
            Position::Error(error) => {
                let used = input.len().min(error.left);
                if let Some(message) = error.take(&input[..used]) {
                    out.extend_from_slice(&message);
                    self.position = START;
                }
                used
            }
        }
    }

    /// What happens to the message that begins with `header`.
    fn begin(&mut self, header: [u8; 5], out: &mut Vec<u8>) -> Position {
        let [kind, length @ ..] = header;
        // A length below its own four bytes is invalid; the client reports it.
        let size = (u32::from_be_bytes(length) as usize).saturating_sub(4);
        if kind == b'D' {
            if self.is_more_than_fits(size, out) {
                return if size == 0 {
                    START
                } else {
                    Position::Skipping(size)
                };
            }
        } else if ENDS_ROWS.contains(&kind) {
            self.rows = 0;
        }
        match kind {
            _ if size <= ALWAYS => {}
            b'N' => return Position::Skipping(size),
            b'E' => {
                return Position::Error(LargeError {
                    left: size,
                    fields: vec![],
                    field: 0,
                });
            }
            b'D' if self.bounds.discards_rows => return Position::Skipping(size),
            _ if size > self.bounds.max_row => {
                let row = format!("a row of {} MiB", size.div_ceil(1 << 20));
                out.extend_from_slice(&refusal(&row, "rows", self.bounds.max_row));
                return Position::Skipping(size);
            }
            _ => {}
        }
        out.extend_from_slice(&header);
        if size == 0 {
            START
        } else {
            Position::Passing(size)
        }
    }

    /// Counts a row of a result that the client collects. The first row beyond the limit becomes an error.
    fn is_more_than_fits(&mut self, size: usize, out: &mut Vec<u8>) -> bool {
        let max = self.bounds.max_rows;
        if self.bounds.discards_rows {
            return false;
        }
        let before = self.rows;
        self.rows = before.saturating_add(size.saturating_add(ROW));
        if self.rows > max && before <= max && size <= self.bounds.max_row {
            let rows = format!("a result of more than {} MiB", max >> 20);
            out.extend_from_slice(&refusal(&rows, "results", max));
        }
        self.rows > max && (before > max || size <= self.bounds.max_row)
    }
}

/// A stream whose incoming messages are bounded; outgoing data passes unchanged.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    filter: MessageFilter,
    read: Box<[u8]>,
    /// Bytes that the client has not read yet, from `taken` on.
    out: Vec<u8>,
    taken: usize,
}

impl<S> Bounded<S> {
    /// For a connection that begins with the server's answer to an SSLRequest, or directly with messages.
    pub(super) fn new(inner: S, bounds: MessageBounds, negotiates: bool) -> Self {
        let position = if negotiates {
            Position::Negotiation
        } else {
            START
        };
        let filter = MessageFilter::new(bounds, position);
        Bounded {
            inner,
            filter,
            read: vec![0; READ].into(),
            out: Vec::with_capacity(READ),
            taken: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.taken == this.out.len() {
            this.out.clear();
            this.taken = 0;
            // The client reads the one byte of the negotiation; everything after it belongs to TLS.
            let most = if matches!(this.filter.position, Position::Negotiation) {
                1
            } else {
                READ
            };
            let mut read = ReadBuf::new(&mut this.read[..most]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.filter.feed(read.filled(), &mut this.out);
        }
        let waiting = &this.out[this.taken..];
        let used = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..used]);
        this.taken += used;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Bounded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

/// TLS below the bounds: messages are visible only inside it.
pub(super) struct BoundedTls<T> {
    pub(super) tls: T,
    pub(super) bounds: MessageBounds,
}

impl<S, T> TlsConnect<Bounded<S>> for BoundedTls<T>
where
    S: Send + 'static,
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = Bounded<T::Stream>;
    type Error = T::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Stream, T::Error>>;

    fn connect(self, stream: Bounded<S>) -> Self::Future {
        let (handshake, bounds) = (self.tls.connect(stream.inner), self.bounds);
        Box::pin(async move { Ok(Bounded::new(handshake.await?, bounds, false)) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const BOUNDS: MessageBounds = MessageBounds {
        max_row: 4 << 20,
        max_rows: 8 << 20,
        discards_rows: false,
    };

    fn message(kind: u8, size: usize) -> Vec<u8> {
        framed(kind, &vec![b'x'; size])
    }

    fn filtered(input: &[u8], bounds: MessageBounds, chunk: usize) -> Vec<u8> {
        let (mut filter, mut out) = (MessageFilter::new(bounds, START), vec![]);
        input
            .chunks(chunk)
            .for_each(|part| filter.feed(part, &mut out));
        out
    }

    #[test]
    fn small_messages_pass_in_any_chunking() {
        let all = [
            message(b'Z', 1),
            message(b'C', 0),
            message(b'D', 7),
            message(b'E', 9),
        ]
        .concat();
        for chunk in 1..=all.len() {
            assert_eq!(filtered(&all, BOUNDS, chunk), all, "{chunk}");
        }
    }

    #[test]
    fn large_messages_are_dropped_truncated_or_refused() {
        let after = message(b'Z', 1);
        for chunk in [1, 4, 5, 6, 7, READ, 8 << 20] {
            let of = |kind, size, bounds| {
                filtered(
                    &[message(kind, size), after.clone()].concat(),
                    bounds,
                    chunk,
                )
            };
            assert_eq!(of(b'N', 2 << 20, BOUNDS), after, "{chunk}");
            assert_eq!(
                of(
                    b'D',
                    2 << 20,
                    MessageBounds {
                        discards_rows: true,
                        ..BOUNDS
                    }
                ),
                after
            );
            assert_eq!(of(b'D', 2 << 20, BOUNDS).len(), (2 << 20) + 5 + after.len());
            // How the bytes arrive does not matter to their kind.
            let kinds = [b'D', b'd', b'T'];
            for kind in kinds.into_iter().take(if chunk < READ { 1 } else { 3 }) {
                let refused = of(kind, 5 << 20, BOUNDS);
                let text = String::from_utf8_lossy(&refused);
                assert!(
                    text.starts_with('E')
                        && text.contains("a row of 5 MiB")
                        && text.contains("at most 4 MiB")
                );
                assert!(refused.ends_with(&after) && refused.len() < 400);
            }
        }
    }

    #[test]
    fn a_result_of_many_rows_is_refused_once_and_the_next_one_passes() {
        let (small, ends) = (1 << 10, [message(b'C', 5), message(b'Z', 1)].concat());
        let fits = BOUNDS.max_rows / (small + ROW);
        let rows = |n: usize| [message(b'D', small).repeat(n), ends.clone()].concat();
        for chunk in [7, READ] {
            assert_eq!(filtered(&rows(fits), BOUNDS, chunk), rows(fits));
            let two = [rows(fits + 1000), rows(fits)].concat();
            let seen = filtered(&two, BOUNDS, chunk);
            let refused = seen.len() - 2 * rows(fits).len();
            let at = rows(fits).len() - ends.len();
            let text = String::from_utf8_lossy(&seen[at..at + refused]);
            assert!(
                text.starts_with('E') && text.contains("a result of more than 8 MiB"),
                "{text}"
            );
            assert!(refused < 400 && seen.ends_with(&[ends.clone(), rows(fits)].concat()));
        }
        // Rows without values take memory, too.
        let empty = [message(b'D', 0).repeat(100_000), ends.clone()].concat();
        assert!(filtered(&empty, BOUNDS, READ).len() < empty.len() / 2);
        // Results that nobody collects have no limit.
        for bounds in [
            MessageBounds {
                discards_rows: true,
                ..BOUNDS
            },
            MessageBounds {
                max_rows: usize::MAX,
                ..BOUNDS
            },
        ] {
            assert_eq!(filtered(&rows(3 * fits), bounds, READ), rows(3 * fits));
        }
    }

    #[test]
    fn a_large_error_keeps_the_beginning_of_each_field() {
        let fields = |n: usize| {
            [
                b"SERROR\0C22023\0M",
                &vec![b'm'; n][..],
                b"\0D",
                &vec![b'd'; n][..],
                b"\0\0",
            ]
            .concat()
        };
        let wanted = framed(b'E', &fields(FIELD - 1));
        let sent = framed(b'E', &fields(2 << 20));
        for chunk in [1, 3, READ, 8 << 20] {
            assert_eq!(filtered(&sent, BOUNDS, chunk), wanted, "{chunk}");
        }
    }

    #[tokio::test]
    async fn bytes_after_the_negotiation_are_left_to_tls() {
        let mut stream = Bounded::new(&b"S\x16\x03\x01"[..], BOUNDS, true);
        assert_eq!(stream.read_u8().await.unwrap(), b'S');
        assert_eq!(stream.inner, b"\x16\x03\x01");
        let plain = [b"N".to_vec(), message(b'N', 2 << 20), message(b'Z', 1)].concat();
        let (mut stream, mut out) = (Bounded::new(&plain[..], BOUNDS, true), vec![]);
        stream.read_to_end(&mut out).await.unwrap();
        assert_eq!(out, [b"N".to_vec(), message(b'Z', 1)].concat());
    }
}
