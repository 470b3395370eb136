//! The transport below the protocol: TCP, or a Unix socket if the host is a directory.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Timeout of one connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How an error begins if the host's name has no address. Trying again helps only where names are still being set up.
pub(super) const NO_ADDRESS: &str = "the host name has no address";

/// How resolvers (glibc, musl) say that they got no answer, and may get one later.
const NO_ANSWER: [&str; 2] = ["Temporary failure", "Try again"];

/// The error of a lookup, which says so if the name does not exist.
fn unresolved(e: io::Error) -> io::Error {
    let text = e.to_string();
    if NO_ANSWER.iter().any(|temporary| text.contains(temporary)) {
        return e;
    }
    io::Error::new(io::ErrorKind::NotFound, format!("{NO_ADDRESS}: {text}"))
}

/// Connects to the first address that answers.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<Socket> {
    if host.starts_with('/') {
        let path = Path::new(host).join(format!(".s.PGSQL.{port}"));
        return Ok(Socket::Unix(in_time(UnixStream::connect(path)).await?));
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, NO_ADDRESS);
    let found = tokio::net::lookup_host((host, port)).await;
    for address in found.map_err(unresolved)? {
        match in_time(TcpStream::connect(address)).await {
            Ok(stream) => return tuned(stream).map(Socket::Tcp),
            Err(e) => last = e,
        }
    }
    Err(last)
}

async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "connection timed out");
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(timed_out)?
}

/// TCP keepalives that notice a vanished peer within a minute.
fn tuned(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Forwards a call to whichever stream it is.
macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut *$self {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_does_not_exist_has_no_address() {
        let said = |text: &str| unresolved(io::Error::other(text)).to_string();
        for text in [
            "failed to lookup address information: Name or service not known",
            "failed to lookup address information: No address associated with hostname",
            "failed to lookup address information: Name does not resolve",
        ] {
            assert_eq!(said(text), format!("{NO_ADDRESS}: {text}"));
        }
        for text in [
            "failed to lookup address information: Temporary failure in name resolution",
            "failed to lookup address information: Try again",
        ] {
            assert_eq!(said(text), text);
        }
    }
}
