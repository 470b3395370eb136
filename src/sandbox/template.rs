//! Template clusters: `initdb` runs once per server and user, and every sandbox is a copy.

use std::io::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::commands::{plain_command, restrict_to_owner, run};

/// A cluster that has never been started.
pub(super) struct Template(PathBuf);

/// The template for the server in `bindir`, created if necessary. It is in `parent`, like the sandboxes.
pub(super) fn get(bindir: &Path, parent: &Path, user: Option<(u32, u32)>) -> Result<Template> {
    let program = std::fs::metadata(bindir.join("postgres"))?;
    let me = std::fs::metadata("/proc/self")?.uid();
    let uid = user.map_or(me, |u| u.0);
    // Another build of the server needs another template, and so does another way to make it.
    let key = format!(
        "{}:{}:{}:without maps",
        bindir.display(),
        program.mtime(),
        program.size()
    );
    let key = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, key.as_bytes())
        .simple()
        .to_string();
    let folder = parent.join(format!("pgrestored-template-{}-{uid}", &key[..16]));
    if let Ok(there) = std::fs::metadata(&folder) {
        // In a world-writable folder, another user could plant a manipulated template.
        return if there.uid() == uid {
            Ok(Template(folder))
        } else {
            Err(Error::other(format!(
                "{}: the template belongs to another user: remove it",
                folder.display()
            )))
        };
    }
    let name = format!("pgrestored-making-{}", uuid::Uuid::new_v4().simple());
    // In the temporary folder, because the server's user may not be able to enter `parent`.
    let new_cluster = std::env::temp_dir().join(&name);
    std::fs::create_dir(&new_cluster)?;
    let created = restrict_to_owner(&new_cluster, user)
        .and_then(|()| initdb(bindir, &new_cluster, user))
        .and_then(|()| remove_maps(&new_cluster));
    let placed = created.and_then(|()| place(&new_cluster, &parent.join(&name), &folder));
    let _ = std::fs::remove_dir_all(&new_cluster);
    let _ = std::fs::remove_dir_all(parent.join(&name));
    placed.map(|()| Template(folder))
}

/// Moves a new template to its final folder, through `near` if that is on another file system. If another process
/// was faster, its template is used.
fn place(created: &Path, near: &Path, folder: &Path) -> Result<()> {
    let moved = std::fs::rename(created, folder).or_else(|e| match e.kind() {
        std::io::ErrorKind::CrossesDevices => {
            run(Command::new("cp").args(["-a", "-T"]).arg(created).arg(near))?;
            std::fs::rename(near, folder)
        }
        _ => Err(e),
    });
    match moved {
        Err(_) if folder.is_dir() => Ok(()),
        other => other,
    }
}

fn initdb(bindir: &Path, folder: &Path, user: Option<(u32, u32)>) -> Result<()> {
    let mut initdb = plain_command(bindir, "initdb", user);
    initdb.args([
        "--no-sync",
        "--auth=trust",
        "--username=postgres",
        "--encoding=UTF8",
    ]);
    initdb
        .args(["--locale=C.UTF-8", "--wal-segsize=4", "--pgdata"])
        .arg(folder)
        .current_dir("/");
    run(&mut initdb).map(drop)
}

/// Removes the free space and visibility maps of the catalogs, a quarter of all files: each is copied with every cluster and
/// every database, and a server makes again what it needs of them.
fn remove_maps(folder: &Path) -> Result<()> {
    let databases = std::fs::read_dir(folder.join("base"))?;
    let databases = databases.map(|entry| entry.map(|e| e.path()));
    for place in databases.chain([Ok(folder.join("global"))]) {
        for entry in std::fs::read_dir(place?)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.ends_with(b"_fsm") || name.ends_with(b"_vm") {
                std::fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

impl Template {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Copies the template into `folder`, which must not exist yet. Databases are copied concurrently, because
    /// creating the files takes longer than filling them.
    pub fn copy_to(&self, folder: &Path) -> Result<()> {
        let copy = |args: &[&std::ffi::OsStr]| {
            run(Command::new("cp").args(["-a", "--reflink=auto"]).args(args)).map(drop)
        };
        let (mut databases, mut others) = (vec![], vec![]);
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_name() == "base" {
                databases.extend(std::fs::read_dir(entry.path())?.flatten().map(|e| e.path()))
            } else {
                others.push(entry.path())
            }
        }
        std::fs::create_dir_all(folder.join("base"))?;
        std::thread::scope(|s| {
            let mut running = vec![];
            for database in databases {
                let to = folder.join("base");
                running.push(s.spawn(move || copy(&[database.as_os_str(), to.as_os_str()])));
            }
            let mut args: Vec<&std::ffi::OsStr> = others.iter().map(|p| p.as_os_str()).collect();
            args.push(folder.as_os_str());
            copy(&args)?;
            running.into_iter().try_for_each(|r| {
                r.join().unwrap_or_else(|_| {
                    Err(Error::other("the thread that copies a template panicked"))
                })
            })
        })
    }
}
