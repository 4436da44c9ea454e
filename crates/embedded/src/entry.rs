//! Files and folders inside the data folder. No function here follows a symbolic link.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::OFlags;

/// Opens a regular file. A new file is readable by its owner alone.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> anyhow::Result<File> {
    let file = options
        .mode(0o600)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
        .open(path)
        .with_context(|| format!("can't open {}", path.display()))?;
    if !file.metadata()?.is_file() {
        bail!("{} is no regular file", path.display());
    }
    Ok(file)
}

/// Reads a small file; `None` if it does not exist.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    /// Passwords, ports, versions and the statements of the accounts are shorter.
    const LONGEST: u64 = 64 * 1024;
    if let Err(error) = path.symlink_metadata()
        && error.kind() == ErrorKind::NotFound
    {
        return Ok(None);
    }
    let mut text = String::new();
    open(File::options().read(true), path)?
        .take(LONGEST)
        .read_to_string(&mut text)
        .with_context(|| format!("can't read {}", path.display()))?;
    Ok(Some(text))
}

/// Opens a folder. Returns the handle and the id of the folder's owner.
pub(crate) fn open_folder(path: &Path) -> anyhow::Result<(File, u32)> {
    let handle = File::options()
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::DIRECTORY))
        .open(path)
        .with_context(|| format!("can't open the folder {}", path.display()))?;
    let owner = handle.metadata()?.uid();
    Ok((handle, owner))
}

/// Writes the whole file or nothing. No other user can read it at any time.
///
/// # Errors
/// The folder cannot be written, such as on a full disk.
pub fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        let _ = std::fs::remove_file(&new);
        let mut file = File::options()
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

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}
