//! Processor time and memory of processes, from `/proc`.

use std::collections::HashMap;
use std::time::Instant;

/// Clock ticks in a second (`sysconf(_SC_CLK_TCK)`, which is 100 on all usual Linux systems).
const TICKS: f64 = 100.0;

/// Returns the processor time so far, in seconds, of a process and its children, ended ones
/// included.
pub(crate) fn seconds(pid: u32) -> f64 {
    let processes = processes();
    // Backends of Postgres are children of its first process; no server here has grandchildren.
    let ticks = processes
        .iter()
        .filter(|(other, process)| **other == pid || process.parent == pid)
        .map(|(_, process)| process.own + process.of_ended_children)
        .sum::<u64>();
    ticks as f64 / TICKS
}

/// Returns the processor time so far, in seconds, of a process without its children.
pub(crate) fn alone(pid: u32) -> f64 {
    process(pid).map_or(0.0, |process| process.own as f64 / TICKS)
}

/// Cores that other programs used, from the creation of this value on.
#[derive(Debug)]
pub(crate) struct Others {
    since: Instant,
    machine: f64,
    ours: f64,
}

impl Others {
    pub(crate) fn watch() -> Others {
        Others {
            since: Instant::now(),
            machine: machine(),
            ours: below(std::process::id()),
        }
    }

    /// Returns the mean number of cores that programs other than this one, and the processes that
    /// it started, have used.
    pub(crate) fn cores(&self) -> f64 {
        let used = (machine() - self.machine) - (below(std::process::id()) - self.ours);
        (used / self.since.elapsed().as_secs_f64()).max(0.0)
    }
}

/// Returns the processor time so far, in seconds, of the whole machine. Time stolen by other
/// virtual machines counts.
fn machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; time of guests is part of user.
    let busy = [0, 1, 2, 5, 6, 7].map(|place| fields.get(place).copied().unwrap_or(0));
    busy.iter().sum::<u64>() as f64 / TICKS
}

/// Returns the processor time so far, in seconds, of a process and of all processes below it, ended
/// ones included.
pub(crate) fn below(pid: u32) -> f64 {
    let processes = processes();
    let (mut ticks, mut next) = (0, vec![pid]);
    while let Some(pid) = next.pop() {
        if let Some(process) = processes.get(&pid) {
            ticks += process.own + process.of_ended_children;
        }
        let children = processes.iter().filter(|(_, child)| child.parent == pid);
        next.extend(children.map(|(child, _)| *child));
    }
    ticks as f64 / TICKS
}

/// The processor time of a process, in clock ticks.
#[derive(Debug)]
struct ProcessTime {
    parent: u32,
    own: u64,
    of_ended_children: u64,
}

fn processes() -> HashMap<u32, ProcessTime> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, process(pid)?))
        })
        .collect()
}

fn process(pid: u32) -> Option<ProcessTime> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets, which may hold any character.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(ProcessTime {
        parent: u32::try_from(number(1)?).ok()?,
        own: number(11)? + number(12)?,
        of_ended_children: number(13)? + number(14)?,
    })
}

/// Returns the resident memory of a process in MiB; `None` after its end.
pub(crate) fn resident(pid: u32) -> Option<f64> {
    Some(tagtrail_testkit::resident(pid)? as f64 / 1024.0)
}
