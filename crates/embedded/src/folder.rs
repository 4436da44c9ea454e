//! The data folder, with one owning process and no other reader.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::claim::claim;
use crate::entry;
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
    /// Another process holds the lock, the folder or an entry of it belongs to another user, the
    /// folder holds files that Tagtrail did not make, or the user of the children cannot reach the
    /// folder.
    pub fn open(path: &Path) -> anyhow::Result<Folder> {
        let user = User::for_children()?;
        let path = claim(path, user.as_ref())?;
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
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("can't create {}", path.display()));
            }
            _ => {}
        }
        let (handle, owner) = entry::open_folder(&path)?;
        handle
            .set_permissions(PermissionsExt::from_mode(0o700))
            .with_context(|| format!("can't set the mode of {}", path.display()))?;
        if let Some(user) = self.user.as_ref().filter(|user| user.uid != owner) {
            // Includes files that an earlier start as another user has left.
            user.own_all(&path)?;
        }
        Ok(path)
    }

    /// Writes a file that only the user of the children can read.
    pub(crate) fn child_file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        entry::write_private(&path, content)?;
        if let Some(user) = &self.user {
            user.own(&path)?;
        }
        Ok(path)
    }

    /// Writes a file that only the user of this process can read.
    pub(crate) fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        entry::write_private(&self.path.join(name), content)
    }

    /// Returns the password of a child, created once and kept in the folder.
    pub(crate) fn password(&self, child: &str) -> anyhow::Result<String> {
        let path = self.path.join(format!("{child}.password"));
        match entry::read(&path)? {
            Some(password) if !password.is_empty() => Ok(password),
            _ => {
                let mut random = [0_u8; 32];
                File::open("/dev/urandom")
                    .and_then(|mut source| source.read_exact(&mut random))
                    .context("can't read /dev/urandom")?;
                let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
                entry::write_private(&path, &password)?;
                Ok(password)
            }
        }
    }

    /// Returns the passwords of these accounts of a child, created once and kept in the folder.
    pub(crate) fn passwords(
        &self,
        child: &str,
        accounts: &[&'static str],
    ) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let password = |account: &&'static str| {
            let password = self.password(&format!("{child}.{account}"))?;
            Ok((*account, password))
        };
        accounts.iter().map(password).collect()
    }

    /// Returns a port of 127.0.0.1 for a child: the same as before if it is free, so that known
    /// URLs stay valid.
    pub(crate) fn port(&self, child: &str) -> anyhow::Result<u16> {
        let path = self.path.join(format!("{child}.port"));
        let last = entry::read(&path)?
            .and_then(|port| port.trim().parse().ok())
            .unwrap_or(0);
        let free = |port: u16| {
            TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr())
        };
        let port = free(last)
            .or_else(|_| free(0))
            .context("no free port on 127.0.0.1")?
            .port();
        entry::write_private(&path, &port.to_string())?;
        Ok(port)
    }
}

/// Attempts to lock a folder, and the pause between two. A program that is being started by the
/// last holder has the lock until its own code runs.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Locks the folder for this process.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let mut lock = entry::open(File::options().read(true).write(true).create(true), &path)?;
    let mut attempts = 1;
    let mut locked = lock.try_lock();
    while attempts < ATTEMPTS && matches!(locked, Err(TryLockError::WouldBlock)) {
        std::thread::sleep(PAUSE);
        attempts += 1;
        locked = lock.try_lock();
    }
    match locked {
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
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}
