//! The clones of this process, and the one turn at a time at each branch.
//!
//! An attempt puts its job into the queue of the branch. One of the attempts that wait takes the
//! turn and does the jobs of all, so that everything that is due goes into one commit. An attempt
//! that ends in the middle of its turn leaves the other jobs to the next one that waits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{fmt, io};

use tagtrail_policy::retry::Outcome;
use tagtrail_postgres::{DbArgs, Lock};
use tagtrail_proto::Digest;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::drift::Heads;
use super::locks::Locks;
use super::place::Place;
use super::turn::{self, Job};

/// The clones of this process.
pub(crate) struct Clones {
    /// The folder that the clones of all processes of this user are in.
    folder: PathBuf,
    own: Mutex<Option<Own>>,
    branches: Mutex<BTreeMap<Place, Weak<Branch>>>,
    locks: Locks,
    pub(super) heads: Heads,
}

impl fmt::Debug for Clones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clones({})", self.folder.display())
    }
}

/// The folder of this process. Others of the same machine see by the locked file that it is in use.
struct Own {
    path: PathBuf,
    _lock: File,
}

/// A branch that jobs wait for.
pub(super) struct Branch {
    queue: Mutex<Vec<Waiting>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The turn of this process at a branch, without a job.
pub(super) struct Alone {
    /// The folder of the clones.
    pub(super) home: PathBuf,
    _turn: OwnedMutexGuard<()>,
    _branch: Arc<Branch>,
}

/// A job in the queue.
pub(super) struct Waiting {
    pub(super) job: Job,
    answer: Option<oneshot::Sender<Outcome>>,
}

impl Waiting {
    /// Returns whether the job has no outcome yet.
    pub(super) fn is_open(&self) -> bool {
        self.answer.is_some()
    }

    pub(super) fn answer(&mut self, outcome: Outcome) {
        if let Some(answer) = self.answer.take() {
            // The attempt may have ended meanwhile.
            let _ = answer.send(outcome);
        }
    }
}

impl Clones {
    /// The clones lie in `folder`; without one, in a folder for temporary files.
    pub(crate) fn new(folder: Option<PathBuf>, db: DbArgs, silence: Duration) -> Clones {
        let user = rustix::process::geteuid().as_raw();
        let usual = || std::env::temp_dir().join(format!("tagtrail-clones-{user}"));
        Clones {
            folder: folder.unwrap_or_else(usual),
            own: Mutex::default(),
            branches: Mutex::default(),
            locks: Locks::new(db, silence),
            heads: Heads::default(),
        }
    }

    /// Makes an attempt: waits for the turn at the branch, or for the answer of another attempt
    /// that has the turn.
    pub(super) async fn outcome(&self, place: &Place, job: Job) -> Outcome {
        let home = match self.home() {
            Ok(home) => home,
            Err(error) => {
                return Outcome::Failed {
                    error: format!(
                        "the folder of clones {} can't be used: {error}; set TAGTRAIL_CLONES to a folder of the trigger service's user",
                        self.folder.display()
                    ),
                    after: None,
                };
            }
        };
        let branch = self.branch(place);
        let (answer, mut answered) = oneshot::channel();
        branch.queue().push(Waiting {
            job,
            answer: Some(answer),
        });
        loop {
            let _turn = tokio::select! {
                biased;
                outcome = &mut answered => match outcome {
                    Ok(outcome) => return outcome,
                    Err(_) => break,
                },
                turn = branch.turn.lock() => turn,
            };
            match answered.try_recv() {
                Ok(outcome) => return outcome,
                Err(oneshot::error::TryRecvError::Closed) => break,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let mut taken = Taken::all(&branch);
            turn::make(&home, place, &self.locks, &mut taken.waiting).await;
        }
        Outcome::Failed {
            error: "the attempt was cut off".to_owned(),
            after: None,
        }
    }

    /// Waits for the turn of this process at a branch, to read it.
    pub(super) async fn turn(&self, place: &Place) -> io::Result<Alone> {
        let (home, branch) = (self.home()?, self.branch(place));
        Ok(Alone {
            home,
            _turn: Arc::clone(&branch.turn).lock_owned().await,
            _branch: branch,
        })
    }

    fn branch(&self, place: &Place) -> Arc<Branch> {
        let mut branches = locked(&self.branches);
        branches.retain(|_, branch| branch.strong_count() > 0);
        if let Some(branch) = branches.get(place).and_then(Weak::upgrade) {
            return branch;
        }
        let branch = Arc::new(Branch {
            queue: Mutex::default(),
            turn: Arc::default(),
        });
        branches.insert(place.clone(), Arc::downgrade(&branch));
        branch
    }

    /// Returns the folder of this process, made at the first use.
    fn home(&self) -> io::Result<PathBuf> {
        let mut own = locked(&self.own);
        if let Some(own) = &*own
            && own.path.is_dir()
        {
            return Ok(own.path.clone());
        }
        let made = Own::new(&self.folder)?;
        let path = made.path.clone();
        *own = Some(made);
        Ok(path)
    }
}

/// Returns the name of the folder of a clone.
pub(super) fn name_of(place: &Place) -> String {
    let digest = Digest::sha256_of(place.to_string().as_bytes()).to_string();
    let (_, hex) = digest.split_once(':').unwrap_or_default();
    format!("{}.git", hex.get(..16).unwrap_or(hex))
}

/// Returns the number of the lock of a branch.
pub(super) fn lock_of(place: &Place) -> Lock {
    Lock::Branch(Lock::number_of(&place.to_string()))
}

impl Branch {
    fn queue(&self) -> MutexGuard<'_, Vec<Waiting>> {
        locked(&self.queue)
    }
}

/// The jobs of a turn. Those without an outcome go back to the queue if the turn is cut off.
struct Taken<'a> {
    branch: &'a Branch,
    waiting: Vec<Waiting>,
}

impl<'a> Taken<'a> {
    fn all(branch: &'a Branch) -> Taken<'a> {
        let waiting = std::mem::take(&mut *branch.queue());
        let still = |one: &Waiting| {
            one.answer
                .as_ref()
                .is_some_and(|answer| !answer.is_closed())
        };
        Taken {
            branch,
            waiting: waiting.into_iter().filter(still).collect(),
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let open = waiting.into_iter().filter(Waiting::is_open);
        self.branch.queue().extend(open);
    }
}

impl Own {
    fn new(folder: &Path) -> io::Result<Own> {
        match fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
        {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Another user could put a prepared repository into a folder that is open to all.
        let found = fs::symlink_metadata(folder)?;
        let user = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
            return Err(io::Error::other(
                "it is no folder that only this user can write to",
            ));
        }
        sweep(folder);
        let path = folder.join(format!("{:016x}", rand::random::<u64>()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::create_new(path.join("in-use"))?;
        lock.lock()?;
        Ok(Own { path, _lock: lock })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of processes that have ended without removing theirs.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(lock) = File::open(entry.path().join("in-use")) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
