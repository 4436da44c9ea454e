//! The data folder, with one owning process and no other reader.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::user::User;

/// A data folder, locked until this value is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    user: Option<User>,
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, and locks it.
    ///
    /// # Errors
    /// Another process holds the lock, or the user of the children cannot reach the folder.
    pub fn open(path: &Path) -> anyhow::Result<Folder> {
        let user = User::for_children()?;
        std::fs::create_dir_all(path)
            .with_context(|| format!("can't create the data folder {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("can't find the data folder {}", path.display()))?;
        if let Some(user) = &user {
            user.check_reach(&path)?;
        }
        // Other users may neither list nor read. If this process is root, the children are other
        // users and must be able to pass.
        let mode = if user.is_some() { 0o711 } else { 0o700 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).with_context(|| {
            format!(
                "can't set the mode of {}: it belongs to another user",
                path.display()
            )
        })?;
        let lock = lock(&path)?;
        Ok(Folder {
            path,
            user,
            _lock: lock,
        })
    }

    /// Returns the absolute path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the disk has room for the largest file that a child creates at once, such as
    /// a WAL segment of Postgres.
    pub(crate) async fn has_room(&self) -> bool {
        const ENOUGH_KIB: u64 = 64 * 1024;
        // The standard library has no call for free space.
        let asked = tokio::process::Command::new("df")
            .args(["-k", "--output=avail"])
            .arg(&self.path)
            .output();
        let Ok(Ok(done)) = tokio::time::timeout(Duration::from_secs(5), asked).await else {
            return false;
        };
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        said.lines()
            .nth(1)
            .and_then(|line| line.trim().parse::<u64>().ok())
            .is_some_and(|available| available >= ENOUGH_KIB)
    }

    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Creates a subfolder that belongs to the user of the children.
    pub(crate) fn child_folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("can't create {}", path.display()))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))
            .with_context(|| format!("can't set the mode of {}", path.display()))?;
        let owner = std::fs::metadata(&path)?.uid();
        if let Some(user) = self.user.as_ref().filter(|user| user.uid != owner) {
            // Includes files that an earlier start as another user has left.
            let status = std::process::Command::new("chown")
                .arg("-R")
                .arg(format!("{}:{}", user.uid, user.gid))
                .arg(&path)
                .status()
                .context("can't run chown")?;
            if !status.success() {
                bail!(
                    "can't make the user {1} the owner of {0}",
                    path.display(),
                    user.name
                );
            }
        }
        Ok(path)
    }

    /// Writes a file that only the user of the children can read.
    pub(crate) fn child_file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        write_private(&path, content)?;
        if let Some(user) = &self.user {
            chown(&path, Some(user.uid), Some(user.gid)).with_context(|| {
                format!(
                    "can't make the user {1} the owner of {0}",
                    path.display(),
                    user.name
                )
            })?;
        }
        Ok(path)
    }

    /// Returns the password of a child, created once and kept in the folder.
    pub(crate) fn password(&self, child: &str) -> anyhow::Result<String> {
        let path = self.path.join(format!("{child}.password"));
        match std::fs::read_to_string(&path) {
            Ok(password) if !password.is_empty() => Ok(password),
            _ => {
                let mut random = [0_u8; 32];
                File::open("/dev/urandom")
                    .and_then(|mut source| source.read_exact(&mut random))
                    .context("can't read /dev/urandom")?;
                let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
                write_private(&path, &password)?;
                Ok(password)
            }
        }
    }

    /// Returns a port of 127.0.0.1 for a child: the same as before if it is free, so that known
    /// URLs stay valid.
    pub(crate) fn port(&self, child: &str) -> anyhow::Result<u16> {
        let path = self.path.join(format!("{child}.port"));
        let last = std::fs::read_to_string(&path)
            .ok()
            .and_then(|port| port.trim().parse().ok())
            .unwrap_or(0);
        let free = |port: u16| {
            TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr())
        };
        let port = free(last)
            .or_else(|_| free(0))
            .context("no free port on 127.0.0.1")?
            .port();
        write_private(&path, &port.to_string())?;
        Ok(port)
    }
}

/// Locks the folder for this process.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("can't open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            bail!(
                "the data folder {} is in use by process {}: stop that process, or choose another folder with --data",
                folder.display(),
                holder.trim()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("can't lock {}", path.display()));
        }
    }
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

/// Writes the whole file or nothing. No other user can read it at any time.
fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        // Syncs the folder too: after a power cut the name must lead to the new or the old file.
        path.parent()
            .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().with_context(|| format!("can't write {}", path.display()))
}
