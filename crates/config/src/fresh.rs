//! Values made of secrets, which are made again when a secret changes.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use crate::{Secret, SecretError};

/// Shortest time between two looks at the files.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// A value made of secrets. A use looks at the files of the secrets, at most every two seconds, and
/// makes the value again if the content of one has changed. A new content that can't be used is
/// logged, and the value before stays.
pub struct Fresh<T> {
    /// The owner of the secrets, for the log.
    of: String,
    places: Vec<Secret>,
    /// `None`: no secret is in a file, so none can change.
    make: Option<Make<T>>,
    state: Mutex<State<T>>,
}

type Make<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

struct State<T> {
    value: Arc<T>,
    /// The time of the last look.
    looked: Instant,
    /// Whether a look is under way. Others do not wait for the file system.
    looking: bool,
    seen: Seen,
}

/// The files at the last look.
#[derive(Default)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    /// Whether every file is older than the granularity of its time stamps.
    settled: bool,
    hashes: Vec<[u8; 32]>,
    /// The last problem, which is logged once.
    problem: Option<String>,
}

/// Inode, size, and times of change of a file: they change when the content does.
pub type Stamp = (u64, u64, i64, i64, i64, i64);

impl<T> Fresh<T> {
    /// Makes the value. An error of `make` names the cure, and no secret.
    ///
    /// # Errors
    /// The error of `make`.
    pub fn new(
        of: String,
        places: Vec<Secret>,
        make: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Fresh<T>, String> {
        let (stamps, settled) = stamps(&places);
        let hashes = hashes(&places).unwrap_or_default();
        let value = make()?;
        let seen = Seen {
            stamps,
            settled,
            hashes,
            problem: None,
        };
        let in_files = places.iter().any(|place| file(place).is_some());
        Ok(Fresh {
            of,
            places,
            make: in_files.then(|| Box::new(make) as Make<T>),
            state: State::new(value, seen),
        })
    }

    /// Returns the value of the secrets as they are now.
    pub fn get(&self) -> Arc<T> {
        let mut state = self.state();
        let Some(make) = &self.make else {
            return Arc::clone(&state.value);
        };
        if state.looking || state.looked.elapsed() < LOOK {
            return Arc::clone(&state.value);
        }
        state.looking = true;
        let seen = std::mem::take(&mut state.seen);
        drop(state);
        let (seen, value) = self.look(make, seen);
        let mut state = self.state();
        state.seen = seen;
        if let Some(value) = value {
            state.value = Arc::new(value);
        }
        (state.looking, state.looked) = (false, Instant::now());
        Arc::clone(&state.value)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the files, and makes the value if a content has changed.
    fn look(&self, make: &Make<T>, mut seen: Seen) -> (Seen, Option<T>) {
        // The stamps first: a file that changes after is read again at the next look.
        let (stamps, settled) = stamps(&self.places);
        if seen.settled && stamps == seen.stamps {
            return (seen, None);
        }
        (seen.stamps, seen.settled) = (stamps, settled);
        let made = hashes(&self.places)
            .map_err(|error| error.to_string())
            .and_then(|hashes| match hashes == seen.hashes {
                true => Ok(None),
                false => make().map(|value| Some((hashes, value))),
            });
        match made {
            Ok(None) => {
                seen.problem = None;
                (seen, None)
            }
            Ok(Some((hashes, value))) => {
                self.report(&seen.hashes, &hashes);
                (seen.hashes, seen.problem) = (hashes, None);
                (seen, Some(value))
            }
            Err(problem) => {
                if seen.problem.as_ref() != Some(&problem) {
                    tracing::warn!(
                        "the secret of {} has changed and can't be used, so the one before stays: {problem}",
                        self.of
                    );
                }
                seen.problem = Some(problem);
                (seen, None)
            }
        }
    }

    fn report(&self, before: &[[u8; 32]], now: &[[u8; 32]]) {
        for (at, place) in self.places.iter().enumerate() {
            if before.get(at) != now.get(at) {
                tracing::info!("the secret of {} has changed: {place}", self.of);
            }
        }
    }
}

impl<T> State<T> {
    fn new(value: T, seen: Seen) -> Mutex<State<T>> {
        Mutex::new(State {
            value: Arc::new(value),
            looked: Instant::now(),
            looking: false,
            seen,
        })
    }
}

/// A value that never changes.
impl<T> From<T> for Fresh<T> {
    fn from(value: T) -> Fresh<T> {
        Fresh {
            of: String::new(),
            places: Vec::new(),
            make: None,
            state: State::new(value, Seen::default()),
        }
    }
}

impl<T> fmt::Debug for Fresh<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fresh({})", self.of)
    }
}

fn file(place: &Secret) -> Option<&Path> {
    match place {
        Secret::File(path) => Some(path),
        Secret::Env(_) => None,
    }
}

/// Returns the stamps of the files, and whether all are settled: a file that changed within the
/// granularity of its time stamps may change again under the same stamp.
fn stamps(places: &[Secret]) -> (Vec<Option<Stamp>>, bool) {
    let mut settled = true;
    let stamp = |place: &Secret| {
        let (stamp, is_settled) = stamp(file(place)?);
        settled &= stamp.is_none() || is_settled;
        stamp
    };
    (places.iter().map(stamp).collect(), settled)
}

/// Returns the stamp of a file, and whether the file is older than the granularity of its time
/// stamps. `None`: there is no such file.
#[must_use]
pub fn stamp(path: &Path) -> (Option<Stamp>, bool) {
    let Ok(found) = std::fs::metadata(path) else {
        return (None, true);
    };
    let age = found.modified().ok().and_then(|time| time.elapsed().ok());
    let stamp = (
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    );
    (Some(stamp), age.is_some_and(|age| age >= LOOK))
}

fn hashes(places: &[Secret]) -> Result<Vec<[u8; 32]>, SecretError> {
    let secrets = places.iter().map(Secret::read);
    let hashes = secrets.map(|secret| {
        secret.map(|secret| Sha256::digest(secret.expose_secret().as_bytes()).into())
    });
    hashes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of the files `one` and `two`, which refuses the content `wrong`.
    fn fresh(folder: &Path) -> Fresh<String> {
        let places = ["one", "two"].map(|name| Secret::File(folder.join(name)));
        let read = places.clone();
        let make = move || {
            let secrets = read.iter().map(|place| {
                let secret = place.read().map_err(|error| error.to_string())?;
                Ok(secret.expose_secret().to_owned())
            });
            let secrets: Vec<String> = secrets.collect::<Result<_, String>>()?;
            match secrets.iter().any(|secret| secret == "wrong") {
                true => Err("it is wrong; write another".to_owned()),
                false => Ok(secrets.join(" ")),
            }
        };
        Fresh::new("a test".to_owned(), places.to_vec(), make).unwrap()
    }

    #[test]
    fn a_changed_file_makes_a_new_value_and_a_wrong_one_leaves_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let later = || std::thread::sleep(LOOK + Duration::from_millis(50));
        write("one", "a");
        write("two", "b");
        let fresh = fresh(folder.path());
        assert_eq!(*fresh.get(), "a b");
        write("one", "c");
        assert_eq!(*fresh.get(), "a b", "a look before its time");
        later();
        assert_eq!(*fresh.get(), "c b");
        // The same size, within the same tick of the clock of the file system.
        write("two", "d");
        later();
        assert_eq!(*fresh.get(), "c d");
        for wrong in ["", "wrong"] {
            write("one", wrong);
            later();
            assert_eq!(*fresh.get(), "c d", "{wrong:?}");
        }
        std::fs::remove_file(folder.path().join("one")).unwrap();
        later();
        assert_eq!(*fresh.get(), "c d");
        // As a volume of Kubernetes changes: another file under the same name.
        write("next", "e");
        std::fs::rename(folder.path().join("next"), folder.path().join("one")).unwrap();
        later();
        assert_eq!(*fresh.get(), "e d");
        assert_eq!(format!("{fresh:?}"), "Fresh(a test)");
    }

    #[test]
    fn a_value_that_cannot_be_made_is_an_error() {
        let places = vec![Secret::Env("TAGTRAIL_SURELY_NOT_SET".to_owned())];
        let made = Fresh::<()>::new("a test".to_owned(), places, || Err("no".to_owned()));
        assert_eq!(made.err().unwrap(), "no");
        assert_eq!(*Fresh::from(7).get(), 7);
    }
}
