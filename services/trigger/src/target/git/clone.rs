//! A clone of one branch: bare and shallow. There is no working tree, so symbolic links, filters,
//! submodules and hooks of a repository have no effect: files are read and written as objects.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::access::{Access, Given};
use super::place::Url;
use super::program::{Environment, Problem, Run};
use super::settings::Author;

/// Most bytes of the answers of git about a commit and its files.
const LISTING: usize = 64 << 20;
const SMALL: usize = 1 << 20;
/// Largest file that is read, most files, and most bytes of them all.
const LARGEST: usize = 4 << 20;
const MOST_FILES: usize = 20_000;
const MOST_BYTES: usize = 64 << 20;
/// A clone with more packs, loose objects (in one of 256 folders) or bytes in the list of its cut
/// commits is made again.
const PACKS: usize = 100;
const LOOSE: usize = 30;
const CUT: u64 = 64 << 10;

/// A file of a commit.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) mode: String,
    object: String,
    size: usize,
    pub(super) path: String,
}

/// A clone, for one turn with the credentials of a target.
pub(super) struct Clone {
    repository: PathBuf,
    home: PathBuf,
    environment: Environment,
    url: Url,
    limit: Duration,
    signs: bool,
    _given: Given,
}

/// The answer of a server to a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Done,
    /// The branch is no longer at the commit that the push was made from.
    Raced,
    /// The server refuses the push, for this reason.
    Refused(String),
}

impl Clone {
    /// Opens the clone in a folder of `home`, which only this user can read.
    pub(super) fn open(
        home: &Path,
        name: &str,
        url: &Url,
        (access, author): (&Access, &Author),
        limit: Duration,
    ) -> Result<Clone, Problem> {
        let repository = home.join(name);
        let mut environment = Environment::new(&repository, home, url.protocol());
        let given = access.give(url, author, home, &mut environment);
        Ok(Clone {
            _given: given.map_err(Problem::Io)?,
            repository,
            home: home.to_owned(),
            environment,
            url: url.clone(),
            limit,
            signs: access.signs(),
        })
    }

    /// Removes the clone: the next fetch makes a new one.
    pub(super) fn forget(&self) -> Result<(), Problem> {
        match fs::remove_dir_all(&self.repository) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Problem::Io(error)),
            _ => Ok(()),
        }
    }

    async fn git(&self, arguments: &[&str], input: &[u8], most: usize) -> Result<Vec<u8>, Problem> {
        self.git_with(arguments, input, most, &[]).await
    }

    async fn git_with(
        &self,
        arguments: &[&str],
        input: &[u8],
        most: usize,
        variables: &[(&str, String)],
    ) -> Result<Vec<u8>, Problem> {
        let run = Run {
            environment: &self.environment,
            folder: &self.home,
            limit: self.limit,
            input,
            most,
            variables,
        };
        run.git(arguments).await
    }

    /// Returns the first line of the answer of git, such as the name of an object.
    async fn line(&self, arguments: &[&str], input: &[u8]) -> Result<String, Problem> {
        let answer = self.git(arguments, input, SMALL).await?;
        let text = String::from_utf8_lossy(&answer);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Fetches the newest commit of a branch, and returns its name.
    pub(super) async fn fetch(&self, branch: &str) -> Result<String, Problem> {
        if self.is_worn() {
            self.forget()?;
        }
        if !self.repository.join("HEAD").is_file() {
            // Without the user's template no hooks are there.
            self.git(&["init", "--quiet", "--bare", "--template="], b"", SMALL)
                .await?;
        }
        let refs = format!("+refs/heads/{branch}:refs/tagtrail/{branch}");
        let fetch = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--end-of-options",
            self.url.as_str(),
            &refs,
        ];
        self.git(&fetch, b"", SMALL).await?;
        let name = format!("refs/tagtrail/{branch}^{{commit}}");
        self.line(&["rev-parse", "--verify", "--end-of-options", &name], b"")
            .await
    }

    /// Returns the commit of a branch of the server. `None`: it has no such branch.
    pub(super) async fn head(&self, branch: &str) -> Result<Option<String>, Problem> {
        let name = format!("refs/heads/{branch}");
        let ask = ["ls-remote", "--end-of-options", self.url.as_str(), &name];
        let answer = self.git(&ask, b"", SMALL).await?;
        let text = String::from_utf8_lossy(&answer);
        let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
        let head = lines.find(|(_, found)| *found == name);
        Ok(head.map(|(commit, _)| commit.to_owned()))
    }

    /// Returns a commit as git stores it: its parents, its author and its message.
    pub(super) async fn content(&self, commit: &str) -> Result<String, Problem> {
        let content = self
            .git(&["cat-file", "commit", commit], b"", SMALL)
            .await?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Returns author and subject of a commit, for people.
    pub(super) async fn subject(&self, commit: &str) -> Result<String, Problem> {
        let show = ["show", "--no-patch", "--format=%s, by %an", commit];
        self.line(&show, b"").await
    }

    /// Lists the regular files of a commit below a path.
    pub(super) async fn list(&self, commit: &str, path: &str) -> Result<Vec<Entry>, Problem> {
        let mut list = vec!["ls-tree", "-r", "-z", "-l", "--full-tree", commit];
        if !path.is_empty() {
            list.extend(["--", path]);
        }
        let answer = self.git(&list, b"", LISTING).await?;
        let lines = answer.split(|byte| *byte == 0);
        // A file whose name is no text can't be named in the settings.
        let lines = lines.filter_map(|line| std::str::from_utf8(line).ok());
        Ok(lines.filter_map(entry).collect())
    }

    /// Reads files. An error for people says that they are too many.
    pub(super) async fn read(
        &self,
        entries: &[&Entry],
    ) -> Result<Result<Vec<Vec<u8>>, String>, Problem> {
        let total: usize = entries.iter().map(|entry| entry.size).sum();
        if entries.len() > MOST_FILES || total > MOST_BYTES {
            return Ok(Err(format!(
                "{} files with {} MiB are too many to look for markers; narrow path",
                entries.len(),
                total >> 20
            )));
        }
        let input: String = entries
            .iter()
            .flat_map(|entry| [entry.object.as_str(), "\n"])
            .collect();
        let most = total + entries.len() * 200;
        let answer = self.git(&["cat-file", "--batch"], input.as_bytes(), most);
        let answer = answer.await?;
        let mut rest = answer.as_slice();
        let mut files = Vec::with_capacity(entries.len());
        for entry in entries {
            let file = object(&mut rest, entry.size).ok_or_else(|| {
                let why = format!("the object {} of {} is missing", entry.object, entry.path);
                Problem::Io(std::io::Error::other(why))
            })?;
            files.push(file.to_vec());
        }
        Ok(Ok(files))
    }

    /// Makes a commit on top of another one, in which these files have another content. Returns
    /// its name.
    pub(super) async fn commit(
        &self,
        parent: &str,
        files: &BTreeMap<String, (String, Vec<u8>)>,
        message: &str,
    ) -> Result<String, Problem> {
        let index = self.repository.join("turn.index");
        // An earlier turn may have been cut off.
        for left in [index.clone(), self.repository.join("turn.index.lock")] {
            let _ = fs::remove_file(left);
        }
        let variables = [("GIT_INDEX_FILE", index.to_string_lossy().into_owned())];
        let mut changed = Vec::new();
        for (path, (mode, content)) in files {
            let write = ["hash-object", "-w", "--no-filters", "--stdin"];
            let object = self.line(&write, content).await?;
            changed.extend_from_slice(format!("{mode} {object}\t{path}\0").as_bytes());
        }
        let read = ["read-tree", parent];
        self.git_with(&read, b"", SMALL, &variables).await?;
        let update = ["update-index", "-z", "--index-info"];
        self.git_with(&update, &changed, SMALL, &variables).await?;
        let write = ["write-tree", "--missing-ok"];
        let tree = self.git_with(&write, b"", SMALL, &variables).await?;
        let tree = String::from_utf8_lossy(&tree).trim().to_owned();
        let mut commit = vec!["commit-tree", &tree, "-p", parent];
        commit.extend(self.signs.then_some("-S"));
        self.line(&commit, message.as_bytes()).await
    }

    /// Pushes a commit to a branch. With `over`, the branch is replaced if it is at that commit
    /// (empty: if it does not exist); otherwise the commit must follow the branch.
    pub(super) async fn push(
        &self,
        commit: &str,
        branch: &str,
        over: Option<&str>,
    ) -> Result<Pushed, Problem> {
        let refs = format!("{commit}:refs/heads/{branch}");
        let lease = over.map(|over| format!("--force-with-lease=refs/heads/{branch}:{over}"));
        let mut push = vec!["push", "--porcelain", "--no-verify", "--no-signed"];
        push.extend(lease.as_deref());
        push.extend(["--end-of-options", self.url.as_str(), &refs]);
        match self.git(&push, b"", SMALL).await {
            Ok(_) => Ok(Pushed::Done),
            Err(Problem::Failed { stdout, stderr }) => match refusal(&stdout) {
                Some(Pushed::Refused(why)) => {
                    let said = remote(&stderr);
                    Ok(Pushed::Refused(format!("{why}{said}")))
                }
                Some(answer) => Ok(answer),
                None => Err(Problem::Failed { stdout, stderr }),
            },
            Err(problem) => Err(problem),
        }
    }

    /// Asks the server for a push of the commit that the branch is at, as a trial: the server tells
    /// whether the account may write, and changes nothing.
    pub(super) async fn may_push(&self, commit: &str, branch: &str) -> Result<(), Problem> {
        let refs = format!("{commit}:refs/heads/{branch}");
        let trial = [
            "push",
            "--dry-run",
            "--porcelain",
            "--no-verify",
            "--end-of-options",
            self.url.as_str(),
            &refs,
        ];
        match self.git(&trial, b"", SMALL).await {
            // Somebody pushed since the fetch.
            Err(Problem::Failed { stdout, .. }) if refusal(&stdout) == Some(Pushed::Raced) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Returns whether so much has been fetched that a new clone costs less.
    fn is_worn(&self) -> bool {
        let count = |folder: &str| {
            let entries = fs::read_dir(self.repository.join(folder));
            entries.map_or(0, Iterator::count)
        };
        let cut = fs::metadata(self.repository.join("shallow"));
        count("objects/pack") > 3 * PACKS
            || count("objects/17") > LOOSE
            || cut.is_ok_and(|cut| cut.len() > CUT)
    }
}

/// Reads a line of `git ls-tree -l`. `None`: it is no regular file, or too large.
fn entry(line: &str) -> Option<Entry> {
    let (what, path) = line.split_once('\t')?;
    let mut words = what.split_ascii_whitespace();
    let (mode, kind, object) = (words.next()?, words.next()?, words.next()?);
    let size: usize = words.next()?.parse().ok()?;
    // Neither symbolic links (120000) nor submodules (160000).
    let regular = kind == "blob" && ["100644", "100755"].contains(&mode);
    (regular && size <= LARGEST).then(|| Entry {
        mode: mode.to_owned(),
        object: object.to_owned(),
        size,
        path: path.to_owned(),
    })
}

/// Takes an object off the answer of `git cat-file --batch`.
fn object<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let line = rest.iter().position(|byte| *byte == b'\n')?;
    let (header, after) = rest.split_at(line + 1);
    let is_whole = header.ends_with(format!(" blob {size}\n").as_bytes());
    if !is_whole || after.len() <= size {
        return None;
    }
    *rest = &after[size + 1..];
    Some(&after[..size])
}

/// Reads the lines of `git push --porcelain` about a refused branch.
fn refusal(answer: &[u8]) -> Option<Pushed> {
    /// The words of git and of servers for a branch that has moved meanwhile.
    const RACED: [&str; 8] = [
        "[rejected] (fetch first)",
        "[rejected] (non-fast-forward)",
        "[rejected] (stale info)",
        "cannot lock ref",
        "failed to update ref",
        "failed to lock",
        "incorrect old value",
        "reference already exists",
    ];
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().find(|line| line.starts_with('!'))?;
    let why = line.rsplit('\t').next().unwrap_or_default();
    match RACED.iter().any(|raced| why.contains(raced)) {
        true => Some(Pushed::Raced),
        false if why.contains("rejected") => Some(Pushed::Refused(why.to_owned())),
        false => None,
    }
}

/// Returns the messages of the server among those of git, after a colon.
fn remote(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().filter_map(|line| line.strip_prefix("remote:"));
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!(": {}", lines.join(" | ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_a_push_are_told_apart() {
        let answer = |why: &str| {
            let text = format!("To ssh://host/x\n!\tabc:refs/heads/main\t{why}\nDone\n");
            refusal(text.as_bytes())
        };
        for raced in [
            "[rejected] (fetch first)",
            "[rejected] (stale info)",
            "[remote rejected] (cannot lock ref 'refs/heads/main': is at a but expected b)",
            "[remote rejected] (failed to update ref)",
        ] {
            assert_eq!(answer(raced), Some(Pushed::Raced), "{raced}");
        }
        let hook = "[remote rejected] (protected branch hook declined)";
        assert_eq!(answer(hook), Some(Pushed::Refused(hook.to_owned())));
        assert_eq!(refusal(b"To x\nDone\n"), None);
        let said = remote(b"remote: GH006: Protected branch update failed\nfatal: x\nremote:\n");
        assert_eq!(said, ": GH006: Protected branch update failed");
    }

    #[test]
    fn only_regular_files_are_listed() {
        let entry = |line: &str| super::entry(line).map(|entry| entry.path);
        let of = |mode: &str, kind: &str, size: &str| {
            entry(&format!("{mode} {kind} abc {size}\ta b.yaml"))
        };
        assert_eq!(of("100644", "blob", "    12").unwrap(), "a b.yaml");
        assert_eq!(of("100755", "blob", "12").unwrap(), "a b.yaml");
        assert_eq!(of("120000", "blob", "12"), None);
        assert_eq!(of("160000", "commit", "-"), None);
        assert_eq!(of("100644", "blob", "99999999"), None);
    }
}
