//! Processor time and memory of processes, from `/proc`.

use std::path::Path;

/// Clock ticks in a second (`sysconf(_SC_CLK_TCK)`, which is 100 on all usual Linux systems).
const TICKS: f64 = 100.0;

/// Returns the processor time so far, in seconds, of a process and its children, ended ones
/// included.
pub(crate) fn seconds(pid: u32) -> f64 {
    let mut ticks = own(pid).map_or(0, |(_, with_ended)| with_ended);
    // Backends of Postgres are children of its first process; no process here has grandchildren.
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(other) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some((parent, used)) = own(other)
            && parent == pid
        {
            ticks += used;
        }
    }
    ticks as f64 / TICKS
}

/// Returns the parent of a process, and the ticks of the process and its ended children.
fn own(pid: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets, which may hold any character.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let parent = u32::try_from(number(1)?).ok()?;
    Some((
        parent,
        number(11)? + number(12)? + number(13)? + number(14)?,
    ))
}

/// Returns the resident memory of a process in MiB; `None` after its end.
pub(crate) fn resident(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let text = text.ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
