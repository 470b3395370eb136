//! A proxy in front of PostgreSQL that cuts one connection at a chosen byte.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Counts the bytes, in both directions, of connections that have sent `trigger`, starting with that message.
pub struct CutProxy {
    pub port: u16,
    state: Arc<ProxyState>,
    task: tokio::task::JoinHandle<()>,
}

struct ProxyState {
    trigger: &'static [u8],
    socket: Mutex<PathBuf>,
    /// The byte at which the connection is cut; `u64::MAX` for never.
    cut_at: AtomicU64,
    /// Whether the connection is cut in place of the first answer to the trigger.
    cuts_answer: AtomicBool,
    /// The answer in place of which the connection is cut.
    lost: Mutex<Option<&'static [u8]>>,
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
        let state = Arc::new(ProxyState {
            trigger,
            socket: Mutex::new(socket_in(socket_folder)),
            cut_at: AtomicU64::new(u64::MAX),
            cuts_answer: AtomicBool::new(false),
            lost: Mutex::new(None),
            counted: AtomicU64::new(0),
            was_cut: AtomicBool::new(false),
        });
        let all = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, all.clone()));
            }
        });
        CutProxy { port, state, task }
    }

    /// Cuts one connection, after this many bytes.
    pub fn arm(&self, at: u64) {
        self.state.counted.store(0, SeqCst);
        self.state.was_cut.store(false, SeqCst);
        self.state.cut_at.store(at, SeqCst);
    }

    /// Cuts one connection once the server has answered the trigger; the client does not get the answer.
    pub fn arm_answer(&self) {
        self.disarm();
        self.state.cuts_answer.store(true, SeqCst);
    }

    /// Cuts one connection that has sent the trigger once the server's answer has this in it; the client does not get it.
    pub fn arm_loss(&self, answer: &'static [u8]) {
        self.disarm();
        *self.state.lost.lock().unwrap() = Some(answer);
    }

    /// New connections lead to the server with its socket in this folder.
    pub fn point_at(&self, socket_folder: &str) {
        *self.state.socket.lock().unwrap() = socket_in(socket_folder);
    }

    pub fn disarm(&self) {
        self.arm(u64::MAX);
    }

    pub fn counted(&self) -> u64 {
        self.state.counted.load(SeqCst)
    }

    pub fn was_cut(&self) -> bool {
        self.state.was_cut.load(SeqCst)
    }
}

fn socket_in(folder: &str) -> PathBuf {
    PathBuf::from(folder).join(".s.PGSQL.5432")
}

impl ProxyState {
    /// Whether these bytes of the server are the answer that is to be lost; only once.
    fn loses(&self, bytes: &[u8]) -> bool {
        let mut lost = self.lost.lock().unwrap();
        let has = |answer: &[u8]| bytes.windows(answer.len()).any(|w| w == answer);
        lost.take_if(|answer| has(answer)).is_some()
    }
}

async fn forward(mut client: TcpStream, s: Arc<ProxyState>) {
    let socket = s.socket.lock().unwrap().clone();
    let Ok(mut server) = UnixStream::connect(socket).await else {
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
        if counts && !is_up && (s.loses(&bytes) || s.cuts_answer.swap(false, SeqCst)) {
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
