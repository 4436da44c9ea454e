//! Reading a large repository for policies, beside other work.

use std::time::{Duration, Instant};

use sqlx::Row as _;
use tagtrail_testkit::eventually;

use crate::world::*;

/// Tags of the repository: in a debug build the rules need longer for them than the 2 s after which
/// the server ends a silent session.
const TAGS: i32 = 20_000;
/// Policies, each with another rule: more than one reading decides for.
const POLICIES: usize = 20;
/// The longest time for a reading, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

impl World {
    /// Starts a service that reads the versions for the policies.
    async fn reading() -> (World, Service) {
        let mut world = World::new().await;
        world.versions().await;
        world.policies("");
        let service = world.start().await;
        eventually("the policies to be recorded", LONG, async || {
            (world.unfilled().await > 0).then_some(())
        })
        .await;
        (world, service)
    }

    /// Stores the versions `1.0.0` to `1.39.499`.
    async fn versions(&mut self) {
        sqlx::query(
            "with r as (
                 insert into repository (registry, name) values ('registry.example.com', 'shop/versions') returning id
             ), t as (
                 insert into tag (repository_id, name, issued, head, head_digest, head_at)
                 select r.id, '1.' || n / 500 || '.' || n % 500, 1, 1, $1, now() from r, generate_series(0, $2 - 1) n returning id
             ), p as (
                 insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
                 select id, 'push', $1, now(), now(), 'event', now(), now(), 'event', 'main', '', 0 from t returning id, tag_id
             )
             insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, head, push_id, partition, ordinal)
             select tag_id, 1, 'created', $1, now(), now(), 1, id, 0, id from p",
        )
        .bind(digest(1).as_bytes())
        .bind(TAGS)
        .execute(&mut self.sql)
        .await
        .unwrap();
    }

    /// Configures the trigger `shop` with `more` lines, and one trigger for each policy.
    fn policies(&self, more: &str) {
        let secret = self.folder.path().join("secret");
        let policy = |n: usize| {
            format!(
                "[[trigger]]\nname = \"policy-{n}\"\nsettle = \"0s\"\n\
                 images.app = {{ repository = \"registry.example.com/shop/versions\", semver = \">=1.{n}.0\" }}\n\
                 target.webhook = {{ url = \"{}\", secret = {{ file = \"{}\" }} }}\n",
                self.sink.url(),
                secret.display(),
            )
        };
        let policies: String = (0..POLICIES).map(policy).collect();
        self.configure(&(self.shop(more) + &policies));
    }

    /// Returns the number of policies whose repository was not read yet.
    async fn unfilled(&mut self) -> i64 {
        sqlx::query_scalar("select count(*) from policy where floor is null")
            .fetch_one(&mut self.sql)
            .await
            .unwrap()
    }

    /// Returns the number of policies whose repository was read in the last seconds.
    async fn filled_in(&mut self, seconds: f64) -> i64 {
        sqlx::query_scalar(
            "select count(*) from policy where filled_at > now() - make_interval(secs => $1)",
        )
        .bind(seconds)
        .fetch_one(&mut self.sql)
        .await
        .unwrap()
    }

    /// Waits until each policy has this tag in its last rollout.
    async fn selected_by_all(&mut self, tag: &str) {
        eventually(&format!("all policies to select {tag}"), LONG, async || {
            let rows = sqlx::query(
                "select distinct on (t.name) o.images -> 'app' ->> 'image' as image
                 from rollout o join trigger t on t.id = o.trigger_id where t.name like 'policy-%' order by t.name, o.number desc",
            )
            .fetch_all(&mut self.sql)
            .await
            .unwrap();
            let image = format!("registry.example.com/shop/versions:{tag}");
            let of = |image: &str| rows.iter().filter(|row| row.get::<&str, _>("image") == image).count();
            (of(&image) == POLICIES).then_some(())
        })
        .await;
    }

    /// Returns the processes of the server that hold locks.
    async fn sessions(&mut self) -> Vec<i32> {
        sqlx::query_scalar(
            "select distinct l.pid from pg_locks l join pg_database d on d.oid = l.database
             where l.locktype = 'advisory' and d.datname = current_database() order by l.pid",
        )
        .fetch_all(&mut self.sql)
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trigger_and_no_session_waits_while_a_large_repository_is_read() {
    let (mut world, service) = World::reading().await;
    let sessions = world.sessions().await;
    world.push(WORKER, 1).await;
    // The tag sorts among the first ones, so it comes after the reading has passed it.
    let mut longest = Duration::ZERO;
    let mut number = 0;
    while world.unfilled().await > 0 {
        let begin = Instant::now();
        number += 1;
        world.push(WEB, 100 + number).await;
        if number == 5 {
            world
                .push("registry.example.com/shop/versions:1.100.0", 2)
                .await;
        }
        eventually("the rollout of an exact tag", LONG, async || {
            let bodies = world.sink.deliveries();
            let is = |body: serde_json::Value| {
                body["data"]["images"]["web"]["digest"] == digest(100 + number).to_string()
            };
            bodies.iter().any(|one| is(one.json())).then_some(())
        })
        .await;
        longest = longest.max(begin.elapsed());
    }
    assert!(number > 5, "the reading took {number} rollouts only");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    world.selected_by_all("1.100.0").await;
    // A lock may have been taken after the first look.
    let now = world.sessions().await;
    let kept = sessions.iter().all(|session| now.contains(session));
    assert!(kept, "a session was lost: {sessions:?}, and now {now:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_goes_on_after_each_change_of_the_files() {
    let (mut world, service) = World::reading().await;
    let begin = Instant::now();
    let mut changes = 0;
    while world.unfilled().await > 0 {
        assert!(begin.elapsed() < LONG, "the reading never ends");
        changes += 1;
        world.policies(&format!("settle = \"{changes}ms\""));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(changes > 2, "the reading ended after {changes} changes");
    world.selected_by_all("1.39.499").await;

    // Nothing was missed meanwhile, so nothing is read again, but for the policies in rotation.
    eventually("all readings to end", LONG, async || {
        (world.filled_in(3.0).await == 0).then_some(())
    })
    .await;
    world.policies("settle = \"2s\"");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(world.filled_in(4.0).await <= 1);
    world
        .push("registry.example.com/shop/versions:1.100.0", 2)
        .await;
    world.selected_by_all("1.100.0").await;
    service.stop().await;
}
