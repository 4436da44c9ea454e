//! The repository of the triggers with a target `git`, and the checks of its history.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// During the storm the server refuses, hangs, and takes commits of others between a fetch and a
/// push.
const HOOK: &str = r#"#!/bin/sh
[ -e "$PWD/../notes/calm" ] && exit 0
case $(( $$ % 6 )) in
    0) exit 1 ;;
    1) sleep 4 ;;
    2)
        # The objects of the push are not of the repository yet.
        unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
        export GIT_AUTHOR_NAME=p GIT_AUTHOR_EMAIL=p@x GIT_COMMITTER_NAME=p GIT_COMMITTER_EMAIL=p@x
        new=$(echo by hand | git commit-tree -p main 'main^{tree}')
        git update-ref refs/heads/main "$new" main && echo "$new" >>by-hand
        ;;
esac
exit 0
"#;

/// Returns whether the storm runs a release, which takes no repositories of files: there these
/// triggers have another target.
pub(crate) fn is_release() -> bool {
    std::env::var_os("TAGTRAIL_BINARY").is_some()
}

/// The text around the value of a trigger, which never changes.
fn around(trigger: &str, image: &str) -> (String, String) {
    let before = format!("# {trigger}\r\nimage:  {image}@");
    let after = format!(" # {{\"$imagepolicy\": \"{trigger}:i0\"}}\r\nkept: [1,   2]\r\n");
    (before, after)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(["-c", "user.name=storm", "-c", "user.email=storm@x"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .map_err(|error| format!("git: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Makes the repository `deploy.git` with a file for each of these triggers, given with its image.
pub(crate) fn install(folder: &Path, triggers: &[(&str, String)]) {
    let init = ["init", "--quiet", "--initial-branch=main"];
    let work = folder.join("person");
    git(folder, &[&init[..], &["--bare", "deploy.git"]].concat()).unwrap();
    git(folder, &[&init[..], &["person"]].concat()).unwrap();
    for (trigger, image) in triggers {
        let (before, after) = around(trigger, image);
        let text = format!("{before}sha256:0{after}");
        std::fs::write(work.join(format!("{trigger}.yaml")), text).unwrap();
    }
    git(&work, &["add", "--all"]).unwrap();
    git(&work, &["commit", "--quiet", "--message", "first"]).unwrap();
    git(&work, &["push", "--quiet", "../deploy.git", "main"]).unwrap();
    let hooks = folder.join("deploy.git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    let hook = hooks.join("pre-receive");
    std::fs::write(&hook, HOOK).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Checks that the file of a trigger has the digest and is otherwise as before, that all commits
/// are of recorded rollouts or of people, and that no commit of people is lost.
pub(crate) fn check(
    folder: &Path,
    (trigger, image): (&str, &str),
    digest: &str,
    ids: &BTreeSet<&str>,
) -> Result<(), String> {
    let repository = folder.join("deploy.git");
    let file = git(&repository, &["show", &format!("main:{trigger}.yaml")])?;
    let (before, after) = around(trigger, image);
    let wanted = format!("{before}{digest}{after}");
    if file != wanted {
        return Err(format!(
            "the file of {trigger} is {file:?} in place of {wanted:?}"
        ));
    }
    let log = git(&repository, &["log", "--format=%H%x09%s%x09%B%x00", "main"])?;
    let mut people = BTreeSet::new();
    for commit in log.split('\0').map(str::trim).filter(|one| !one.is_empty()) {
        let trailers = commit
            .lines()
            .filter_map(|line| line.strip_prefix("Tagtrail-Rollout: "));
        let trailers: Vec<&str> = trailers.collect();
        if let Some(unknown) = trailers.iter().find(|id| !ids.contains(*id)) {
            return Err(format!(
                "a commit is of rollout {unknown}, which is not recorded"
            ));
        }
        let mut words = commit.splitn(3, '\t');
        let (hash, subject) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        match (subject, trailers.is_empty()) {
            ("by hand", true) => drop(people.insert(hash.to_owned())),
            ("first", true) | (_, false) => {}
            _ => return Err(format!("a commit is of nobody: {commit}")),
        }
    }
    let made = std::fs::read_to_string(repository.join("by-hand")).unwrap_or_default();
    match made.lines().find(|hash| !people.contains(*hash)) {
        None => Ok(()),
        Some(lost) => Err(format!("the commit {lost} of a person is lost")),
    }
}

#[test]
fn a_wrong_repository_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = "one.example.com/shop/web".to_owned();
    install(folder, &[("t-a", image.clone())]);
    let ids = BTreeSet::from(["1"]);
    let check = |digest: &str| check(folder, ("t-a", &image), digest, &ids);
    assert_eq!(check("sha256:0"), Ok(()));
    assert!(check("sha256:1").unwrap_err().contains("in place of"));
    let (work, push) = (
        folder.join("person"),
        ["push", "--quiet", "../deploy.git", "main"],
    );
    std::fs::create_dir(folder.join("notes")).unwrap();
    std::fs::write(folder.join("notes/calm"), "").unwrap();
    let commit = |message: &str| {
        let commit = ["commit", "--quiet", "--allow-empty", "--message", message];
        git(&work, &commit).unwrap();
        git(&work, &push).unwrap();
    };
    commit("Roll out\n\nTagtrail-Rollout: 1");
    assert_eq!(check("sha256:0"), Ok(()));
    std::fs::write(folder.join("deploy.git/by-hand"), "abc\n").unwrap();
    assert!(
        check("sha256:0")
            .unwrap_err()
            .contains("abc of a person is lost")
    );
    commit("Roll out\n\nTagtrail-Rollout: 2");
    assert!(
        check("sha256:0")
            .unwrap_err()
            .contains("rollout 2, which is not recorded")
    );
}
