//! A disk of the test's own with a power switch: a power cut loses all data that was not synced.
//!
//! The disk is a file system in a file, mounted by the loop device and shut down without a flush
//! (`xfs_io -x -c shutdown`, which ext4 obeys too). It models the loss of the page cache, but not
//! torn sectors or disks that lie about a flush.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::scratch::Scratch;

/// A mounted file system.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    _scratch: Scratch,
}

impl Disk {
    /// Creates and mounts a disk.
    ///
    /// # Errors
    /// The step that this machine or this user does not permit.
    pub fn new() -> Result<Disk, String> {
        let scratch = Scratch::new("disk");
        // Servers of another user must be able to pass.
        std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let disk = Disk {
            image: scratch.path().join("image"),
            mount: scratch.path().join("disk"),
            _scratch: scratch,
        };
        std::fs::create_dir(&disk.mount).unwrap();
        run(Command::new("truncate").args(["-s", "3G"]).arg(&disk.image))?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Returns the path of a folder on the disk.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Fills the disk to the last block.
    pub fn fill(&self) {
        for (size, name) in [
            ("256M", "large"),
            ("4M", "medium"),
            ("64K", "small"),
            ("4K", "tiny"),
        ] {
            for n in 0.. {
                let path = self.mount.join(format!("filler-{name}-{n}"));
                if run(Command::new("fallocate").args(["-l", size]).arg(path)).is_err() {
                    break;
                }
            }
        }
    }

    /// Removes the files of [`Disk::fill`].
    pub fn free(&self) {
        for entry in std::fs::read_dir(&self.mount).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("filler-") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Cuts the power: later writes never reach the disk. The test must end all users of the disk
    /// next.
    ///
    /// Unlike on a machine without power, a server lives on until then, and a sync that was under
    /// way may be reported to the server as done. So the answers of a server after this call prove
    /// nothing.
    pub fn cut(&self) {
        run(Command::new("xfs_io")
            .args(["-x", "-c", "shutdown"])
            .arg(&self.mount))
        .unwrap();
    }

    /// Waits until no process uses the disk, and mounts it again.
    pub async fn restore(&self) {
        crate::eventually("all processes to leave the disk", crate::SOON, async || {
            self.unmount().ok()
        })
        .await;
        self.mount().unwrap();
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mount))
    }

    fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.mount))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Servers need a moment to end.
        for _ in 0..50 {
            if self.unmount().is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount));
    }
}

/// Runs a program of the system; the error is the name of the program with its output.
fn run(command: &mut Command) -> Result<(), String> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let name = Path::new(command.get_program()).display().to_string();
    match command.env("PATH", path).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
