//! A duty of process 1: reaping orphans.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};

/// The pause between two looks. A process that has ended and was not reaped by the next look has
/// no owner here: the owners of children wait for them all the time.
const LOOK: Duration = Duration::from_secs(5);

/// If this is process 1 of a container, reaps the processes that it did not start: it becomes the
/// parent of each process whose parent has ended. Never returns.
pub(crate) async fn reap_orphans() {
    if getpid() != Pid::INIT {
        std::future::pending::<()>().await;
    }
    let mut before = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        before = reap(&before);
    }
}

/// Reaps the children that had ended before too. Returns those that have ended since.
fn reap(before: &BTreeMap<i32, u64>) -> BTreeMap<i32, u64> {
    let mut ended = ended();
    ended.retain(|pid, started| {
        let seen = before.get(pid) == Some(started);
        if let Some(child) = Pid::from_raw(*pid).filter(|_| seen) {
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
        !seen
    });
    ended
}

/// Returns the children of this process that wait to be reaped, with the times of their starts.
fn ended() -> BTreeMap<i32, u64> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = getpid().as_raw_pid().to_string();
    let child = |name: &str| {
        let pid: i32 = name.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program stands in parentheses, which it may contain: see proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ended = *fields.first()? == "Z" && *fields.get(1)? == own;
        let started = fields.get(19)?.parse().ok()?;
        ended.then_some((pid, started))
    };
    entries
        .filter_map(|entry| child(entry.file_name().to_str()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_reaped_when_nobody_else_has_done_so() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let seen = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(10));
            reap(&BTreeMap::new())
        });
        let seen = seen.take(500).find(|ended| ended.contains_key(&pid));
        let mut seen = seen.expect("the child has ended");
        // Another process has had the number before.
        let other = BTreeMap::from([(pid, seen[&pid] + 1)]);
        assert!(reap(&other).contains_key(&pid));
        // Other tests have children too, which are not ours to reap.
        seen.retain(|one, _| *one == pid);
        assert!(!reap(&seen).contains_key(&pid));
        assert!(!ended().contains_key(&pid));
        child.wait().unwrap_err();
    }
}
