//! Target `command`: a program that receives the rollout as JSON on standard input and the pinned
//! images in its environment.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tagtrail_config::{File, Trigger};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::contract::{
    ConfigureResult, Order, Target, TargetFuture, TargetKind, TargetProblem, settings,
};
use super::said::Said;
use tagtrail_policy::retry::Outcome;

pub(super) const COMMAND: TargetKind = TargetKind {
    name: "command",
    configure,
    setup: "The program must be installed where the trigger service runs. It receives the rollout as JSON on \
            standard input and each pinned image as TAGTRAIL_IMAGE_<NAME>; exit code 0 is success, and \
            running the program twice must be harmless. Of the service's own environment it receives the \
            usual variables (PATH, HOME …) and those that `environment` names.",
};

/// The variables of the service's environment that every program receives, besides `LC_*`.
const USUAL: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];

/// Variables with the credentials of Tagtrail's own processes.
const CREDENTIALS: [&str; 3] = ["DATABASE_URL", "NATS_URL", "TAGTRAIL_TOKEN"];

/// Most bytes of the output that an error shows: its end.
const SHOWN: usize = 2048;
/// Bytes read at once.
const READ: usize = 16 * 1024;

/// The settings below `target.command`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandSettings {
    /// The program and its arguments, started without a shell.
    run: Run,
    /// Seconds after which the program is killed.
    #[serde(default = "ten_minutes")]
    timeout_seconds: u64,
    /// Names of variables that the program receives from the service's own environment. `HELM_*`
    /// is every variable that begins with `HELM_`, except those that hold secrets.
    #[serde(default)]
    environment: Vec<String>,
}

/// The program and its arguments as written. A single text is a mistake, which the error explains.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "run is a list of the program and its arguments, such as run = [\"./deploy.sh\"]"
)]
enum Run {
    Words(Vec<String>),
    Line(String),
}

fn ten_minutes() -> u64 {
    600
}

/// A program with its arguments, folder, time limit and environment.
struct CommandTarget {
    run: Vec<String>,
    folder: PathBuf,
    timeout: Duration,
    environment: Vec<String>,
    /// Variables that only their whole name in `environment` passes on.
    secrets: BTreeSet<String>,
}

fn configure(value: &toml::Value, _trigger: &Trigger, file: &File) -> ConfigureResult {
    let CommandSettings {
        run,
        timeout_seconds,
        environment,
    } = settings(value)?;
    let run = match run {
        Run::Words(words) => words,
        Run::Line(line) => {
            let words: Vec<&str> = line.split_whitespace().collect();
            return Err(format!(
                "run is a list of the program and its arguments; write run = {words:?}, or for a shell, run = [\"sh\", \"-c\", {line:?}]"
            ));
        }
    };
    if run.is_empty() {
        return Err(
            "run is empty; give the program and its arguments, such as run = [\"./deploy.sh\"]"
                .to_owned(),
        );
    }
    if let Some(wrong) = environment.iter().find(|name| !is_variable(name)) {
        return Err(format!(
            "environment: {wrong:?} is no name of a variable; write names such as \"KUBECONFIG\", or \"HELM_*\" for all that begin with HELM_"
        ));
    }
    let mut secrets = file.secret_variables();
    secrets.extend(CREDENTIALS.map(str::to_owned));
    Ok(Box::new(CommandTarget {
        run,
        folder: file.folder().to_owned(),
        timeout: Duration::from_secs(timeout_seconds.clamp(1, 24 * 3600)),
        environment,
        secrets,
    }))
}

/// Returns whether this is the name of a variable, or the beginning of names followed by `*`.
fn is_variable(name: &str) -> bool {
    let name = name.strip_suffix('*').unwrap_or(name);
    let allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
    !name.is_empty() && name.chars().all(allowed)
}

impl Target for CommandTarget {
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome> {
        Box::pin(self.run(order))
    }

    fn judge(&self) -> Vec<TargetProblem> {
        let problem = self.run.first().and_then(|name| self.unusable(name));
        problem.into_iter().collect()
    }
}

impl CommandTarget {
    /// The reason why this program can't be started here. Another machine may have the program, so
    /// the problem is a warning.
    fn unusable(&self, name: &str) -> Option<TargetProblem> {
        let problem = |found: String, cure: &str| {
            Some(TargetProblem {
                fatal: false,
                found,
                cure: cure.to_owned(),
            })
        };
        let Some(path) = self.find(name) else {
            if name.contains(' ') {
                return problem(
                    format!("no program has the name {name:?}"),
                    "write one text for each argument, run = [\"./deploy.sh\", \"--now\"], or for a shell, run = [\"sh\", \"-c\", \"…\"]",
                );
            }
            let place = match name.contains('/') {
                true => format!("{} has no program {name}", self.folder.display()),
                false => format!("PATH has no program {name}"),
            };
            return problem(
                place,
                "install the program where the trigger service runs, or correct run",
            );
        };
        let shown = path.display();
        match std::fs::metadata(&path) {
            Ok(file) if !file.is_file() => problem(format!("{shown} is no file"), "correct run"),
            Ok(file) if file.permissions().mode() & 0o111 == 0 => {
                problem(format!("{shown} is not executable"), "chmod +x makes it so")
            }
            _ => None,
        }
    }

    /// Finds the program as the system does: by its path from the folder, or in PATH.
    fn find(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            let path = self.folder.join(name);
            return path.exists().then_some(path);
        }
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }

    async fn run(&self, order: &Order) -> Outcome {
        let failed = |error: String| Outcome::Failed { error, after: None };
        // Another attempt soon would find the same.
        if let Some(TargetProblem { found, cure, .. }) =
            self.run.first().and_then(|name| self.unusable(name))
        {
            return Outcome::Refused(format!("{found}; {cure}"));
        }
        let mut child = match self.spawn(order) {
            Ok(child) => Group(child),
            Err(error) => {
                return failed(format!(
                    "can't run {:?} in {}: {error}",
                    self.run,
                    self.folder.display()
                ));
            }
        };
        let work = exchange(&mut child.0, &order.body, &order.said);
        let ended = tokio::select! {
            ended = tokio::time::timeout(self.timeout, work) => ended,
            () = order.stop.cancelled() => {
                return failed("the attempt was ended before its result".to_owned());
            }
        };
        match ended {
            Ok(Ok(status)) => {
                if let Some(code) = status.code() {
                    order.said.ended(code);
                }
                if status.success() {
                    return Outcome::Done;
                }
                let end = order.said.end(SHOWN);
                let colon = if end.is_empty() { "" } else { ": " };
                failed(format!("the command ended with {status}{colon}{end}"))
            }
            Ok(Err(error)) => failed(format!("can't talk to the command: {error}")),
            Err(_) => failed(format!(
                "the command took longer than {:?} and was ended",
                self.timeout
            )),
        }
    }

    /// Returns whether the program receives this variable of the service's environment.
    fn passes(&self, variable: &str) -> bool {
        let listed = |wanted: &String| match wanted.strip_suffix('*') {
            Some(start) => variable.starts_with(start) && !self.secrets.contains(variable),
            None => wanted == variable,
        };
        USUAL.contains(&variable)
            || variable.starts_with("LC_")
            || self.environment.iter().any(listed)
    }

    fn environment(&self) -> impl Iterator<Item = (OsString, OsString)> {
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| self.passes(name)))
    }

    fn spawn(&self, order: &Order) -> std::io::Result<Child> {
        // `setpriv` lets the kernel kill the command when its worker dies, even by SIGKILL.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.run)
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.environment());
        for (name, image) in &order.rollout.images {
            let name = name.to_ascii_uppercase().replace('-', "_");
            command.env(format!("TAGTRAIL_IMAGE_{name}"), image.pinned.to_string());
        }
        command
            .env("TAGTRAIL_TRIGGER", &order.rollout.trigger)
            .env("TAGTRAIL_ROLLOUT_ID", &order.rollout.id)
            .env("TAGTRAIL_ROLLOUT_NUMBER", order.rollout.number.to_string())
            // Tracing tools read the trace context from this variable.
            .env("TRACEPARENT", order.trace.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A process group of its own lets the service kill the children too.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// A running command with all its children. Dropping it kills the process group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.id() {
            let killed = std::process::Command::new("sh")
                .args(["-c", "kill -s KILL -- \"-$1\"", "sh", &pid.to_string()])
                .stderr(Stdio::null())
                .status();
            if let Err(error) = killed {
                tracing::warn!("can't kill the process group {pid} of a command: {error}");
            }
        }
    }
}

/// Writes the order to the command and reads its output until the command ends. Returns the exit
/// status.
async fn exchange(
    child: &mut Child,
    body: &[u8],
    said: &Said,
) -> std::io::Result<std::process::ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command may end without reading its standard input.
            let _ = stdin.write_all(body).await;
        }
    };
    let ((), (), (), status) =
        tokio::join!(write, read(stdout, said), read(stderr, said), child.wait());
    status
}

/// Reads to the end.
async fn read(reader: Option<impl AsyncRead + Unpin>, said: &Said) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; READ];
    while let Ok(read @ 1..) = reader.read(&mut buffer).await {
        said.push(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SECRETS: &str = r#"
[[source]]
name = "main"
kind = "generic"
registry = "registry.example.com"
secret = [{ env = "HELM_HOOK_SECRET" }, { env = "OTHER_HOOK_SECRET" }]
[[trigger]]
name = "hook"
images.web = "registry.example.com/shop/web"
target.webhook = { url = "https://deploy.example.com", secret = { env = "HELM_SIGNING_SECRET" } }
"#;

    fn target(environment: &str) -> CommandTarget {
        let file = File::parse(SECRETS, Path::new("tagtrail.toml")).unwrap();
        let CommandSettings {
            run, environment, ..
        } = toml::from_str(&format!("run = [\"true\"]\nenvironment = {environment}")).unwrap();
        let run = match run {
            Run::Words(words) => words,
            Run::Line(_) => Vec::new(),
        };
        let mut secrets = file.secret_variables();
        secrets.extend(CREDENTIALS.map(str::to_owned));
        CommandTarget {
            run,
            folder: PathBuf::new(),
            timeout: Duration::from_secs(1),
            environment,
            secrets,
        }
    }

    #[test]
    fn a_program_gets_the_usual_variables_and_those_that_its_trigger_names() {
        let usual = target("[]");
        for name in ["PATH", "HOME", "LC_ALL", "TZ"] {
            assert!(usual.passes(name), "{name}");
        }
        for name in [
            "DATABASE_URL",
            "HELM_HOOK_SECRET",
            "KUBECONFIG",
            "TAGTRAIL_TOKEN",
            "PATHS",
        ] {
            assert!(!usual.passes(name), "{name}");
        }
        let more = target(r#"["KUBECONFIG", "HELM_*", "OTHER_HOOK_SECRET", "DATABASE_*"]"#);
        for name in ["KUBECONFIG", "HELM_CACHE_HOME", "OTHER_HOOK_SECRET"] {
            assert!(more.passes(name), "{name}");
        }
        // A pattern passes on no secret; only the whole name does.
        for name in [
            "HELM_HOOK_SECRET",
            "HELM_SIGNING_SECRET",
            "DATABASE_URL",
            "KUBECONFIG_2",
        ] {
            assert!(!more.passes(name), "{name}");
        }
    }
}
