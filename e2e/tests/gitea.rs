//! Gitea: its events name no digest, a delete names the time of the push before it, and tags are
//! in lower case.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tagtrail_e2e::{HOOK_SECRET, Up, free_address, shared_folder, use_ring};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{Registry, SOON, Sink, TestImage, eventually};
use time::OffsetDateTime;

/// The delete of a tag by `crane delete`, as Gitea 1.26.0 sent it.
const DELETE: &str =
    include_str!("../../services/gateway/tests/fixtures/gitea-captured-tag-delete.json");

struct World {
    up: Up,
    registry: Registry,
    hook: String,
    _sink: Sink,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> World {
        use_ring();
        let folder = shared_folder();
        // The registry's own events go elsewhere: the test sends those of Gitea.
        let (sink, gateway) = (Sink::start().await, free_address());
        let registry = Registry::start(sink.url(), "").await;
        let host = registry.host();
        let file = folder.path().join("tagtrail.toml");
        let text = format!(
            "[[source]]\nname = \"forge\"\nkind = \"gitea\"\nregistry = \"{host}\"\nsecret = {{ env = \"MAIN_HOOK_SECRET\" }}\n\
             [[registry]]\nname = \"{host}\"\nurl = \"http://{host}\"\naliases = [\"forge\"]\n"
        );
        std::fs::write(&file, text).unwrap();
        let up = Up::start_at(&folder.path().join("data"), &file, &gateway).await;
        World {
            up,
            registry,
            hook: format!("http://{gateway}/hooks/forge"),
            _sink: sink,
            _folder: folder,
        }
    }

    /// Sends an event about `team/web:TAG`. Its time is that of the push, in whole seconds.
    async fn report(&self, action: &str, tag: &str, pushed_at: OffsetDateTime, delivery: &str) {
        let mut body: Value = serde_json::from_str(DELETE).unwrap();
        body["action"] = action.into();
        body["package"]["version"] = tag.into();
        let pushed_at = pushed_at.replace_nanosecond(0).unwrap();
        body["package"]["created_at"] = instant::format(pushed_at).unwrap().into();
        let request = reqwest::Client::new()
            .post(&self.hook)
            .bearer_auth(HOOK_SECRET)
            .header("content-type", "application/json")
            .header("x-gitea-event", "package")
            .header("x-gitea-delivery", delivery)
            .body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), 202);
    }

    /// Returns the kinds of the revisions, the newest first, and the present digest.
    fn history(&self, image: &str) -> (Vec<String>, Value) {
        let history = self.up.cli().json(&["history", image]);
        let items = history["items"].as_array().unwrap();
        let kinds = items.iter().map(|item| item["kind"].as_str().unwrap());
        (
            kinds.map(str::to_owned).collect(),
            items[0]["digest"].clone(),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tag_is_gone_and_never_comes_back() {
    let world = World::start().await;
    let pushed_at = OffsetDateTime::now_utc();
    let image = TestImage::new("image");
    let digest: Digest = world.registry.push(&image, "team/web:qa");
    world.report("created", "qa", pushed_at, "1").await;
    // Another spelling of the tag and another name of the registry.
    let asked = "forge/team/web:QA";
    let name = format!("{}/team/web:qa", world.registry.host());
    eventually("the first revision", SOON, async || {
        let answer = world.up.cli().run(&["resolve", asked, "--quiet"]);
        let pinned = format!("{}@{digest}", name.strip_suffix(":qa").unwrap());
        (answer.out.trim() == pinned).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;

    world.registry.delete("team/web:qa");
    world.report("deleted", "qa", pushed_at, "2").await;
    let deleted = Instant::now();
    eventually("the delete", SOON, async || {
        world.history(&name).1.is_null().then_some(())
    })
    .await;
    let seconds = deleted.elapsed().as_secs_f32();
    assert!(seconds < 5.0, "{seconds} s");
    // The second question about the push, 10 s after its answer, and the re-check of the delete.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.history(asked).0, ["deleted", "created"]);
}
