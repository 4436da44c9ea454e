//! Settings of the trigger service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tagtrail_bus::BusArgs;
use tagtrail_config::{
    Concurrency, File, OnFailure, OnTargetChange, RetrySettings, Role, Spec, Start, Then, Token,
    Trigger, Watched,
};
use tagtrail_policy::agree::Agree;
use tagtrail_policy::begin::{Settings, Written};
use tagtrail_policy::decide::Settle;
use tagtrail_postgres::DbArgs;
use tagtrail_postgres::session::parse_silence;
use tagtrail_proto::Registry;

use crate::settings::Hash;
use crate::target::{Targets, Verifies};

pub use tagtrail_policy::retry::Pace;
pub use tagtrail_policy::watch::LookPace;

fn parse_takeover(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 10..=600) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number of seconds from 10 to 600".to_owned()),
    }
}

/// Settings from flags and environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The Postgres database.
    #[command(flatten)]
    pub db: DbArgs,
    /// The NATS server.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Path of the file that lists the triggers.
    #[arg(long, env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
    pub config: PathBuf,
    /// The most attempts at the same time.
    #[command(flatten)]
    pub limits: Limits,
    /// Seconds after which another process may take over a command whose process has lost its lock
    /// in Postgres.
    #[arg(long, env = "TAGTRAIL_TAKEOVER_SECONDS", default_value = "20", value_parser = parse_takeover)]
    pub takeover_seconds: Duration,
    /// Folder for the clones of git repositories. By default a folder of this user among the
    /// temporary files.
    #[arg(long, env = "TAGTRAIL_CLONES")]
    pub clones: Option<PathBuf>,
    /// True if no second trigger service acts on the same database, as below `tagtrail up`.
    #[arg(skip)]
    pub alone: bool,
    /// Seconds of silence after which Postgres ends a session, so that another instance can take
    /// over its locks.
    #[arg(long, env = "TAGTRAIL_SESSION_SECONDS", default_value = "10", value_parser = parse_silence)]
    pub session_seconds: Duration,
    /// The time after which settings that were replaced by newer ones of another process count as
    /// a change of their own; tests shorten it.
    #[arg(skip)]
    pub replaced: Replaced,
    /// The pauses between attempts; tests shorten them.
    #[arg(skip)]
    pub pace: Pace,
    /// The pauses between looks at rollouts that are watched; tests shorten them.
    #[arg(skip)]
    pub look_pace: LookPace,
    /// The time for which a trigger outlives the annotations of its object; tests shorten it.
    #[arg(skip)]
    pub outlive: Outlive,
    /// The supervisor of commands; tests, which are another program, name it.
    #[arg(skip)]
    pub supervisor: Supervisor,
}

/// The time after which settings that were replaced by newer ones count as a change of their own.
#[derive(Debug, Clone, Copy)]
pub struct Replaced(pub Duration);

impl Default for Replaced {
    fn default() -> Replaced {
        Replaced(Duration::from_secs(120))
    }
}

/// The time for which a trigger outlives the annotations of its object: `kubectl rollout undo`
/// takes them away, and the hold that follows must find the trigger.
#[derive(Debug, Clone, Copy)]
pub struct Outlive(pub Duration);

impl Default for Outlive {
    fn default() -> Outlive {
        Outlive(Duration::from_secs(600))
    }
}

/// The program file that supervises commands when it is started with `supervise`.
#[derive(Debug, Clone)]
pub struct Supervisor(pub PathBuf);

impl Default for Supervisor {
    /// The file of this program, also after an upgrade has replaced the file at its path.
    fn default() -> Supervisor {
        Supervisor(PathBuf::from("/proc/self/exe"))
    }
}

/// The most attempts at the same time.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Limits {
    /// Most attempts of one kind of target at the same time, commands excepted.
    #[arg(long, env = "TAGTRAIL_ATTEMPTS", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub attempts: u16,
    /// Most commands that run at the same time.
    #[arg(long, env = "TAGTRAIL_COMMANDS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub commands: u16,
    /// The old name of `TAGTRAIL_COMMANDS`.
    #[arg(long, env = "TAGTRAIL_WORKERS", hide = true)]
    pub workers: Option<u16>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            attempts: 1000,
            commands: 64,
            workers: None,
        }
    }
}

impl Limits {
    /// Returns the number of slots for a kind of target.
    pub(crate) fn of(&self, kind: &str) -> usize {
        usize::from(match kind {
            "command" => self.workers.unwrap_or(self.commands).max(1),
            _ => self.attempts,
        })
    }
}

/// A trigger as configured in `tagtrail.toml`.
#[derive(Debug, Clone)]
pub(crate) struct TriggerSpec {
    pub(crate) name: String,
    /// The watched images, by their names in the trigger.
    pub(crate) images: BTreeMap<String, Watched>,
    /// The value that all images must share.
    pub(crate) agree: Option<Agree>,
    /// The kind of the target, as in `target.<kind>`.
    pub(crate) target: String,
    /// The name that the trigger had before.
    pub(crate) renamed_from: Option<String>,
    /// SHA-256 of the entry as written, without names and labels.
    pub(crate) likeness: [u8; 32],
    /// How the trigger begins when all of its images are known for the first time.
    pub(crate) start: Start,
    pub(crate) on_target_change: OnTargetChange,
    /// The images that stand for a digest are rolled out while others stand for none.
    pub(crate) partial: bool,
    /// The time without a new head after which the planner starts a rollout, if there is one.
    pub(crate) settle: Option<Settle>,
    /// The reason for a default of `settle` that applies.
    pub(crate) default_settle: Option<String>,
    /// The longest time for which `settle` delays a rollout.
    pub(crate) settle_max: Duration,
    /// The time until a target that took a rollout must be healthy.
    pub(crate) timeout: Duration,
    /// The settings of the gates of recorded rollouts.
    pub(crate) gates: Settings,
    /// The same as they are written, for people.
    pub(crate) written_gates: Written,
    pub(crate) on_failure: OnFailure,
    /// A newer rollout waits until the result of the one before is known.
    pub(crate) finish: bool,
    retry: RetrySettings,
    /// Labels, such as the team.
    pub(crate) labels: BTreeMap<String, String>,
    /// The settings as written.
    pub(crate) spec: Spec,
    /// The hash of these settings.
    pub(crate) hash: Hash,
}

impl TriggerSpec {
    /// Returns the pauses between attempts, given those of triggers without settings.
    pub(crate) fn pace(&self, usual: Pace) -> Pace {
        let longest = self.retry.longest.unwrap_or(usual.longest);
        Pace {
            first: usual.first.min(longest),
            longest,
            patience: self.retry.patience.unwrap_or(usual.patience),
            slow: match self.retry.then {
                Some(Then::Every(pause)) => pause,
                Some(Then::Never) | None => usual.slow,
            },
            attempts: self.retry.attempts,
            ends: self.retry.then == Some(Then::Never),
        }
    }
}

/// Reads the triggers of the file.
pub(crate) fn triggers(file: &File) -> Vec<TriggerSpec> {
    let asked = asked(file);
    let triggers = file.trigger.iter();
    triggers.map(|one| trigger(one, &asked)).collect()
}

/// Reads a trigger. `asked`: the registries that can be asked.
pub(crate) fn trigger(trigger: &Trigger, asked: &BTreeSet<Registry>) -> TriggerSpec {
    let spec = trigger.spec();
    let images = trigger.images.iter();
    TriggerSpec {
        name: trigger.name.get_ref().to_string(),
        images: images
            .map(|(name, image)| (name.get_ref().clone(), image.clone()))
            .collect(),
        agree: trigger.agree,
        target: trigger.target().kind.to_owned(),
        renamed_from: trigger.renamed_from.as_ref().map(ToString::to_string),
        likeness: spec.likeness(),
        start: trigger.start,
        on_target_change: trigger.on_target_change,
        partial: trigger.partial,
        settle: trigger.settle(asked),
        settle_max: trigger.settle_max(trigger.settle(asked)),
        default_settle: trigger.default_settle(asked),
        timeout: trigger.timeout(),
        gates: trigger.gates.clone(),
        written_gates: trigger.gates_as_written(),
        on_failure: trigger.on_failure,
        finish: trigger.concurrency == Concurrency::Finish,
        retry: trigger.retry.clone(),
        labels: trigger.labels.clone(),
        hash: spec.hash(),
        spec,
    }
}

/// Returns a line for each trigger whose settings about results have no effect, or whose results
/// nobody may report.
pub(crate) fn warnings(file: &File, targets: &Targets, verifies: &Verifies) -> Vec<String> {
    let mut lines = Vec::new();
    for trigger in &file.trigger {
        let name = trigger.name.get_ref().to_string();
        let Some(target) = targets.get(&name) else {
            continue;
        };
        let watched = target.watches() || verifies.contains_key(&name);
        let useless = [
            ("timeout", trigger.has_timeout()),
            ("concurrency", trigger.concurrency == Concurrency::Finish),
        ];
        for (key, _) in useless.iter().filter(|(_, set)| *set && !watched) {
            lines.push(format!(
                "warning: trigger {name}: {key} has no effect, since a rollout succeeds with its attempt; add verify, or remove {key}"
            ));
        }
        let mut tokens = file.token.iter();
        let may_report = |token: &Token| {
            let mut triggers = token.triggers.iter().flatten();
            token.role == Role::Report
                && (token.triggers.is_none() || triggers.any(|glob| glob.matches(&name)))
        };
        if target.reports() && !file.token.is_empty() && !tokens.any(may_report) {
            lines.push(format!(
                "warning: trigger {name}: no token may report its results, so each rollout will fail; add a [[token]] with role = \"report\""
            ));
        }
    }
    lines
}

/// Returns the registries that can be asked.
pub(crate) fn asked(file: &File) -> BTreeSet<Registry> {
    let names = file.registry.iter().map(|access| access.name.get_ref());
    names.cloned().collect()
}
