//! The programs in `examples/`, and `tagtrail watch`, run as the documentation describes them.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tagtrail_e2e::{HOOK_SECRET, Up, config, shared_folder, use_ring};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{Link, Process, Proxy, SOON, Sink, eventually, signal};
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

fn digest_of(n: i64) -> String {
    Digest::sha256_of(&n.to_be_bytes()).to_string()
}

impl World {
    async fn start() -> World {
        use_ring();
        let folder = shared_folder();
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
        assert_eq!(self.hook(repository, n).await, 202);
        self.recorded(repository, n).await
    }

    /// Posts the event of a push. Returns the status.
    async fn hook(&self, repository: &str, n: i64) -> u16 {
        let digest = digest_of(n);
        let time = OffsetDateTime::now_utc() - Duration::hours(1) + Duration::seconds(n);
        let posted = reqwest::Client::new()
            .post(format!("{}/hooks/ci", self.up.address("gateway")))
            .bearer_auth(HOOK_SECRET)
            .json(&json!({ "repository": repository, "tag": "latest", "digest": digest, "time": instant::format(time).unwrap() }))
            .send()
            .await
            .unwrap();
        posted.status().as_u16()
    }

    /// Waits until the push is recorded. Returns the digest.
    async fn recorded(&self, repository: &str, n: i64) -> String {
        let digest = digest_of(n);
        let image = format!("registry.example.com/{repository}");
        let pinned = format!("{image}@{digest}\n");
        eventually("the push", SOON, async || {
            (self.up.cli().run(&["resolve", &image, "-q"]).out == pinned).then_some(())
        })
        .await;
        digest
    }

    /// As [`World::push`], and sends the event again until NATS takes it, as a registry does.
    async fn push_patiently(&self, repository: &str, n: i64) -> String {
        eventually("the gateway", SOON, async || {
            (self.hook(repository, n).await == 202).then_some(())
        })
        .await;
        self.recorded(repository, n).await
    }

    /// Starts `subscribe.py` with this URL of NATS.
    fn subscriber(&self, url: &str) -> Process {
        self.program("subscribe.py", &[], url)
    }

    /// Starts a program of `examples/`, with the environment that the program documents.
    fn example(&self, name: &str, arguments: &[&str]) -> Process {
        self.program(name, arguments, self.up.address("nats"))
    }

    fn program(&self, name: &str, arguments: &[&str], nats: &str) -> Process {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(root().join("examples").join(name))
            .args(arguments)
            .env("TAGTRAIL_API", self.up.address("api"))
            .env("NATS_URL", nats)
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
async fn the_nats_example_misses_nothing_over_a_cut_and_a_killed_server() {
    let world = World::start().await;
    let (login, target) = world.up.address("nats").rsplit_once('@').unwrap();
    let proxy = Proxy::start(target.to_owned()).await;
    let url = format!("{login}@{}", proxy.address());
    let mut program = world.subscriber(&url);
    let line = |n: i64, digest: &str| format!("registry.example.com/shop/web:latest#{n} {digest}");
    let first = world.push("shop/web", 1).await;
    says(&program, &[line(1, &first)]).await;

    // Longer than the server keeps a consumer without a client. In silence no connection ends.
    for link in [Link::Cut, Link::Silent] {
        proxy.set(link);
        tokio::time::sleep(std::time::Duration::from_secs(15)).await;
        world
            .push("shop/web", if link == Link::Cut { 2 } else { 4 })
            .await;
        proxy.set(Link::Whole);
        world
            .push("shop/web", if link == Link::Cut { 3 } else { 5 })
            .await;
        let last = if link == Link::Cut { "#3 " } else { "#5 " };
        eventually("the revision after the cut", SOON, async || {
            program.log().contains(last).then_some(())
        })
        .await;
    }
    // `tagtrail up` starts its nats-server again.
    let pid = std::process::Command::new("pgrep")
        .args([
            "-P",
            &world.up.process.pid().to_string(),
            "-f",
            "nats-server",
        ])
        .output()
        .unwrap();
    let pid = String::from_utf8(pid.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    signal(pid, "KILL");
    let sixth = world.push_patiently("shop/web", 6).await;
    says(&program, &[line(6, &sixth)]).await;
    assert!(program.running());
    for n in 1..=6 {
        let times = program.log().matches(&format!("latest#{n} ")).count();
        assert_eq!(times, 1, "revision {n} in {}", program.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_example_fails_if_it_cannot_begin_and_skips_other_messages() {
    let world = World::start().await;
    let mut wrong = world.subscriber("nats://nobody:wrong@127.0.0.1:9");
    assert_eq!(wrong.ended(SOON).await.code(), Some(1));
    assert!(
        wrong.log().contains("can't read revisions"),
        "{}",
        wrong.log()
    );

    let client = async_nats::ConnectOptions::new();
    let address: async_nats::ServerAddr = world.up.address("nats").parse().unwrap();
    let (user, password) = (address.username().unwrap(), address.password().unwrap());
    let client = client.user_and_password(user.to_owned(), password.to_owned());
    let client = client.connect(address.clone()).await.unwrap();
    for body in ["not JSON", "[]", "{\"data\":{\"head\":null}}"] {
        let subject = "tagtrail.revision.registry%2Eexample%2Ecom.other.latest";
        client.publish(subject, body.into()).await.unwrap();
    }
    client.flush().await.unwrap();
    let digest = world.push("shop/web", 1).await;
    let program = world.subscriber(world.up.address("nats"));
    says(&program, &[format!("shop/web:latest#1 {digest}")]).await;
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
