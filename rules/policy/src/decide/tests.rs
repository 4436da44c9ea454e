use std::time::Duration;

use tagtrail_proto::{Digest, Origin};

use super::*;

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second)
}

struct World {
    images: BTreeMap<String, Image>,
    heads: BTreeMap<Image, Head>,
    last: Option<BTreeMap<String, RolloutImage>>,
    unsent: bool,
    target_changed: bool,
    cut_off: bool,
    first: FirstSight<'static>,
    paused: bool,
    resumed: bool,
    settle: Option<Settle>,
    asked: BTreeSet<Registry>,
    partial: bool,
    now: OffsetDateTime,
}

fn seconds(quiet: u64) -> Settle {
    Settle::always(Duration::from_secs(quiet))
}

/// Two images, each at revision 1 since second 100, and no rollout.
fn world() -> World {
    let mut world = World {
        images: BTreeMap::new(),
        heads: BTreeMap::new(),
        last: None,
        unsent: false,
        target_changed: false,
        cut_off: false,
        first: FirstSight {
            start: Start::Now,
            reported: Reported::NotAsked,
            configured_at: at(105),
        },
        paused: false,
        resumed: false,
        settle: None,
        asked: BTreeSet::new(),
        partial: false,
        now: at(110),
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
                own_time: true,
                held_before: false,
                confirmed_at: None,
                manifest: ManifestState::Unread,
                recorded_at: at(100),
            },
        );
    }

    fn decide(&self) -> Decision {
        decide(&self.situation())
    }

    fn situation(&self) -> Situation<'_> {
        let head = |(name, image): (&String, &Image)| {
            let selected = Selected::tag(image.clone(), self.heads.get(image)?.clone());
            Some((name.clone(), selected))
        };
        let watched =
            |(name, image): (&String, &Image)| (name.clone(), Watched::Tag(image.clone()));
        // A situation borrows its parts, which live as long as the test.
        Situation {
            images: Box::leak(Box::new(self.images.iter().map(watched).collect())),
            followed: false,
            selected: Box::leak(Box::new(self.images.iter().filter_map(head).collect())),
            last: self.last.as_ref(),
            unsent: self.unsent,
            target_changed: self.target_changed,
            cut_off: self.cut_off,
            first: self.first,
            paused: self.paused,
            resumed: self.resumed,
            settle: self.settle,
            asked: &self.asked,
            partial: self.partial,
            now: self.now,
        }
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
    assert_eq!(world.decide(), Decision::NOTHING);
    world.heads.remove(&world.images["web"]);
    assert_eq!(world.decide(), Decision::NOTHING);
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
    world.unsent = true;
    assert_eq!(world.roll(), None);
    world.resumed = true;
    assert_eq!(
        world.roll(),
        Some((CauseReason::Resume, names(&[]), vec![1, 1]))
    );
    world.unsent = false;
    assert_eq!(world.roll(), None);
}

#[test]
fn imported_heads_are_adopted_at_first_sight_alone() {
    let mut world = world();
    world.head("web", 1, Some(1), Origin::Imported);
    world.head("worker", 1, Some(1), Origin::Imported);
    world.asked.insert("registry.example.com".parse().unwrap());
    assert_eq!(
        world.roll(),
        Some((CauseReason::Adopted, names(&["web", "worker"]), vec![1, 1]))
    );
    assert_eq!(world.roll(), None);
    world.asked.clear();
    // Adopted images were never sent.
    world.unsent = true;
    world.resumed = true;
    assert_eq!(
        world.roll(),
        Some((CauseReason::Resume, names(&[]), vec![1, 1]))
    );
    (world.unsent, world.resumed) = (false, false);
    world.head("web", 2, Some(3), Origin::Imported);
    assert_eq!(
        world.roll(),
        Some((CauseReason::Revision, names(&["web"]), vec![2, 1]))
    );
}

#[test]
fn a_set_with_one_imported_head_is_rolled_out() {
    let mut world = world();
    world.head("web", 1, Some(1), Origin::Imported);
    assert_eq!(
        world.roll(),
        Some((CauseReason::Start, names(&["web", "worker"]), vec![1, 1]))
    );
}

#[test]
fn heads_must_have_been_quiet_for_the_time_to_settle() {
    let mut world = world();
    world.settle = Some(seconds(30));
    let Decision::Wait { again, waiting } = world.decide() else {
        panic!("{:?}", world.decide());
    };
    assert_eq!(again, at(130));
    assert_eq!(
        (waiting[0].gate, waiting[0].opens_at),
        (Gate::Settle, Some(at(130)))
    );
    world.settle = Some(seconds(10));
    assert!(matches!(world.decide(), Decision::Start { .. }));
}

#[test]
fn the_first_revision_of_a_tag_may_settle_for_less_time_than_a_change() {
    let mut world = world();
    world.settle = Some(Settle {
        quiet: Duration::from_secs(30),
        first: Duration::from_secs(5),
    });
    world.now = at(104);
    let Decision::Wait { again, .. } = world.decide() else {
        panic!("{:?}", world.decide());
    };
    assert_eq!(again, at(105));
    world.now = at(105);
    assert!(matches!(world.decide(), Decision::Start { .. }));
    world.head("web", 2, Some(2), Origin::Event);
    world
        .heads
        .get_mut(&world.images["web"])
        .unwrap()
        .recorded_at = at(104);
    let Decision::Wait { again, .. } = world.decide() else {
        panic!("{:?}", world.decide());
    };
    assert_eq!(again, at(134));
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

impl World {
    /// Lets the registry be asked, with all manifests read.
    fn asked(&mut self) {
        self.asked.insert("registry.example.com".parse().unwrap());
        for head in self.heads.values_mut() {
            head.manifest = ManifestState::Read;
            head.recorded_at = at(109);
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Head)) {
        change(self.heads.get_mut(&self.images[name]).unwrap());
    }

    fn gates(&self) -> Vec<(Gate, String)> {
        match self.decide() {
            Decision::Wait { waiting, .. } | Decision::Nothing { waiting } => waiting
                .into_iter()
                .map(|one| (one.gate, one.image.to_string()))
                .collect(),
            Decision::Start { .. } => Vec::new(),
        }
    }
}

#[test]
fn a_group_waits_for_the_changed_image_whose_gate_is_closed() {
    let mut world = world();
    world.asked();
    world.roll();
    world.head("web", 2, Some(2), Origin::Event);
    world.head("worker", 2, Some(2), Origin::Event);
    world.asked();
    world.change("worker", |head| {
        head.manifest = ManifestState::Unread;
    });
    let worker = "registry.example.com/shop/worker:latest".to_owned();
    assert_eq!(world.gates(), [(Gate::Manifest, worker)]);
    world.change("worker", |head| head.manifest = ManifestState::Read);
    assert!(matches!(world.decide(), Decision::Start { .. }));
    // The target already has this digest.
    world.roll();
    world.change("worker", |head| head.manifest = ManifestState::Unread);
    world.head("web", 3, Some(3), Origin::Event);
    world.change("web", |head| head.manifest = ManifestState::Read);
    assert!(world.roll().is_some());
}

#[test]
fn a_resume_skips_a_closed_gate_but_rolls_out_no_tombstone() {
    let mut world = world();
    world.asked();
    world.change("web", |head| {
        (head.own_time, head.held_before) = (false, true)
    });
    assert_eq!(world.gates().len(), 1);
    world.resumed = true;
    assert!(matches!(world.decide(), Decision::Start { .. }));
    world.change("web", |head| head.manifest = ManifestState::Tombstone);
    let web = "registry.example.com/shop/web:latest".to_owned();
    assert!(matches!(world.decide(), Decision::Nothing { .. }));
    assert_eq!(world.gates(), [(Gate::Tombstone, web)]);
}

#[test]
fn an_order_rolls_out_the_present_set_again_and_an_earlier_set() {
    let mut world = world();
    world.roll();
    let first = world.last.clone().unwrap();
    fn changed(
        world: &World,
        images: Option<&BTreeMap<String, RolloutImage>>,
        skip: &[String],
    ) -> Result<(CauseReason, Vec<String>), Vec<Waiting>> {
        let order = Order {
            images,
            skip,
            reason: CauseReason::Order,
        };
        match decide_order(&world.situation(), &order) {
            Decision::Start { cause, .. } => Ok((cause.reason, cause.changed)),
            other => Err(other.waiting().to_vec()),
        }
    }
    assert_eq!(changed(&world, None, &[]), Ok((CauseReason::Order, vec![])));
    world.head("web", 2, Some(2), Origin::Event);
    // An order passes `settle`, and only it.
    world.settle = Some(seconds(3600));
    assert_eq!(
        changed(&world, None, &[]),
        Ok((CauseReason::Order, names(&["web"])))
    );
    world.settle = None;
    world.asked.insert("registry.example.com".parse().unwrap());
    world
        .heads
        .get_mut(&world.images["web"])
        .unwrap()
        .recorded_at = at(109);
    let waiting = changed(&world, None, &[]).unwrap_err();
    assert_eq!(waiting[0].gate, Gate::Manifest);
    assert!(changed(&world, None, &names(&["manifest"])).is_ok());
    // The images of an earlier rollout need no head.
    world.asked.clear();
    world.roll();
    world.head("web", 3, None, Origin::Event);
    assert_eq!(
        changed(&world, Some(&first), &[]),
        Ok((CauseReason::Order, names(&["web"])))
    );
    assert_eq!(changed(&world, None, &[]), Err(vec![]));
}

#[test]
fn images_that_change_all_the_time_are_rolled_out_within_the_longest_time() {
    let mut world = world();
    world.settle = Some(seconds(30));
    let longest = Duration::from_secs(100);
    let mut before = Vec::new();
    // A change every 20 s, from second 100 on.
    for second in (100..200).step_by(20) {
        world.now = at(second);
        let web = world.images["web"].clone();
        world.heads.get_mut(&web).unwrap().recorded_at = at(second);
        let decision = decide_within(&world.situation(), longest, &before);
        let Decision::Wait { again, waiting } = decision else {
            panic!("rolled out at second {second}");
        };
        assert_eq!(waiting[0].since, at(100));
        assert_eq!(again, at((second + 30).min(200)), "{second}");
        before = waiting;
    }
    world.now = at(200);
    let decision = decide_within(&world.situation(), longest, &before);
    assert!(matches!(decision, Decision::Start { .. }));
}

#[test]
fn at_first_sight_images_from_before_the_trigger_are_adopted_if_asked() {
    for (start, configured_at, expected) in [
        (Start::Now, 105, CauseReason::Start),
        (Start::Next, 105, CauseReason::Adopted),
        // The time of both images: they came with the trigger.
        (Start::Next, 100, CauseReason::Start),
    ] {
        let mut world = world();
        world.first = FirstSight {
            start,
            reported: Reported::NotAsked,
            configured_at: at(configured_at),
        };
        let (reason, ..) = world.roll().unwrap();
        assert_eq!(reason, expected, "{start:?} {configured_at}");
        // Only the first rollout depends on it.
        world.head("web", 2, Some(2), Origin::Event);
        let (reason, changed, _) = world.roll().unwrap();
        assert_eq!((reason, changed), (CauseReason::Revision, names(&["web"])));
    }
    // One image came after the trigger: the set is new.
    let mut world = world();
    world.first.start = Start::Next;
    let worker = world.images["worker"].clone();
    world.heads.get_mut(&worker).unwrap().recorded_at = at(106);
    assert_eq!(world.roll().unwrap().0, CauseReason::Start);
    // A person who resumes the trigger wants the images on the target.
    world.last = None;
    world.first.configured_at = at(200);
    world.resumed = true;
    assert_eq!(world.roll().unwrap().0, CauseReason::Start);
}

#[test]
fn a_trigger_adopts_what_its_target_reports_and_rolls_the_difference_out() {
    let mut world = world();
    world.first.start = Start::Adopt;
    assert!(world.situation().asks_target());
    world.first.reported = Reported::Unknown;
    assert_eq!(world.roll(), None);
    let Decision::Start { mut images, .. } = decide(&Situation {
        first: FirstSight {
            reported: Reported::NotAsked,
            ..world.first
        },
        ..world.situation()
    }) else {
        panic!("images to begin with");
    };
    let older = Digest::sha256_of(&[9]);
    let web = images.get_mut("web").unwrap();
    (web.revision, web.pinned) = (0, web.image.pinned(&older));
    web.digest = older;
    world.first.reported = Reported::Set(Box::leak(Box::new(images)));
    assert_eq!(
        world.roll(),
        Some((CauseReason::Adopted, names(&["web", "worker"]), vec![0, 1]))
    );
    // Later reports do not matter.
    assert!(!world.situation().asks_target());
    assert_eq!(
        world.roll(),
        Some((CauseReason::Revision, names(&["web"]), vec![1, 1]))
    );
    assert_eq!(world.roll(), None);
}

#[test]
fn without_a_set_to_adopt_the_images_are_rolled_out_and_the_rollout_says_why() {
    let mut world = world();
    world.first.start = Start::Adopt;
    world.first.reported = Reported::NoSet("it runs web:latest");
    let Decision::Start { cause, .. } = decide(&world.situation()) else {
        panic!("a rollout");
    };
    assert_eq!(cause.reason, CauseReason::Start);
    assert_eq!(cause.not_adopted.as_deref(), Some("it runs web:latest"));
    // A person who resumes the trigger does not wait for the target.
    (world.first.reported, world.resumed) = (Reported::Unknown, true);
    assert!(!world.situation().asks_target());
    assert_eq!(world.roll().unwrap().0, CauseReason::Start);
    // Without a whole set nothing is asked.
    (world.last, world.resumed) = (None, false);
    world.head("web", 2, None, Origin::Event);
    assert!(!world.situation().asks_target());
}

#[test]
fn a_partial_trigger_rolls_the_known_images_out_and_keeps_the_others() {
    let mut world = world();
    world.partial = true;
    let worker = world.images["worker"].clone();
    let head = world.heads.remove(&worker).unwrap();
    // An image that was never known is left to the target.
    let start = (CauseReason::Start, names(&["web"]), vec![1]);
    assert_eq!(world.roll(), Some(start));
    assert_eq!(world.roll(), None);
    world.heads.insert(worker, head);
    let known = (CauseReason::Revision, names(&["worker"]), vec![1, 1]);
    assert_eq!(world.roll(), Some(known));
    // A deleted image, and one that a client made up, stay as they are.
    world.head("worker", 2, None, Origin::Event);
    assert_eq!(world.roll(), None);
    world.head("web", 2, Some(2), Origin::Event);
    let changed = (CauseReason::Revision, names(&["web"]), vec![2, 1]);
    assert_eq!(world.roll(), Some(changed));
    world.head("worker", 3, Some(3), Origin::Event);
    let worker = world.images["worker"].clone();
    world.heads.get_mut(&worker).unwrap().manifest = ManifestState::Tombstone;
    world.head("web", 3, Some(4), Origin::Event);
    let changed = (CauseReason::Revision, names(&["web"]), vec![3, 1]);
    assert_eq!(world.roll(), Some(changed));
    let waiting = world.decide().waiting().to_vec();
    assert_eq!((waiting.len(), waiting[0].gate), (1, Gate::Tombstone));
    // Without any known image there is nothing to roll out.
    world.head("web", 4, None, Origin::Event);
    assert_eq!(world.roll(), None);
    world.last = None;
    assert_eq!(world.roll(), None);
    // The same facts stop a trigger whose images are rolled out as a whole.
    world.head("web", 5, Some(5), Origin::Event);
    world.partial = false;
    assert_eq!(world.roll(), None);
}

#[test]
fn another_target_gets_the_wanted_images_unless_the_trigger_is_paused() {
    let mut world = world();
    world.roll().unwrap();
    world.target_changed = true;
    world.paused = true;
    assert_eq!(world.roll(), None);
    world.paused = false;
    let configuration = |changed: &[&str]| Some((CauseReason::Configuration, names(changed)));
    let roll = |world: &mut World| world.roll().map(|(reason, changed, _)| (reason, changed));
    assert_eq!(roll(&mut world), configuration(&[]));
    world.head("web", 2, Some(2), Origin::Event);
    assert_eq!(roll(&mut world), configuration(&["web"]));
    world.resumed = true;
    assert_eq!(roll(&mut world), Some((CauseReason::Resume, vec![])));
    (world.resumed, world.target_changed) = (false, false);
    assert_eq!(roll(&mut world), None);
    // The removal of the trigger cut the rollout of these images off.
    world.cut_off = true;
    assert_eq!(roll(&mut world), configuration(&[]));
}
