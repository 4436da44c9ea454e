//! Finding the programs of the children. `make setup` downloads them; this file never does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

/// A program that a child needs.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Folders of distributions as `(before, after)`, with a version between the two parts.
    pub(crate) folders: &'static [(&'static str, &'static str)],
    /// The oldest accepted version.
    pub(crate) minimum: (u32, u32),
    /// The cure for a missing program.
    pub(crate) cure: &'static str,
}

impl Program {
    /// Returns the first program that is new enough: from PATH, from the folders of the
    /// distribution, or from a folder `.tools` beside or above the working folder or this program.
    pub(crate) fn find(&self) -> anyhow::Result<PathBuf> {
        let candidates = self.candidates();
        let mut old = Vec::new();
        for candidate in candidates.iter().filter(|candidate| candidate.is_file()) {
            match version(candidate) {
                Some(version) if version >= self.minimum => {
                    return Ok(candidate
                        .canonicalize()
                        .unwrap_or_else(|_| candidate.clone()));
                }
                found => old.push(format!(
                    "{} is {}",
                    candidate.display(),
                    found.map_or("of unknown version".to_owned(), |(major, minor)| format!(
                        "{major}.{minor}"
                    ))
                )),
            }
        }
        let (major, minor) = self.minimum;
        let old = if old.is_empty() {
            String::new()
        } else {
            format!(" ({})", old.join("; "))
        };
        bail!(
            "{} {major}.{minor} or newer was not found in PATH, in the usual folders or in .tools{old}: {}",
            self.name,
            self.cure
        )
    }

    fn candidates(&self) -> Vec<PathBuf> {
        #[expect(
            clippy::disallowed_methods,
            reason = "PATH is a variable of the system, not a setting of Tagtrail"
        )]
        let path = std::env::var("PATH").unwrap_or_default();
        let mut found: Vec<PathBuf> = std::env::split_paths(&path)
            .map(|folder| folder.join(self.name))
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
            found.extend(versions.into_iter().map(|folder| folder.join(self.name)));
        }
        let here = std::env::current_dir().ok();
        let own = std::env::current_exe().ok();
        for start in [here, own].into_iter().flatten() {
            found.extend(
                start
                    .ancestors()
                    .map(|folder| folder.join(".tools").join(self.name)),
            );
        }
        found
    }
}

/// Runs the program with `--version`. Examples of its output: `postgres (PostgreSQL) 15.18 (Debian
/// …)`, `nats-server: v2.15.1`.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Returns the first number with a dot as `(major, minor)`.
fn parse(text: &str) -> Option<(u32, u32)> {
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
}
