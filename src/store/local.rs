//! Backups in a folder (`file://`). A file's generation is its modification time in nanoseconds; a file that
//! changes while it is read is an error. No name and no symbolic link can make it read, write or delete
//! anything outside the folder, and only regular files are opened. What a listing cannot offer, because its name is not
//! UTF-8 or because it is a link that leads out, is listed by its name alone: it may be the newest backup.

use crate::job::Generation;
use pgdump_archive::Crc32c;
use std::ffi::OsStr;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::backup_store::{
    BackupStore, Listing, NameFilter, NewestObjects, ObjectBytes, Obstacle, StoredObject,
};
use super::object_body::ObjectBody;
use crate::error::{StorageError, StorageKind};

const CHUNK: usize = 256 << 10;
/// A folder that file systems make for themselves, and in which nobody keeps backups.
const LOST_AND_FOUND: &str = "lost+found";

pub(super) struct LocalStore {
    folder: PathBuf,
}

impl LocalStore {
    pub fn new(folder: PathBuf) -> Self {
        LocalStore { folder }
    }
}

fn fault(e: std::io::Error, path: &Path) -> StorageError {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => StorageKind::NotFound,
        // A file is where a folder has to be.
        std::io::ErrorKind::AlreadyExists => StorageKind::NotFound,
        // Links that lead to one another lead to no file, however often they are tried.
        _ if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            StorageKind::NotFound
        }
        std::io::ErrorKind::PermissionDenied => StorageKind::AccessDenied,
        _ => StorageKind::DownloadFailed,
    };
    StorageError::new(kind, format!("{}: {}", path.display(), e.kind())).with_source(e)
}

fn outside(path: &Path, what: &str) -> StorageError {
    StorageError::new(
        StorageKind::OutsideFolder,
        format!("{}: {what}", path.display()),
    )
}

/// The path of `name` in `folder`. Any component of it may still be a symbolic link.
fn path_of(folder: &Path, name: &str) -> Result<PathBuf, StorageError> {
    let path = folder.join(name);
    if Path::new(name)
        .components()
        .all(|c| matches!(c, Component::Normal(_)))
    {
        Ok(path)
    } else {
        Err(outside(&path, "the name points outside the folder"))
    }
}

/// Resolves symbolic links in a path; the result must be inside `folder`.
fn real(folder: &Path, path: &Path) -> Result<PathBuf, StorageError> {
    let inside = folder.canonicalize().map_err(|e| fault(e, folder))?;
    let real = path.canonicalize().map_err(|e| fault(e, path))?;
    if real.starts_with(&inside) {
        Ok(real)
    } else {
        Err(outside(path, "a symbolic link points outside the folder"))
    }
}

/// Resolves symbolic links of a file. A link may only point into its own folder, so that a directory dump
/// contains only its own members.
fn real_file(folder: &Path, path: &Path) -> Result<PathBuf, StorageError> {
    let own = path.parent().unwrap_or(folder);
    real(folder, own)?;
    real(own, path)
}

fn locate(folder: &Path, name: &str) -> Result<PathBuf, StorageError> {
    real_file(folder, &path_of(folder, name)?)
}

/// As [`locate`], for a file to create: its existing parent folders must be inside `folder`.
fn locate_new(folder: &Path, name: &str) -> Result<PathBuf, StorageError> {
    let path = path_of(folder, name)?;
    std::fs::create_dir_all(folder).map_err(|e| fault(e, folder))?;
    if let Some(there) = path.ancestors().skip(1).find(|p| p.exists()) {
        real(folder, there)?;
    }
    Ok(path)
}

/// A file under a temporary name, which is removed in the end.
struct PartFile(PathBuf);

impl Drop for PartFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The path of a file to create, and that of its part in the same folder, which is created if it is missing.
fn locate_part(root: &Path, name: &str) -> Result<(PathBuf, PartFile), StorageError> {
    let path = locate_new(root, name)?;
    let folder = path.parent().unwrap_or(&path);
    std::fs::create_dir_all(folder).map_err(|e| fault(e, folder))?;
    let part = folder.join(format!(".{}.part", uuid::Uuid::new_v4().simple()));
    Ok((path, PartFile(part)))
}

/// Gives a part that is complete its name: atomic, and impossible if the name is taken.
fn link(part: &PartFile, path: &Path, name: String) -> Result<Option<StoredObject>, StorageError> {
    match std::fs::hard_link(&part.0, path) {
        Ok(()) => describe(path, name).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
        Err(e) => Err(fault(e, path)),
    }
}

/// Opens a regular file. `O_NONBLOCK` keeps the open from hanging if a pipe has taken its place.
fn open_file(path: &Path) -> Result<std::fs::File, StorageError> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path);
    let file = file.map_err(|e| fault(e, path))?;
    if file.metadata().map_err(|e| fault(e, path))?.is_file() {
        Ok(file)
    } else {
        Err(not_a_file(path))
    }
}

fn not_a_file(path: &Path) -> StorageError {
    StorageError::new(
        StorageKind::NotFound,
        format!("{}: not a file", path.display()),
    )
}

fn describe(path: &Path, name: String) -> Result<StoredObject, StorageError> {
    let meta = std::fs::metadata(path).map_err(|e| fault(e, path))?;
    if !meta.is_file() {
        return Err(not_a_file(path));
    }
    let modified = meta.modified().map_err(|e| fault(e, path))?;
    let created = jiff::Timestamp::try_from(modified).unwrap_or_default();
    let generation = Generation(i64::try_from(created.as_nanosecond()).unwrap_or_default());
    Ok(StoredObject {
        name,
        size: meta.len(),
        created,
        crc32c: None,
        generation,
        members: None,
        is_unlisted: false,
        obstacle: None,
    })
}

/// What this account may not look into: a folder, or a file of which only the name can be read. Anything in it may be from
/// now: a folder's time is not that of a file in it that was written in place, nor of one in a subfolder.
fn unlisted(name: String) -> StoredObject {
    StoredObject {
        name,
        size: 0,
        created: jiff::Timestamp::now(),
        crc32c: None,
        generation: Generation::default(),
        members: None,
        is_unlisted: true,
        obstacle: None,
    }
}

fn checksum(path: &Path, buf: &mut [u8]) -> Result<Crc32c, StorageError> {
    let mut file = open_file(path)?;
    let mut crc = Crc32c::default();
    loop {
        match file.read(buf).map_err(|e| fault(e, path))? {
            0 => return Ok(crc),
            n => crc = crc.append(&buf[..n]),
        }
    }
}

/// How an entry that is no folder is listed.
enum ListedAs {
    /// A file, or what may be one.
    File,
    /// By its name alone, and the latest time that it may be from.
    Unusable(Obstacle, jiff::Timestamp),
    /// The same of a folder.
    UnusableFolder,
    /// Not at all: a pipe or a device, or a link to nothing, or to what is listed under its own name.
    Nothing,
}

/// A name with the bytes that are not UTF-8 as `\xE9`, and whether it has none.
fn text_of(name: &OsStr) -> (String, bool) {
    let (mut text, mut is_utf8) = (String::new(), true);
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02X}")));
        is_utf8 &= chunk.invalid().is_empty();
    }
    (text, is_utf8)
}

fn modified(meta: std::io::Result<std::fs::Metadata>) -> jiff::Timestamp {
    let time = meta.and_then(|m| m.modified()).ok();
    let time = time.and_then(|t| jiff::Timestamp::try_from(t).ok());
    time.unwrap_or_else(jiff::Timestamp::now)
}

/// How an entry of `folder` that is no folder is listed below `prefix`.
fn listed_as(
    folder: &Path,
    (path, kind): (&Path, Option<std::fs::FileType>),
    prefix: &str,
    is_utf8: bool,
) -> ListedAs {
    let listed = match kind {
        Some(kind) if kind.is_symlink() => link_listed_as(folder, path, prefix),
        Some(kind) if !kind.is_file() => ListedAs::Nothing,
        _ => ListedAs::File,
    };
    match listed {
        ListedAs::File if !is_utf8 => {
            ListedAs::Unusable(Obstacle::NotUtf8, modified(std::fs::metadata(path)))
        }
        listed => listed,
    }
}

fn link_listed_as(folder: &Path, path: &Path, prefix: &str) -> ListedAs {
    let outside = |time| ListedAs::Unusable(Obstacle::LeadsOutside, time);
    let meta = match std::fs::metadata(path) {
        // A link that this account may not follow may be one to a file inside.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return ListedAs::File,
        // What is not there now may be there later, such as a file system that is not mounted.
        Err(_) if leads_outside(folder, path) => {
            return outside(modified(std::fs::symlink_metadata(path)));
        }
        Err(_) => return ListedAs::Nothing,
        Ok(meta) => meta,
    };
    let own_name = folder.canonicalize().ok().zip(path.canonicalize().ok());
    let own_name = own_name
        .as_ref()
        .and_then(|(inside, real)| real.strip_prefix(inside).ok());
    match own_name {
        Some(_) if meta.is_dir() => ListedAs::Nothing,
        None if meta.is_dir() => ListedAs::UnusableFolder,
        _ if !meta.is_file() => ListedAs::Nothing,
        _ if real_file(folder, path).is_ok() => ListedAs::File,
        Some(own) if own.as_os_str().as_bytes().starts_with(prefix.as_bytes()) => ListedAs::Nothing,
        _ => outside(modified(Ok(meta))),
    }
}

/// A link to a folder outside, if it may hold something that begins with `prefix`.
///
/// # Errors
/// `source_not_allowed` if all that begins with `prefix` is there.
fn link_outside(
    path: &Path,
    name: &str,
    prefix: &str,
) -> Result<Option<StoredObject>, StorageError> {
    let below = format!("{name}/");
    if prefix.starts_with(&below) {
        return Err(outside(path, "a symbolic link points outside the folder"));
    }
    let obstacle = Some(Obstacle::LeadsOutside);
    let is_below = below.starts_with(prefix);
    Ok(is_below.then(|| StoredObject {
        obstacle,
        ..unlisted(below)
    }))
}

/// A file of a listing, with its CRC32C if there is a buffer to compute it. One that cannot be read has none.
fn describe_listed(
    path: &Path,
    name: &str,
    buf: Option<&mut [u8]>,
) -> Result<StoredObject, StorageError> {
    let object = describe(path, name.to_owned())?;
    let crc32c = match buf.map(|buf| checksum(path, buf)) {
        Some(Err(e)) if e.kind() != StorageKind::NotFound => None,
        crc32c => crc32c.transpose()?,
    };
    Ok(StoredObject { crc32c, ..object })
}

/// Whether the path that a link contains leads out of `folder`; there need be nothing at its end.
fn leads_outside(folder: &Path, link: &Path) -> bool {
    let own = link.parent().map(Path::canonicalize);
    let (Ok(inside), Some(Ok(own)), Ok(target)) =
        (folder.canonicalize(), own, std::fs::read_link(link))
    else {
        return false;
    };
    let mut path = PathBuf::new();
    for part in own.join(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    !path.starts_with(inside)
}

/// Files in `folder` and its subfolders, by name, and what is there and cannot be used: what this account may not look
/// into, what has a name that is not UTF-8, and links that lead outside. With `checksums`, each file is read to compute its
/// CRC32C; one that cannot be read has none.
fn walk(
    folder: &Path,
    prefix: &str,
    checksums: bool,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<StoredObject>, StorageError> {
    let listing = Listing::of(&folder.join(prefix).display().to_string());
    let mut found = walk_into(listing, (folder, prefix), checksums, wanted)?.into_objects();
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// As [`walk`], in no order, of the files in a folder whose names begin with a prefix.
fn walk_into(
    mut found: Listing,
    (folder, prefix): (&Path, &str),
    checksums: bool,
    wanted: impl Fn(&str) -> bool,
) -> Result<Listing, StorageError> {
    let mut todo = vec![(folder.to_owned(), String::new(), true)];
    let mut buf = vec![0; CHUNK];
    while let Some((dir, base, is_utf8)) = todo.pop() {
        let entries = match std::fs::read_dir(&dir) {
            // The folder was removed while the listing ran.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !base.is_empty() => continue,
            Err(e)
                if base.is_empty()
                    && matches!(
                        e.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) =>
            {
                let what = format!("file://{}: no such folder", folder.display());
                return Err(StorageError::new(StorageKind::NotFound, what));
            }
            // Not where it is what was asked for.
            Err(e)
                if e.kind() == std::io::ErrorKind::PermissionDenied
                    && !prefix.starts_with(&base) =>
            {
                if dir.file_name().is_none_or(|name| name != LOST_AND_FOUND) {
                    tracing::warn!(name = base, "this account may not list the folder");
                    found.push(unlisted(base))?;
                }
                continue;
            }
            entries => entries.map_err(|e| fault(e, &dir))?,
        };
        let mut is_logged = false;
        for entry in entries {
            let entry = entry.map_err(|e| fault(e, &dir))?;
            let (file_name, is_own_utf8) = text_of(&entry.file_name());
            let is_utf8 = is_utf8 && is_own_utf8;
            let name = format!("{base}{file_name}");
            let kind = match entry.file_type() {
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => None,
                kind => Some(kind.map_err(|e| fault(e, &dir))?),
            };
            if kind.is_some_and(|k| k.is_dir()) {
                let below = format!("{name}/");
                if below.starts_with(prefix) || prefix.starts_with(&below) {
                    todo.push((entry.path(), below, is_utf8));
                }
                continue;
            }
            if !name.starts_with(prefix) && !prefix.starts_with(&name) {
                continue;
            }
            let is_wanted = name.starts_with(prefix) && wanted(&name);
            match listed_as(folder, (&entry.path(), kind), prefix, is_utf8) {
                ListedAs::UnusableFolder => {
                    if let Some(place) = link_outside(&entry.path(), &name, prefix)? {
                        found.push(place)?;
                    }
                }
                ListedAs::Unusable(obstacle, created) if is_wanted => found.push(StoredObject {
                    created,
                    obstacle: Some(obstacle),
                    ..unlisted(name)
                })?,
                ListedAs::File if is_wanted => {
                    let crc_buf = checksums.then_some(buf.as_mut_slice());
                    match describe_listed(&entry.path(), &name, crc_buf) {
                        Ok(object) => found.push(object)?,
                        // The file was removed while the listing ran.
                        Err(e) if e.kind() == StorageKind::NotFound => {}
                        // The names in the folder may be read, and nothing else of it.
                        Err(e) if e.kind() == StorageKind::AccessDenied => {
                            if !std::mem::replace(&mut is_logged, true) {
                                tracing::warn!(
                                    name,
                                    "this account may not describe the files of the folder"
                                );
                            }
                            found.push(unlisted(name))?
                        }
                        Err(e) => return Err(e),
                    }
                }
                ListedAs::File | ListedAs::Unusable(..) | ListedAs::Nothing => {}
            }
        }
    }
    Ok(found)
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|e| {
        Err(StorageError::new(
            StorageKind::Internal,
            "the task that reads the folder panicked",
        )
        .with_source(e))
    })
}

impl BackupStore for LocalStore {
    fn list_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        let (folder, prefix) = (self.folder.clone(), prefix.to_owned());
        Box::pin(blocking(move || walk(&folder, &prefix, true, &*wanted)))
    }

    fn members_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        let (folder, prefix) = (self.folder.clone(), prefix.to_owned());
        Box::pin(blocking(move || walk(&folder, &prefix, false, &*wanted)))
    }

    fn newest_members<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
        most: usize,
    ) -> BoxFuture<'a, Result<NewestObjects, StorageError>> {
        let (folder, prefix) = (self.folder.clone(), prefix.to_owned());
        let listing = Listing::of_newest(&self.uri(&prefix), most);
        Box::pin(blocking(move || {
            let found = walk_into(listing, (&folder, &prefix), false, &*wanted)?;
            Ok(found.into_newest())
        }))
    }

    fn stat<'a>(
        &'a self,
        name: &'a str,
        generation: Option<Generation>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>> {
        let (folder, name) = (self.folder.clone(), name.to_owned());
        Box::pin(blocking(move || {
            let path = locate(&folder, &name)?;
            let object = describe(&path, name)?;
            match generation {
                Some(wanted) if wanted != object.generation => {
                    let what = format!("{}: generation {wanted} no longer exists", path.display());
                    Err(StorageError::new(StorageKind::NotFound, what))
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
    ) -> BoxFuture<'a, Result<ObjectBytes, StorageError>> {
        Box::pin(async move {
            let (folder, name) = (self.folder.clone(), object.name.clone());
            let opened = blocking(move || {
                let path = locate(&folder, &name)?;
                let mut file = open_file(&path)?;
                let from = std::io::SeekFrom::Start(offset);
                file.seek(from).map_err(|e| fault(e, &path))?;
                Ok((file, path))
            });
            let (file, path) = opened.await?;
            let mut file = tokio::fs::File::from_std(file);
            // Small files are many: evidence.
            let capacity = usize::try_from(object.size).map_or(CHUNK, |size| size.clamp(1, CHUNK));
            file.set_max_buf_size(capacity);
            let state = (file.take(length.unwrap_or(u64::MAX)), path, object.clone());
            let stream =
                futures::stream::try_unfold(state, move |(mut file, path, object)| async move {
                    let mut buf = bytes::BytesMut::with_capacity(capacity);
                    let read = file.read_buf(&mut buf).await.map_err(|e| fault(e, &path))?;
                    if read > 0 {
                        return Ok(Some((buf.freeze(), (file, path, object))));
                    }
                    let now = describe(&path, object.name.clone())?;
                    if (now.size, now.generation) != (object.size, object.generation) {
                        let what =
                            format!("{}: the file changed while it was read", path.display());
                        return Err(StorageError::new(StorageKind::Changed, what));
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
        let (root, name) = (self.folder.clone(), name.to_owned());
        Box::pin(blocking(move || {
            let (path, part) = locate_part(&root, &name)?;
            let written = std::fs::write(&part.0, &content)
                .and_then(|()| std::fs::File::open(&part.0)?.sync_all());
            written.map_err(|e| fault(e, &path))?;
            link(&part, &path, name)
        }))
    }

    fn create_of<'a>(
        &'a self,
        name: &'a str,
        mut body: ObjectBody,
        _content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        let (root, name) = (self.folder.clone(), name.to_owned());
        Box::pin(async move {
            let located = name.clone();
            let created = blocking(move || {
                let (path, part) = locate_part(&root, &located)?;
                let file = std::fs::File::create_new(&part.0).map_err(|e| fault(e, &path))?;
                Ok((path, part, file))
            });
            let (path, part, file) = created.await?;
            let mut file = tokio::fs::File::from_std(file);
            while let Some(bytes) = body.next().await {
                let bytes = bytes.map_err(|e| {
                    let path = path.display().to_string();
                    StorageError::new(StorageKind::Stopped, path).with_source(e)
                })?;
                file.write_all(&bytes).await.map_err(|e| fault(e, &path))?;
            }
            // Errors of a write may come with the next call.
            file.flush().await.map_err(|e| fault(e, &path))?;
            file.sync_all().await.map_err(|e| fault(e, &path))?;
            blocking(move || link(&part, &path, name)).await
        })
    }

    fn delete<'a>(&'a self, object: &'a StoredObject) -> BoxFuture<'a, Result<(), StorageError>> {
        let (folder, object) = (self.folder.clone(), object.clone());
        Box::pin(blocking(move || {
            // A link itself is deleted, not its target.
            locate(&folder, &object.name)?;
            let path = path_of(&folder, &object.name)?;
            let now = describe(&path, object.name.clone())?;
            if (now.size, now.generation) != (object.size, object.generation) {
                let what = format!("{}: the file has been replaced meanwhile", path.display());
                return Err(StorageError::new(StorageKind::Changed, what));
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

    /// Runs this test again as a user who may not read everything, if this one may. Returns whether it did.
    fn was_run_without_privileges(test: &str) -> bool {
        if !rustix::process::geteuid().is_root() {
            return false;
        }
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut again = std::process::Command::new("setpriv");
        again.args(nobody).arg(std::env::current_exe().unwrap());
        let again = again.args(["--exact", test, "--nocapture"]).output();
        let out = again.unwrap();
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
        true
    }

    /// One file or folder that cannot be read hides no other, and is itself in the listing.
    #[tokio::test]
    async fn what_cannot_be_read_does_not_fail_a_listing() {
        use std::os::unix::fs::PermissionsExt;
        let test = "store::local::tests::what_cannot_be_read_does_not_fail_a_listing";
        if was_run_without_privileges(test) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["lost+found", "names", "night"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["a.dump", "b.dump", "names/c.dump", "night/toc.dat"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("c.dump", folder.path().join("names/link")).unwrap();
        let forbid = |name: &str, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path().join(name), mode).unwrap();
        };
        forbid("b.dump", 0o000);
        forbid("lost+found", 0o000);
        // Files in it may be opened, but not listed; and the other way round.
        forbid("night", 0o311);
        forbid("names", 0o644);
        let before = jiff::Timestamp::now();
        let store = LocalStore::new(folder.path().to_owned());
        let (all, toc) = (
            store.list("").await,
            store.stat("night/toc.dat", None).await,
        );
        let mut inside = Vec::new();
        for prefix in ["night/", "night/toc"] {
            inside.push(store.members(prefix).await.map(|all| all.len()));
        }
        let of_documents = store.members_where("", |_| false).await;
        for name in ["lost+found", "night", "names"] {
            forbid(name, 0o700);
        }
        let (all, of_documents) = (all.unwrap(), of_documents.unwrap());
        let names: Vec<&str> = all.iter().map(|o| o.name.as_str()).collect();
        assert!(all[0].crc32c.is_some() && !all[0].is_unlisted && toc.is_ok());
        assert_eq!(
            names,
            ["a.dump", "b.dump", "names/c.dump", "names/link", "night/"]
        );
        assert_eq!(all[1].crc32c, None);
        let is_unlisted = [1, 2, 3, 4].map(|n| all[n].is_unlisted);
        assert_eq!(is_unlisted, [false, true, true, true]);
        // The time of a folder says nothing about files in it that are written in place.
        assert!([2, 3, 4].iter().all(|n| all[*n].created >= before));
        // Nothing is said to be in a folder that cannot be listed.
        for listed in inside {
            assert_eq!(listed.unwrap_err().kind(), StorageKind::AccessDenied);
        }
        let names: Vec<&str> = of_documents.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["night/"]);
    }

    /// Links that lead in a circle, and what is below a file, are no files, and are not asked for again.
    #[tokio::test]
    async fn what_leads_nowhere_does_not_exist() {
        let (_top, store) = hostile();
        for name in ["loop", "loop/x", "dangling", "a.dump/x"] {
            let e = store.stat(name, None).await.unwrap_err();
            assert_eq!(e.kind(), StorageKind::NotFound, "{name}");
        }
        // Nothing can be created there either.
        for name in ["a.dump/x", "a.dump/b/x"] {
            let made = store.create(name, Bytes::from_static(b"x"), "text/plain");
            assert_eq!(
                made.await.unwrap_err().kind(),
                StorageKind::NotFound,
                "{name}"
            );
        }
        let made = store.create("loop", Bytes::from_static(b"x"), "text/plain");
        assert_eq!(made.await.unwrap(), None);
    }

    /// Another process adds and removes files at the same time.
    #[test]
    fn files_that_vanish_during_a_listing_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("stays"), "here").unwrap();
        let (path, done) = (
            folder.path().to_owned(),
            std::sync::atomic::AtomicBool::new(false),
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let sub = path.join("sub");
                    std::fs::create_dir(&sub).unwrap();
                    (0..20).for_each(|i| std::fs::write(sub.join(i.to_string()), "x").unwrap());
                    std::fs::remove_dir_all(&sub).unwrap();
                }
            });
            let listed: Vec<_> = (0..300).map(|_| walk(&path, "", true, |_| true)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            for found in listed {
                assert!(found.unwrap().iter().any(|o| o.name == "stays"));
            }
        });
    }

    /// A folder that an attacker may write to.
    fn hostile() -> (tempfile::TempDir, LocalStore) {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("backups");
        std::fs::create_dir_all(folder.join("dir")).unwrap();
        std::fs::create_dir(top.path().join("elsewhere")).unwrap();
        std::fs::write(top.path().join("elsewhere/secret"), "secret").unwrap();
        std::fs::write(folder.join("a.dump"), "a").unwrap();
        let link =
            |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
        link("a.dump", "inside");
        link("../elsewhere/secret", "out");
        link("/etc/passwd", "absolute");
        link("../elsewhere", "dir-out");
        link("out", "dir/twice");
        link("../a.dump", "dir/above");
        link("..", "dir/up");
        link("loop", "loop");
        link("nothing", "dangling");
        let fifo = std::process::Command::new("mkfifo")
            .arg(folder.join("fifo"))
            .status();
        assert!(fifo.unwrap().success());
        std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
        (top, LocalStore::new(folder))
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_is_accessible() {
        let (top, store) = hostile();
        let listed = store.list("").await.unwrap();
        let usable = listed.iter().filter(|o| !o.is_unlisted);
        let names: Vec<_> = usable.map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["a.dump", "inside"]);
        let absolute = top.path().join("elsewhere/secret");
        for name in [
            "out",
            "absolute",
            "dir-out/secret",
            "dir/twice",
            "dir/above",
            "dir/up/../../elsewhere/secret",
            "../elsewhere/secret",
            absolute.to_str().unwrap(),
            "dir/../../elsewhere/secret",
            "./../elsewhere/secret",
            "loop",
            "dangling",
            "fifo",
            "socket",
            "dir",
        ] {
            let object = StoredObject {
                name: name.into(),
                ..listed[0].clone()
            };
            assert!(store.stat(name, None).await.is_err(), "{name}");
            assert!(store.read(&object, 0, None).await.is_err(), "{name}");
            assert!(store.delete(&object).await.is_err(), "{name}");
        }
        for name in [
            "dir-out/new",
            "../new",
            "dir-out/sub/new",
            top.path().join("new").to_str().unwrap(),
        ] {
            let made = store
                .create(name, Bytes::from_static(b"x"), "text/plain")
                .await;
            assert_eq!(
                made.unwrap_err().kind(),
                StorageKind::OutsideFolder,
                "{name}"
            );
        }
        let left: Vec<_> = std::fs::read_dir(top.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert_eq!(
            std::fs::read_dir(top.path().join("elsewhere"))
                .unwrap()
                .count(),
            1
        );
    }

    /// What may be the newest backup is not left out of a listing because it cannot be used.
    #[tokio::test]
    async fn links_that_lead_outside_are_listed_by_name() {
        let (top, store) = hostile();
        let link =
            |to: &str, name: &str| std::os::unix::fs::symlink(to, store.folder.join(name)).unwrap();
        // Of a file system that is not mounted now.
        link("../unmounted/b.dump", "gone");
        link("../../a.dump", "dir/deep");
        std::fs::create_dir(store.folder.join("dir/sub")).unwrap();
        link("../../a.dump", "dir/sub/above");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        let secret = std::fs::File::options()
            .write(true)
            .open(top.path().join("elsewhere/secret"));
        secret.unwrap().set_modified(old).unwrap();
        let unusable = async |prefix: &str| {
            let listed = store.list(prefix).await.unwrap().into_iter();
            listed.filter(|o| o.is_unlisted).collect::<Vec<_>>()
        };
        let all = unusable("").await;
        let names: Vec<&str> = all.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["absolute", "dir-out/", "dir/deep", "gone", "out"]);
        let outside = Some(Obstacle::LeadsOutside);
        assert!(all.iter().all(|o| o.obstacle == outside), "{all:?}");
        // The time of a file is known; a folder may have anything in it.
        let age = |n: usize| jiff::Timestamp::now().duration_since(all[n].created);
        let hour = jiff::SignedDuration::from_secs(3600);
        assert!(age(4) >= hour && age(1) < hour && age(3) < hour);
        // What is listed under its own name where the listing looks is no loss.
        let names: Vec<String> = unusable("dir/").await.into_iter().map(|o| o.name).collect();
        assert_eq!(names, ["dir/above", "dir/deep", "dir/sub/above"]);
        let e = store.list("dir-out/x").await.unwrap_err();
        assert_eq!(e.kind(), StorageKind::OutsideFolder);
    }

    #[tokio::test]
    async fn names_that_are_not_utf8_are_listed_as_far_as_they_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(path(b"caf\xe9")).unwrap();
        for name in [&b"a.dump"[..], b"b-\xff\xfe.dump", b"caf\xe9/c.dump"] {
            std::fs::write(path(name), "PGDMP").unwrap();
        }
        std::os::unix::fs::symlink("a.dump", path(b"l\xe9")).unwrap();
        let store = LocalStore::new(folder.path().to_owned());
        let created = store.stat("a.dump", None).await.unwrap().created;
        for prefix in ["", "b", "caf"] {
            let all = store.list(prefix).await.unwrap();
            let unusable = all.iter().filter(|o| o.is_unlisted);
            let names: Vec<&str> = unusable.map(|o| o.name.as_str()).collect();
            let wanted = ["b-\\xFF\\xFE.dump", "caf\\xE9/c.dump", "l\\xE9"];
            let wanted = wanted.into_iter().filter(|n| n.starts_with(prefix));
            assert_eq!(names, wanted.collect::<Vec<_>>());
        }
        let all = store.list("").await.unwrap();
        assert_eq!((all[0].name.as_str(), all[0].obstacle), ("a.dump", None));
        let obstacle = Some(Obstacle::NotUtf8);
        assert!(all[1..].iter().all(|o| o.obstacle == obstacle), "{all:?}");
        assert_eq!(all[3].created, created, "the time of what it leads to");
        // Nothing has these names.
        for o in &all[1..] {
            let e = store.stat(&o.name, None).await.unwrap_err();
            assert_eq!(e.kind(), StorageKind::NotFound, "{}", o.name);
        }
        let unwanted = store.members_where("", |_| false).await.unwrap();
        assert!(unwanted.is_empty(), "{unwanted:?}");
    }

    #[tokio::test]
    async fn links_inside_are_files_and_the_folder_may_be_a_link() {
        let (top, store) = hostile();
        std::os::unix::fs::symlink(&store.folder, top.path().join("link")).unwrap();
        let store = LocalStore::new(top.path().join("link"));
        for name in ["a.dump", "inside", "dir/up/a.dump"] {
            let object = store.stat(name, None).await.unwrap();
            let bytes = super::super::read_small(&store, &object, 10).await.unwrap();
            assert_eq!(bytes, b"a", "{name}");
        }
        assert!(
            store
                .create("new/b", Bytes::from_static(b"b"), "text/plain")
                .await
                .unwrap()
                .is_some()
        );
        let link = store.stat("inside", None).await.unwrap();
        store.delete(&link).await.unwrap();
        assert!(
            store.stat("a.dump", None).await.is_ok() && store.stat("inside", None).await.is_err()
        );
    }

    #[tokio::test]
    async fn a_file_that_is_written_appears_when_it_is_complete() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().to_owned());
        let files = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        let create = async |name: &str, is_finished: bool| {
            let stall = std::time::Duration::from_secs(60);
            let (mut writer, body) = crate::store::object_body(stall);
            let written = tokio::task::spawn_blocking(move || {
                writer.write_all(b"rows").unwrap();
                if is_finished {
                    writer.finish().unwrap();
                }
            });
            let created = store.create_of(name, body, "").await;
            written.await.unwrap();
            created
        };
        let e = create("x", false).await.unwrap_err();
        assert_eq!(e.kind(), StorageKind::Stopped);
        assert!(files().is_empty(), "{:?}", files());
        let made = create("x", true).await.unwrap().unwrap();
        assert_eq!((made.name.as_str(), made.size), ("x", 4));
        assert_eq!(create("x", true).await.unwrap(), None, "it exists");
        assert_eq!(files(), ["x"]);
    }
}
