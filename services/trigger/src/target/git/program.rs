//! The program `git`, run within bounds: with an environment of its own, without settings of the
//! system or of a user, and ended with all its processes when its time is over.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// Variables of the service's environment that git receives: where programs are, and the proxies.
const PASSED: [&str; 7] = [
    "PATH",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// Settings of git. Nothing that a repository holds makes git start a program.
const SETTINGS: [(&str, &str); 10] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "false"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),
    ("http.followRedirects", "false"),
    ("maintenance.auto", "false"),
    ("protocol.version", "2"),
    ("push.recurseSubmodules", "no"),
];

/// Most bytes of the messages of git: their end.
const MESSAGES: usize = 8 * 1024;

/// The reason why a run of git has no result.
#[derive(Debug)]
pub(super) enum Problem {
    /// There is no program of this name.
    NotInstalled,
    /// The program can't be started, or its output can't be read.
    Io(io::Error),
    /// The time was over.
    TimedOut(Duration),
    /// The output is too large.
    TooLarge(usize),
    /// The program failed, with the end of its messages.
    Failed { stdout: Vec<u8>, stderr: Vec<u8> },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NotInstalled => f.write_str(
                "the program git is not installed where the trigger service runs; install git 2.34 or newer, for ssh:// and signing also openssh-client",
            ),
            Problem::Io(error) => write!(f, "git can't be run: {error}"),
            Problem::TimedOut(after) => write!(
                f,
                "git took longer than {} s (timeout_seconds) and was ended; check that the server answers",
                after.as_secs_f32()
            ),
            Problem::TooLarge(most) => write!(f, "the answer of git has more than {most} bytes"),
            Problem::Failed { stderr, .. } => {
                let text = String::from_utf8_lossy(stderr);
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let lines: Vec<&str> = lines.collect();
                write!(f, "git says: {}", lines.join(" | "))
            }
        }
    }
}

/// The environment of runs of git.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    variables: Vec<(OsString, OsString)>,
    settings: Vec<(String, String)>,
}

impl Environment {
    /// Returns the environment for a repository, in a folder that holds nothing of a user.
    pub(super) fn new(repository: &Path, home: &Path, protocol: &str) -> Environment {
        let passed = PASSED.iter().filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some((OsString::from(name), value))
        });
        let own: [(&str, &OsStr); 13] = [
            ("GIT_DIR", repository.as_os_str()),
            ("HOME", home.as_os_str()),
            ("LC_ALL", "C".as_ref()),
            ("GIT_CONFIG_NOSYSTEM", "1".as_ref()),
            ("GIT_CONFIG_SYSTEM", "/dev/null".as_ref()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".as_ref()),
            ("GIT_ATTR_NOSYSTEM", "1".as_ref()),
            ("GIT_TERMINAL_PROMPT", "0".as_ref()),
            ("GIT_ALLOW_PROTOCOL", protocol.as_ref()),
            ("GIT_PROTOCOL_FROM_USER", "0".as_ref()),
            ("GIT_NO_REPLACE_OBJECTS", "1".as_ref()),
            ("GIT_NO_LAZY_FETCH", "1".as_ref()),
            ("GIT_OPTIONAL_LOCKS", "0".as_ref()),
        ];
        let own = own.map(|(name, value)| (name.into(), value.to_owned()));
        let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Environment {
            variables: passed.chain(own).collect(),
            settings: settings.to_vec(),
        }
    }

    pub(super) fn variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.push((name.into(), value.into()));
    }

    pub(super) fn setting(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.settings.push((key.into(), value.into()));
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (number, (key, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command
    }
}

/// One run of git.
pub(super) struct Run<'a> {
    pub(super) environment: &'a Environment,
    pub(super) folder: &'a Path,
    /// The time after which git is ended.
    pub(super) limit: Duration,
    pub(super) input: &'a [u8],
    /// Most bytes of the output.
    pub(super) most: usize,
    /// Further variables.
    pub(super) variables: &'a [(&'a str, String)],
}

/// The processes of a run: a drop ends them all.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The group is gone if all its processes have ended.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Run<'_> {
    /// Runs git with these arguments. Returns its output.
    pub(super) async fn git(&self, arguments: &[&str]) -> Result<Vec<u8>, Problem> {
        let running = self.finish(arguments);
        let ended = tokio::time::timeout(self.limit, running).await;
        ended.unwrap_or(Err(Problem::TimedOut(self.limit)))
    }

    async fn finish(&self, arguments: &[&str]) -> Result<Vec<u8>, Problem> {
        let mut child = self
            .environment
            .command()
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A signal from the keyboard reaches the service alone, and one signal ends all
            // processes of the run.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound if self.folder.is_dir() => Problem::NotInstalled,
                _ => Problem::Io(error),
            })?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let mut group = Group(id.and_then(Pid::from_raw));
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let writing = async {
            if let Some(mut stdin) = stdin {
                // A program that has ended reads no more; its exit code tells why.
                let _ = stdin.write_all(self.input).await;
            }
            Ok(())
        };
        let (stdout, stderr, ()) = tokio::try_join!(
            read(stdout, Keep::All(self.most)),
            read(stderr, Keep::End(MESSAGES)),
            writing
        )?;
        let status = child.wait().await.map_err(Problem::Io)?;
        // Its number may be of another process from now on.
        group.0 = None;
        match status.success() {
            true => Ok(stdout),
            false => Err(Problem::Failed { stdout, stderr }),
        }
    }
}

/// Which part of the output is kept.
#[derive(Clone, Copy)]
enum Keep {
    /// All of it; more than these bytes are a problem.
    All(usize),
    End(usize),
}

async fn read(from: Option<impl AsyncRead + Unpin>, keep: Keep) -> Result<Vec<u8>, Problem> {
    let (mut kept, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    let Some(mut from) = from else {
        return Ok(kept);
    };
    loop {
        let read = from.read(&mut part).await.map_err(Problem::Io)?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&part[..read]);
        match keep {
            Keep::All(most) if kept.len() > most => return Err(Problem::TooLarge(most)),
            Keep::End(most) if kept.len() > 2 * most => {
                kept.drain(..kept.len() - most);
            }
            Keep::All(_) | Keep::End(_) => {}
        }
    }
}
