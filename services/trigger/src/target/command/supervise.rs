//! The supervisor of a command: a process between the trigger service and the program.
//!
//! It is the subreaper of all processes that the program starts, so none escapes by a double fork.
//! Its standard input is a lifeline: when the service closes it, or dies in any way, the supervisor
//! ends the tree by SIGTERM and, after the grace time, SIGKILL. It stays until the last of these
//! processes is gone, and ignores signals itself: a service manager that stops all processes of
//! the service at once must not stop it first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Gid, Pid, Uid, WaitOptions, WaitStatus};
use rustix::thread;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::protocol::{self, Ids, Kind, Report, Task, message};
use super::tree;

/// The name of a supervisor whose program runs, or whose tree is being ended.
pub(super) const RUNS: &std::ffi::CStr = c"tagtrail-runs";
/// The name of a supervisor that keeps the processes that a successful program left behind.
pub(super) const KEEPS: &std::ffi::CStr = c"tagtrail-keeps";

/// Bytes of output read at once.
const CHUNK: usize = 64 * 1024;
/// Longest time for output that arrives while the last output is read.
const DRAIN: Duration = Duration::from_secs(1);
/// The pause between two rounds of SIGKILL.
const AGAIN: Duration = Duration::from_millis(50);

/// Runs the task that arrives on standard input, reports on standard output, and returns when all
/// processes of the task are gone.
#[must_use]
#[expect(clippy::print_stderr, reason = "for a person who starts it by hand")]
pub fn supervise() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the trigger service starts this command by itself: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> io::Result<()> {
    // Handlers, because the program would inherit ignored signals.
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        drop(signal(kind)?);
    }
    let children = signal(SignalKind::child())?;
    let mut lifeline = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut service = Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let task = expect(&mut lifeline, Kind::Task).await?;
    let task: Task = serde_json::from_slice(&task)?;
    let input = expect(&mut lifeline, Kind::Input).await?;
    thread::set_name(RUNS)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let program = match start(&task, &input) {
        Ok(program) => program,
        Err((step, error)) => {
            let code = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
            let report = Report::NotStarted { step, code };
            return send(&mut service, &report).await;
        }
    };
    let mut pipes = JoinSet::new();
    pipes.spawn(feed(program.input, input, program.fed));
    let (tell, told) = oneshot::channel();
    let relay = relay(Receiver::from_owned_fd(program.output)?, service, told);
    let mut relaying = JoinSet::new();
    relaying.spawn(relay);
    let tree = Tree {
        program: program.pid,
        grace: task.grace,
        keep: task.keep,
        phase: Phase::Running,
        tell: Some(tell),
    };
    tree.watch(children, lifeline).await?;
    // No process of the tree is left to write output.
    let _ = timeout(DRAIN, relaying.join_next()).await;
    Ok(())
}

/// Reads a message of this kind.
async fn expect(from: &mut Receiver, kind: Kind) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    match protocol::read(from, &mut content).await? {
        Some(read) if read == kind => Ok(content),
        _ => Err(protocol::wrong()),
    }
}

async fn send(service: &mut Sender, report: &Report) -> io::Result<()> {
    let content = serde_json::to_vec(report)?;
    service.write_all(&message(Kind::Report, &content)).await
}

/// A program with its pipes.
struct Program {
    pid: Pid,
    input: OwnedFd,
    /// The number of bytes of the input that are in the pipe.
    fed: usize,
    output: OwnedFd,
}

/// Starts the program in a process group of its own. Standard output and standard error are one
/// pipe, which keeps their order. As much of the input as the pipe takes is there before the program
/// starts, so a program never reads a part of it if the supervisor is killed. An error names the
/// step that failed.
fn start(task: &Task, input: &[u8]) -> Result<Program, (String, io::Error)> {
    let cannot = |step: &str| {
        let step = step.to_owned();
        move |error| (step, error)
    };
    let start = || {
        let (stdin, to_stdin) = io::pipe()?;
        rustix::io::ioctl_fionbio(&to_stdin, true)?;
        let fed = rustix::io::write(&to_stdin, input)?;
        let (output, stdout) = io::pipe()?;
        let child = Command::new(&task.program)
            .arg0(task.words.first().map_or("", String::as_str))
            .args(task.words.iter().skip(1))
            .current_dir(&task.folder)
            .env_clear()
            .envs(task.environment.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(stdout.try_clone()?)
            .stderr(stdout)
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Program {
            pid: pid.ok_or(Errno::SRCH)?,
            input: to_stdin.into(),
            fed,
            output: output.into(),
        })
    };
    let Some(user) = &task.user else {
        return start().map_err(cannot("start"));
    };
    // The user is one of a thread, whose children have the same; the supervisor stays root, so it
    // can end them.
    let as_user = || {
        become_user(user).map_err(cannot("become the user of"))?;
        start().map_err(cannot("start"))
    };
    let started = std::thread::scope(|scope| scope.spawn(as_user).join());
    started.unwrap_or_else(|_| Err((String::from("start"), Errno::INVAL.into())))
}

/// Makes this thread run as a user.
fn become_user(user: &Ids) -> io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    thread::set_thread_groups(&groups)?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Writes the rest of the program's input. The program may end without reading it.
async fn feed(to: OwnedFd, input: Vec<u8>, fed: usize) {
    let rest = input.get(fed..).unwrap_or_default();
    if let Ok(mut to) = Sender::from_owned_fd(to) {
        let _ = to.write_all(rest).await;
    }
}

/// Passes the output on until all writers have closed it, and the report once it is told. After the
/// service has gone away the output is read and dropped: its writers must neither block nor die.
async fn relay(mut output: Receiver, service: Sender, mut told: oneshot::Receiver<Report>) {
    let mut service = Some(service);
    let mut buffer = vec![0; CHUNK];
    let (mut open, mut done) = (true, false);
    while open || !done {
        tokio::select! {
            biased;
            report = &mut told, if !done => {
                // All output of the program itself is in the pipe. The output of others may have
                // no end.
                let deadline = Instant::now() + DRAIN;
                while open && Instant::now() < deadline {
                    match rustix::io::read(&output, &mut buffer) {
                        Ok(read @ 1..) => pass(&mut service, &buffer[..read]).await,
                        Err(Errno::AGAIN) => break,
                        Err(Errno::INTR) => {}
                        Ok(0) | Err(_) => open = false,
                    }
                }
                if let (Some(to), Ok(report)) = (&mut service, report) {
                    let _ = send(to, &report).await;
                }
                done = true;
            }
            read = output.read(&mut buffer), if open => match read {
                Ok(read @ 1..) => pass(&mut service, &buffer[..read]).await,
                Ok(0) | Err(_) => open = false,
            },
        }
    }
}

async fn pass(service: &mut Option<Sender>, output: &[u8]) {
    if let Some(to) = service
        && to.write_all(&message(Kind::Output, output)).await.is_err()
    {
        *service = None;
    }
}

enum Phase {
    Running,
    /// SIGTERM was sent; SIGKILL follows at this time.
    Ending(Instant),
    /// The program has succeeded, and the processes that it left behind stay.
    Keeping,
}

/// The processes of the program.
struct Tree {
    program: Pid,
    grace: Duration,
    keep: bool,
    phase: Phase,
    /// Takes the report of the program's end.
    tell: Option<oneshot::Sender<Report>>,
}

impl Tree {
    /// Returns when all processes are gone.
    async fn watch(
        mut self,
        mut children: tokio::signal::unix::Signal,
        mut lifeline: Receiver,
    ) -> io::Result<()> {
        while self.reap()? {
            let kill_at = match self.phase {
                Phase::Ending(at) => Some(at),
                Phase::Running | Phase::Keeping => None,
            };
            let kill = async {
                match kill_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = children.recv() => {}
                () = closed(&mut lifeline), if matches!(self.phase, Phase::Running) => self.end(),
                () = kill => {
                    // Processes may still start others.
                    tree::kill(&tree::below(rustix::process::getpid()), self.program);
                    self.phase = Phase::Ending(Instant::now() + AGAIN);
                }
            }
        }
        Ok(())
    }

    /// Reaps all processes that have ended. Returns whether others are left.
    fn reap(&mut self) -> io::Result<bool> {
        let mut ended = None;
        let left = loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.program => ended = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break true,
                Err(Errno::CHILD) => break false,
                Err(error) => return Err(error.into()),
            }
        };
        if let Some(status) = ended {
            self.ended(status, left)?;
        }
        Ok(left)
    }

    /// Reports the end of the program.
    fn ended(&mut self, status: WaitStatus, left: bool) -> io::Result<()> {
        let ordered = !matches!(self.phase, Phase::Running);
        if !ordered && self.keep && status.exit_status() == Some(0) {
            thread::set_name(KEEPS)?;
            self.phase = Phase::Keeping;
        } else if !ordered && left {
            self.end();
        }
        if let Some(tell) = self.tell.take() {
            let status = status.as_raw();
            // The receiver lives as long as this process.
            let _ = tell.send(Report::Ended { status, ordered });
        }
        Ok(())
    }

    /// Asks all processes to end.
    fn end(&mut self) {
        tree::terminate(&tree::below(rustix::process::getpid()), self.program);
        self.phase = Phase::Ending(Instant::now() + self.grace);
    }
}

/// Waits until the service has closed the lifeline, or is gone.
async fn closed(lifeline: &mut Receiver) {
    let mut byte = [0];
    while let Ok(1) = lifeline.read(&mut byte).await {}
}
