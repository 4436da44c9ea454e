//! Fail points: named places at which tests crash a process or leave out a step.
//!
//! A crash at a *passed* point must lose nothing. Without a *step*, a promise of Tagtrail breaks.
//!
//! In a build with the feature `enabled`, `TAGTRAIL_FAILPOINT=name:abort` aborts the process when
//! it first reaches the passed point, and `TAGTRAIL_FAILPOINT=name:skip` leaves the step out every
//! time; commas separate several points. `e2e/tests/points.rs` aborts once at each passed point.
//! `make faults-selftest` leaves out each step, to prove that the storm would notice. Without the
//! feature, the points compile to nothing.

macro_rules! points {
    ($($(#[$meaning:meta])* $name:ident = $text:literal $sort:ident,)*) => {
        /// A place in a program.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FailPoint { $($(#[$meaning])* $name,)* }

        impl FailPoint {
            /// All points.
            pub const ALL: &[FailPoint] = &[$(FailPoint::$name,)*];

            /// Returns the name of the point in `TAGTRAIL_FAILPOINT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(FailPoint::$name => $text,)* }
            }

            /// Returns whether the point is passed. All others are steps, which can be left out.
            #[must_use]
            pub const fn is_passed(self) -> bool {
                match self { $(FailPoint::$name => points!(@ $sort),)* }
            }
        }
    };
    (@ passed) => { true };
    (@ step) => { false };
}

points! {
    // The gateway.
    /// Between interpreting a body and storing its messages.
    GatewayUnderstood = "gateway.understood" passed,
    /// Between the acknowledgement of NATS and the response to the sender.
    GatewayStored = "gateway.stored" passed,
    /// Storing the messages.
    GatewayStore = "gateway.store" step,
    /// Waiting for the acknowledgement of NATS.
    GatewayAcknowledgement = "gateway.acknowledgement" step,

    // The resolver.
    /// Between the answer of a registry and its publication.
    ResolverAnswered = "resolver.answered" passed,
    /// Between publishing the answer and acknowledging the question.
    ResolverPublished = "resolver.published" passed,
    /// After acknowledging the question.
    ResolverAcknowledged = "resolver.acknowledged" passed,

    // The indexer.
    /// Between acquiring a partition's lock and fencing the partition.
    IndexerLocked = "indexer.locked" passed,
    /// Between fencing and publishing the revisions that the last holder left unpublished.
    IndexerFenced = "indexer.fenced" passed,
    /// Between publishing these revisions and marking them as published.
    IndexerCaughtUp = "indexer.caught-up" passed,
    /// Between the decision about pushes and the write.
    IndexerWritten = "indexer.written" passed,
    /// Between writing pushes with their revisions and publishing the revisions.
    IndexerCommitted = "indexer.committed" passed,
    /// Between sending a revision and the acknowledgement of NATS.
    IndexerSent = "indexer.sent" passed,
    /// Between the acknowledgement of NATS and marking the revision as published.
    IndexerPublished = "indexer.published" passed,
    /// After marking revisions as published.
    IndexerNoted = "indexer.noted" passed,
    /// Between the last work before a requested stop and the release of the partition's lock.
    IndexerStopped = "indexer.stopped" passed,
    /// Advancing the position, in the statement that records the messages read.
    IndexerPosition = "indexer.position" step,
    /// The key by which a repeated push is recognised.
    IndexerPushKey = "indexer.push-key" step,
    /// Reading the history around a late push.
    IndexerLate = "indexer.late" step,
    /// Recording that a delete of a digest or repository touched its tags.
    IndexerTouch = "indexer.touch" step,
    /// The condition by which NATS refuses messages from before the fence.
    IndexerFence = "indexer.fence" step,
    /// Publishing, at take-over, the revisions that are recorded and not published.
    IndexerTakeOver = "indexer.take-over" step,
    /// Finding, at take-over, acknowledged revisions that REVISIONS has lost.
    IndexerFind = "indexer.find" step,
    /// Asking registries about tags whose order of pushes is doubtful.
    IndexerRecheck = "indexer.recheck" step,
    /// Comparing the streams with Postgres.
    IndexerSweep = "indexer.sweep" step,

    // The trigger service.
    /// Between deciding on rollouts and recording them.
    TriggerPlanned = "trigger.planned" passed,
    /// Between recording rollouts and the start of their attempts.
    TriggerRecorded = "trigger.recorded" passed,
    /// Between recording the start of an attempt and calling the target.
    TriggerBegun = "trigger.begun" passed,
    /// Between calling the target and writing the outcome.
    TriggerTold = "trigger.told" passed,
    /// Between two patches of one attempt.
    TriggerPatched = "trigger.patched" passed,
    /// Between a commit in a clone and its push.
    TriggerCommitted = "trigger.committed" passed,
    /// After the commit of the outcome.
    TriggerDone = "trigger.done" passed,
    /// Between carrying out the orders to retry and to cancel and the attempts that follow.
    TriggerOrdered = "trigger.ordered" passed,
    /// Between reading the tags of a repository and replacing the candidates.
    TriggerFilled = "trigger.filled" passed,
    /// Between recording rollouts and remembering the selected tags, in one transaction.
    TriggerSelected = "trigger.selected" passed,
    /// Between recording the verdicts of gates and the attempts that follow.
    TriggerGated = "trigger.gated" passed,
    /// Between a look at a rollout and the record of its finding.
    TriggerLooked = "trigger.looked" passed,
    /// After the commit of the finding of a look.
    TriggerFound = "trigger.found" passed,
    /// Between ending the attempts of a dead process and the attempts that follow.
    TriggerTakenOver = "trigger.taken-over" passed,
    /// Between reading changed files and handing them to the tasks.
    TriggerReloaded = "trigger.reloaded" passed,
    /// Between sending changes of rollouts and the acknowledgement of NATS.
    LedgerSent = "ledger.sent" passed,
    /// Between the acknowledgement of NATS and marking the changes as published.
    LedgerPublished = "ledger.published" passed,
    /// After marking the changes as published.
    LedgerNoted = "ledger.noted" passed,
    /// The id that all attempts of a rollout share.
    TriggerRolloutId = "trigger.rollout-id" step,
    /// Advancing the position of the planner.
    TriggerPosition = "trigger.position" step,
    /// Ending older rollouts before a newer one is begun.
    TriggerSupersede = "trigger.supersede" step,
    /// Recording the outcome of an attempt.
    TriggerOutcome = "trigger.outcome" step,
    /// Ending the attempts of dead processes.
    TriggerTakeOver = "trigger.take-over" step,
    /// Waiting for the processes of an earlier attempt at a command.
    TriggerEarlier = "trigger.earlier" step,
    /// Holding rollouts behind freezes, pins and faults.
    TriggerHold = "trigger.hold" step,
    /// Checking holds, looks and the window once more when an attempt begins.
    TriggerMayBegin = "trigger.may-begin" step,
    /// Holding rollouts outside of their window.
    TriggerWindow = "trigger.window" step,
    /// Holding rollouts for `gap` after the begin of the one before.
    TriggerGap = "trigger.gap" step,
    /// Holding rollouts while another trigger of the group is rolled out.
    TriggerGroup = "trigger.group" step,
    /// Holding rollouts until people have approved their images.
    TriggerApproval = "trigger.approval" step,
    /// Ending rollouts that people rejected.
    TriggerRejection = "trigger.rejection" step,
    /// Changing an object of a cluster.
    TriggerPatch = "trigger.patch" step,
    /// Asking the target for the effect of a rollout that it took.
    TriggerObserve = "trigger.observe" step,
    /// Trying the steps of `verify`.
    TriggerVerify = "trigger.verify" step,
    /// Recording the finding of a look.
    TriggerFinding = "trigger.finding" step,
    /// Carrying out the orders of people that lead to rollouts.
    TriggerOrder = "trigger.order" step,
    /// Reading a whole repository for the candidates of its policies.
    TriggerRefill = "trigger.refill" step,
    /// Adding the tags of news to the candidates.
    TriggerCandidate = "trigger.candidate" step,
    /// Remembering the selected tags.
    TriggerSelection = "trigger.selection" step,
    /// Selecting only images that belong together.
    TriggerAgree = "trigger.agree" step,
    /// Taking the changed files of triggers.
    TriggerReload = "trigger.reload" step,
    /// Reading the repositories of policies again in rotation.
    TriggerRotation = "trigger.rotation" step,
    /// Marking changes as published.
    LedgerNote = "ledger.note" step,
    /// Between the answer of a receiver of messages and the new place in ROLLOUTS.
    NotifyTold = "notify.told" passed,
    /// After the record of the new place.
    NotifyMoved = "notify.moved" passed,
    /// Waiting until a receiver accepts a message.
    NotifyAccepted = "notify.accepted" step,
}

impl FailPoint {
    /// Whether this is a build for tests.
    pub const COMPILED: bool = cfg!(feature = "enabled");

    /// Marks the place of a passed point: with `abort`, the process dies here.
    #[inline]
    pub fn pass(self) {
        #[cfg(feature = "enabled")]
        enabled::pass(self);
    }

    /// Returns whether the step must be left out.
    #[inline]
    #[must_use]
    pub fn skipped(self) -> bool {
        #[cfg(feature = "enabled")]
        return enabled::skipped(self);
        #[cfg(not(feature = "enabled"))]
        false
    }
}

#[cfg(feature = "enabled")]
mod enabled {
    use std::sync::LazyLock;

    use super::FailPoint;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Abort,
        Skip,
    }

    static CHOSEN: LazyLock<Vec<(FailPoint, Action)>> = LazyLock::new(chosen);

    #[expect(
        clippy::disallowed_methods,
        clippy::print_stderr,
        reason = "only builds for tests read this variable, maybe before the log has started"
    )]
    fn chosen() -> Vec<(FailPoint, Action)> {
        let text = std::env::var("TAGTRAIL_FAILPOINT").unwrap_or_default();
        let all = text.split(',').filter(|part| !part.is_empty());
        all.map(|part| {
            read(part).unwrap_or_else(|| {
                eprintln!("TAGTRAIL_FAILPOINT={part}: no such point, or the point does not support the action");
                std::process::abort()
            })
        })
        .collect()
    }

    fn read(text: &str) -> Option<(FailPoint, Action)> {
        let (name, action) = text.split_once(':')?;
        let point = FailPoint::ALL.iter().find(|point| point.name() == name)?;
        match (action, point.is_passed()) {
            ("abort", true) => Some((*point, Action::Abort)),
            ("skip", false) => Some((*point, Action::Skip)),
            _ => None,
        }
    }

    pub(super) fn pass(point: FailPoint) {
        if CHOSEN.contains(&(point, Action::Abort)) {
            std::process::abort();
        }
    }

    pub(super) fn skipped(point: FailPoint) -> bool {
        CHOSEN.contains(&(point, Action::Skip))
    }
}
