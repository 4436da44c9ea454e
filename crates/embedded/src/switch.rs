//! The change from root to another user, before anything is started.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::Folder;
use crate::user::{User, own_id};

/// Goes on as the user with this name. If this process runs as root, the user becomes the owner of
/// the data folder, and this program is started again in the place of this process, with the same
/// arguments; then the function does not return. So no process of root is left.
///
/// # Errors
/// The user does not exist, is root, cannot reach the data folder or may not own it, or this
/// process runs as a third user.
pub fn become_user(name: &str, data: &Path) -> anyhow::Result<()> {
    let user = User::named(name)?;
    if user.uid == 0 {
        bail!("--user {name} is root: name a user without rights, such as --user tagtrail");
    }
    if user.uid == own_id() {
        return Ok(());
    }
    if own_id() != 0 {
        bail!("only root can start as another user: leave out --user {name}, or start as root");
    }
    give(data, &user)?;
    let program = std::env::current_exe().context("can't find this program")?;
    let failed = Command::new("setpriv")
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .arg("--init-groups")
        .arg("--")
        .arg(&program)
        .args(std::env::args_os().skip(1))
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .env("LOGNAME", &user.name)
        .exec();
    Err(failed).with_context(|| format!("can't run {} as the user {name}", program.display()))
}

/// Returns whether this process runs as root.
#[must_use]
pub fn runs_as_root() -> bool {
    own_id() == 0
}

/// Makes the user the owner of a data folder that is missing, empty or of root.
fn give(data: &Path, user: &User) -> anyhow::Result<()> {
    if data
        .symlink_metadata()
        .is_ok_and(|found| found.uid() == user.uid)
    {
        return Ok(());
    }
    // Refuses a folder of somebody else, and one that a running `tagtrail up` uses.
    let folder = Folder::open(data)?;
    user.check_reach(folder.path())?;
    user.own_all(folder.path())
}
