//! The decision whether a trigger needs a new rollout. The decision is level-triggered: it depends
//! on the present heads alone, so a missed revision in between does no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use tagtrail_proto::{Cause, CauseReason, Digest, Image, Origin, RolloutImage};
use time::OffsetDateTime;

/// The present revision of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the revision.
    pub revision: u64,
    /// The digest of the tag; `None` if the tag is deleted.
    pub digest: Option<Digest>,
    /// The origin of the push behind the revision.
    pub origin: Origin,
    /// The time at which the indexer recorded the revision.
    pub recorded_at: OffsetDateTime,
}

/// The facts that the decision depends on.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// The watched images, by their names in the trigger.
    pub images: &'a BTreeMap<String, Image>,
    /// The heads of the watched images, without images that have no revision.
    pub heads: &'a BTreeMap<Image, Head>,
    /// The images of the last rollout, in any state, by their names in the trigger.
    pub last: Option<&'a BTreeMap<String, RolloutImage>>,
    /// True if the last rollout failed.
    pub failed: bool,
    /// True while a person has paused the trigger.
    pub paused: bool,
    /// True if a person resumed the trigger after the last decision.
    pub resumed: bool,
    /// The time since the newest head before a rollout may start.
    pub settle: Duration,
    /// The time of the decision.
    pub now: OffsetDateTime,
}

/// The decision for one trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to do: the last rollout already has these images, one image has no digest, all
    /// changes are imported, or the trigger is paused.
    Nothing,
    /// A rollout is needed, but the heads have not settled: decide again at this time.
    Wait(OffsetDateTime),
    /// Record a rollout of these images.
    Start {
        /// The images, by their names in the trigger.
        images: BTreeMap<String, RolloutImage>,
        /// The reason that the rollout records.
        cause: Cause,
    },
}

/// Decides for one trigger.
pub fn decide(situation: &Situation<'_>) -> Decision {
    if situation.paused {
        return Decision::Nothing;
    }
    let mut images = BTreeMap::new();
    let mut newest = None;
    for (name, image) in situation.images {
        // A rollout sets all images of a trigger, so one unknown or deleted image stops the rollout
        // and leaves the deployment as it is.
        let Some(head) = situation.heads.get(image) else {
            return Decision::Nothing;
        };
        let Some(digest) = &head.digest else {
            return Decision::Nothing;
        };
        newest = newest.max(Some(head.recorded_at));
        let wanted = RolloutImage {
            image: image.clone(),
            revision: head.revision,
            digest: digest.clone(),
            pinned: image.pinned(digest),
        };
        images.insert(name.clone(), wanted);
    }
    let pinned_before = |name: &String| {
        situation
            .last
            .and_then(|last| last.get(name))
            .map(|image| &image.pinned)
    };
    let changed: Vec<String> = images
        .iter()
        .filter(|(name, image)| pinned_before(name) != Some(&image.pinned))
        .map(|(name, _)| name.clone())
        .collect();
    let same_names = situation
        .last
        .is_some_and(|last| last.keys().eq(images.keys()));
    // A person who resumes a trigger after a failed rollout wants another attempt.
    let again = situation.failed && situation.resumed;
    if changed.is_empty() && same_names && !again {
        return Decision::Nothing;
    }
    // An image from before the first reconciliation is history, and no reason for a rollout.
    let imported = |name: &String| {
        situation
            .images
            .get(name)
            .and_then(|image| situation.heads.get(image))
            .is_some_and(|head| head.origin == Origin::Imported)
    };
    if !changed.is_empty() && changed.iter().all(imported) {
        return Decision::Nothing;
    }
    if let Some(quiet) = newest
        .map(|newest| newest + situation.settle)
        .filter(|quiet| *quiet > situation.now)
    {
        return Decision::Wait(quiet);
    }
    let same_watched = situation.last.is_some_and(|last| {
        last.iter()
            .all(|(name, image)| situation.images.get(name) == Some(&image.image))
            && same_names
    });
    let reason = match situation.last {
        None => CauseReason::Start,
        Some(_) if situation.resumed => CauseReason::Resume,
        Some(_) if !same_watched => CauseReason::Configuration,
        Some(_) => CauseReason::Revision,
    };
    Decision::Start {
        images,
        cause: Cause { reason, changed },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second)
    }

    struct World {
        images: BTreeMap<String, Image>,
        heads: BTreeMap<Image, Head>,
        last: Option<BTreeMap<String, RolloutImage>>,
        failed: bool,
        paused: bool,
        resumed: bool,
        settle: u64,
    }

    /// Two images, each at revision 1 since second 100, and no rollout.
    fn world() -> World {
        let mut world = World {
            images: BTreeMap::new(),
            heads: BTreeMap::new(),
            last: None,
            failed: false,
            paused: false,
            resumed: false,
            settle: 0,
        };
        for name in ["web", "worker"] {
            world.images.insert(
                name.to_owned(),
                format!("registry.example.com/shop/{name}").parse().unwrap(),
            );
            world.head(name, 1, Some(1), Origin::Event);
        }
        world
    }

    impl World {
        fn head(&mut self, name: &str, revision: u64, digest: Option<u8>, origin: Origin) {
            let digest = digest.map(|n| Digest::sha256_of(&[n]));
            self.heads.insert(
                self.images[name].clone(),
                Head {
                    revision,
                    digest,
                    origin,
                    recorded_at: at(100),
                },
            );
        }

        fn decide(&self) -> Decision {
            decide(&Situation {
                images: &self.images,
                heads: &self.heads,
                last: self.last.as_ref(),
                failed: self.failed,
                paused: self.paused,
                resumed: self.resumed,
                settle: Duration::from_secs(self.settle),
                now: at(110),
            })
        }

        /// Decides, and records the new rollout as the last rollout. `None` if there is none.
        fn roll(&mut self) -> Option<(CauseReason, Vec<String>, Vec<u64>)> {
            match self.decide() {
                Decision::Start { images, cause } => {
                    let revisions = images.values().map(|image| image.revision).collect();
                    self.last = Some(images);
                    Some((cause.reason, cause.changed, revisions))
                }
                _ => None,
            }
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_set_is_rolled_out_once_and_again_when_it_differs() {
        let mut world = world();
        assert_eq!(
            world.roll(),
            Some((CauseReason::Start, names(&["web", "worker"]), vec![1, 1]))
        );
        assert_eq!(world.roll(), None);
        world.head("web", 17, Some(2), Origin::Event);
        assert_eq!(
            world.roll(),
            Some((CauseReason::Revision, names(&["web"]), vec![17, 1]))
        );
        // A late fact gives the same digest a new number; the deployed image stays the same.
        world.head("web", 19, Some(2), Origin::Event);
        assert_eq!(world.roll(), None);
    }

    #[test]
    fn an_unknown_or_deleted_image_starts_nothing() {
        let mut world = world();
        world.head("web", 2, None, Origin::Event);
        world.head("worker", 2, Some(2), Origin::Event);
        assert_eq!(world.decide(), Decision::Nothing);
        world.heads.remove(&world.images["web"]);
        assert_eq!(world.decide(), Decision::Nothing);
    }

    #[test]
    fn while_paused_nothing_starts_and_resuming_rolls_out_the_present_heads() {
        let mut world = world();
        world.roll();
        world.paused = true;
        for revision in 2..18 {
            world.head(
                "web",
                revision,
                Some(u8::try_from(revision).unwrap()),
                Origin::Event,
            );
            assert_eq!(world.roll(), None);
        }
        (world.paused, world.resumed) = (false, true);
        assert_eq!(
            world.roll(),
            Some((CauseReason::Resume, names(&["web"]), vec![17, 1]))
        );
    }

    #[test]
    fn a_failed_set_is_rolled_out_again_only_after_a_resume() {
        let mut world = world();
        world.roll();
        world.failed = true;
        assert_eq!(world.roll(), None);
        world.resumed = true;
        assert_eq!(
            world.roll(),
            Some((CauseReason::Resume, names(&[]), vec![1, 1]))
        );
        world.failed = false;
        assert_eq!(world.roll(), None);
    }

    #[test]
    fn an_imported_head_alone_starts_nothing() {
        let mut world = world();
        world.head("web", 1, Some(1), Origin::Imported);
        world.head("worker", 1, Some(1), Origin::Imported);
        assert_eq!(world.roll(), None);
        world.head("worker", 2, Some(2), Origin::Event);
        assert_eq!(
            world.roll(),
            Some((CauseReason::Start, names(&["web", "worker"]), vec![1, 2]))
        );
        world.head("web", 2, Some(3), Origin::Imported);
        assert_eq!(world.roll(), None);
    }

    #[test]
    fn heads_must_have_been_quiet_for_the_time_to_settle() {
        let mut world = world();
        world.settle = 30;
        assert_eq!(world.decide(), Decision::Wait(at(130)));
        world.settle = 10;
        assert!(matches!(world.decide(), Decision::Start { .. }));
    }

    #[test]
    fn other_images_in_the_configuration_are_another_set() {
        let mut world = world();
        world.roll();
        world.images.remove("worker");
        assert_eq!(
            world.roll(),
            Some((CauseReason::Configuration, names(&[]), vec![1]))
        );
    }
}
