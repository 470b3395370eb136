//! Locations that contain backups.

use std::path::PathBuf;

/// A bucket or folder that contains backups.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A bucket; `prefix` is empty or ends with `/`.
    Bucket {
        bucket: String,
        prefix: String,
    },
    Folder(PathBuf),
}

impl Location {
    /// Parses a bucket name, `gs://bucket/prefix` or `file:///folder`.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(Location::Folder(PathBuf::from(path)))
            } else {
                Err("file:// must be followed by an absolute path".into())
            };
        }
        let path = text.strip_prefix("gs://").unwrap_or(text);
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let valid =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if !(3..=222).contains(&bucket.len()) || !bucket.bytes().all(valid) {
            return Err("must be a bucket name, gs://bucket/prefix or file:///folder".into());
        }
        let mut prefix = prefix.trim_start_matches('/').to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Location::Bucket {
            bucket: bucket.to_owned(),
            prefix,
        })
    }

    /// Splits the URI of one backup into its location and its name there.
    ///
    /// # Errors
    /// What is wrong with the URI, without repeating it.
    pub fn of_backup(uri: &str) -> Result<(Self, String), String> {
        if let Some(path) = uri.strip_prefix("file://") {
            // The name of a directory dump ends with a slash.
            let (path, slash) = path.strip_suffix('/').map_or((path, ""), |p| (p, "/"));
            let name = |name: &str| format!("{name}{slash}");
            return match path.rsplit_once('/').filter(|(_, name)| !name.is_empty()) {
                Some(("", last)) => Ok((Location::Folder("/".into()), name(last))),
                Some((folder, last)) if folder.starts_with('/') => {
                    Ok((Location::Folder(folder.into()), name(last)))
                }
                _ => Err("file:// must be followed by the absolute path of a file".into()),
            };
        }
        let path = uri
            .strip_prefix("gs://")
            .ok_or("must be a gs:// or file:// URI")?;
        match path.split_once('/').filter(|(_, name)| !name.is_empty()) {
            Some((bucket, name)) => {
                let Location::Bucket { bucket, .. } = Location::parse(bucket)? else {
                    return Err("must be a gs:// URI".into());
                };
                Ok((
                    Location::Bucket {
                        bucket,
                        prefix: String::new(),
                    },
                    name.to_owned(),
                ))
            }
            None => Err("must be gs://bucket/object".into()),
        }
    }

    /// Whether the backup `name` at `place` is inside this location.
    pub fn contains(&self, place: &Location, name: &str) -> bool {
        match (self, place) {
            (
                Location::Bucket { bucket, prefix },
                Location::Bucket {
                    bucket: b,
                    prefix: p,
                },
            ) => bucket == b && format!("{p}{name}").starts_with(prefix),
            (Location::Folder(folder), Location::Folder(f)) => {
                let path = f.join(name);
                path.starts_with(folder)
                    && !path
                        .components()
                        .any(|c| c == std::path::Component::ParentDir)
            }
            _ => false,
        }
    }

    /// The URI of the backup `name` at this location.
    pub fn uri(&self, name: &str) -> String {
        match self {
            Location::Bucket { bucket, prefix } => format!("gs://{bucket}/{prefix}{name}"),
            Location::Folder(folder) => format!("file://{}", folder.join(name).display()),
        }
    }
}
