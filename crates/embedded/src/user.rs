//! The user that the children run as.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

use anyhow::{Context as _, bail};

/// A user other than root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

/// The users of the children if this process is root, the preferred one first.
const OF_CHILDREN: [&str; 2] = ["postgres", "nobody"];

/// Returns the id of the user of this process.
pub(crate) fn own_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl User {
    /// Returns `postgres`, or `nobody` if there is no `postgres`; `None` if this process does not
    /// run as root and the children run as its own user.
    pub(crate) fn for_children() -> anyhow::Result<Option<User>> {
        if own_id() != 0 {
            return Ok(None);
        }
        let passwd = passwd()?;
        OF_CHILDREN
            .into_iter()
            .find_map(|name| find(&passwd, name))
            .map(Some)
            .context("started as root, but neither the user postgres nor nobody exists to run Postgres; start Tagtrail as another user")
    }

    /// Returns the ids of the users who may own entries of a data folder: this process, and under
    /// root also the children.
    pub(crate) fn may_own() -> anyhow::Result<Vec<u32>> {
        let mut ids = vec![own_id()];
        if own_id() == 0 {
            let passwd = passwd()?;
            let users = OF_CHILDREN
                .into_iter()
                .filter_map(|name| find(&passwd, name));
            ids.extend(users.map(|user| user.uid));
        }
        Ok(ids)
    }

    /// Returns the user with this name.
    pub(crate) fn named(name: &str) -> anyhow::Result<User> {
        find(&passwd()?, name).with_context(|| format!("there is no user {name:?} in /etc/passwd"))
    }

    /// Returns the name of a user, or else the number, for an error text.
    pub(crate) fn name_of(id: u32) -> String {
        let passwd = passwd().unwrap_or_default();
        let named = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
        });
        named.unwrap_or_else(|| id.to_string())
    }

    /// Makes this user the owner of a file that this process made.
    pub(crate) fn own(&self, path: &Path) -> anyhow::Result<()> {
        lchown(path, Some(self.uid), Some(self.gid)).with_context(|| self.cannot_own(path))
    }

    /// Makes this user the owner of a folder and of all its content. Follows no link.
    pub(crate) fn own_all(&self, path: &Path) -> anyhow::Result<()> {
        let status = std::process::Command::new("chown")
            .args(["-R", "-h", "--"])
            .arg(format!("{}:{}", self.uid, self.gid))
            .arg(path)
            .status()
            .context("can't run chown")?;
        if !status.success() {
            bail!(self.cannot_own(path));
        }
        Ok(())
    }

    fn cannot_own(&self, path: &Path) -> String {
        format!(
            "can't make the user {1} the owner of {0}",
            path.display(),
            self.name
        )
    }

    /// Fails unless this user can reach the folder.
    pub(crate) fn check_reach(&self, folder: &Path) -> anyhow::Result<()> {
        for ancestor in folder
            .ancestors()
            .skip(1)
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
        {
            let metadata = std::fs::metadata(ancestor)
                .with_context(|| format!("can't read the metadata of {}", ancestor.display()))?;
            let mode = metadata.permissions().mode();
            let open = mode & 0o001 != 0
                || (metadata.uid() == self.uid && mode & 0o100 != 0)
                || (metadata.gid() == self.gid && mode & 0o010 != 0);
            if !open {
                bail!(
                    "the user {}, who runs Postgres and nats-server, can't pass {} to reach {}: choose another folder with --data, such as --data /var/lib/tagtrail, or start as another user",
                    self.name,
                    ancestor.display(),
                    folder.display()
                );
            }
        }
        Ok(())
    }
}

fn passwd() -> anyhow::Result<String> {
    std::fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")
}

/// Finds a user by name in the text of `/etc/passwd`.
fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, _, home, ..] = fields.as_slice() else {
            return None;
        };
        (*found == name).then_some(())?;
        Some(User {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: (*home).to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:x:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(
            find(passwd, "postgres"),
            Some(User {
                name: "postgres".to_owned(),
                uid: 101,
                gid: 104,
                home: "/var/lib/postgresql".to_owned(),
            })
        );
        assert_eq!(find(passwd, "post"), None);
    }
}
