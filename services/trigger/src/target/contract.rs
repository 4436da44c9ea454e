//! The contract of a target: the order that a target receives, the trait that each target
//! implements, and the row that describes a kind of target.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tagtrail_config::{File, Secret, Trigger};
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{Event, Pinned, Rollout, TraceContext};
use tokio_util::sync::CancellationToken;

use super::claims::{Claim, SharedImages};
use super::clusters::Clusters;
use super::git::Clones;
use super::news::TargetNews;
use super::said::Said;
use crate::act::Place;
use crate::config::Supervisor;
use crate::store::background::Background;
use crate::store::looks::Report;

/// A rollout as a target receives it: the same bytes at every attempt.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) rollout: Rollout,
    /// The ids of earlier rollouts of the trigger whose attempts may have left work behind: those
    /// attempted after the last success.
    pub(crate) unfinished: Vec<String>,
    /// The `CloudEvent` of the rollout as recorded by the planner: pending, without attempts.
    pub(crate) body: Vec<u8>,
    /// The trace of the attempt, which the target passes on.
    pub(crate) trace: TraceContext,
    /// The answer or output of the target in this attempt.
    pub(crate) said: Said,
    /// Cancelled when the attempt must end before its result: the target then ends the work that it
    /// began, within its [`Target::grace`]. An outcome other than success counts as interrupted.
    pub(crate) stop: CancellationToken,
    /// The supervisor of a command.
    pub(crate) supervisor: Supervisor,
    /// The clones of git repositories. `None` outside of attempts.
    pub(crate) clones: Option<Arc<Clones>>,
    /// The rollouts before this one, and the people behind it, if
    /// [`Target::asks_for_background`].
    pub(crate) background: Background,
    /// The places that have the images, as the target reports them with a success.
    pub(crate) places: Places,
    /// The places that had the images when an attempt succeeded; of a look for changes by others.
    pub(crate) had: Vec<String>,
    /// Whether a person has decided that the rollout goes on, in spite of a change by somebody else.
    pub(crate) decided: bool,
    /// The last report of the receiver since the begin of the last attempt.
    pub(crate) report: Option<Report>,
}

impl Order {
    pub(crate) fn new(rollout: &Rollout, trace: TraceContext) -> serde_json::Result<Order> {
        let mut rollout = rollout.clone();
        if FailPoint::TriggerRolloutId.skipped() {
            rollout.id = uuid::Uuid::now_v7().to_string();
        }
        let recorded = Rollout {
            state: tagtrail_proto::RolloutState::Pending,
            attempts: 0,
            finished_at: None,
            error: None,
            gates: Vec::new(),
            opens_at: None,
            ..rollout.clone()
        };
        let event: Event<Rollout> = recorded.event(rollout.created_at);
        Ok(Order {
            rollout,
            unfinished: Vec::new(),
            body: serde_json::to_vec(&event)?,
            trace,
            said: Said::default(),
            stop: CancellationToken::new(),
            supervisor: Supervisor::default(),
            clones: None,
            background: Background::default(),
            places: Places::default(),
            had: Vec::new(),
            decided: false,
            report: None,
        })
    }
}

/// The places of a target that have the images of an order, such as files: the target reports them
/// before its success.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Option<Vec<String>>>>);

impl Places {
    /// Most places, and most bytes of them, that are kept. With more, a change of some of them by
    /// others is not seen after a restart.
    const MOST: usize = 1000;
    const BYTES: usize = 256 * 1024;

    pub(crate) fn set(&self, places: impl Iterator<Item = String>) {
        let places: Vec<String> = places.take(Places::MOST + 1).collect();
        let bytes: usize = places.iter().map(String::len).sum();
        let kept = Some(places).filter(|all| all.len() <= Places::MOST && bytes <= Places::BYTES);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    pub(crate) fn get(&self) -> Option<Vec<String>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A system that a rollout brings to a set of pinned images.
pub(crate) trait Target: Send + Sync {
    /// Makes one attempt, bounded in time. The same order twice must be harmless. Dropping the
    /// future cancels the attempt as far as possible.
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome>;

    /// The time that the end of an attempt takes at most, after its order is stopped. The default:
    /// none, so the future of the attempt can be dropped at once.
    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns whether attempts and looks need [`Order::background`]. The default: no.
    fn asks_for_background(&self) -> bool {
        false
    }

    /// Returns where the target acts: attempts share the slots of their place.
    fn place(&self) -> Place;

    /// Returns the place that the target acts on, as a text without secrets: where the text differs,
    /// other systems have to get the images.
    fn identity(&self) -> String;

    /// Returns the images that the target changes, as far as the settings tell. The default: none,
    /// as only the receiver knows.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// Tells people at the place that another trigger changes the same images, too. The default:
    /// the log tells it.
    fn tell_shared(&self, _shared: &SharedImages, _text: &str) {}

    /// Judges the settings, without trying the target. The default: nothing to report.
    fn judge(&self) -> Vec<TargetProblem> {
        Vec::new()
    }

    /// Tries the target, bounded in time and without an effect on it. The default: nothing can be
    /// tried.
    fn try_out(&self) -> TargetFuture<'_, Vec<TargetProblem>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// Returns whether the result of an order comes after an attempt, so that it is waited for. The
    /// default: if the receiver reports it.
    fn watches(&self) -> bool {
        self.reports()
    }

    /// Reads the effect of an order that the target took, bounded in time. The default: the target
    /// has the images as soon as it took them.
    fn observe<'a>(&'a self, _order: &'a Order) -> TargetFuture<'a, Seen> {
        Box::pin(std::future::ready(Seen::Healthy))
    }

    /// Begins to follow the state of the target, until the target is dropped, and reports news of it
    /// under this name of the trigger. The default: the target is asked when it is used.
    fn follow(&self, _trigger: &str, _news: &Arc<TargetNews>) {}

    /// Returns the effect of a change of the images by somebody else. The default: such changes are
    /// not seen.
    fn on_foreign_change(&self) -> OnForeignChange {
        OnForeignChange::Ignore
    }

    /// Looks whether somebody else has changed the images of the last rollout, bounded in time.
    /// Returns who has changed what, for people. The default: such changes are not seen.
    fn foreign<'a>(&'a self, _order: &'a Order) -> TargetFuture<'a, Option<String>> {
        Box::pin(std::future::ready(None))
    }

    /// Returns whether the receiver reports the result of each rollout. The default: no.
    fn reports(&self) -> bool {
        false
    }

    /// Reads the images that the target runs now, bounded in time. The default: the target cannot
    /// tell, as [`TargetKind::tells`] says too.
    fn current(&self) -> TargetFuture<'_, Running> {
        let why = "targets of this kind do not tell which images they run".to_owned();
        Box::pin(std::future::ready(Running::NoSet(why)))
    }
}

/// The future of a target's answer: a trait object can't have async methods.
pub(crate) type TargetFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A problem of a target, found without an effect on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetProblem {
    /// Whether no rollout can succeed before the cure.
    pub fatal: bool,
    /// The problem.
    pub found: String,
    /// The action to take, for people.
    pub cure: String,
}

impl TargetProblem {
    /// Returns a problem in spite of which rollouts may succeed.
    pub(crate) fn warning(found: String, cure: &str) -> TargetProblem {
        TargetProblem {
            fatal: false,
            found,
            cure: cure.to_owned(),
        }
    }
}

/// Returns a problem for each file of a secret that every user can read.
pub(super) fn readable_secrets<'a>(
    places: impl IntoIterator<Item = &'a Secret>,
) -> impl Iterator<Item = TargetProblem> {
    places.into_iter().filter_map(|place| {
        let Secret::File(path) = place else {
            return None;
        };
        let file = std::fs::metadata(path).ok()?;
        (file.permissions().mode() & 0o004 != 0).then(|| {
            TargetProblem::warning(
                format!("every user can read the secret in {}", path.display()),
                "chmod 600, with the user of the trigger service as owner",
            )
        })
    })
}

/// The effect of an order that the target took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The images run well.
    Healthy,
    /// The target has not finished; the text is for people.
    Progressing(String),
    /// The images do not run well; the text is for people.
    Failed(String),
    /// Somebody else has changed the images; the text says who, for people.
    Foreign(String),
}

/// The images that a target runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Running {
    /// These images, by their names in the trigger.
    Images(BTreeMap<String, Pinned>),
    /// Not one pinned image for each place; the text says why, for people.
    NoSet(String),
    /// The target did not answer, and may answer later; the text is for people.
    NoAnswer(String),
}

/// The effect of a change of the images by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnForeignChange {
    /// A fault: no rollout begins until a person releases the trigger.
    #[default]
    Hold,
    /// The images are rolled out again, up to three times in ten minutes; then as `Hold`.
    Repair,
    /// Nothing, until the next rollout.
    Ignore,
}

/// The result of reading a target's settings: the target, or a text that says how to correct them.
pub(super) type ConfigureResult = Result<Box<dyn Target>, String>;

/// A kind of target: one row of the table in `target.rs`.
pub(crate) struct TargetKind {
    /// The key of the settings in `tagtrail.toml`: `target.<name>`.
    pub(super) name: &'static str,
    /// Reads the settings below `target.<name>` of this trigger of this file.
    pub(super) configure:
        fn(settings: &toml::Value, trigger: &Trigger, of: (&File, &Clusters)) -> ConfigureResult,
    /// Whether targets of this kind tell which images they run.
    pub(super) tells: bool,
    /// The text for operators: the steps that prepare a system for this kind of target.
    pub(super) setup: &'static str,
}

/// The targets of all triggers, by the triggers' names.
pub(crate) type Targets = BTreeMap<String, Arc<dyn Target>>;

/// Reads the settings of a kind; unknown keys are errors. An error begins with its key.
pub(super) fn settings<T: serde::de::DeserializeOwned>(value: &toml::Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        let key = error.path().to_string();
        let message = error.inner().message().trim();
        // These messages name the key themselves.
        let named = message.starts_with("missing field") || message.starts_with("unknown field");
        match key == "." || named {
            true => message.to_owned(),
            false => format!("{key}: {message}"),
        }
    })
}
