//! A bare repository, and a person who works in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

pub(super) struct Repository {
    folder: tempfile::TempDir,
}

/// A server that ends with the test.
pub(super) struct ServerProcess(pub(super) Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Repository {
    pub(super) fn new() -> Repository {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository { folder };
        run(
            repository.folder.path(),
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                "repository.git",
            ],
        );
        run(
            repository.folder.path(),
            &["init", "--quiet", "--initial-branch=main", "person"],
        );
        repository
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("repository.git")
    }

    pub(super) fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// The folder in which a person works.
    pub(super) fn work(&self) -> PathBuf {
        self.folder.path().join("person")
    }

    /// Runs git in the repository of the server.
    pub(super) fn git(&self, arguments: &[&str]) -> String {
        run(&self.path(), arguments)
    }

    /// Runs git as the person.
    pub(super) fn person(&self, arguments: &[&str]) -> String {
        run(&self.work(), arguments)
    }

    /// Commits files to the branch `main`, as a person does.
    pub(super) fn write(&self, files: &[(&str, &str)], message: &str) {
        self.write_to("main", files, message);
    }

    pub(super) fn write_to(&self, branch: &str, files: &[(&str, &str)], message: &str) {
        self.take(branch);
        for (path, text) in files {
            let path = self.work().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.commit(branch, message);
    }

    /// Brings the person's folder to the branch as the server has it.
    pub(super) fn take(&self, branch: &str) {
        if self.git(&["branch", "--list", branch]).is_empty() {
            return;
        }
        self.person(&["fetch", "--quiet", &self.url(), branch]);
        self.person(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    }

    /// Commits and pushes everything in the person's folder.
    pub(super) fn commit(&self, branch: &str, message: &str) {
        self.person(&["add", "--all"]);
        self.person(&["commit", "--quiet", "--message", message]);
        let to = format!("HEAD:refs/heads/{branch}");
        self.person(&["push", "--quiet", "--force", &self.url(), &to]);
    }

    /// Returns a file of a branch.
    pub(super) fn read(&self, branch: &str, path: &str) -> String {
        self.git(&["show", &format!("{branch}:{path}")])
    }

    /// Returns the number of commits of a branch.
    pub(super) fn count(&self, branch: &str) -> usize {
        let count = self.git(&["rev-list", "--count", branch]);
        count.trim().parse().unwrap()
    }

    /// Lets the server run a script at each push.
    pub(super) fn hook(&self, name: &str, script: &str) {
        let hooks = self.path().join("hooks");
        std::fs::create_dir_all(&hooks).unwrap();
        let path = hooks.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// Runs git with settings of its own. Returns its output.
pub(super) fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=Person",
            "-c",
            "user.email=person@example.com",
        ])
        .args(["-c", "core.autocrlf=false", "-c", "commit.gpgSign=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
