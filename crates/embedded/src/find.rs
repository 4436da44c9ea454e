//! Finding the programs of the children. `make setup` downloads them; this file never does.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use crate::child::clear_environment;
use crate::user::{User, own_id};

/// A program that a child needs.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Folders of distributions as `(before, after)`, with a version between the two parts.
    pub(crate) folders: &'static [(&'static str, &'static str)],
    /// The oldest accepted version.
    pub(crate) minimum: Version,
    /// The cure for a missing program.
    pub(crate) cure: &'static str,
}

/// A version as `(major, minor)`.
pub(crate) type Version = (u32, u32);

impl Program {
    /// Returns the first program that is new enough: from PATH, from the folders of the
    /// distribution, or from the folder `.tools` beside this program.
    pub(crate) fn find(&self) -> anyhow::Result<PathBuf> {
        let refused = match self.first(|version| version >= self.minimum) {
            Ok((path, _)) => return Ok(path),
            Err(refused) => refused,
        };
        let (major, minor) = self.minimum;
        bail!(
            "{} {major}.{minor} or newer was not found in PATH, in the usual folders or in .tools{}: {}",
            self.name,
            in_brackets(&refused),
            self.cure
        )
    }

    /// Returns the program with the newest version.
    pub(crate) fn newest(&self) -> anyhow::Result<(PathBuf, Version)> {
        let newer = |than: Version| self.first(|version| version > than).ok();
        let mut found = (self.find()?, self.minimum);
        while let Some(next) = newer(found.1) {
            found = next;
        }
        Ok(found)
    }

    /// Returns the first program with a wanted version, or else why each program found is not one.
    pub(crate) fn first(
        &self,
        wanted: impl Fn(Version) -> bool,
    ) -> Result<(PathBuf, Version), Vec<String>> {
        let mut refused = Vec::new();
        for candidate in self.candidates() {
            let Ok(path) = candidate.canonicalize() else {
                continue;
            };
            if !path.is_file() {
                continue;
            }
            let shown = candidate.display();
            if let Some(owner) = stranger(&candidate).or_else(|| stranger(&path)) {
                refused.push(format!(
                    "{shown} is not used, because {owner} could have put it there"
                ));
                continue;
            }
            match version(&path) {
                Some(version) if wanted(version) => return Ok((path, version)),
                Some((major, minor)) => refused.push(format!("{shown} is {major}.{minor}")),
                None => refused.push(format!("{shown} is of unknown version")),
            }
        }
        Err(refused)
    }

    fn candidates(&self) -> Vec<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut found: Vec<PathBuf> = std::env::split_paths(&path)
            // A relative folder means another program in each working folder.
            .filter(|folder| folder.is_absolute())
            .collect();
        for (before, after) in self.folders {
            let mut versions: Vec<PathBuf> = std::fs::read_dir(before)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path().join(after))
                .collect();
            // Newest version first.
            versions.sort_by_key(|path| {
                std::cmp::Reverse(
                    path.components()
                        .rev()
                        .nth(1)
                        .and_then(|part| part.as_os_str().to_str()?.parse::<u32>().ok()),
                )
            });
            found.extend(versions);
        }
        let own = std::env::current_exe().ok();
        found.extend(own.iter().flat_map(|own| tools(own)));
        found
            .into_iter()
            .map(|folder| folder.join(self.name))
            .collect()
    }
}

/// Returns the folders `.tools` of a program: the one beside the program, and for a program that
/// cargo has built the one of its checkout, beside `target`.
fn tools(program: &Path) -> Vec<PathBuf> {
    let beside = program.parent();
    let target = program
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "target"));
    [beside, target.and_then(Path::parent)]
        .into_iter()
        .flatten()
        .map(|folder| folder.join(".tools"))
        .collect()
}

/// Returns the users who could have planted this program, unless only root and the own user could.
fn stranger(program: &Path) -> Option<String> {
    /// Every user may write.
    const WRITABLE: u32 = 0o002;
    /// In a writable folder, users may replace only their own files.
    const STICKY: u32 = 0o1000;
    for path in [program, program.parent()?] {
        let Ok(found) = path.metadata() else {
            return Some("a user unknown".to_owned());
        };
        if ![0, own_id()].contains(&found.uid()) {
            return Some(format!("the user {}", User::name_of(found.uid())));
        }
        if found.mode() & WRITABLE != 0 && !(found.is_dir() && found.mode() & STICKY != 0) {
            return Some("every user".to_owned());
        }
    }
    None
}

/// Returns a list for an error text.
pub(crate) fn in_brackets(list: &[String]) -> String {
    match list {
        [] => String::new(),
        list => format!(" ({})", list.join("; ")),
    }
}

/// Runs the program with `--version`. Examples of its output: `postgres (PostgreSQL) 15.18 (Debian
/// …)`, `nats-server: v2.15.1`.
fn version(program: &Path) -> Option<Version> {
    let mut command = Command::new(program);
    clear_environment(&mut command);
    let output = command.arg("--version").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Returns the first number with a dot as `(major, minor)`.
fn parse(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.trim_start_matches('v').split('.');
        let digits = |part: &str| {
            part.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        let major = numbers
            .next()
            .filter(|part| !part.is_empty() && digits(part) == **part)?
            .parse()
            .ok()?;
        let minor = digits(numbers.next()?).parse().ok()?;
        Some((major, minor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_output_of_the_programs() {
        assert_eq!(
            parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some((15, 18))
        );
        assert_eq!(parse("nats-server: v2.15.1"), Some((2, 15)));
        assert_eq!(parse("postgres (PostgreSQL) 17.0"), Some((17, 0)));
        assert_eq!(parse("no version"), None);
    }

    #[test]
    fn a_missing_program_is_an_error_with_a_cure() {
        let program = Program {
            name: "surely-not-there",
            folders: &[],
            minimum: (1, 0),
            cure: "run this",
        };
        let error = program.find().unwrap_err().to_string();
        assert_eq!(
            error,
            "surely-not-there 1.0 or newer was not found in PATH, in the usual folders or in .tools: run this"
        );
    }

    #[test]
    fn tools_are_looked_for_beside_the_program_and_in_its_checkout_alone() {
        let found = |program: &str| -> Vec<String> {
            let folders = tools(Path::new(program));
            folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect()
        };
        assert_eq!(
            found("/opt/tagtrail/bin/tagtrail"),
            ["/opt/tagtrail/bin/.tools"]
        );
        assert_eq!(
            found("/src/tagtrail/target/release/tagtrail"),
            [
                "/src/tagtrail/target/release/.tools",
                "/src/tagtrail/.tools"
            ]
        );
    }

    #[test]
    fn a_program_that_every_user_can_replace_is_not_run() {
        use std::fs::{Permissions, create_dir, set_permissions, write};
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("bin");
        create_dir(&at).unwrap();
        let program = at.join("server");
        write(&program, "#!/bin/sh\necho server 9.9\n").unwrap();
        let modes = [
            (0o755, 0o755, None),
            (0o755, 0o757, Some("every user")),
            (0o777, 0o755, Some("every user")),
            (0o1777, 0o755, None),
        ];
        for (folder_mode, mode, expected) in modes {
            set_permissions(&at, Permissions::from_mode(folder_mode)).unwrap();
            set_permissions(&program, Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                stranger(&program).as_deref(),
                expected,
                "{folder_mode:o} {mode:o}"
            );
        }
    }
}
