//! Follows the files while a service runs: a change of content is found within two seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::document::{ConfigError, Document};
use crate::fresh::{LOOK, Stamp, stamp};
use crate::{File, files};

/// Largest file of secrets that is compared; a larger one is no secret.
const LARGEST: u64 = 1 << 20;

/// The time for which a file from which a trigger has vanished must stay as it is, and the most
/// times that are waited for: an editor may be writing the rest.
const REST: (Duration, u32) = (Duration::from_millis(500), 10);

/// The files of a service: the main file, the folder of triggers, and the files of secrets. They
/// are compared by content, because a volume of Kubernetes changes by a symbolic link.
pub struct Follower {
    state: Arc<Mutex<State>>,
    /// The entries that the caller has, and the number of changes that led to them.
    given: (u64, Arc<File>),
    /// The time of the next look.
    due: Instant,
    hangup: Signal,
}

struct State {
    path: PathBuf,
    /// The last good texts of the configuration.
    documents: BTreeMap<PathBuf, Document>,
    /// The last look at each file; of secrets the hash of the content.
    seen: BTreeMap<PathBuf, Seen>,
    /// The files of secrets among these.
    secrets: BTreeSet<PathBuf>,
    file: Arc<File>,
    /// The number of changes found.
    changes: u64,
    /// The last problem of the main file, which is logged once.
    problem: Option<ConfigError>,
}

#[derive(Clone, PartialEq, Eq)]
struct Seen {
    stamp: Option<Stamp>,
    /// Whether the file is older than the granularity of its time stamps.
    settled: bool,
    hash: Option<[u8; 32]>,
}

impl Follower {
    /// Reads the files.
    ///
    /// # Errors
    /// The main file can't be read or is no TOML, or signals can't be received.
    pub fn start(path: &Path) -> Result<Follower, ConfigError> {
        let hangup = signal(SignalKind::hangup()).map_err(|error| {
            ConfigError::of_file(path, format!("can't be followed: SIGHUP: {error}"))
        })?;
        let mut state = State {
            path: path.to_owned(),
            documents: BTreeMap::new(),
            seen: BTreeMap::new(),
            secrets: BTreeSet::new(),
            file: Arc::default(),
            changes: 0,
            problem: None,
        };
        // The first reading names the files to look at. Read after the look, no change is missed.
        state.file = Arc::new(files::load(path, &mut state.documents, None)?);
        state.seen = state.look_at_all();
        state.file = Arc::new(files::load(path, &mut state.documents, None)?);
        state.look_at_secrets();
        Ok(Follower {
            given: (0, Arc::clone(&state.file)),
            due: Instant::now() + LOOK,
            state: Arc::new(Mutex::new(state)),
            hangup,
        })
    }

    /// Returns the entries as they are now.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.file)
    }

    /// Waits until the content of a file has changed, and returns the entries. SIGHUP makes the
    /// next look at once. A changed secret returns the same entries. A trigger counts as removed
    /// once the files have stayed without it for a moment. A call that is given up loses no change.
    pub async fn changed(&mut self) -> Arc<File> {
        loop {
            let (mut changes, mut file) = self.found();
            if changes == self.given.0 {
                // A caller that gives calls up every second must not put the look off.
                let asked = tokio::select! {
                    () = tokio::time::sleep_until(self.due) => false,
                    _ = self.hangup.recv() => true,
                };
                self.due = Instant::now() + LOOK;
                if !self.look().await && asked {
                    tracing::info!("SIGHUP: no file has changed");
                }
                continue;
            }
            for _ in 0..REST.1 {
                if !file.lacks_a_trigger_of(&self.given.1) {
                    break;
                }
                tokio::time::sleep(REST.0).await;
                if !self.look().await {
                    break;
                }
                (changes, file) = self.found();
            }
            self.given = (changes, Arc::clone(&file));
            return file;
        }
    }

    fn found(&self) -> (u64, Arc<File>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.changes, Arc::clone(&state.file))
    }

    /// Looks at the files once. Returns whether a content has changed.
    async fn look(&self) -> bool {
        let state = Arc::clone(&self.state);
        let look = move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.look().is_some()
        };
        // The file system may be slow. A look that panicked is made again.
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }
}

impl State {
    /// Reads the files that have changed. Returns the entries if a content has changed.
    fn look(&mut self) -> Option<Arc<File>> {
        let seen = self.look_at_all();
        if seen == self.seen {
            return None;
        }
        let hashes = |seen: &BTreeMap<PathBuf, Seen>| -> Vec<(PathBuf, Option<[u8; 32]>)> {
            let each = seen.iter();
            each.map(|(path, seen)| (path.clone(), seen.hash)).collect()
        };
        let same = hashes(&seen) == hashes(&self.seen);
        self.seen = seen;
        if same {
            return None;
        }
        match files::load(&self.path, &mut self.documents, Some(&self.file)) {
            Ok(file) => {
                self.problem = None;
                self.file = Arc::new(file);
            }
            // The main file was never read well: impossible after a start.
            Err(problem) if self.problem.as_ref() == Some(&problem) => {}
            Err(problem) => {
                tracing::error!("the entries before stay in force: {problem}");
                self.problem = Some(problem);
            }
        }
        self.changes += 1;
        self.look_at_secrets();
        Some(Arc::clone(&self.file))
    }

    /// Follows the files of secrets that the entries name now. All other files keep the look from
    /// before they were read, so that the next look finds one that has changed since.
    fn look_at_secrets(&mut self) {
        let named: BTreeSet<PathBuf> = self.file.secret_files().collect();
        for path in named.difference(&self.secrets) {
            self.seen.insert(path.clone(), self.look_at(path));
        }
        for path in self.secrets.difference(&named) {
            self.seen.remove(path);
        }
        self.secrets = named;
    }

    fn look_at_all(&self) -> BTreeMap<PathBuf, Seen> {
        let mut paths = vec![self.path.clone()];
        paths.extend(
            self.file
                .triggers_folder()
                .into_iter()
                .flat_map(files::list),
        );
        paths.extend(self.secrets.iter().cloned());
        let each = paths.into_iter().map(|path| {
            let seen = self.look_at(&path);
            (path, seen)
        });
        each.collect()
    }

    fn look_at(&self, path: &Path) -> Seen {
        // The stamp first: a file that changes after is read again at the next look.
        let (stamp, settled) = stamp(path);
        match self.seen.get(path) {
            Some(before) if before.settled && settled && before.stamp == stamp => before.clone(),
            _ => Seen {
                stamp,
                settled,
                hash: hash(path),
            },
        }
    }
}

/// Returns the hash of the content. `None`: there is no such file.
fn hash(path: &Path) -> Option<[u8; 32]> {
    let found = std::fs::metadata(path).ok()?;
    // Reading a pipe could take for ever.
    if !found.is_file() || found.len() > LARGEST {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    Some(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests;
