//! The deletion of a tag by a client of a registry that deletes digests only: an image made up for
//! that purpose is put under the tag, and its digest deleted some milliseconds later.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tagtrail_e2e::{HOOK_SECRET, Up, config, free_address, shared_folder, use_ring};
use tagtrail_proto::Digest;
use tagtrail_testkit::{Registry, SOON, Sink, TestImage, eventually};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The requests of a client that deletes a tag.
struct Deletion {
    client: Client,
    repository: String,
    manifest: String,
}

impl Deletion {
    /// Stores the blobs of a made-up image, which is another one for each `number`.
    async fn prepare(host: &str, tag: &str, number: u32) -> Deletion {
        let client = Client::new();
        let repository = format!("http://{host}/v2/shop/web");
        let layer = b"{}".to_vec();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Labels": { "delete-tag": tag, "delete-date": format!("2026-03-03 {number}") } },
            "rootfs": { "type": "layers", "diff_ids": [Digest::sha256_of(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::sha256_of(&config), "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::sha256_of(&layer), "size": layer.len() }],
        });
        for blob in [config, layer] {
            let begun = client.post(format!("{repository}/blobs/uploads/"));
            let begun = begun.send().await.unwrap();
            let place = begun.headers()["location"].to_str().unwrap().to_owned();
            let digest = Digest::sha256_of(&blob);
            let stored = client.put(format!("{place}&digest={digest}")).body(blob);
            assert_eq!(stored.send().await.unwrap().status(), StatusCode::CREATED);
        }
        Deletion {
            client,
            repository,
            manifest: manifest.to_string(),
        }
    }

    /// Puts the image under the tag. Returns its digest.
    async fn put(&self, tag: &str) -> Digest {
        let put = self
            .client
            .put(format!("{}/manifests/{tag}", self.repository))
            .header("content-type", MANIFEST)
            .body(self.manifest.clone());
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
        Digest::sha256_of(self.manifest.as_bytes())
    }

    async fn delete(&self, digest: &Digest) {
        let url = format!("{}/manifests/{digest}", self.repository);
        let answer = self.client.delete(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }
}

struct World {
    up: Up,
    registry: Registry,
    sink: Sink,
    _folder: tempfile::TempDir,
}

impl World {
    /// Starts everything, with a trigger of one image without `settle`.
    async fn start() -> World {
        use_ring();
        let folder = shared_folder();
        let (sink, gateway) = (Sink::start().await, free_address());
        let hook = format!("http://{gateway}/hooks/main");
        let registry = Registry::start(&hook, &format!("Bearer {HOOK_SECRET}")).await;
        let host = registry.host();
        let file = config(folder.path(), host, sink.url());
        let text = std::fs::read_to_string(&file).unwrap();
        let one_image = text
            .replace(&format!("images.worker = \"{host}/shop/worker\"\n"), "")
            .replace("settle = \"0s\"\n", "");
        let asked = format!("[[registry]]\nname = \"{host}\"\nurl = \"http://{host}\"\n");
        std::fs::write(&file, format!("{one_image}{asked}")).unwrap();
        let up = Up::start_at(&folder.path().join("data"), &file, &gateway).await;
        World {
            up,
            registry,
            sink,
            _folder: folder,
        }
    }

    /// Waits until the head of the image is this digest, or until the tag is deleted.
    async fn wait_head(&self, digest: Option<&Digest>) {
        let image = format!("{}/shop/web:latest", self.registry.host());
        let expected = digest.map_or(Value::Null, |digest| json!(digest));
        eventually(&format!("the head {expected}"), SOON, async || {
            let history = self.up.cli().json(&["history", &image]);
            (history["items"][0]["digest"] == expected).then_some(())
        })
        .await;
    }

    async fn trigger(&self) -> Value {
        let url = format!("{}/v1/triggers/shop", self.up.address("api"));
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_that_is_deleted_at_once_starts_no_rollout() {
    let world = World::start().await;
    let host = world.registry.host();
    for round in 1_u32..=5 {
        let image = TestImage::new(&format!("image {round}"));
        let pushed = Instant::now();
        let digest = world.registry.push(&image, "shop/web:latest");
        let deliveries = world.sink.wait(round.try_into().unwrap()).await;
        assert!(pushed.elapsed() < Duration::from_secs(5), "{pushed:?}");
        let last = deliveries.last().unwrap().json();
        assert_eq!(last["data"]["images"]["web"]["digest"], json!(digest));

        let deletion = Deletion::prepare(host, "latest", round).await;
        let tombstone = deletion.put("latest").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        deletion.delete(&tombstone).await;
        world.wait_head(None).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.sink.deliveries().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_that_stays_is_shown_and_not_rolled_out() {
    let world = World::start().await;
    let digest = world
        .registry
        .push(&TestImage::new("image"), "shop/web:latest");
    world.sink.wait(1).await;
    let deletion = Deletion::prepare(world.registry.host(), "latest", 1).await;
    let tombstone = deletion.put("latest").await;
    world.wait_head(Some(&tombstone)).await;
    let waiting = eventually("the closed gate", SOON, async || {
        let trigger = world.trigger().await;
        let gate = trigger["waiting"][0].clone();
        (gate["gate"] == "tombstone").then_some(trigger)
    })
    .await;
    assert_eq!(waiting["current"]["images"]["web"]["digest"], json!(digest));
    let cli = world.up.cli();
    let shown = cli.run(&["triggers"]).out;
    assert!(shown.contains("(gate tombstone)"), "{shown}");
    let manifest = cli.json(&["manifest", &tombstone.to_string()]);
    assert_eq!(manifest["tombstone"], true);
    deletion.delete(&tombstone).await;
    world.wait_head(None).await;
    assert_eq!(world.sink.deliveries().len(), 1);
}
