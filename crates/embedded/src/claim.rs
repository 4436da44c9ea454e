//! The right to a data folder: only an empty folder, or one that Tagtrail made, becomes the data
//! folder. So `--data` with a wrong path can destroy nothing, and files that another user has
//! planted are not trusted.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::entry;
use crate::user::{User, own_id};

/// The file by which a data folder is known.
const MARKER: &str = "tagtrail.folder";
const MARKER_TEXT: &str = "This folder belongs to `tagtrail up`, which keeps its data here.\n";
/// The files by which a data folder of a release without markers is known.
const OLD_MARKERS: [&str; 2] = ["postgres.initialised", "lock"];

/// Creates the folder if it is missing, checks that it may be used, and closes it to other users.
/// Returns its absolute path.
pub(crate) fn claim(path: &Path, children: Option<&User>) -> anyhow::Result<PathBuf> {
    create(path)?;
    let path = path
        .canonicalize()
        .with_context(|| format!("can't find the data folder {}", path.display()))?;
    if let Some(user) = children {
        user.check_reach(&path)?;
    }
    let (handle, owner) = entry::open_folder(&path)?;
    if owner != own_id() {
        bail!(
            "the data folder {} belongs to another user ({}): start as that user, choose another folder with --data, or make this folder yours by `chown -R`",
            path.display(),
            User::name_of(owner)
        );
    }
    let known = is_known(&path);
    if !known && let Some(found) = first_entry(&path)? {
        bail!(
            "{} holds files that Tagtrail did not make, such as {found:?}: choose a new or an empty folder with --data",
            path.display()
        );
    }
    // Other users may neither list nor read. If this process is root, the children are other
    // users and must be able to pass.
    let mode = if children.is_some() { 0o711 } else { 0o700 };
    handle
        .set_permissions(PermissionsExt::from_mode(mode))
        .with_context(|| format!("can't set the mode of {}", path.display()))?;
    // From here on nobody else can add entries; those that are there are checked.
    check_entries(&path)?;
    if !path.join(MARKER).exists() {
        entry::write_private(&path.join(MARKER), MARKER_TEXT)?;
    }
    Ok(path)
}

/// Creates the folder. A symbolic link is followed only if root or this user made it.
fn create(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_symlink() && ![0, own_id()].contains(&found.uid()) => bail!(
            "{} is a symbolic link of another user ({}): name the folder itself with --data",
            path.display(),
            User::name_of(found.uid())
        ),
        Ok(_) => Ok(()),
        Err(_) => {
            let mut folders = std::fs::DirBuilder::new();
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("can't create {}", parent.display()))?;
            }
            folders
                .mode(0o700)
                .create(path)
                .with_context(|| format!("can't create the data folder {}", path.display()))
        }
    }
}

fn is_known(folder: &Path) -> bool {
    let is_file = |name: &&str| {
        let found = folder.join(name).symlink_metadata();
        found.is_ok_and(|found| found.is_file() && found.uid() == own_id())
    };
    is_file(&MARKER) || OLD_MARKERS.iter().all(is_file)
}

/// Returns the name of an entry; `None` if the folder is empty. `mkfs` makes `lost+found`.
fn first_entry(folder: &Path) -> anyhow::Result<Option<String>> {
    for entry in read(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "lost+found" {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn check_entries(folder: &Path) -> anyhow::Result<()> {
    let owners = User::may_own()?;
    for entry in read(folder)? {
        let path = entry?.path();
        let found = path
            .symlink_metadata()
            .with_context(|| format!("can't read the metadata of {}", path.display()))?;
        if found.is_symlink() {
            bail!(
                "{} is a symbolic link, which Tagtrail does not follow: remove it, or put the data in its place",
                path.display()
            );
        }
        if !owners.contains(&found.uid()) {
            bail!(
                "{} belongs to another user ({}): remove it, or make it yours by `chown -R`",
                path.display(),
                User::name_of(found.uid())
            );
        }
    }
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<std::fs::ReadDir> {
    std::fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))
}
