//! The bytes of an object that is created while they are made: a thread that may block writes them, an upload reads them.
//! What is not finished is never taken for complete.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::{RestoreError, StorageError, StorageKind};
use pgdump_archive::ArchiveError;

/// Bytes that are handed over at once.
const PART: usize = 256 << 10;
/// How many parts may wait for the upload.
const AHEAD: usize = 8;

enum BodyPart {
    Bytes(Bytes),
    /// All bytes have been written.
    End,
}

/// The reading end, for a store.
pub struct ObjectBody {
    parts: mpsc::Receiver<BodyPart>,
    has_ended: bool,
}

/// The writer went away before the end.
#[derive(Debug, thiserror::Error)]
#[error("the writer of the object stopped before its end")]
pub struct IncompleteBody;

/// The writing end, for a thread that may block. Unless it is finished, there will be no object.
pub struct BodyWriter {
    parts: mpsc::Sender<BodyPart>,
    part: Vec<u8>,
    /// How long the upload may take no bytes.
    stall: Duration,
    runtime: Handle,
}

/// Both ends. The upload may take no bytes for at most `stall`.
///
/// # Panics
/// Outside of a runtime.
pub fn object_body(stall: Duration) -> (BodyWriter, ObjectBody) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let writer = BodyWriter {
        parts: sender,
        part: Vec::with_capacity(PART),
        stall,
        runtime: Handle::current(),
    };
    let body = ObjectBody {
        parts: receiver,
        has_ended: false,
    };
    (writer, body)
}

impl ObjectBody {
    /// The next bytes; `None` once all of them have been read.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, IncompleteBody>> {
        if self.has_ended {
            return None;
        }
        match self.parts.recv().await {
            Some(BodyPart::Bytes(bytes)) => Some(Ok(bytes)),
            Some(BodyPart::End) => {
                self.has_ended = true;
                None
            }
            None => Some(Err(IncompleteBody)),
        }
    }
}

impl BodyWriter {
    /// Hands over what is left, and that this is all.
    ///
    /// # Errors
    /// As the writes.
    pub fn finish(mut self) -> Result<(), StorageError> {
        self.send_part()?;
        self.send(BodyPart::End)
    }

    fn send_part(&mut self) -> Result<(), StorageError> {
        if self.part.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        self.send(BodyPart::Bytes(full.into()))
    }

    fn send(&self, part: BodyPart) -> Result<(), StorageError> {
        let sent = tokio::time::timeout(self.stall, self.parts.send(part));
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            // The upload says why it ended.
            Ok(Err(_)) => Err(StorageError::new(StorageKind::Stopped, "the upload ended")),
            Err(_) => {
                let what = format!("the upload has taken no bytes for {:?}", self.stall);
                Err(StorageError::new(StorageKind::DownloadFailed, what))
            }
        }
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = bytes.len().min(PART - self.part.len());
        self.part.extend_from_slice(&bytes[..n]);
        if self.part.len() == PART {
            let sent = self.send_part();
            sent.map_err(|e| ArchiveError::source(RestoreError::from(e)))?;
        }
        Ok(n)
    }

    /// Small parts would make small requests, so what is written stays here until there is enough, or the end.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut body: ObjectBody) -> Result<Vec<u8>, IncompleteBody> {
        let mut all = vec![];
        while let Some(bytes) = body.next().await {
            all.extend_from_slice(&bytes?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn only_a_finished_body_is_complete() {
        let wanted: Vec<u8> = (0..3 * PART + 17).map(|i| i as u8).collect();
        for is_finished in [true, false] {
            let (mut writer, body) = object_body(Duration::from_secs(60));
            let bytes = wanted.clone();
            let written = tokio::task::spawn_blocking(move || {
                writer.write_all(&bytes).unwrap();
                if is_finished {
                    writer.finish().unwrap();
                }
            });
            let read = read(body).await;
            written.await.unwrap();
            assert_eq!(read.ok(), is_finished.then(|| wanted.clone()));
        }
    }

    #[tokio::test]
    async fn an_upload_that_ended_or_stalls_ends_the_writer() {
        for (has_ended, wanted) in [(true, "ended"), (false, "taken no bytes")] {
            let (mut writer, body) = object_body(Duration::from_millis(10));
            let body = Some(body).filter(|_| !has_ended);
            let written =
                tokio::task::spawn_blocking(move || writer.write_all(&vec![0; (AHEAD + 2) * PART]));
            let e = written.await.unwrap().unwrap_err();
            assert!(e.to_string().contains(wanted), "{e}");
            drop(body);
        }
    }
}
