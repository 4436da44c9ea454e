//! The answer to a test of a trigger.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_history::instant::Instant;
use tagtrail_policy::choice::Set;
use tagtrail_policy::replay::{Held, MOST, Planned};
use tagtrail_proto::{Cause, ClosedGate, Digest, Pinned};

use super::reading::Done;

/// The facts that a test does not know.
const LIMITS: [&str; 9] = [
    "nobody gives orders: no freeze, pin, pause or rollback",
    "rollouts succeed at once",
    "images whose manifest is read now count as read when they were pushed; the others as never read",
    "the registry is not asked: the gates recheck and manifest are open",
    "people approve at once; approval_at is the time of the question",
    "the group is held up by the recorded rollouts of its other triggers",
    "at the begin the trigger has the images that its rules select then",
    "if there are none, start says how it begins; nobody resumes a trigger that begins paused",
    "the target is not asked: with start = \"adopt\" it runs other images than those of the first rollout",
];

/// The rollouts that a trigger would have had.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Test {
    /// The result in one line.
    summary: String,
    /// The begin of the test.
    from: Instant,
    /// The end of the test. Earlier than asked for if `stopped` is there.
    until: Instant,
    /// The limit that ended the test early; null if the test is complete.
    stopped: Option<String>,
    /// The images before the first rollout; null if one of them had no tag.
    before: Option<BTreeMap<String, TestedImage>>,
    /// The images at the end; null if there are none.
    after: Option<BTreeMap<String, TestedImage>>,
    /// Names of images for which no tag was found all the time.
    missing: Vec<String>,
    /// The rollouts, the oldest first; at most 1,000.
    rollouts: Vec<TestedRollout>,
    /// Number of all rollouts.
    count: u64,
    /// Number of later rollouts that the list leaves out.
    left_out: u64,
    /// Number of rollouts by kind: `start`, `adopted`, `re-push`, or the order of the policy that
    /// moved, such as `semver`.
    kinds: BTreeMap<&'static str, u64>,
    /// Seconds for which a gate, or `min_age`, held a rollout up.
    held_seconds: BTreeMap<&'static str, f64>,
    /// Number of images that were replaced before they had lasted for `min_age`.
    too_short: u64,
    /// Number of recorded rollouts that a newer one superseded before their gates opened.
    gave_way: u64,
    /// Number of rollouts that wait for approvals.
    approvals: u64,
    /// The last rollout, if its gates are still closed at the end.
    waits: Option<HeldRollout>,
    /// True if the trigger begins paused, so that nothing is recorded.
    paused: bool,
    /// True if the first rollout is there only if the target ran other images at that time: the
    /// trigger has `start = "adopt"`, and a test asks no target.
    unreported: bool,
    /// Number of selections of a lower tag.
    downgrades: u64,
    /// Number of removals of a selected tag after which only lower tags were left.
    downgrades_prevented: u64,
    /// Number of changes of tags that were replayed.
    changes: u64,
    /// The facts that the test does not know.
    limits: &'static [&'static str],
}

/// An image of a tested trigger.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TestedImage {
    /// The image with its tag.
    image: String,
    /// The revision of the tag.
    revision: u64,
    /// The digest.
    digest: Digest,
    /// The image, pinned to the digest.
    pinned: Pinned,
}

/// A rollout that there would have been.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TestedRollout {
    /// The time of its begin.
    at: Instant,
    /// The kind, as in `kinds`.
    kind: &'static str,
    /// The reason.
    cause: Cause,
    /// The images.
    images: BTreeMap<String, TestedImage>,
    /// The time at which it waits for approvals alone, which come at once; null if it needs none.
    approval_at: Option<Instant>,
    /// Seconds for which a gate, or `min_age`, had held it up.
    held_seconds: BTreeMap<&'static str, f64>,
}

/// A rollout that is held at the end.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct HeldRollout {
    /// The images.
    images: BTreeMap<String, TestedImage>,
    /// The closed gates.
    gates: Vec<ClosedGate>,
}

fn images(set: Set) -> BTreeMap<String, TestedImage> {
    let images = set.into_iter().map(|(name, one)| {
        let image = TestedImage {
            image: one.image.to_string(),
            revision: one.revision,
            digest: one.digest,
            pinned: one.pinned,
        };
        (name, image)
    });
    images.collect()
}

fn seconds(held: BTreeMap<&'static str, std::time::Duration>) -> BTreeMap<&'static str, f64> {
    let held = held.into_iter();
    held.map(|(name, time)| (name, time.as_secs_f64()))
        .collect()
}

fn rollout(planned: Planned) -> TestedRollout {
    TestedRollout {
        at: Instant(planned.at),
        kind: planned.kind.as_str(),
        cause: planned.cause,
        images: images(planned.images),
        approval_at: planned.approval_at.map(Instant),
        held_seconds: seconds(planned.held),
    }
}

fn held(held: Held) -> HeldRollout {
    HeldRollout {
        images: images(held.images),
        gates: held.gates,
    }
}

impl Test {
    pub(super) fn of(from: Instant, done: Done) -> Test {
        let report = done.report;
        let kinds = report.kinds.iter();
        let kinds = kinds.map(|(kind, count)| (kind.as_str(), *count));
        Test {
            summary: report.summary(),
            from,
            until: Instant(done.reached),
            stopped: done.stopped,
            kinds: kinds.collect(),
            left_out: report.count.saturating_sub(MOST as u64),
            before: report.before.map(images),
            after: report.last.map(images),
            missing: report.missing,
            rollouts: report.rollouts.into_iter().map(rollout).collect(),
            count: report.count,
            held_seconds: seconds(report.held),
            too_short: report.too_short,
            gave_way: report.gave_way,
            approvals: report.approvals,
            waits: report.waits.map(held),
            paused: report.paused,
            unreported: report.unreported,
            downgrades: report.downgrades,
            downgrades_prevented: report.downgrades_prevented,
            changes: done.changes,
            limits: &LIMITS,
        }
    }
}
