//! Backups in a folder (`file://`). A file's generation is its modification time in nanoseconds; a
//! file that changes while it is read is an error.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::{BackupStore, ByteStream, StoredObject};
use crate::error::{FailureReason as R, StorageError};

const CHUNK: usize = 256 << 10;

pub(super) struct LocalStore {
    folder: PathBuf,
}

impl LocalStore {
    pub fn new(folder: PathBuf) -> Self {
        LocalStore { folder }
    }
}

fn fault(e: std::io::Error, path: &Path) -> StorageError {
    let reason = match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => R::BackupNotFound,
        std::io::ErrorKind::PermissionDenied => R::AccessDenied,
        _ => R::DownloadFailed,
    };
    StorageError::new(reason, format!("{}: {}", path.display(), e.kind())).with_source(e)
}

fn describe(path: &Path, name: String) -> Result<StoredObject, StorageError> {
    let meta = std::fs::metadata(path).map_err(|e| fault(e, path))?;
    if !meta.is_file() {
        return Err(StorageError::new(R::BackupNotFound, format!("{}: not a file", path.display())));
    }
    let modified = meta.modified().map_err(|e| fault(e, path))?;
    let created = jiff::Timestamp::try_from(modified).unwrap_or_default();
    let generation = i64::try_from(created.as_nanosecond()).unwrap_or_default();
    Ok(StoredObject { name, size: meta.len(), created, crc32c: None, generation })
}

fn checksum(path: &Path) -> Result<u32, StorageError> {
    let mut file = std::fs::File::open(path).map_err(|e| fault(e, path))?;
    let (mut crc, mut buf) = (0, vec![0; CHUNK]);
    loop {
        match file.read(&mut buf).map_err(|e| fault(e, path))? {
            0 => return Ok(crc),
            n => crc = crc32c::crc32c_append(crc, &buf[..n]),
        }
    }
}

/// Files below `folder`, subfolders included, by name; each read for its checksum where that is wanted.
fn walk(folder: &Path, prefix: &str, checksums: bool) -> Result<Vec<StoredObject>, StorageError> {
    let (mut found, mut todo) = (Vec::new(), vec![(folder.to_owned(), String::new())]);
    while let Some((dir, base)) = todo.pop() {
        let entries = match std::fs::read_dir(&dir) {
            // A folder that went while others were read.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !base.is_empty() => continue,
            entries => entries.map_err(|e| fault(e, &dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(|e| fault(e, &dir))?;
            let Ok(file_name) = entry.file_name().into_string() else { continue };
            let name = format!("{base}{file_name}");
            let kind = entry.file_type().map_err(|e| fault(e, &dir))?;
            if kind.is_dir() {
                let below = format!("{name}/");
                if below.starts_with(prefix) || prefix.starts_with(&below) {
                    todo.push((entry.path(), below));
                }
            } else if name.starts_with(prefix) && entry.path().is_file() {
                let described = describe(&entry.path(), name).and_then(|object| match checksums {
                    true => Ok(StoredObject { crc32c: Some(checksum(&entry.path())?), ..object }),
                    false => Ok(object),
                });
                match described {
                    Ok(object) => found.push(object),
                    // So did a file.
                    Err(e) if e.reason() == R::BackupNotFound => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(f)
        .await
        .unwrap_or_else(|e| Err(StorageError::new(R::Internal, "reading the folder died").with_source(e)))
}

impl BackupStore for LocalStore {
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        let (folder, prefix) = (self.folder.clone(), prefix.to_owned());
        Box::pin(blocking(move || walk(&folder, &prefix, true)))
    }

    fn members<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        let (folder, prefix) = (self.folder.clone(), prefix.to_owned());
        Box::pin(blocking(move || walk(&folder, &prefix, false)))
    }

    fn stat<'a>(
        &'a self,
        name: &'a str,
        generation: Option<i64>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>> {
        let (path, name) = (self.folder.join(name), name.to_owned());
        Box::pin(blocking(move || {
            let object = describe(&path, name)?;
            match generation {
                Some(wanted) if wanted != object.generation => {
                    let what = format!("{}: generation {wanted} is gone", path.display());
                    Err(StorageError::new(R::BackupNotFound, what))
                }
                _ => Ok(object),
            }
        }))
    }

    fn read<'a>(
        &'a self,
        object: &'a StoredObject,
        offset: u64,
        length: Option<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, StorageError>> {
        Box::pin(async move {
            let path = self.folder.join(&object.name);
            let mut file = tokio::fs::File::open(&path).await.map_err(|e| fault(e, &path))?;
            file.set_max_buf_size(CHUNK);
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(|e| fault(e, &path))?;
            let state = (file.take(length.unwrap_or(u64::MAX)), path, object.clone());
            let stream = futures::stream::try_unfold(state, |(mut file, path, object)| async move {
                let mut buf = bytes::BytesMut::with_capacity(CHUNK);
                let read = file.read_buf(&mut buf).await.map_err(|e| fault(e, &path))?;
                if read > 0 {
                    return Ok(Some((buf.freeze(), (file, path, object))));
                }
                let now = describe(&path, object.name.clone())?;
                if (now.size, now.generation) != (object.size, object.generation) {
                    let what = format!("{}: changed while it was read", path.display());
                    return Err(StorageError::new(R::BackupChanged, what));
                }
                Ok(None::<(Bytes, _)>)
            });
            Ok(stream.boxed())
        })
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        content: Bytes,
        _content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        let (path, name) = (self.folder.join(name), name.to_owned());
        Box::pin(blocking(move || {
            let folder = path.parent().unwrap_or(&path);
            std::fs::create_dir_all(folder).map_err(|e| fault(e, folder))?;
            // Whole or not at all: written beside it, then linked, which fails where there is one.
            let making = folder.join(format!(".{}.part", uuid::Uuid::new_v4().simple()));
            let linked = std::fs::write(&making, &content)
                .and_then(|()| std::fs::File::open(&making)?.sync_all())
                .and_then(|()| std::fs::hard_link(&making, &path));
            let _ = std::fs::remove_file(&making);
            match linked {
                Ok(()) => describe(&path, name).map(Some),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
                Err(e) => Err(fault(e, &path)),
            }
        }))
    }

    fn delete<'a>(&'a self, object: &'a StoredObject) -> BoxFuture<'a, Result<(), StorageError>> {
        let (path, object) = (self.folder.join(&object.name), object.clone());
        Box::pin(blocking(move || {
            let now = describe(&path, object.name.clone())?;
            if (now.size, now.generation) != (object.size, object.generation) {
                let what = format!("{}: another file by now", path.display());
                return Err(StorageError::new(R::BackupChanged, what));
            }
            std::fs::remove_file(&path).map_err(|e| fault(e, &path))
        }))
    }

    fn uri(&self, name: &str) -> String {
        format!("file://{}", self.folder.join(name).display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody else works in the folder.
    #[test]
    fn what_goes_while_it_is_listed_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("stays"), "here").unwrap();
        let (path, done) = (folder.path().to_owned(), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let sub = path.join("sub");
                    std::fs::create_dir(&sub).unwrap();
                    (0..20).for_each(|i| std::fs::write(sub.join(i.to_string()), "x").unwrap());
                    std::fs::remove_dir_all(&sub).unwrap();
                }
            });
            let listed: Vec<_> = (0..300).map(|_| walk(&path, "", true)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            for found in listed {
                assert!(found.unwrap().iter().any(|o| o.name == "stays"));
            }
        });
    }
}
