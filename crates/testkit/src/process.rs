//! The programs under test, each as a process of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::scratch::Scratch;
use crate::signal;

/// Returns the path of the `tagtrail` program from the same build as this test, or from
/// `TAGTRAIL_BINARY`.
///
/// # Panics
/// If the program is not built.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("TAGTRAIL_BINARY") {
        return PathBuf::from(binary);
    }
    let test = std::env::current_exe().expect("this test has no path");
    // target/<profile>/deps/<test>
    let binary = test
        .ancestors()
        .nth(2)
        .expect("this test is in no folder")
        .join("tagtrail");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build -p tagtrail` (make test does)",
        binary.display()
    );
    binary
}

/// Returns the resident memory of a process in KiB; `None` if the process does not run.
#[must_use]
pub fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A process that ends with the test, and prints its log if the test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    scratch: Scratch,
}

impl Process {
    /// Starts `tagtrail` with these arguments and environment variables.
    #[must_use]
    pub fn tagtrail(arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        Process::of(&binary(), arguments, environment)
    }

    /// Starts another build of `tagtrail` with these arguments and environment variables.
    ///
    /// # Panics
    /// If the binary cannot be started.
    #[must_use]
    pub fn of(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied());
        Process::spawn(&arguments.join(" "), command)
    }

    /// Starts any program, with the output in a file.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[must_use]
    pub fn spawn(name: &str, mut command: Command) -> Process {
        let scratch = Scratch::new("process");
        let log = std::fs::File::create(scratch.path().join("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("can't start {name}: {error}"));
        Process {
            name: name.to_owned(),
            child,
            scratch,
        }
    }

    /// Returns the output so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Returns true until the process has ended.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process by SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// If the process still runs after `time_limit`.
    pub async fn ended(&mut self, time_limit: Duration) -> ExitStatus {
        crate::eventually(
            &format!("the end of {}", self.name),
            time_limit,
            async || self.child.try_wait().unwrap(),
        )
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let _ = writeln!(
                std::io::stderr(),
                "--- log of {}\n{}",
                self.name,
                self.log()
            );
        }
    }
}
