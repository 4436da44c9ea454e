//! Real registries and clients, in cases where a registry's events alone mislead.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]
#![expect(clippy::print_stdout, reason = "a test has no log of its own")]

#[path = "registries/captured.rs"]
mod captured;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tagtrail_e2e::{HOOK_SECRET, Up, free_address, shared_folder, use_ring};
use tagtrail_proto::Digest;
use tagtrail_testkit::{Registry, RegistryProgram, SOON, Sink, TestImage, eventually, tool};

/// `tagtrail up` with one configured registry, which sends its events.
struct World {
    registry: Registry,
    up: Up,
    _folder: tempfile::TempDir,
}

impl World {
    /// `rest`: the end of `tagtrail.toml`, for the name of the registry.
    async fn start(
        program: RegistryProgram,
        ignored: &[&str],
        rest: impl FnOnce(&str) -> String,
    ) -> World {
        use_ring();
        let folder = shared_folder();
        let gateway = free_address();
        let url = format!("http://{gateway}/hooks/main");
        let secret = format!("Bearer {HOOK_SECRET}");
        let registry = Registry::start_program(program, &url, &secret, ignored).await;
        let host = registry.host();
        let text = format!(
            "[[source]]\nname = \"main\"\nkind = \"distribution\"\nregistry = \"{host}\"\nsecret = {{ env = \"MAIN_HOOK_SECRET\" }}\n\n[[registry]]\nname = \"{host}\"\nurl = \"http://{host}\"\n{}",
            rest(host)
        );
        let file = folder.path().join("tagtrail.toml");
        std::fs::write(&file, text).unwrap();
        let up = Up::start_at(&folder.path().join("data"), &file, &gateway).await;
        World {
            registry,
            up,
            _folder: folder,
        }
    }

    /// The digest of an image by Tagtrail's history.
    fn head(&self, name: &str) -> Option<Digest> {
        let image = format!("{}/{name}", self.registry.host());
        let output = self.up.cli().run(&["resolve", &image, "--output", "json"]);
        let answer: Value = serde_json::from_str(&output.out).ok()?;
        Some(answer["digest"].as_str()?.parse().unwrap())
    }

    /// Asks the registry for the digest of a tag.
    async fn truth(&self, name: &str) -> Option<Digest> {
        let (repository, tag) = name.split_once(':').unwrap();
        let url = format!(
            "http://{}/v2/{repository}/manifests/{tag}",
            self.registry.host()
        );
        let request = reqwest::Client::new()
            .head(url)
            .header("accept", "application/vnd.oci.image.manifest.v1+json")
            // The gateway observes no pulls by Tagtrail itself.
            .header("user-agent", "tagtrail/tests");
        let answer = request.send().await.unwrap();
        let digest = answer.headers().get("docker-content-digest")?;
        Some(digest.to_str().unwrap().parse().unwrap())
    }
}

/// Lets two clients give one tag different digests at one moment, for many tags. Returns the number
/// of wrong heads 5 s later.
async fn race(program: RegistryProgram) -> usize {
    const TAGS: usize = 100;
    let world = World::start(program, &[], |_| String::new()).await;
    let host = world.registry.host().to_owned();
    let digests = ["one", "two"].map(|content| {
        world
            .registry
            .push(&TestImage::new(content), &format!("race/a:{content}"))
    });
    for number in 0..TAGS {
        let clients = digests.clone().map(|digest| {
            Command::new(tool("crane"))
                .args([
                    "tag",
                    &format!("{host}/race/a@{digest}"),
                    &format!("r{number}"),
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        for mut client in clients {
            assert!(client.wait().unwrap().success());
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut wrong = 0;
    for number in 0..TAGS {
        let name = format!("race/a:r{number}");
        wrong += usize::from(world.head(&name) != world.truth(&name).await);
    }
    println!("{program:?}: {wrong} of {TAGS} heads are wrong");
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_that_push_one_tag_at_one_moment_leave_the_head_of_distribution_3() {
    assert_eq!(race(RegistryProgram::Distribution3).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_that_push_one_tag_at_one_moment_leave_the_head_of_docker_registry_2() {
    assert_eq!(race(RegistryProgram::Debian).await, 0);
}

/// regctl puts a made-up image under the tag, and deletes its digest, where a registry refuses to
/// delete a tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_deleted_by_regctl_starts_no_rollout() {
    for program in [RegistryProgram::Debian, RegistryProgram::Distribution3] {
        let sink = Sink::start().await;
        let world = World::start(program, &[], |host| {
            format!(
                "\n[[trigger]]\nname = \"shop\"\nimages.web = \"{host}/shop/web:stable\"\ntarget.webhook = {{ url = \"{}\", secret = {{ env = \"SHOP_WEBHOOK_SECRET\" }} }}\n",
                sink.url()
            )
        })
        .await;
        let digest = world
            .registry
            .push(&TestImage::new("one"), "shop/web:stable");
        eventually("the first rollout", SOON, async || {
            (sink.deliveries().len() == 1).then_some(())
        })
        .await;
        assert_eq!(world.head("shop/web:stable"), Some(digest));
        let name = format!("{}/shop/web:stable", world.registry.host());
        world.registry.regctl(&["tag", "delete", &name]);
        eventually("the delete", SOON, async || {
            world.head("shop/web:stable").is_none().then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let rollouts = sink.deliveries().len();
        assert_eq!(rollouts, 1, "{program:?}");
    }
}
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_push_is_found_by_the_next_pull() {
    for program in [RegistryProgram::Debian, RegistryProgram::Distribution3] {
        // The registry reports pulls only: each push is lost.
        let world = World::start(program, &["push"], |_| String::new()).await;
        let host = world.registry.host().to_owned();
        let mut digests = BTreeMap::new();
        for content in ["one", "two"] {
            let digest = world
                .registry
                .push(&TestImage::new(content), "shop/web:latest");
            assert_ne!(world.head("shop/web:latest").as_ref(), Some(&digest));
            let pulled = Command::new(tool("crane"))
                .args(["digest", &format!("{host}/shop/web:latest")])
                .output()
                .unwrap();
            assert!(pulled.status.success(), "{pulled:?}");
            let started = std::time::Instant::now();
            eventually("the pull to be compared", SOON, async || {
                (world.head("shop/web:latest").as_ref() == Some(&digest)).then_some(())
            })
            .await;
            println!("{program:?}: found after {:?}", started.elapsed());
            digests.insert(content, digest);
        }
        assert_ne!(digests["one"], digests["two"]);
    }
}
