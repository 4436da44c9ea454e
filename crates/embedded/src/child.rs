//! One child process under supervision: started, watched and restarted.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;

use crate::entry;
use crate::user::User;

/// The program of a child, and the signals that end it.
#[derive(Debug, Clone)]
pub(crate) struct ChildSpec {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) user: Option<User>,
    pub(crate) log: PathBuf,
    /// The signal that asks the child to stop.
    pub(crate) stop: &'static str,
    /// The signal that the kernel sends to the child when this process has died.
    pub(crate) death_signal: &'static str,
}

/// The state of a child.
#[derive(Debug, Clone)]
enum State {
    Running(u32),
    Waiting,
    Stopped,
    GivenUp(String),
}

/// A child with its supervisor. Dropping it stops the child without waiting for the end.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    log: PathBuf,
    state: watch::Receiver<State>,
    stop: Option<Sender<()>>,
}

/// The time between the stop signal and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// A child that lives longer counts its next death as the first: a child that cannot run at all
/// dies sooner.
const HEALTHY: Duration = Duration::from_secs(2);
/// The number of deaths in a row after which the supervisor gives up.
const DEATHS: u32 = 10;

impl Child {
    /// Starts the child. The supervisor is a thread of its own that lives as long as the child,
    /// because the kernel sends the death signal when the *thread* that started the child ends: a
    /// thread of a pool could end earlier and take the child with it.
    pub(crate) fn start(spec: ChildSpec) -> anyhow::Result<Child> {
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

    /// Returns the process id, while the child runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Running(pid) => Some(pid),
            _ => None,
        }
    }

    /// Returns the last lines of the log.
    pub(crate) fn log_end(&self) -> String {
        tail(&self.log)
    }

    /// Resolves when the supervisor gives up.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        let mut state = self.state.clone();
        let given_up = state.wait_for(|state| matches!(state, State::GivenUp(_)));
        let given_up = given_up.await.map(|state| state.clone());
        match given_up {
            Ok(State::GivenUp(error)) => anyhow!("{error}"),
            _ => std::future::pending().await,
        }
    }

    /// Waits until `answers` returns true. Fails when the supervisor gives up, or after
    /// `time_limit`.
    pub(crate) async fn wait_until<F: Future<Output = bool>>(
        &self,
        answers: impl Fn() -> F,
        time_limit: Duration,
    ) -> anyhow::Result<()> {
        let poll = async {
            while !answers().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = poll => Ok(()),
            error = self.failed() => Err(error),
            () = tokio::time::sleep(time_limit) => Err(anyhow!("{} did not answer in {time_limit:?}; the end of its log {}:\n{}", self.name, self.log.display(), tail(&self.log))),
        }
    }

    /// Stops the child and waits for the end.
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

fn supervise(spec: &ChildSpec, orders: &Receiver<()>, state: &watch::Sender<State>) {
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
                "{} died {deaths} times in a row, last by {how}; the end of its log {}:\n{}",
                spec.name,
                spec.log.display(),
                tail(&spec.log)
            );
            state.send_replace(State::GivenUp(error));
            return;
        }
        let pause =
            (Duration::from_millis(50) * 2_u32.pow(deaths.min(8))).min(Duration::from_secs(10));
        tracing::warn!("{} died ({how}); restart in {pause:?}", spec.name);
        state.send_replace(State::Waiting);
        if !matches!(orders.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    state.send_replace(State::Stopped);
}

/// Waits for the death of the child and returns its cause. `None`: the child was stopped, by order
/// or because its `Child` was dropped.
fn watch(
    spec: &ChildSpec,
    child: &mut std::process::Child,
    orders: &Receiver<()>,
) -> Option<String> {
    // An order wakes the thread at once; a death may be seen a moment later.
    const LOOK: Duration = Duration::from_millis(200);
    const TICK: Duration = Duration::from_millis(20);
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Some(status.to_string()),
            Err(error) => return Some(error.to_string()),
        }
        if matches!(orders.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
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
        tracing::warn!("{} did not stop in {GRACE:?}; killing it", spec.name);
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
}

fn spawn(spec: &ChildSpec) -> anyhow::Result<std::process::Child> {
    let log = entry::open(File::options().create(true).append(true), &spec.log)?;
    let mut command = as_user(spec.user.as_ref(), Some(spec.death_signal));
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

/// Returns a command that runs the program added to it as `user`. The program gets `death_signal`
/// when the parent thread ends.
pub(crate) fn as_user(user: Option<&User>, death_signal: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    clear_environment(&mut command);
    if let Some(signal) = death_signal {
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

/// Leaves a program only the variables that it needs. The rest of this process's environment holds
/// secrets of the services, and other users may read the environment of a child that runs as them.
pub(crate) fn clear_environment(command: &mut Command) {
    command.env_clear();
    for name in ["PATH", "LANG"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
}

/// Sends a signal (`TERM`, `KILL`, `STOP` …) to a process that this process started.
pub fn signal(pid: u32, name: &str) {
    // The `kill` of the shell: a program of that name may be missing.
    let sent = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    if let Err(error) = sent {
        tracing::warn!("can't send {name} to process {pid}: {error}");
    }
}

/// Returns the last 15 lines of a log, indented.
fn tail(log: &Path) -> String {
    /// Most bytes read: more than 15 lines have, and little of a log that has grown for years.
    const END: u64 = 16 * 1024;
    let read = || {
        let mut file = File::open(log)?;
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
