//! A command under its supervisor, as the trigger service sees it.

use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::super::contract::Order;
use super::protocol::{self, Kind, Report, Task, message};

/// Most lines of the output of an attempt that the log gets, and most bytes of one.
const LINES: u32 = 10_000;
const LINE: usize = 1024;

/// A running command. After a drop its supervisor ends all its processes, unless the program has
/// succeeded.
pub(super) struct Running {
    supervisor: Child,
    /// The supervisor ends the processes when this is closed.
    lifeline: Option<ChildStdin>,
    reports: Option<ChildStdout>,
}

impl Running {
    /// Starts the supervisor. `place` is the folder of the file that defines the trigger: it tells
    /// supervisors of several installations on a machine apart.
    pub(super) async fn start(order: &Order, place: &str, task: &Task) -> io::Result<Running> {
        let rollout = &order.rollout;
        let mut supervisor = Command::new(&order.supervisor.0)
            .arg0("tagtrail")
            .args(["supervise", &rollout.trigger, &rollout.id])
            .args([&rollout.attempts.to_string(), place])
            .current_dir("/")
            .env_clear()
            // The allocator would begin with huge pages: 9 MB for a supervisor in place of 3 MB.
            // The program does not get this variable.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A signal from the keyboard reaches the service alone.
            .process_group(0)
            .spawn()?;
        let mut lifeline = supervisor.stdin.take();
        if let Some(to) = &mut lifeline {
            let task = serde_json::to_vec(task)?;
            to.write_all(&message(Kind::Task, &task)).await?;
            to.write_all(&message(Kind::Input, &order.body)).await?;
        }
        Ok(Running {
            reports: supervisor.stdout.take(),
            supervisor,
            lifeline,
        })
    }

    /// Returns the reader of reports, once.
    pub(super) fn reports(&mut self) -> Option<ChildStdout> {
        self.reports.take()
    }

    /// Orders the end of all processes: SIGTERM, and SIGKILL after the grace time.
    pub(super) fn end(&mut self) {
        self.lifeline = None;
    }

    /// Waits until all processes are gone, at most until the deadline.
    pub(super) async fn gone(&mut self, deadline: Instant) {
        let _ = tokio::time::timeout_at(deadline, self.supervisor.wait()).await;
    }
}

/// Collects the output until the report. `None`: the supervisor has ended without a report.
pub(super) async fn report(
    reports: Option<ChildStdout>,
    order: &Order,
) -> io::Result<Option<Report>> {
    let Some(mut reports) = reports else {
        return Ok(None);
    };
    let (mut content, mut log) = (Vec::new(), Log::new(order));
    loop {
        match protocol::read(&mut reports, &mut content).await? {
            Some(Kind::Output) => {
                order.said.push(&content);
                log.push(&content);
            }
            Some(Kind::Report) => {
                log.line();
                return Ok(Some(serde_json::from_slice(&content)?));
            }
            Some(Kind::Task | Kind::Input) => return Err(protocol::wrong()),
            None => return Ok(None),
        }
    }
}

/// Writes lines of the output to the log, at level `debug`.
struct Log<'a> {
    order: &'a Order,
    line: Vec<u8>,
    /// Lines that the log still gets.
    left: u32,
}

impl Log<'_> {
    fn new(order: &Order) -> Log<'_> {
        let left = if tracing::enabled!(tracing::Level::DEBUG) {
            LINES
        } else {
            0
        };
        Log {
            order,
            line: Vec::new(),
            left,
        }
    }

    fn push(&mut self, output: &[u8]) {
        for part in output.split_inclusive(|byte| *byte == b'\n') {
            if self.left == 0 {
                return;
            }
            let room = LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.line();
            }
        }
    }

    /// Writes the line so far.
    fn line(&mut self) {
        let line = self.order.said.shown(&self.line);
        self.line.clear();
        if self.left == 0 || line.trim().is_empty() {
            return;
        }
        self.left -= 1;
        let rollout = &self.order.rollout;
        let (trigger, id, number) = (&rollout.trigger, &rollout.id, rollout.number);
        tracing::debug!(
            trigger,
            rollout.id = id,
            rollout.number = number,
            "output of the command of {trigger}: {}",
            line.trim_end()
        );
        if self.left == 0 {
            tracing::debug!("further output of the command of {trigger} is not logged");
        }
    }
}
