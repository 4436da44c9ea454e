//! Named points: the places where a crash must lose nothing, and the steps without which a promise breaks.
//!
//! In a build with the feature `enabled`, `TAGTRAIL_FAILPOINT=name:abort` makes a process die when it first comes by the point, and
//! `TAGTRAIL_FAILPOINT=name:skip` makes it leave the step out each time; several are told with commas. A test aborts at each [`FailPoint::is_passed`] once
//! (`e2e/tests/points.rs`); `make faults-selftest` leaves out each other step, to see that the storm would notice. Without the
//! feature nothing of it is left in the program.

macro_rules! points {
    ($($(#[$meaning:meta])* $name:ident = $text:literal $what:ident,)*) => {
        /// A place in the program.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FailPoint { $($(#[$meaning])* $name,)* }

        impl FailPoint {
            /// All there are.
            pub const ALL: &[FailPoint] = &[$(FailPoint::$name,)*];

            /// Its name, as in `TAGTRAIL_FAILPOINT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(FailPoint::$name => $text,)* }
            }

            /// Whether it is a place that is passed. The others are steps that can be left out.
            #[must_use]
            pub const fn is_passed(self) -> bool {
                match self { $(FailPoint::$name => points!(@ $what),)* }
            }
        }
    };
    (@ passed) => { true };
    (@ step) => { false };
}

points! {
    // The gateway.
    /// A body is understood, and not stored.
    GatewayUnderstood = "gateway.understood" passed,
    /// NATS has acknowledged it, and the sender has no answer.
    GatewayStored = "gateway.stored" passed,
    /// Storing what was understood.
    GatewayStore = "gateway.store" step,
    /// Waiting for the acknowledgement of NATS.
    GatewayAcknowledgement = "gateway.acknowledgement" step,

    // The resolver.
    /// A registry has answered, and nothing is published.
    ResolverAnswered = "resolver.answered" passed,
    /// The answer is published, and the question not acknowledged.
    ResolverPublished = "resolver.published" passed,
    /// Both.
    ResolverAcknowledged = "resolver.acknowledged" passed,

    // The indexer.
    /// A partition's lock is taken, and the partition not fenced.
    IndexerLocked = "indexer.locked" passed,
    /// It is fenced, and what was not published is not published.
    IndexerFenced = "indexer.fenced" passed,
    /// That is published, and not noted.
    IndexerCaughtUp = "indexer.caught-up" passed,
    /// A batch is written, and not committed.
    IndexerWritten = "indexer.written" passed,
    /// It is committed, and not published.
    IndexerCommitted = "indexer.committed" passed,
    /// A revision is handed to the connection, and not acknowledged.
    IndexerSent = "indexer.sent" passed,
    /// It is acknowledged, and nobody knows.
    IndexerPublished = "indexer.published" passed,
    /// That is noted.
    IndexerNoted = "indexer.noted" passed,
    /// A stop was asked for, everything is put down, and the partition's lock not given back.
    IndexerStopped = "indexer.stopped" passed,
    /// Moving the position on in the transaction of what was read.
    IndexerPosition = "indexer.position" step,
    /// The key by which a fact that comes again is known.
    IndexerFactKey = "indexer.fact-key" step,
    /// Looking at what stands around a late fact.
    IndexerLate = "indexer.late" step,
    /// Remembering that a delete of a digest or repository touched its tags.
    IndexerTouch = "indexer.touch" step,
    /// The condition on the fence.
    IndexerFence = "indexer.fence" step,
    /// Publishing at take-over what was recorded and not published.
    IndexerTakeOver = "indexer.take-over" step,
    /// Looking at take-over whether REVISIONS still holds what it acknowledged.
    IndexerLook = "indexer.look" step,
    /// Comparing the streams with the store.
    IndexerSweep = "indexer.sweep" step,

    // The trigger service.
    /// Rollouts are decided, and not recorded.
    TriggerPlanned = "trigger.planned" passed,
    /// They are recorded, and nobody is told.
    TriggerRecorded = "trigger.recorded" passed,
    /// The lock of a target is taken, and no attempt begun.
    TriggerLocked = "trigger.locked" passed,
    /// An attempt is recorded as begun, and the target not told.
    TriggerBegun = "trigger.begun" passed,
    /// The target is told, and the outcome not written.
    TriggerTold = "trigger.told" passed,
    /// The outcome is written, and not committed.
    TriggerWritten = "trigger.written" passed,
    /// It is committed, and the lock not given back.
    TriggerDone = "trigger.done" passed,
    /// Changes are handed to the connection, and not acknowledged.
    LedgerSent = "ledger.sent" passed,
    /// They are acknowledged, and that is not noted.
    LedgerPublished = "ledger.published" passed,
    /// It is noted.
    LedgerNoted = "ledger.noted" passed,
    /// The identifier that all attempts of a rollout share.
    TriggerRolloutId = "trigger.rollout-id" step,
    /// Moving the position on.
    TriggerPosition = "trigger.position" step,
    /// Ending older rollouts before a newer one is begun.
    TriggerSupersede = "trigger.supersede" step,
    /// Noting that changes were published.
    LedgerNote = "ledger.note" step,
}

impl FailPoint {
    /// It is passed now: with `abort` the process dies here.
    #[inline]
    pub fn pass(self) {
        #[cfg(feature = "enabled")]
        enabled::pass(self);
    }

    /// Whether the step is left out.
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
        reason = "of tests, and only in their builds: no setting, and maybe before there is a log"
    )]
    fn chosen() -> Vec<(FailPoint, Action)> {
        let text = std::env::var("TAGTRAIL_FAILPOINT").unwrap_or_default();
        let all = text.split(',').filter(|part| !part.is_empty());
        all.map(|part| {
            read(part).unwrap_or_else(|| {
                eprintln!("TAGTRAIL_FAILPOINT={part}: there is no such point, or it can't do that");
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
