//! The tags that policies select, and the rollouts that follow.

use serde_json::{Value, json};
use sqlx::Row as _;
use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::{SOON, eventually};

use crate::world::*;

const API: &str = "registry.example.com/shop/api";

impl World {
    /// Configures a trigger `shop` of one image `api` with this policy.
    fn policy(&self, policy: &str) {
        let secret = self.folder.path().join("secret");
        self.configure(&format!(
            "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.api = {{ repository = \"{API}\", {policy} }}\n\
             target.webhook = {{ url = \"{}\", secret = {{ file = \"{}\" }} }}\n",
            self.sink.url(),
            secret.display(),
        ));
    }

    async fn tag(&mut self, tag: &str, n: u8) {
        self.push(&format!("{API}:{tag}"), n).await;
    }

    async fn untag(&mut self, tag: &str) {
        self.head(&format!("{API}:{tag}"), None, "event").await;
    }

    /// Waits for the delivery of this number and returns `(tag, digest, cause)`.
    async fn delivered(&mut self, number: usize) -> (String, String, String) {
        let body = self.sink.wait(number).await.pop().unwrap().json();
        self.wait(i64::try_from(number).unwrap(), Succeeded).await;
        let image = &body["data"]["images"]["api"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let tag = text(&image["image"]);
        let tag = tag.rsplit_once(':').unwrap().1.to_owned();
        let cause = text(&body["data"]["cause"]["reason"]);
        (tag, text(&image["digest"]), cause)
    }

    async fn selected(&mut self) -> Vec<(String, i64)> {
        let rows = sqlx::query("select tag, revision from selection order by name")
            .fetch_all(&mut self.sql)
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get("tag"), row.get("revision")))
            .collect()
    }

    async fn expect_deliveries(&mut self, count: usize, why: &str) {
        a_while().await;
        assert_eq!(self.sink.deliveries().len(), count, "{why}");
    }

    /// Stores the manifest of a digest for this platform.
    async fn manifest(&mut self, n: u8, architecture: &str) {
        self.manifest_of(n, architecture, None, None).await;
    }

    /// Stores the manifest of a digest for this platform, with its commit and the time at which it
    /// was built. One statement, as in the indexer: a manifest that is read never changes.
    async fn manifest_of(
        &mut self,
        n: u8,
        architecture: &str,
        commit: Option<&str>,
        created: Option<&str>,
    ) {
        sqlx::query(
            "insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, revision, created, labels, annotations, read_at)
             values ($1, 'registry.example.com', 'shop/api', 'x', 1, $2, $3, $4::timestamptz, '{}', '{}', now())",
        )
        .bind(digest(n).as_bytes())
        .bind(json!([{ "os": "linux", "architecture": architecture, "variant": null, "digest": null }]))
        .bind(commit)
        .bind(created)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }
}

fn rollout(tag: &str, n: u8, cause: &str) -> (String, String, String) {
    (tag.to_owned(), digest(n).to_string(), cause.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_version_is_rolled_out_and_never_a_lower_one() {
    let mut world = World::new().await;
    world.policy("semver = \"^1.4\"");
    for (tag, n) in [
        ("1.4.0", 1),
        ("1.10.0", 2),
        ("1.9.0", 3),
        ("2.0.0", 4),
        ("latest", 5),
    ] {
        world.tag(tag, n).await;
    }
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("1.10.0", 2, "start"));
    assert_eq!(world.selected().await, [("1.10.0".to_owned(), 1)]);
    world.tag("1.9.1", 6).await;
    world.tag("2.1.0", 7).await;
    world.untag("1.10.0").await;
    world
        .expect_deliveries(1, "a deleted tag must not lead to a lower one")
        .await;
    world.tag("1.10.1", 8).await;
    assert_eq!(world.delivered(2).await, rollout("1.10.1", 8, "revision"));
    // The digest of the selected tag is followed.
    world.tag("1.10.1", 9).await;
    assert_eq!(world.delivered(3).await, rollout("1.10.1", 9, "revision"));
    service.stop().await;

    // The selection outlives the process, and a tag that was pushed meanwhile is found.
    world.untag("1.10.1").await;
    let service = world.start().await;
    world
        .expect_deliveries(3, "a start must not select a lower tag")
        .await;
    service.stop().await;
    world.tag("1.11.0", 10).await;
    let service = world.start().await;
    assert_eq!(world.delivered(4).await, rollout("1.11.0", 10, "revision"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_person_lowers_the_version_by_a_change_of_the_rule() {
    let mut world = World::new().await;
    world.policy("semver = \"*\"");
    world.tag("1.4.0", 1).await;
    world.tag("2.0.0", 2).await;
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("2.0.0", 2, "start"));
    service.stop().await;
    world.policy("semver = \"^1\"");
    let service = world.start().await;
    assert_eq!(
        world.delivered(2).await,
        rollout("1.4.0", 1, "configuration")
    );
    // The new rule counts from now on.
    world.tag("2.0.1", 3).await;
    world.tag("1.3.0", 4).await;
    world.untag("1.4.0").await;
    world.expect_deliveries(2, "1.3.0 is lower").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_tag_falls_back_and_a_moved_tag_stays_if_the_policy_says_so() {
    let mut world = World::new().await;
    world.policy("numeric = \"highest\", on_removed = \"fall-back\", on_moved = \"keep\"");
    world.tag("7", 1).await;
    world.tag("8", 2).await;
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("8", 2, "start"));
    world.tag("8", 3).await;
    world.expect_deliveries(1, "the first digest stays").await;
    world.untag("8").await;
    assert_eq!(world.delivered(2).await, rollout("7", 1, "revision"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_rule_follows_its_own_selection() {
    let mut world = World::new().await;
    world.policy("semver = { within = \"patch\", from = \"1.2.0\" }");
    for (tag, n) in [("1.2.0", 1), ("1.2.1", 2), ("1.3.0", 3)] {
        world.tag(tag, n).await;
    }
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("1.2.1", 2, "start"));
    for (tag, n) in [("1.3.1", 4), ("1.2.2", 5)] {
        world.tag(tag, n).await;
    }
    assert_eq!(world.delivered(2).await, rollout("1.2.2", 5, "revision"));
    world.tag("1.2.10", 6).await;
    assert_eq!(world.delivered(3).await, rollout("1.2.10", 6, "revision"));
    let policies: i64 = sqlx::query_scalar("select count(*) from policy")
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    assert_eq!(policies, 1, "policies out of use are removed");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_selected_once_its_manifest_has_the_platform() {
    let mut world = World::new().await;
    world.policy("semver = \"*\", platforms = [\"linux/arm64\"]");
    world.tag("1.0.0", 1).await;
    world.manifest(1, "arm64").await;
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("1.0.0", 1, "start"));
    world.tag("1.1.0", 2).await;
    world.tag("1.2.0", 3).await;
    world
        .expect_deliveries(1, "manifests that are not read are waited for")
        .await;
    world.manifest(3, "amd64").await;
    world.manifest(2, "arm64").await;
    assert_eq!(world.delivered(2).await, rollout("1.1.0", 2, "revision"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_must_have_lasted_for_the_least_age() {
    let mut world = World::new().await;
    world.policy("newest = \"pushed\", min_age = \"3s\"");
    let image = format!("{API}:a");
    world.head_of(&image, Some(1), "event", "event", 60).await;
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("a", 1, "start"));
    world.tag("b", 2).await;
    world.expect_deliveries(1, "b is too young").await;
    // An image that was replaced within the time is never selected.
    world.tag("b", 3).await;
    assert_eq!(world.delivered(2).await, rollout("b", 3, "revision"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_hundred_are_kept_and_the_rest_is_found_again() {
    let mut world = World::new().await;
    world.policy("numeric = \"highest\", on_removed = \"fall-back\"");
    world.tags(1..=300).await;
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("300", 44, "start"));
    assert_eq!(world.candidates().await, 100);
    // News of more tags than there is room for.
    for n in 301..=520 {
        world.tag(&n.to_string(), 1).await;
    }
    eventually("tag 520 to be selected", SOON, async || {
        (world.selected().await[0].0 == "520").then_some(())
    })
    .await;
    eventually("the candidates to be trimmed", SOON, async || {
        (world.candidates().await <= 200).then_some(())
    })
    .await;
    // All candidates are deleted at once, without a word.
    sqlx::query("update tag set head_digest = null where name::int > 250")
        .execute(&mut world.sql)
        .await
        .unwrap();
    world.untag("520").await;
    eventually("tag 250 to be selected", SOON, async || {
        (world.selected().await[0].0 == "250").then_some(())
    })
    .await;
    service.stop().await;
}

impl World {
    /// Gives the repository these tags at once, without news.
    async fn tags(&mut self, numbers: std::ops::RangeInclusive<i32>) {
        self.tag(&numbers.start().to_string(), 0).await;
        let digests: Vec<Vec<u8>> = (0..=255_u8)
            .map(|n| digest(n).as_bytes().to_vec())
            .collect();
        sqlx::query(
            "with n as (
                 select n, ($3::bytea[])[n % 256 + 1] as digest from generate_series($1::int + 1, $2::int) n
             ), t as (
                 insert into tag (repository_id, name, issued, head, head_digest, head_at)
                 select r.id, n.n::text, 1, 1, n.digest, now() from n, repository r returning id, head_digest
             ), p as (
                 insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
                 select id, 'push', head_digest, now(), now(), 'event', now(), now(), 'event', 'main', '', 0 from t returning id, tag_id, digest
             )
             insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, head, push_id, partition, ordinal)
             select tag_id, 1, 'created', digest, now(), now(), 1, id, 1, id from p",
        )
        .bind(numbers.start())
        .bind(numbers.end())
        .bind(digests)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    async fn candidates(&mut self) -> i64 {
        sqlx::query_scalar("select count(*) from candidate")
            .fetch_one(&mut self.sql)
            .await
            .unwrap()
    }
}

impl World {
    /// Configures a trigger `shop` of two images that must agree.
    fn agreeing(&self, agree: &str, web: &str, worker: &str) {
        let secret = self.folder.path().join("secret");
        self.configure(&format!(
            "[[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nagree = \"{agree}\"\nimages.web = {web}\nimages.worker = {worker}\n\
             target.webhook = {{ url = \"{}\", secret = {{ file = \"{}\" }} }}\n",
            self.sink.url(),
            secret.display(),
        ));
    }

    /// Waits for the delivery of this number and returns the revisions or tags of both images.
    async fn pair(&mut self, number: usize) -> [String; 2] {
        let body = self.sink.wait(number).await.pop().unwrap().json();
        self.wait(i64::try_from(number).unwrap(), Succeeded).await;
        ["web", "worker"].map(|name| {
            let digest = body["data"]["images"][name]["digest"].as_str();
            digest.unwrap().to_owned()
        })
    }

    async fn commit(&mut self, n: u8, commit: &str) {
        self.manifest_of(n, "amd64", Some(commit), None).await;
    }
}

const HIGHEST: [&str; 2] = [
    "{ repository = \"registry.example.com/shop/web\", numeric = \"highest\" }",
    "{ repository = \"registry.example.com/shop/worker\", numeric = \"highest\" }",
];

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_build_is_never_a_set() {
    let mut world = World::new().await;
    world.agreeing("tag", HIGHEST[0], HIGHEST[1]);
    let service = world.start().await;
    let [web, worker] = [
        "registry.example.com/shop/web",
        "registry.example.com/shop/worker",
    ];
    world.push(&format!("{web}:1"), 1).await;
    world.push(&format!("{worker}:2"), 2).await;
    world.expect_deliveries(0, "no tag that both have").await;
    world.push(&format!("{worker}:1"), 3).await;
    assert_eq!(world.pair(1).await, [1, 3].map(|n| digest(n).to_string()));
    world.push(&format!("{web}:3"), 4).await;
    world.expect_deliveries(1, "worker has no tag 3").await;
    world.push(&format!("{web}:2"), 5).await;
    assert_eq!(world.pair(2).await, [5, 2].map(|n| digest(n).to_string()));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_one_commit_are_rolled_out_together() {
    let mut world = World::new().await;
    world.agreeing("commit", &format!("\"{WEB}\""), &format!("\"{WORKER}\""));
    let service = world.start().await;
    for (image, n, commit) in [(WEB, 1, "a"), (WORKER, 2, "a")] {
        world.push(image, n).await;
        world.commit(n, commit).await;
    }
    assert_eq!(world.pair(1).await, [1, 2].map(|n| digest(n).to_string()));
    world.push(WEB, 3).await;
    world.commit(3, "b").await;
    world
        .expect_deliveries(1, "worker is of the commit a")
        .await;
    // The manifest is read later.
    world.push(WORKER, 4).await;
    world.expect_deliveries(1, "the commit is not known").await;
    world.commit(4, "b").await;
    assert_eq!(world.pair(2).await, [3, 4].map(|n| digest(n).to_string()));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_build_is_found_when_its_manifest_is_read() {
    let mut world = World::new().await;
    world.policy("newest = \"created\"");
    let service = world.start().await;
    world.tag("old", 1).await;
    world.tag("new", 2).await;
    for (n, created) in [(1, "2026-03-01T00:00:00Z"), (2, "2026-03-02T00:00:00Z")] {
        world.manifest_of(n, "amd64", None, Some(created)).await;
    }
    eventually("the newest build to be selected", SOON, async || {
        (world.selected().await == [("new".to_owned(), 1)]).then_some(())
    })
    .await;
    service.stop().await;
}

/// Returns the reasons of the faults in force.
async fn faults(world: &mut World) -> Vec<String> {
    sqlx::query_scalar(
        "select reason from hold where kind = 'fault' and released_at is null and image = 'api'",
    )
    .fetch_all(&mut world.sql)
    .await
    .unwrap()
}

async fn release_faults(world: &mut World) {
    sqlx::query(
        "update hold set released_at = now(), released_by = 'ann' where released_at is null",
    )
    .execute(&mut world.sql)
    .await
    .unwrap();
    sqlx::query("update trigger set touched = true")
        .execute(&mut world.sql)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_holds_the_trigger_until_a_release_follows_it() {
    let mut world = World::new().await;
    world.policy("semver = \"*\", on_moved = \"hold\"");
    world.tag("1.0.0", 1).await;
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("1.0.0", 1, "start"));
    world.tag("1.0.0", 2).await;
    let reason = format!("the selected tag {API}:1.0.0 has another digest (on_moved = \"hold\")");
    let found = eventually("a fault", SOON, async || {
        Some(faults(&mut world).await).filter(|faults| !faults.is_empty())
    })
    .await;
    assert_eq!(found, [reason]);
    // A higher tag does not begin either.
    world.tag("1.1.0", 3).await;
    world.expect_deliveries(1, "a fault holds").await;
    assert_eq!(faults(&mut world).await.len(), 1);
    release_faults(&mut world).await;
    let delivered = world.delivered(2).await;
    assert_eq!(delivered.0, "1.1.0");
    assert_eq!(faults(&mut world).await, Vec::<String>::new());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_tag_holds_the_trigger_and_each_fault_is_released_alone() {
    let mut world = World::new().await;
    world.policy("semver = \"*\", on_removed = \"hold\"");
    world.tag("1.0.0", 1).await;
    world.tag("1.1.0", 2).await;
    let service = world.start().await;
    assert_eq!(world.delivered(1).await, rollout("1.1.0", 2, "start"));
    world.untag("1.1.0").await;
    eventually("a fault", SOON, async || {
        (!faults(&mut world).await.is_empty()).then_some(())
    })
    .await;
    release_faults(&mut world).await;
    // The release lets the rule go on, which never goes down by itself.
    world.expect_deliveries(1, "no lower tag").await;
    assert_eq!(faults(&mut world).await, Vec::<String>::new());
    world.tag("1.2.0", 3).await;
    assert_eq!(world.delivered(2).await.0, "1.2.0");
    // The next selection has faults of its own.
    world.untag("1.2.0").await;
    eventually("another fault", SOON, async || {
        (!faults(&mut world).await.is_empty()).then_some(())
    })
    .await;
    service.stop().await;
}
