//! Changes of the values by people.

use std::time::Duration;

use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::{SOON, eventually};

use super::{Place, WEB_YAML, with_digest};
use crate::world::*;

impl Place {
    /// Rolls two images out by these settings, and reverts the second commit.
    async fn reverted(more: &str) -> (Place, Service) {
        let mut place = Place::new(more).await;
        let service = place.world.start().await;
        for n in 1..=2 {
            place.world.push(WEB, n).await;
            place.wait(i64::from(n), Succeeded).await;
        }
        place.repository.take("main");
        place.repository.person(&["revert", "--no-edit", "HEAD"]);
        let push = [
            "push",
            "--quiet",
            &place.repository.url(),
            "HEAD:refs/heads/main",
        ];
        place.repository.person(&push);
        (place, service)
    }

    async fn faults(&mut self) -> Vec<String> {
        sqlx::query_scalar("select reason from hold where kind = 'fault' and released_at is null")
            .fetch_all(&mut self.world.sql)
            .await
            .unwrap()
    }

    fn now(&self) -> String {
        self.repository.read("main", "prod/web.yaml")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_of_a_person_lasts_until_the_trigger_is_released() {
    let (mut place, service) = Place::reverted("").await;
    let faults = eventually("a fault", SOON, async || {
        let faults = place.faults().await;
        (!faults.is_empty()).then_some(faults)
    })
    .await;
    for words in [
        "somebody else has changed the images in branch main of file://",
        "(Revert \"Roll out shop #2",
        "by Person); the last rollout wants prod/web.yaml: line 5: ",
    ] {
        assert!(faults[0].contains(words), "{faults:?}");
    }
    // A newer image does not overwrite the revert.
    place.world.push(WEB, 3).await;
    a_while().await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 1));
    place.world.release().await;
    place.wait(3, Succeeded).await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 3));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_repair_the_images_are_written_again_and_with_ignore_at_the_next_push() {
    let (mut place, service) = Place::reverted("on_foreign_change = \"repair\"").await;
    place.wait(3, Succeeded).await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 2));
    service.stop().await;
    let (mut place, service) = Place::reverted("on_foreign_change = \"ignore\"").await;
    a_while().await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 1));
    place.world.push(WEB, 3).await;
    place.wait(3, Succeeded).await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 3));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_and_a_file_of_others_are_no_foreign_change() {
    let (mut place, service) = Place::rolled_out("").await;
    // Time for a look at the branch as it is.
    a_while().await;
    let files = [("prod/new.yaml", WEB_YAML), ("other.txt", "x\n")];
    place.repository.write_to("main", &files, "by hand");
    a_while().await;
    a_while().await;
    assert_eq!(place.faults().await, Vec::<String>::new());
    // The next rollout fills the new file.
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    let new = place.repository.read("main", "prod/new.yaml");
    assert_eq!(
        (new, place.now()),
        (with_digest(WEB_YAML, 2), with_digest(WEB_YAML, 2))
    );
    service.stop().await;
}

/// A pause between looks at the branch that no test outlives.
const NEVER: Duration = Duration::from_secs(3600);

impl Place {
    /// Starts a service that looks at the branch for rollouts alone.
    async fn start_blind(&self) -> Service {
        self.world
            .start_with(PACE, |config| config.look_pace.others = NEVER)
            .await
    }

    /// Pushes the last commit of the branch, reverted for one file alone.
    fn revert_one(&self, path: &str, content: &str) {
        self.repository
            .write_to("main", &[(path, content)], "by hand");
    }

    async fn fault(&mut self) -> String {
        eventually("a fault", SOON, async || self.faults().await.pop()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_just_before_a_push_of_an_image_is_not_overwritten() {
    let mut place = Place::new("").await;
    let service = place.start_blind().await;
    for n in 1..=2 {
        place.world.push(WEB, n).await;
        place.wait(i64::from(n), Succeeded).await;
    }
    place.revert_one("prod/web.yaml", &with_digest(WEB_YAML, 1));
    place.world.push(WEB, 3).await;
    let fault = place.fault().await;
    assert!(
        fault.contains("(by hand, by Person); the last rollout wants prod/web.yaml: line 5: "),
        "{fault}"
    );
    assert_eq!(place.now(), with_digest(WEB_YAML, 1));
    place.world.release().await;
    place.wait(3, Succeeded).await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 3));
    // A person who orders a rollout decides, too.
    place.revert_one("prod/web.yaml", &with_digest(WEB_YAML, 1));
    place.world.order("rollout", "order", None, false).await;
    place.wait(4, Succeeded).await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 3));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_of_some_files_is_seen_after_a_restart() {
    let mut place = Place::new("").await;
    let api = ("prod/api.yaml", WEB_YAML);
    place.repository.write_to("main", &[api], "a second file");
    let service = place.start_blind().await;
    for n in 1..=2 {
        place.world.push(WEB, n).await;
        place.wait(i64::from(n), Succeeded).await;
    }
    service.stop().await;
    place.revert_one("prod/api.yaml", &with_digest(WEB_YAML, 1));
    // The first look, and an attempt, know which files had the images.
    let service = place.start_blind().await;
    place.world.push(WEB, 3).await;
    let fault = place.fault().await;
    assert!(fault.contains("wants prod/api.yaml: line 5: "), "{fault}");
    assert_eq!(place.now(), with_digest(WEB_YAML, 2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_success_was_never_recorded_is_no_change_by_others() {
    let (mut place, service) = Place::rolled_out("").await;
    service.stop().await;
    place.world.push(WEB, 2).await;
    let mut killed = place
        .world
        .process_with(&[("TAGTRAIL_FAILPOINT", "trigger.told:abort")]);
    killed.ended(SOON).await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 2));
    place.world.push(WEB, 3).await;
    let _second = place.world.process();
    place.wait(3, Succeeded).await;
    assert_eq!(place.now(), with_digest(WEB_YAML, 3));
    assert_eq!(place.faults().await, Vec::<String>::new());
}
