//! Processes of earlier attempts: two deploys of one trigger never run at once on a machine, also
//! after the service was killed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rustix::process::Pid;
use tagtrail_failpoint::FailPoint;
use tokio::time::{Instant, sleep};

use super::super::contract::Order;
use super::supervise::{KEEPS, RUNS};
use super::tree::{self, Process};

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// The time that a supervisor may take beyond its grace time.
pub(super) const MARGIN: Duration = Duration::from_secs(2);

/// Waits until no command of this trigger runs or is being ended by its supervisor, and ends the
/// processes of earlier attempts since the last success that have lost their supervisor. An error names a
/// process that has not ended within the grace time.
pub(super) async fn ended(order: &Order, place: &str, grace: Duration) -> Result<(), String> {
    if FailPoint::TriggerEarlier.skipped() {
        return Ok(());
    }
    let deadline = Instant::now() + grace + MARGIN;
    while let Some(busy) = supervisors().find(|one| one.runs && one.is_of(order, place)) {
        if Instant::now() >= deadline {
            return Err(format!(
                "an earlier attempt is still being ended (process {})",
                busy.pid
            ));
        }
        sleep(LOOK).await;
    }
    // A first attempt after a success has no processes.
    match order.rollout.attempts {
        0 | 1 if order.unfinished.is_empty() => Ok(()),
        _ => end_orphans(order, grace).await,
    }
}

/// Ends the processes of this rollout, and of those before it without success, that have no supervisor: SIGTERM, and SIGKILL after the grace
/// time.
pub(super) async fn end_orphans(order: &Order, grace: Duration) -> Result<(), String> {
    let orphans = orphans(order);
    if orphans.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        "ending {} processes of the command of {} that have lost their supervisor",
        orphans.len(),
        order.rollout.trigger
    );
    for process in &orphans {
        process.signal(rustix::process::Signal::TERM);
        process.signal(rustix::process::Signal::CONT);
    }
    let kill_at = Instant::now() + grace;
    loop {
        let left = self::orphans(order);
        let Some(first) = left.first() else {
            return Ok(());
        };
        if Instant::now() >= kill_at {
            left.iter()
                .for_each(|one| one.signal(rustix::process::Signal::KILL));
        }
        if Instant::now() >= kill_at + MARGIN {
            let pid = first.pid;
            return Err(format!(
                "a process of an earlier attempt does not end (process {pid})"
            ));
        }
        sleep(LOOK).await;
    }
}

/// A supervisor of this user.
struct Supervisor {
    pid: Pid,
    /// Whether its program runs, or is being ended.
    runs: bool,
    /// Its trigger, rollout, attempt and folder.
    of: Vec<String>,
}

impl Supervisor {
    fn is_of(&self, order: &Order, place: &str) -> bool {
        let (trigger, id) = (order.rollout.trigger.as_str(), order.rollout.id.as_str());
        match self.of.as_slice() {
            [of, rollout, _, folder] => rollout == id || of == trigger && folder == place,
            _ => false,
        }
    }
}

/// Returns the supervisors of this user on this machine.
fn supervisors() -> impl Iterator<Item = Supervisor> {
    let user = rustix::process::geteuid().as_raw();
    let pids = tree::processes().into_values().map(|process| process.pid);
    pids.filter_map(move |pid| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).ok();
        let name = read("comm")?;
        let runs = name.trim_ascii_end() == RUNS.to_bytes();
        if !runs && name.trim_ascii_end() != KEEPS.to_bytes() {
            return None;
        }
        // Another user's process may bear any name.
        let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        let arguments = String::from_utf8(read("cmdline")?).ok()?;
        let of = arguments.split_terminator('\0').skip(2).map(str::to_owned);
        (owner == user).then(|| Supervisor {
            pid,
            runs,
            of: of.collect(),
        })
    })
}

/// Returns the processes that have the variables of this rollout or of an unfinished one before it,
/// and no supervisor above them.
fn orphans(order: &Order) -> Vec<Process> {
    let all = tree::processes();
    let supervisors: Vec<Pid> = supervisors().map(|one| one.pid).collect();
    let supervised = |all: &BTreeMap<i32, Process>, process: &Process| {
        let mut supervisors = supervisors.iter();
        supervisors.any(|one| *one == process.pid || tree::is_below(all, process, *one))
    };
    let ids = order.unfinished.iter().chain([&order.rollout.id]);
    let marks: Vec<String> = ids.map(|id| format!("TAGTRAIL_ROLLOUT_ID={id}")).collect();
    let of_rollout = |process: &&Process| {
        let environment = tree::environment(process.pid);
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|one| marks.iter().any(|mark| mark.as_bytes() == one))
    };
    let orphans = all.values().filter(|process| !supervised(&all, process));
    let orphans = orphans.filter(of_rollout).filter(|process| process.lives());
    orphans.copied().collect()
}
