//! Changes of the values by people.

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
        "by Person); the rollout wants prod/web.yaml: line 5: ",
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
