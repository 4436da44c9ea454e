//! The data folder: one process owns it; nobody else reads it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::user::User;

/// A data folder that this process holds until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    user: Option<User>,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, and takes it.
    ///
    /// # Errors
    /// If another process has it, or the user that Postgres has to run as can't reach it.
    pub fn open(path: &Path) -> anyhow::Result<Folder> {
        let user = User::for_children()?;
        std::fs::create_dir_all(path)
            .with_context(|| format!("can't make the data folder {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("can't find the data folder {}", path.display()))?;
        if let Some(user) = &user {
            user.check_reach(&path)?;
        }
        // Others may pass (as root the children are others), but neither list nor read.
        let mode = if user.is_some() { 0o711 } else { 0o700 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).with_context(|| {
            format!(
                "can't set the mode of {}: it belongs to another user",
                path.display()
            )
        })?;
        let lock = take(&path)?;
        Ok(Folder {
            path,
            user,
            _lock: lock,
        })
    }

    /// Where it is, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its disk has room for what servers make in one piece, such as a segment of Postgres's log.
    pub(crate) async fn has_room(&self) -> bool {
        const ENOUGH_KIB: u64 = 64 * 1024;
        // The standard library can't ask for it.
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

    /// A folder in it that belongs to the children's user.
    pub(crate) fn child_folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("can't make {}", path.display()))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))
            .with_context(|| format!("can't set the mode of {}", path.display()))?;
        let owner = std::fs::metadata(&path)?.uid();
        if let Some(user) = self.user.as_ref().filter(|user| user.uid != owner) {
            // Also what an earlier start as another user has left in it.
            let status = std::process::Command::new("chown")
                .arg("-R")
                .arg(format!("{}:{}", user.uid, user.gid))
                .arg(&path)
                .status()
                .context("can't run chown")?;
            if !status.success() {
                bail!("can't give {} to the user {}", path.display(), user.name);
            }
        }
        Ok(path)
    }

    /// A file in it that only the children's user can read.
    pub(crate) fn child_file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        write_private(&path, content)?;
        if let Some(user) = &self.user {
            chown(&path, Some(user.uid), Some(user.gid)).with_context(|| {
                format!("can't give {} to the user {}", path.display(), user.name)
            })?;
        }
        Ok(path)
    }

    /// The password of a child: made once, kept in the folder.
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

    /// The port of a child on 127.0.0.1: the same as last time if it is still free, so that addresses handed out stay right.
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

fn take(folder: &Path) -> anyhow::Result<File> {
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
                "the data folder {} is in use by process {}: stop that one, or choose another with --data",
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

/// Whole or not at all, and never readable by others, not even for a moment.
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
        // The name too: what is found after a power cut must be this file or the one before.
        path.parent()
            .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().with_context(|| format!("can't write {}", path.display()))
}
