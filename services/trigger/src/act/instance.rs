//! The identity of this process as the owner of attempts, and the advisory lock that proves that
//! the process lives.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tagtrail_daemon::Retry;
use tagtrail_postgres::{Lock, ping, within};
use tokio::time::Instant;

use crate::error::Error;
use crate::shared::Shared;

/// The owner of an attempt, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The number of the advisory lock that the process holds as long as it lives.
    pub(crate) instance: i32,
    /// The boot and the PID namespace in which `pid` has a meaning.
    pub(crate) machine: String,
    pub(crate) pid: i32,
    /// Start time of the process in clock ticks since the boot: a process id is used again.
    pub(crate) pid_started: i64,
}

impl Owner {
    /// Returns this process, with a new number.
    fn this() -> Owner {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        Owner {
            instance: rand::random::<i32>() & i32::MAX,
            machine: machine(),
            pid,
            pid_started: started(pid).unwrap_or_default(),
        }
    }

    /// Returns whether the process has certainly ended: it ran on this machine, and no process with
    /// its id and start time runs here now.
    pub(crate) fn is_gone(&self) -> bool {
        self.machine == machine() && started(self.pid) != Some(self.pid_started)
    }
}

/// Returns the boot and the PID namespace of this process; without `/proc` a text of its own, so
/// that no other process counts as one of this machine.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => format!("unknown {}", rand::random::<u64>()),
    }
}

/// Returns the start time of a process in clock ticks since the boot. `None` if no process has this
/// id, or if it has ended and waits to be reaped.
fn started(pid: i32) -> Option<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in brackets, may hold spaces and brackets.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

/// This process as the owner of attempts.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) owner: Owner,
    lock: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    now: bool,
    /// The last time at which the session that holds the lock was known to live.
    last: Instant,
}

impl Instance {
    pub(crate) fn new() -> Instance {
        Instance {
            owner: Owner::this(),
            lock: Mutex::new(Held {
                now: false,
                last: Instant::now(),
            }),
        }
    }

    /// Returns whether this process holds its lock, so that it may begin attempts.
    pub(crate) fn is_held(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    /// Returns the time since the lock was last known to be held.
    pub(crate) fn silence(&self) -> Duration {
        let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        held.last.elapsed()
    }

    fn set(&self, held: Option<Instant>) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.now = held.is_some();
        lock.last = held.unwrap_or(lock.last);
    }
}

/// Holds the lock of this process until shutdown. A lost session is opened again, and takes the
/// same lock: a short failover of Postgres neither ends a running attempt nor starts a second one.
pub(crate) async fn hold_instance(shared: Shared) -> anyhow::Result<()> {
    let mut retry = Retry::new("holding the lock of this process").at_most(Duration::from_secs(1));
    loop {
        let ended = session(&shared).await;
        shared.instance.set(None);
        let Err(error) = ended else { return Ok(()) };
        if !retry.wait(&error, &shared.attempts_ended).await {
            return Ok(());
        }
    }
}

/// Holds the lock in one session, until an error or the end of all attempts after a stop request.
async fn session(shared: &Shared) -> Result<(), Error> {
    let lock = Lock::Instance(shared.instance.owner.instance);
    let mut db = shared.session().await?;
    loop {
        let asked = Instant::now();
        if within(shared.session_timeout, lock.try_acquire(&mut db)).await? {
            shared.instance.set(Some(asked));
            break;
        }
        // The lost session of this process still lives in the server, for a while.
        if !shared.pause(shared.ping_every()).await {
            return Ok(());
        }
    }
    shared.work_recorded.notify_one();
    while shared.pause(shared.ping_every()).await {
        let asked = Instant::now();
        within(shared.session_timeout, ping(&mut db)).await?;
        shared.instance.set(Some(asked));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_its_id_is_free_or_used_again() {
        let this = Owner::this();
        assert!(!this.is_gone());
        let earlier = Owner {
            pid_started: this.pid_started - 1,
            ..this.clone()
        };
        assert!(earlier.is_gone());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = started(pid).unwrap_or_default();
        let other = Owner {
            pid,
            pid_started: started,
            ..this.clone()
        };
        child.wait().unwrap();
        assert!(other.is_gone());
        let elsewhere = Owner {
            machine: "another".to_owned(),
            ..other
        };
        assert!(!elsewhere.is_gone());
    }
}
