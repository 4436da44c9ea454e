//! The programs in `examples/`, and `tagtrail watch`, run as the documentation describes them.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tagtrail_e2e::{HOOK_SECRET, Up, config, use_ring};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{Process, SOON, Sink, eventually};
use time::{Duration, OffsetDateTime};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

struct World {
    up: Up,
    folder: tempfile::TempDir,
    _sink: Sink,
}

impl World {
    async fn start() -> World {
        use_ring();
        let folder = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()
            .unwrap();
        let sink = Sink::start().await;
        let file = config(folder.path(), "registry.example.com", sink.url());
        let up = Up::start(&folder.path().join("data"), &file).await;
        World {
            up,
            folder,
            _sink: sink,
        }
    }

    /// Pushes an image, and waits until the push is recorded. Returns the digest.
    async fn push(&self, repository: &str, n: i64) -> String {
        let digest = Digest::sha256_of(&n.to_be_bytes()).to_string();
        let time = OffsetDateTime::now_utc() - Duration::hours(1) + Duration::seconds(n);
        let posted = reqwest::Client::new()
            .post(format!("{}/hooks/ci", self.up.address("gateway")))
            .bearer_auth(HOOK_SECRET)
            .json(&json!({ "repository": repository, "tag": "latest", "digest": digest, "time": instant::format(time).unwrap() }))
            .send()
            .await
            .unwrap();
        assert_eq!(posted.status(), 202);
        let image = format!("registry.example.com/{repository}");
        let pinned = format!("{image}@{digest}\n");
        eventually("the push", SOON, async || {
            (self.up.cli().run(&["resolve", &image, "-q"]).out == pinned).then_some(())
        })
        .await;
        digest
    }

    /// Starts a program of `examples/`, with the environment that the program documents.
    fn example(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(root().join("examples").join(name))
            .args(arguments)
            .env("TAGTRAIL_API", self.up.address("api"))
            .env("NATS_URL", self.up.address("nats"))
            .env("PYTHONPATH", root().join(".tools/python"));
        Process::spawn(name, command)
    }
}

/// Waits until a program has written these lines.
async fn says(program: &Process, lines: &[String]) {
    let expected = lines.join("\n");
    eventually(&format!("{expected} from the example"), SOON, async || {
        program.log().contains(&expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_follows_the_feed_and_keeps_its_place() {
    let world = World::start().await;
    let state = world.folder.path().join("state");
    let arguments = [
        "registry.example.com/shop/**:latest",
        "--state",
        state.to_str().unwrap(),
    ];
    let mut first = world.example("follow.py", &arguments);
    let line = |n: i64, kind: &str, digest: &str| {
        format!("registry.example.com/shop/web:latest#{n} {kind} {digest}")
    };
    // The program prints nothing when connecting, so images are pushed until something is printed.
    let mut n = 0;
    eventually("the first revision", SOON, async || {
        n += 1;
        world.push("shop/web", n).await;
        (!first.log().is_empty()).then_some(())
    })
    .await;
    let printed = first.log();
    first.kill();
    // After a restart, the program prints exactly the missed revisions.
    let missed = [
        world.push("shop/web", 1001).await,
        world.push("shop/web", 1002).await,
    ];
    world.push("other/web", 1).await;
    let second = world.example("follow.py", &arguments);
    says(
        &second,
        &[
            line(n + 1, "moved", &missed[0]),
            line(n + 2, "moved", &missed[1]),
        ],
    )
    .await;
    assert!(!second.log().contains("other/web"));
    assert!(
        printed.lines().all(|line| !second.log().contains(line)),
        "{printed} again in {}",
        second.log()
    );

    let wrong = Command::new(root().join("examples/follow.py"))
        .arg("a//b")
        .env("TAGTRAIL_API", world.up.address("api"))
        .output()
        .unwrap();
    assert!(
        !wrong.status.success()
            && String::from_utf8(wrong.stderr)
                .unwrap()
                .contains("is not a pattern")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_example_runs_a_command_for_every_revision() {
    let world = World::start().await;
    let program = world.example(
        "follow.sh",
        &[
            "**",
            "python3",
            "-c",
            "import json, sys; e = json.load(sys.stdin); print(e['id'], flush=True)",
        ],
    );
    let mut n = 0;
    eventually("the command to be run", SOON, async || {
        n += 1;
        world.push("shop/web", n).await;
        program
            .log()
            .contains("registry.example.com/shop/web:latest#")
            .then_some(())
    })
    .await;
    // The command would fail on the data of another event.
    assert!(!program.log().contains("Traceback"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_example_begins_with_the_head_of_every_image() {
    let world = World::start().await;
    world.push("shop/web", 1).await;
    let web = world.push("shop/web", 2).await;
    let worker = world.push("shop/worker", 3).await;
    world.push("other/web", 4).await;
    let program = world.example(
        "subscribe.py",
        &["tagtrail.revision.registry%2Eexample%2Ecom.shop.>"],
    );
    says(
        &program,
        &[format!("registry.example.com/shop/web:latest#2 {web}")],
    )
    .await;
    says(
        &program,
        &[format!(
            "registry.example.com/shop/worker:latest#1 {worker}"
        )],
    )
    .await;
    let moved = world.push("shop/web", 5).await;
    says(
        &program,
        &[format!("registry.example.com/shop/web:latest#3 {moved}")],
    )
    .await;
    let log = program.log();
    assert!(
        !log.contains("web:latest#1") && !log.contains("other/web"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_misses_no_revision_while_all_services_restart() {
    let mut world = World::start().await;
    world.push("shop/web", 1).await;
    let api = world.up.address("api").to_owned();
    let watch = Process::tagtrail(
        &[
            "watch",
            "**:latest",
            "--since",
            "2020-01-01T00:00:00Z",
            "--count",
            "3",
            "--output",
            "json",
        ],
        &[("TAGTRAIL_API", &api)],
    );
    says(
        &watch,
        &["\"id\":\"registry.example.com/shop/web:latest#1\"".to_owned()].map(|id| id.clone()),
    )
    .await;
    // All services restart, with the API at the same address.
    world.up.process.signal("TERM");
    assert_eq!(world.up.process.ended(SOON).await.code(), Some(0));
    let file = world.folder.path().join("tagtrail.toml");
    world.up = Up::start_with_api(
        &world.folder.path().join("data"),
        &file,
        api.strip_prefix("http://").unwrap(),
    )
    .await;
    world.push("shop/web", 2).await;
    world.push("shop/web", 3).await;
    let mut watch = watch;
    assert_eq!(
        watch.ended(SOON).await.code(),
        Some(0),
        "watch --count 3 must end after three revisions"
    );
    let ids: Vec<String> = watch
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        ids,
        [1, 2, 3].map(|n| format!("registry.example.com/shop/web:latest#{n}"))
    );
}
