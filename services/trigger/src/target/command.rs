//! Target `command`: a program that receives the rollout as JSON on standard input and the pinned
//! images in its environment. Each program runs under a supervisor, a process of its own.

mod earlier;
mod program;
mod protocol;
mod running;
mod settings;
mod supervise;
mod tree;
mod user;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tagtrail_config::{File, Fresh, Trigger};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::instant;

use crate::act::Place;

use super::clusters::Clusters;
use super::contract::{
    ConfigureResult, Order, Target, TargetFuture, TargetKind, TargetProblem, readable_secrets,
};
use earlier::MARGIN;
use protocol::{Report, Task};
use running::Running;
pub(crate) use settings::credentials;
use settings::{Leftover, Passing, Settings, Values, variable_of};
pub use supervise::supervise;
use user::{User, is_root};

pub(super) const COMMAND: TargetKind = TargetKind {
    name: "command",
    configure,
    tells: false,
    setup: "The program must be installed where the trigger service runs. It receives the rollout as JSON on \
            standard input and each pinned image as TAGTRAIL_IMAGE_<NAME>; exit code 0 is success, and \
            running the program twice must be harmless. It ends at SIGTERM, or is killed after \
            `grace_seconds` (10 s). Of the service's own environment it receives the \
            usual variables (PATH, HOME …) and those that `environment` names.",
};

/// Most bytes of the output that an error shows: its end.
const SHOWN: usize = 2048;

/// The system's errors of a start that may work soon: too many processes, too little memory, and a
/// program file that is being written.
const TEMPORARY: [rustix::io::Errno; 6] = [
    rustix::io::Errno::AGAIN,
    rustix::io::Errno::NOMEM,
    rustix::io::Errno::MFILE,
    rustix::io::Errno::NFILE,
    rustix::io::Errno::TXTBSY,
    rustix::io::Errno::INTR,
];

struct CommandTarget {
    settings: Arc<Settings>,
    /// The program and its arguments.
    run: Vec<String>,
    /// The folder of the file that defines the trigger.
    folder: PathBuf,
    passing: Passing,
    values: Fresh<Values>,
}

fn configure(
    value: &toml::Value,
    trigger: &Trigger,
    (file, _): (&File, &Clusters),
) -> ConfigureResult {
    let settings = Arc::new(Settings::parse(value, trigger)?);
    settings::check_images(trigger)?;
    let folder = trigger.folder();
    Ok(Box::new(CommandTarget {
        run: settings.run()?.to_vec(),
        folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()),
        passing: settings.passing(file),
        values: Values::fresh(&settings, trigger)?,
        settings,
    }))
}

impl Target for CommandTarget {
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome> {
        Box::pin(self.attempt(order))
    }

    fn grace(&self) -> Duration {
        self.settings.grace()
    }

    fn place(&self) -> Place {
        Place {
            kind: COMMAND.name,
            part: None,
            at_once: usize::MAX,
        }
    }

    /// A changed script can't be told from a mended one, so all commands are one place.
    fn identity(&self) -> String {
        COMMAND.name.to_owned()
    }

    fn judge(&self) -> Vec<TargetProblem> {
        let warning = TargetProblem::warning;
        let mut problems = Vec::new();
        let passed = self.passed();
        let path = self.path(&passed);
        problems.extend(program::find(&self.run[0], &self.folder, path.as_deref()).err());
        match &self.settings.user {
            None if is_root() => problems.push(warning(
                "the program runs as root".to_owned(),
                "set user, or start Tagtrail as another user",
            )),
            None => {}
            Some(_) if !is_root() => problems.push(warning(
                "user is set, and only root may start programs as another user".to_owned(),
                "start Tagtrail as root, or remove user",
            )),
            Some(name) => problems.extend(User::named(name).err().map(|found| {
                warning(
                    found,
                    "create the user where the trigger service runs, or correct user",
                )
            })),
        }
        problems.extend(readable_secrets(self.settings.places()));
        problems
    }
}

impl CommandTarget {
    async fn attempt(&self, order: &Order) -> Outcome {
        let failed = |error: String| Outcome::Failed { error, after: None };
        let task = match self.task(order) {
            Ok(task) => task,
            // Another attempt soon would find the same.
            Err(TargetProblem { found, cure, .. }) => {
                return Outcome::Refused(format!("{found}; {cure}"));
            }
        };
        let (place, grace) = (self.folder.to_string_lossy(), self.settings.grace());
        let earlier = tokio::select! {
            ended = earlier::ended(order, &place, grace) => ended,
            () = order.stop.cancelled() => Err("the attempt was stopped before its begin".to_owned()),
        };
        if let Err(error) = earlier {
            return failed(error);
        }
        let mut running = match Running::start(order, &place, &task).await {
            Ok(running) => running,
            Err(error) => return failed(format!("can't start the supervisor: {error}")),
        };
        let mut report = std::pin::pin!(running::report(running.reports(), order));
        let cut = tokio::select! {
            biased;
            report = &mut report => return self.outcome(report, order).await,
            () = tokio::time::sleep(self.settings.timeout()) => format!(
                "the command took longer than {} s (timeout_seconds) and was ended",
                self.settings.timeout().as_secs()
            ),
            () = order.stop.cancelled() => "the command was stopped".to_owned(),
        };
        running.end();
        // The program may have ended by itself just before.
        let deadline = tokio::time::Instant::now() + grace + MARGIN;
        match tokio::time::timeout_at(deadline, &mut report).await {
            Ok(Ok(Some(Report::Ended { ordered: true, .. }))) => {
                running.gone(deadline).await;
                failed(cut + &self.end(order))
            }
            Ok(report) => self.outcome(report, order).await,
            Err(_) => failed(format!("{cut}, but has not ended yet{}", self.end(order))),
        }
    }

    /// Returns the outcome of an attempt that ended by itself.
    async fn outcome(&self, report: std::io::Result<Option<Report>>, order: &Order) -> Outcome {
        let failed = |error: String| Outcome::Failed { error, after: None };
        let status = match report {
            Ok(Some(Report::Ended { status, .. })) => ExitStatus::from_raw(status),
            Ok(Some(Report::NotStarted { step, code })) => return self.not_started(&step, code),
            // The processes would run beside those of the next attempt.
            lost => {
                let why = lost
                    .err()
                    .map_or_else(String::new, |error| format!(": {error}"));
                let left = earlier::end_orphans(order, self.settings.grace()).await;
                let left = left
                    .err()
                    .map_or_else(String::new, |left| format!("; {left}"));
                return failed(format!(
                    "the supervisor of the command has ended without a result{why}{left}{}",
                    self.end(order)
                ));
            }
        };
        if let Some(code) = status.code() {
            order.said.ended(code);
        }
        if status.success() {
            return Outcome::Done;
        }
        let end = self.end(order);
        let is_final = |code: i32| {
            let codes = &self.settings.final_exit_codes;
            u8::try_from(code).is_ok_and(|code| codes.contains(&code))
        };
        match status.code() {
            Some(code) if is_final(code) => Outcome::Gone(format!(
                "the command ended with exit status: {code}, which is final{end}"
            )),
            _ => failed(format!("the command ended with {status}{end}")),
        }
    }

    fn not_started(&self, step: &str, code: i32) -> Outcome {
        let error = std::io::Error::from_raw_os_error(code);
        let error = format!(
            "can't {step} {:?} in {}: {error}",
            self.run,
            self.folder.display()
        );
        match TEMPORARY.iter().any(|one| one.raw_os_error() == code) {
            true => Outcome::Failed { error, after: None },
            false if code == rustix::io::Errno::NOEXEC.raw_os_error() => Outcome::Refused(format!(
                "{error}; a script begins with a line such as #!/bin/sh"
            )),
            false => Outcome::Refused(error),
        }
    }

    /// Returns the end of the output, after a colon.
    fn end(&self, order: &Order) -> String {
        let end = order.said.end(SHOWN);
        let colon = if end.is_empty() { "" } else { ": " };
        format!("{colon}{end}")
    }

    /// Returns the task of the supervisor. The secrets of the program are cut out of its output.
    fn task(&self, order: &Order) -> Result<Task, TargetProblem> {
        let user = match &self.settings.user {
            None => None,
            Some(name) => Some(User::named(name).map_err(|found| TargetProblem {
                fatal: false,
                found,
                cure: "create the user, or correct user".to_owned(),
            })?),
        };
        let passed = self.passed();
        let path = self.path(&passed);
        let program = program::find(&self.run[0], &self.folder, path.as_deref())?;
        let values = self.values.get();
        order.said.hide(values.hidden());
        let secrets = passed
            .iter()
            .filter(|(name, _)| self.passing.is_secret(&name.to_string_lossy()));
        let secrets: Vec<_> = secrets.map(|(_, value)| value.to_string_lossy()).collect();
        order.said.hide(secrets.iter().map(AsRef::as_ref));
        let mut environment: BTreeMap<OsString, OsString> = passed;
        if let (Some(user), Some(name)) = (&user, &self.settings.user) {
            let own = [("HOME", &user.home), ("USER", name), ("LOGNAME", name)];
            environment.extend(own.map(|(name, value)| (name.into(), value.into())));
        }
        let set = values.values.iter();
        environment.extend(set.map(|(name, value)| (name.into(), value.expose_secret().into())));
        environment.extend(ours(order));
        Ok(Task {
            program: program.into(),
            words: self.run.clone(),
            folder: self.folder.clone().into(),
            environment: environment.into_iter().collect(),
            user: user.map(|user| user.ids),
            grace: self.settings.grace(),
            keep: self.settings.leftover == Leftover::Keep,
        })
    }

    /// Returns the variables of the service's own environment that the program receives.
    fn passed(&self) -> BTreeMap<OsString, OsString> {
        let passes = |name: &OsStr| name.to_str().is_some_and(|name| self.passing.passes(name));
        std::env::vars_os()
            .filter(|(name, _)| passes(name))
            .collect()
    }

    /// Returns the variable `PATH` of the program.
    fn path(&self, passed: &BTreeMap<OsString, OsString>) -> Option<OsString> {
        match self.values.get().values.get("PATH") {
            Some(set) => Some(set.expose_secret().into()),
            None => passed.get(OsStr::new("PATH")).cloned(),
        }
    }
}

/// Returns the variables of the attempt.
fn ours(order: &Order) -> Vec<(OsString, OsString)> {
    let rollout = &order.rollout;
    let mut variables = vec![
        ("TAGTRAIL_TRIGGER".to_owned(), rollout.trigger.clone()),
        ("TAGTRAIL_ROLLOUT_ID".to_owned(), rollout.id.clone()),
        (
            "TAGTRAIL_ROLLOUT_NUMBER".to_owned(),
            rollout.number.to_string(),
        ),
        (
            "TAGTRAIL_EPOCH".to_owned(),
            instant::json(rollout.epoch).unwrap_or_default(),
        ),
        ("TAGTRAIL_ATTEMPT".to_owned(), rollout.attempts.to_string()),
        // Tracing tools read the trace context from this variable.
        ("TRACEPARENT".to_owned(), order.trace.to_string()),
    ];
    for (name, image) in &rollout.images {
        variables.push((variable_of(name), image.pinned.to_string()));
    }
    let variables = variables.into_iter();
    variables
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}
