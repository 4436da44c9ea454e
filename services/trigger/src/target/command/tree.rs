//! Processes as `/proc` lists them, and the end of a tree of processes.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use rustix::process::{Pid, PidfdFlags, Signal};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: Pid,
    parent: i32,
    group: i32,
    zombie: bool,
    /// The time of the start, in ticks since the start of the system.
    started: u64,
}

impl Process {
    /// Reads a process. `None`: there is no such process.
    pub(super) fn read(pid: Pid) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Process::parse(pid, &stat)
    }

    /// Parses `/proc/PID/stat`, see `proc(5)`. The name stands in parentheses, which it may contain.
    fn parse(pid: Pid, stat: &str) -> Option<Process> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Process {
            pid,
            zombie: *fields.first()? == "Z",
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Sends a signal to this process, and to no other one that has its number meanwhile.
    pub(super) fn signal(&self, signal: Signal) {
        // Kernels before 5.3 and some sandboxes have no such handles.
        let handle = rustix::process::pidfd_open(self.pid, PidfdFlags::empty()).ok();
        if Process::read(self.pid).is_none_or(|now| now.started != self.started) {
            return;
        }
        let _ = match handle {
            Some(handle) => rustix::process::pidfd_send_signal(handle, signal),
            None => rustix::process::kill_process(self.pid, signal),
        };
    }

    /// Returns whether the process has not ended.
    pub(super) fn lives(&self) -> bool {
        Process::read(self.pid).is_some_and(|now| now.started == self.started && !now.zombie)
    }
}

/// Returns all processes that this one can see.
pub(super) fn processes() -> BTreeMap<i32, Process> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return found;
    };
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(process) = pid.and_then(Pid::from_raw).and_then(Process::read) {
            found.insert(process.pid.as_raw_pid(), process);
        }
    }
    found
}

/// Returns whether a process is below another one.
pub(super) fn is_below(processes: &BTreeMap<i32, Process>, process: &Process, top: Pid) -> bool {
    let (mut parent, top) = (process.parent, top.as_raw_pid());
    // A process that ends while the list is read can close a circle.
    for _ in 0..processes.len() {
        if parent == top {
            return true;
        }
        match processes.get(&parent) {
            Some(above) => parent = above.parent,
            None => return false,
        }
    }
    false
}

/// Returns the processes below one, except those that only wait for their parent.
pub(super) fn below(top: Pid) -> Vec<Process> {
    let processes = processes();
    let living = processes.values().filter(|process| !process.zombie);
    let below = living.filter(|process| is_below(&processes, process, top));
    below.copied().collect()
}

/// Asks processes to end, once: a program may clean up by processes of its own.
pub(super) fn terminate(processes: &[Process], group: Pid) {
    each(processes, group, Signal::TERM);
    // A stopped process does not see the signal.
    each(processes, group, Signal::CONT);
}

/// Ends processes.
pub(super) fn kill(processes: &[Process], group: Pid) {
    each(processes, group, Signal::KILL);
}

/// Sends a signal to all processes: to those of the group together, so that none escapes by a fork.
fn each(processes: &[Process], group: Pid, signal: Signal) {
    let number = group.as_raw_pid();
    // The number of an empty group may have a new owner.
    if processes.iter().any(|process| process.group == number) {
        let _ = rustix::process::kill_process_group(group, signal);
    }
    let others = processes.iter().filter(|process| process.group != number);
    others.for_each(|process| process.signal(signal));
}

/// Returns the environment of a process as `NAME=value` entries, each followed by NUL. Empty: the
/// process belongs to another user, or has ended.
pub(super) fn environment(pid: Pid) -> Vec<u8> {
    match std::fs::read(format!("/proc/{pid}/environ")) {
        Ok(environment) => environment,
        Err(error) => {
            if error.kind() != ErrorKind::PermissionDenied {
                tracing::trace!("can't read the environment of the process {pid}: {error}");
            }
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let pid = Pid::from_raw(7).unwrap();
        let line = |name: &str, state: char| {
            format!("7 ({name}) {state} 3 5 5 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 99 1000 10")
        };
        let expected = Process {
            pid,
            parent: 3,
            group: 5,
            zombie: false,
            started: 99,
        };
        for name in ["sh", "a) S 1 (b", "", "two words"] {
            let read = Process::parse(pid, &line(name, 'S')).unwrap();
            assert_eq!(read, expected, "{name}");
        }
        assert!(Process::parse(pid, &line("sh", 'Z')).unwrap().zombie);
        assert_eq!(Process::parse(pid, "7 (sh) S"), None);
    }

    #[test]
    fn descendants_are_found_below_their_ancestors() {
        let process = |pid: i32, parent: i32| Process {
            pid: Pid::from_raw(pid).unwrap(),
            parent,
            group: pid,
            zombie: false,
            started: 1,
        };
        // 8 and 9 form a circle.
        let rows = [(1, 0), (2, 1), (3, 2), (4, 3), (5, 1), (8, 9), (9, 8)];
        let all = rows.map(|(pid, parent)| (pid, process(pid, parent)));
        let all = BTreeMap::from(all);
        let top = Pid::from_raw(2).unwrap();
        let below: Vec<i32> = all
            .values()
            .filter(|process| is_below(&all, process, top))
            .map(|process| process.pid.as_raw_pid())
            .collect();
        assert_eq!(below, [3, 4]);
    }

    #[test]
    fn this_process_is_among_all() {
        let own = rustix::process::getpid();
        let read = Process::read(own).unwrap();
        assert!(read.lives());
        assert_eq!(
            processes().get(&own.as_raw_pid()).unwrap().started,
            read.started
        );
        let other = Process {
            started: read.started + 1,
            ..read
        };
        assert!(!other.lives());
        // The process with this number is another one: it must survive.
        other.signal(Signal::KILL);
        let environment = environment(own);
        assert!(
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry.starts_with(b"PATH="))
        );
    }
}
