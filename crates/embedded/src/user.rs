//! The user that the children run as.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};

/// A user other than root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// Returns `postgres`, or `nobody` if there is no `postgres`; `None` if this process does not
    /// run as root and the children run as its own user.
    pub(crate) fn for_children() -> anyhow::Result<Option<User>> {
        // The owner of `/proc/self` is the user of this process: without unsafe code or another
        // crate there is no other way to learn it.
        let own = std::fs::metadata("/proc/self")
            .context("can't read the user of this process: /proc is missing")?
            .uid();
        if own != 0 {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| find(&passwd, name))
            .map(Some)
            .context("started as root, but neither the user postgres nor nobody exists to run Postgres; start Tagtrail as another user")
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
                    "started as root, Postgres runs as the user {}, who can't pass {} to reach {}: choose another folder with --data, such as --data /var/lib/tagtrail, or start as another user",
                    self.name,
                    ancestor.display(),
                    folder.display()
                );
            }
        }
        Ok(())
    }
}

/// Finds a user by name in the text of `/etc/passwd`.
fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, ..] = fields.as_slice() else {
            return None;
        };
        (*found == name).then_some(())?;
        Some(User {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
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
                gid: 104
            })
        );
        assert_eq!(find(passwd, "post"), None);
    }
}
