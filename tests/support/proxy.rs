//! A proxy in front of PostgreSQL that cuts one connection at a chosen byte.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Counts the bytes, in both directions, of connections that have sent `trigger`, starting with that message.
pub struct CutProxy {
    pub port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    trigger: &'static [u8],
    socket: PathBuf,
    /// The byte at which the connection is cut; `u64::MAX` for never.
    cut_at: AtomicU64,
    /// Whether the connection is cut in place of the first answer to the trigger.
    cuts_answer: AtomicBool,
    /// Bytes since the trigger.
    counted: AtomicU64,
    was_cut: AtomicBool,
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CutProxy {
    pub async fn start(socket_folder: &str, trigger: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            trigger,
            socket: PathBuf::from(socket_folder).join(".s.PGSQL.5432"),
            cut_at: AtomicU64::new(u64::MAX),
            cuts_answer: AtomicBool::new(false),
            counted: AtomicU64::new(0),
            was_cut: AtomicBool::new(false),
        });
        let all = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, all.clone()));
            }
        });
        CutProxy { port, shared, task }
    }

    /// Cuts one connection, after this many bytes.
    pub fn arm(&self, at: u64) {
        self.shared.counted.store(0, SeqCst);
        self.shared.was_cut.store(false, SeqCst);
        self.shared.cut_at.store(at, SeqCst);
    }

    /// Cuts one connection once the server has answered the trigger; the client does not get the answer.
    pub fn arm_answer(&self) {
        self.disarm();
        self.shared.cuts_answer.store(true, SeqCst);
    }

    pub fn disarm(&self) {
        self.arm(u64::MAX);
    }

    pub fn counted(&self) -> u64 {
        self.shared.counted.load(SeqCst)
    }

    pub fn was_cut(&self) -> bool {
        self.shared.was_cut.load(SeqCst)
    }
}

async fn forward(mut client: TcpStream, s: Arc<Shared>) {
    let Ok(mut server) = UnixStream::connect(&s.socket).await else {
        return;
    };
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    let mut counts = false;
    loop {
        let (bytes, is_up) = tokio::select! {
            n = client.read(&mut up) => match n { Ok(n @ 1..) => (up[..n].to_vec(), true), _ => return },
            n = server.read(&mut down) => match n { Ok(n @ 1..) => (down[..n].to_vec(), false), _ => return },
        };
        counts |= is_up && bytes.windows(s.trigger.len()).any(|w| w == s.trigger);
        if counts && !is_up && s.cuts_answer.swap(false, SeqCst) {
            s.was_cut.store(true, SeqCst);
            return;
        }
        let (mut part, mut ends) = (bytes.as_slice(), false);
        if counts && !s.was_cut.load(SeqCst) {
            let before = s.counted.fetch_add(bytes.len() as u64, SeqCst);
            let remaining = s.cut_at.load(SeqCst).saturating_sub(before);
            if (part.len() as u64) > remaining {
                (part, ends) = (&part[..usize::try_from(remaining).unwrap()], true);
                s.was_cut.store(true, SeqCst);
            }
        }
        let sent = if is_up {
            server.write_all(part).await
        } else {
            client.write_all(part).await
        };
        if ends || sent.is_err() {
            return;
        }
    }
}
