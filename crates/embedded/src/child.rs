//! One supervised child: spawned, watched, restarted.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;

use crate::user::User;

/// How a child is started and stopped.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) user: Option<User>,
    pub(crate) log: PathBuf,
    /// What asks it to stop.
    pub(crate) stop: &'static str,
    /// What it gets from the kernel when we are gone.
    pub(crate) orphaned: &'static str,
}

/// What is known of it now.
#[derive(Debug, Clone)]
enum State {
    Running(u32),
    Waiting,
    Stopped,
    GivenUp(String),
}

/// A child with its supervisor. Dropping it stops the child without waiting.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    log: PathBuf,
    state: watch::Receiver<State>,
    stop: Option<Sender<()>>,
}

/// Time to stop gently before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// After so long a life, a death counts as the first: what can't live dies sooner.
const HEALTHY: Duration = Duration::from_secs(2);
/// Deaths in a row after which it is given up.
const DEATHS: u32 = 10;

impl Child {
    /// Spawns it. The supervisor is a thread of its own that lives as long as the child, because the signal that the kernel sends
    /// to orphans follows the *thread* that spawned them: one of a pool could end while we live, and take the child with it.
    pub(crate) fn start(spec: Spec) -> anyhow::Result<Child> {
        let (stop, orders) = channel();
        let (sender, state) = watch::channel(State::Waiting);
        let (name, log) = (spec.name, spec.log.clone());
        std::thread::Builder::new()
            .name(format!("child {name}"))
            .spawn(move || supervise(&spec, &orders, &sender))
            .context("can't start a thread")?;
        Ok(Child {
            name,
            log,
            state,
            stop: Some(stop),
        })
    }

    /// Its process, while there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Running(pid) => Some(pid),
            _ => None,
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// Resolves when it can't be kept alive.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        let mut state = self.state.clone();
        let given_up = state.wait_for(|state| matches!(state, State::GivenUp(_)));
        let given_up = given_up.await.map(|state| state.clone());
        match given_up {
            Ok(State::GivenUp(error)) => anyhow!("{error}"),
            _ => std::future::pending().await,
        }
    }

    /// Waits until `answers` says so; fails when the child does, or after `patience`.
    pub(crate) async fn wait_until<F: Future<Output = bool>>(
        &self,
        answers: impl Fn() -> F,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let poll = async {
            while !answers().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = poll => Ok(()),
            error = self.failed() => Err(error),
            () = tokio::time::sleep(patience) => Err(anyhow!("{} did not answer in {patience:?}; the end of its log {}:\n{}", self.name, self.log.display(), tail(&self.log))),
        }
    }

    /// Stops it and waits until it is gone.
    pub(crate) async fn stop(mut self) {
        self.stop.take();
        let mut state = self.state.clone();
        let gone = state.wait_for(|state| matches!(state, State::Stopped | State::GivenUp(_)));
        if tokio::time::timeout(GRACE + Duration::from_secs(2), gone)
            .await
            .is_err()
        {
            tracing::warn!("{} did not stop", self.name);
        }
    }
}

fn supervise(spec: &Spec, orders: &Receiver<()>, state: &watch::Sender<State>) {
    let mut deaths = 0;
    loop {
        let started = Instant::now();
        let how = match spawn(spec) {
            Ok(mut child) => {
                state.send_replace(State::Running(child.id()));
                match watch(spec, &mut child, orders) {
                    Some(how) => how,
                    None => break,
                }
            }
            Err(error) => format!("{error:#}"),
        };
        deaths = if started.elapsed() > HEALTHY {
            1
        } else {
            deaths + 1
        };
        if deaths >= DEATHS {
            let error = format!(
                "{} keeps dying ({how}); the end of its log {}:\n{}",
                spec.name,
                spec.log.display(),
                tail(&spec.log)
            );
            state.send_replace(State::GivenUp(error));
            return;
        }
        let pause =
            (Duration::from_millis(50) * 2_u32.pow(deaths.min(8))).min(Duration::from_secs(10));
        tracing::warn!("{} died ({how}); starting it again in {pause:?}", spec.name);
        state.send_replace(State::Waiting);
        if !matches!(orders.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    state.send_replace(State::Stopped);
}

/// Waits for the child's death, and says how; or for the order to stop it (also: we were dropped), which it carries out.
fn watch(spec: &Spec, child: &mut std::process::Child, orders: &Receiver<()>) -> Option<String> {
    const TICK: Duration = Duration::from_millis(20);
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Some(status.to_string()),
            Err(error) => return Some(error.to_string()),
        }
        if matches!(orders.recv_timeout(TICK), Err(RecvTimeoutError::Timeout)) {
            continue;
        }
        signal(child.id(), spec.stop);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if !matches!(child.try_wait(), Ok(None)) {
                return None;
            }
            std::thread::sleep(TICK);
        }
        tracing::warn!("{} did not stop in {GRACE:?} and is killed", spec.name);
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
}

fn spawn(spec: &Spec) -> anyhow::Result<std::process::Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&spec.log)
        .with_context(|| format!("can't open {}", spec.log.display()))?;
    let mut command = as_user(spec.user.as_ref(), Some(spec.orphaned));
    command.arg(&spec.program).args(&spec.arguments);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/");
    command
        .spawn()
        .with_context(|| format!("can't run setpriv for {}", spec.name))
}

/// A command that runs what is added to it as `user`, with a signal when its parent is gone.
pub(crate) fn as_user(user: Option<&User>, orphaned: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(signal) = orphaned {
        command.args(["--pdeathsig", signal]);
    }
    if let Some(user) = user {
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .arg("--clear-groups");
    }
    command.arg("--");
    command
}

/// Sends a signal (`TERM`, `KILL`, `STOP` …) to a process that we started.
pub fn signal(pid: u32, name: &str) {
    // The shell's own kill: a program of that name may be missing.
    let sent = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    if let Err(error) = sent {
        tracing::warn!("can't send {name} to process {pid}: {error}");
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    /// More than the last lines have, and no more of a log that has grown for years.
    const END: u64 = 16 * 1024;
    let read = || {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines
        .into_iter()
        .rev()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
