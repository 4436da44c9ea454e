//! The user that runs a program.

use super::protocol::Ids;

/// A user as in `/etc/passwd`, with the groups of `/etc/group`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) home: String,
    pub(super) ids: Ids,
}

impl User {
    /// Returns the user with this name.
    pub(super) fn named(name: &str) -> Result<User, String> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|error| format!("can't read {path}: {error}"))
        };
        User::find(name, &read("/etc/passwd")?, &read("/etc/group")?)
            .ok_or_else(|| format!("/etc/passwd has no user {name:?}"))
    }

    fn find(name: &str, passwd: &str, group: &str) -> Option<User> {
        let fields = |line: &str| -> Vec<String> { line.split(':').map(str::to_owned).collect() };
        let user = passwd.lines().map(fields).find(|user| user[0] == name)?;
        let gid: u32 = user.get(3)?.parse().ok()?;
        let of_user = |group: Vec<String>| {
            let members = group.get(3)?;
            members.split(',').find(|member| member.trim() == name)?;
            group.get(2)?.parse().ok()
        };
        let mut groups: Vec<u32> = group.lines().map(fields).filter_map(of_user).collect();
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        Some(User {
            home: user.get(5)?.clone(),
            ids: Ids {
                uid: user.get(2)?.parse().ok()?,
                gid,
                groups,
            },
        })
    }
}

/// Returns whether this process may start programs as other users.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_all_groups_that_name_it() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\ndeploy:x:1007:1008::/srv/deploy:/bin/sh\n";
        let group =
            "root:x:0:\ndocker:x:999:ops, deploy\ndeploy:x:1008:\nother:x:5:deployer\nshort:x\n";
        let user = User::find("deploy", passwd, group).unwrap();
        assert_eq!(user.home, "/srv/deploy");
        let ids = Ids {
            uid: 1007,
            gid: 1008,
            groups: vec![999, 1008],
        };
        assert_eq!(user.ids, ids);
        assert_eq!(User::find("nobody", passwd, group), None);
        assert_eq!(User::find("broken", passwd, group), None);
        assert_eq!(User::named("root").unwrap().ids.uid, 0);
        let missing = User::named("surely-no-user").unwrap_err();
        assert_eq!(missing, "/etc/passwd has no user \"surely-no-user\"");
    }
}
