//! `tagtrail up`, with a real registry and real pushes.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::json;
use tagtrail_e2e::{HOOK_SECRET, Up, answers, config, free_address, shared_folder, use_ring};
use tagtrail_testkit::{Process, Registry, SOON, Sink, TestImage, eventually};

async fn with_registry(folder: &Path, sink: &Sink) -> (Up, Registry) {
    use_ring();
    let gateway = free_address();
    let registry = Registry::start(
        &format!("http://{gateway}/hooks/main"),
        &format!("Bearer {HOOK_SECRET}"),
    )
    .await;
    let up = Up::start_at(
        &folder.join("data"),
        &config(folder, registry.host(), sink.url()),
        &gateway,
    )
    .await;
    (up, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_pushes_become_history_and_rollouts() {
    let (folder, sink) = (shared_folder(), Sink::start().await);
    let (up, registry) = with_registry(folder.path(), &sink).await;
    let (cli, host) = (up.cli(), registry.host().to_owned());
    let web = format!("{host}/shop/web:latest");

    // First a manifest for each image, then an index with two platforms.
    let first = registry.push(&TestImage::new("one"), "shop/web:latest");
    let worker = registry.push(&TestImage::new("worker"), "shop/worker:latest");
    let delivered = sink.wait(1).await.remove(0).json();
    assert_eq!(
        delivered["data"]["images"]["web"]["pinned"],
        format!("{host}/shop/web@{first}")
    );
    assert_eq!(
        delivered["data"]["images"]["worker"]["pinned"],
        format!("{host}/shop/worker@{worker}")
    );
    let second = registry.push(&TestImage::index("two"), "shop/web:latest");
    let delivered = sink.wait(2).await.remove(1).json();
    assert_eq!(delivered["data"]["images"]["web"]["digest"], json!(second));
    assert_eq!(
        registry.inspect("shop/web:latest"),
        second,
        "the registry has another digest"
    );

    // The index's platforms were pushed by digest alone, so no tag moves and no revision is made.
    let history = cli.json(&["history", &web]);
    let digests: Vec<_> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["digest"].clone())
        .collect();
    assert_eq!(digests, [json!(second), json!(first)]);

    // A second tag of the same digest, and the history of the first.
    assert_eq!(registry.push(&TestImage::new("one"), "shop/web:v1"), first);
    eventually("the second tag", SOON, async || {
        (cli.run(&["resolve", &format!("{host}/shop/web:v1")]).code == 0).then_some(())
    })
    .await;
    let had = cli.json(&["digest", &first.to_string()]);
    let images: Vec<_> = had["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["image"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(images, [web.clone(), format!("{host}/shop/web:v1")]);
    let then = history["items"][1]["occurred_at"].as_str().unwrap();
    assert_eq!(
        cli.run(&["resolve", &web, "--at", then, "--quiet"]).out,
        format!("{host}/shop/web@{first}\n")
    );
    assert_eq!(
        cli.run(&["resolve", &web, "--revision", "1", "-q"]).out,
        format!("{host}/shop/web@{first}\n")
    );
    assert_eq!(
        cli.run(&["resolve", &format!("{host}/shop/web"), "-q"]).out,
        format!("{host}/shop/web@{second}\n")
    );

    // Deleting the manifest deletes `v1`, and leaves `latest`, which has another digest by now.
    registry.delete("shop/web:v1");
    eventually("the delete", SOON, async || {
        (cli.run(&["resolve", &format!("{host}/shop/web:v1")]).code == 3).then_some(())
    })
    .await;
    assert_eq!(cli.run(&["resolve", &web]).code, 0);

    // Exit codes and error texts.
    let unknown = cli.run(&["resolve", "registry.example.com/no/such:thing"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (3, ""));
    assert!(
        unknown.err.starts_with("error: ")
            && unknown.err.contains("registry.example.com/no/such:thing"),
        "{}",
        unknown.err
    );
    assert_eq!(cli.run(&["resolve", "NOT AN IMAGE"]).code, 2);
    assert_eq!(cli.run(&["resolve", &web, "--at", "noon"]).code, 2);
    assert_eq!(cli.run(&["pause", "nobody"]).code, 3);
    assert_eq!(
        cli.run(&[
            "digest",
            &tagtrail_proto::Digest::sha256_of(b"nothing").to_string()
        ])
        .code,
        3
    );
    assert_eq!(cli.run(&["history"]).code, 2);

    // Pause, scale, resume.
    assert!(cli.run(&["pause", "shop"]).out.contains("paused"));
    let third = registry.push(&TestImage::new("three"), "shop/web:latest");
    eventually("revision 3", SOON, async || {
        (cli.json(&["resolve", &web])["revision"] == 3).then_some(())
    })
    .await;
    let current = &cli.json(&["triggers"])["items"][0]["current"];
    assert_eq!(
        current["images"]["web"]["digest"],
        json!(second),
        "the paused trigger's rollout changed"
    );
    assert_eq!(sink.deliveries().len(), 2);
    assert!(!cli.run(&["resume", "shop"]).out.contains("paused"));
    assert_eq!(
        sink.wait(3).await.remove(2).json()["data"]["images"]["web"]["digest"],
        json!(third)
    );
    eventually("three rollouts", SOON, async || {
        let rollouts = cli.json(&["rollouts", "shop"]);
        let states: Vec<_> = rollouts["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["state"].as_str().unwrap().to_owned())
            .collect();
        (states == ["succeeded"; 3]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_asked_for_missing_digests_and_contradicting_events() {
    use_ring();
    let (folder, registry) = (shared_folder(), Registry::with_password().await);
    let host = registry.host();
    let password = folder.path().join("password");
    std::fs::write(&password, Registry::PASSWORD).unwrap();
    let file = folder.path().join("tagtrail.toml");
    let text = format!(
        r#"
[[source]]
name = "ci"
kind = "generic"
registry = "{host}"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[registry]]
name = "{host}"
url = "http://{host}"
username = "{}"
password = {{ file = {password:?} }}
"#,
        Registry::USER
    );
    std::fs::write(&file, text).unwrap();
    let up = Up::start(&folder.path().join("data"), &file).await;
    let hook = async |body: serde_json::Value| {
        let posted = reqwest::Client::new()
            .post(format!("{}/hooks/ci", up.address("gateway")))
            .bearer_auth(HOOK_SECRET)
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(posted.status(), 202);
    };
    let (cli, image) = (up.cli(), format!("{host}/shop/web:latest"));
    let becomes = async |digest: &str| {
        eventually(digest, SOON, async || {
            let resolved = cli.run(&["resolve", &image, "--quiet"]);
            (resolved.out == format!("{host}/shop/web@{digest}\n")).then_some(())
        })
        .await;
    };

    // A script can report a push without the digest.
    let first = registry
        .push(&TestImage::new("one"), "shop/web:latest")
        .to_string();
    hook(json!({ "repository": "shop/web", "tag": "latest", "actor": "ci-bot" })).await;
    becomes(&first).await;
    let newest = &cli.json(&["history", &image])["items"][0];
    assert_eq!(
        (&newest["origin"], &newest["actor"]),
        (&json!("resolved"), &json!("ci-bot"))
    );

    // Two events report different digests for the same instant: the registry is asked again.
    let second = registry
        .push(&TestImage::new("two"), "shop/web:latest")
        .to_string();
    let now = tagtrail_proto::instant::format(time::OffsetDateTime::now_utc()).unwrap();
    let other = tagtrail_proto::Digest::sha256_of(b"never pushed").to_string();
    for digest in [&second, &other] {
        hook(json!({ "repository": "shop/web", "tag": "latest", "digest": digest, "time": now }))
            .await;
    }
    becomes(&other).await;
    becomes(&second).await;
    let newest = &cli.json(&["history", &image])["items"][0];
    assert_eq!(
        (&newest["origin"], &newest["digest"]),
        (&json!("resolved"), &json!(second))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_event_is_listed_shown_and_replayed_after_a_fix() {
    use_ring();
    let (folder, sink) = (shared_folder(), Sink::start().await);
    let file = config(folder.path(), "registry.example.com", sink.url());
    let data = folder.path().join("data");
    let up = Up::start(&data, &file).await;
    // A notification of Distribution, sent to a source of another kind.
    let digest = tagtrail_proto::Digest::sha256_of(b"x").to_string();
    let body = json!({ "events": [{
        "id": "1", "timestamp": "2026-03-03T14:02:00Z", "action": "push",
        "target": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "repository": "shop/web", "tag": "latest" },
        "request": { "host": "registry.example.com" },
    }] });
    let posted = reqwest::Client::new()
        .post(format!("{}/hooks/ci", up.address("gateway")))
        .bearer_auth(HOOK_SECRET)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 202);
    assert_eq!(
        posted.json::<serde_json::Value>().await.unwrap()["quarantined"],
        1
    );

    let cli = up.cli();
    let place = ["--data", data.to_str().unwrap()];
    let run = |arguments: &[&str]| cli.run(&[&["quarantine"], &place[..], arguments].concat());
    let list: serde_json::Value = serde_json::from_str(&run(&["--output", "json"]).out).unwrap();
    assert_eq!(
        (&list["items"][0]["number"], &list["items"][0]["source"]),
        (&json!(1), &json!("ci"))
    );
    assert!(run(&[]).out.contains("SOURCE"), "{}", run(&[]).out);
    let shown = run(&["show", "1"]);
    assert!(
        shown.out.contains("2026-03-03T14:02:00Z") && shown.out.contains("generic"),
        "{}",
        shown.out
    );
    // `feed` is the old name of `replay`.
    for arguments in [["show", "2"], ["replay", "2"], ["feed", "2"]] {
        assert_eq!(run(&arguments).code, 3, "{arguments:?}");
    }

    // The wrong kind can't interpret the event; the right kind can.
    let still = run(&["replay", "1", "--config", file.to_str().unwrap()]);
    assert_eq!(still.code, 1);
    assert!(still.err.contains("still malformed"), "{}", still.err);
    let fixed = folder.path().join("fixed.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("\"generic\"", "\"distribution\"");
    std::fs::write(&fixed, text).unwrap();
    for _ in 0..2 {
        let replayed = run(&["replay", "1", "--config", fixed.to_str().unwrap()]);
        let result = (replayed.code, replayed.err.as_str());
        assert_eq!(result, (0, ""), "{replayed:?}");
        assert!(replayed.out.contains("\"accepted\": 1"), "{}", replayed.out);
    }
    let web = "registry.example.com/shop/web:latest";
    eventually("the push", SOON, async || {
        (cli.run(&["resolve", web]).code == 0).then_some(())
    })
    .await;
    let again = cli.run(&["republish", place[0], place[1], "--image", web]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(
        again
            .err
            .contains("published 1 revisions of 1 images again"),
        "{}",
        again.err
    );
    assert_eq!(
        cli.run(&[
            "republish",
            place[0],
            place[1],
            "--image",
            "registry.example.com/no/such"
        ])
        .code,
        3
    );
    let nowhere = cli.run(&["quarantine", "--data", "/no/such/folder"]);
    assert_eq!(nowhere.code, 1);
    assert!(
        nowhere.err.contains("NATS_URL") && nowhere.err.contains("--data"),
        "{}",
        nowhere.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn up_loses_nothing_when_it_is_stopped_killed_and_restarted() {
    use_ring();
    let (folder, sink) = (shared_folder(), Sink::start().await);
    let (data, config) = (
        folder.path().join("data"),
        config(folder.path(), "registry.example.com", sink.url()),
    );
    let mut up = Up::start(&data, &config).await;
    assert!(answers(&format!("{}/healthz", up.address("admin"))).await);
    assert!(answers(&format!("{}/readyz", up.address("admin"))).await);
    let admin = up.address("admin").strip_prefix("http://").unwrap();
    let health = up.cli().run(&["health", "--admin", admin]);
    assert_eq!(health.code, 0, "{health:?}");
    for line in ["ready", "  nats: ok", "  postgres: ok", "  http: ok"] {
        assert!(health.out.lines().any(|found| found == line), "{health:?}");
    }
    // The file holds passwords.
    let endpoints = data.join("endpoints.json");
    assert_eq!(
        std::fs::metadata(&endpoints).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    for repository in ["shop/worker", "shop/web"] {
        let pushed = reqwest::Client::new()
            .post(format!("{}/hooks/ci", up.address("gateway")))
            .bearer_auth(HOOK_SECRET)
            .json(&json!({ "repository": repository, "tag": "latest", "digest": digest }))
            .send()
            .await
            .unwrap();
        assert_eq!(pushed.status(), 202);
    }
    let resolves = async |up: &Up| {
        let cli = up.cli();
        eventually("the push", SOON, async || {
            (cli.run(&["resolve", "registry.example.com/shop/web"]).code == 0).then_some(())
        })
        .await;
    };
    resolves(&up).await;

    // The screen at the start and the lines have no password; `tagtrail env` has all addresses.
    let line = "registry.example.com/shop/web:latest #1";
    eventually("the line of the revision", SOON, async || {
        up.process.log().contains(line).then_some(())
    })
    .await;
    eventually("the line of the rollout", SOON, async || {
        let log = up.process.log();
        log.lines()
            .any(|line| line.contains("rollout   succeeded") && line.contains("shop #1"))
            .then_some(())
    })
    .await;
    let log = up.process.log();
    assert!(
        log.contains("Tagtrail is ready.") && log.contains("tagtrail doctor --setup"),
        "{log}"
    );
    let env = up.cli().run(&["env", "--data", data.to_str().unwrap()]);
    for (variable, part) in [
        ("TAGTRAIL_API", "api"),
        ("NATS_URL", "nats"),
        ("TAGTRAIL_SUBSCRIBER_URL", "subscriber"),
        ("DATABASE_URL", "postgres"),
    ] {
        let address = up.address(part);
        let export = format!("export {variable}='{address}'");
        assert!(env.out.lines().any(|line| line == export), "{}", env.out);
        let password = address
            .split('@')
            .next()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap();
        assert!(part == "api" || !log.contains(password), "{log}");
    }

    // A second `tagtrail up` on the same data folder is refused.
    let mut second = Process::tagtrail(
        &[
            "up",
            "--data",
            data.to_str().unwrap(),
            "--admin",
            "127.0.0.1:0",
        ],
        &[],
    );
    assert_eq!(second.ended(SOON).await.code(), Some(1));
    assert!(
        second.log().contains("is in use by process") && second.log().contains("--data"),
        "{}",
        second.log()
    );

    let children = children(up.process.pid());
    assert_eq!(children.len(), 2, "Postgres and nats-server");
    up.process.signal("TERM");
    assert_eq!(up.process.ended(SOON).await.code(), Some(0));
    assert!(!endpoints.exists());
    assert!(children.iter().all(|pid| !runs(*pid)), "children are left");

    // After a kill, too, no child is left, and the data is there again.
    let mut up = Up::start(&data, &config).await;
    resolves(&up).await;
    let children = self::children(up.process.pid());
    up.process.kill();
    eventually("the end of its children", SOON, async || {
        children.iter().all(|pid| !runs(*pid)).then_some(())
    })
    .await;
    let up = Up::start(&data, &config).await;
    resolves(&up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_at_start_names_its_cause() {
    let folder = shared_folder();
    let (data, file) = (
        folder.path().join("data"),
        folder.path().join("tagtrail.toml"),
    );
    let up = |more: &[&str]| {
        let arguments = [
            &[
                "up",
                "--data",
                data.to_str().unwrap(),
                "--admin",
                "127.0.0.1:0",
            ],
            more,
        ]
        .concat();
        Process::tagtrail(&arguments, &[])
    };
    std::fs::write(&file, "[[source]]\nname = \"main\n").unwrap();
    for (arguments, cause) in [
        (
            vec!["--config", "/no/such/file"],
            "/no/such/file: can't be read",
        ),
        (
            vec!["--config", file.to_str().unwrap()],
            "tagtrail.toml:2: ",
        ),
    ] {
        let mut process = up(&arguments);
        assert_eq!(process.ended(SOON).await.code(), Some(1));
        assert!(process.log().contains(cause), "{}", process.log());
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for flag in ["--gateway", "--api", "--admin"] {
        let data = data.to_str().unwrap();
        let mut arguments = vec!["up", "--data", data, "--config", "/dev/null", flag, &taken];
        if flag != "--admin" {
            arguments.extend(["--admin", "127.0.0.1:0"]);
        }
        let mut process = Process::tagtrail(&arguments, &[]);
        assert_eq!(process.ended(SOON).await.code(), Some(1));
        let log = process.log();
        let told = log.contains(&format!("can't listen on {taken}")) && log.contains(flag);
        assert!(
            told && log.contains("another program has this address"),
            "{log}"
        );
    }
    let mut process = up(&["--config", "/dev/null", "--api", "0.0.0.0:0"]);
    assert_eq!(process.ended(SOON).await.code(), Some(1));
    assert!(process.log().contains("[[token]]"), "{}", process.log());
    assert!(!data.exists(), "a start that can't succeed created data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_server_is_reported_before_the_database_is_created() {
    let folder = shared_folder();
    let (data, program) = (folder.path().join("data"), folder.path().join("tagtrail"));
    // Beside a copy there is no folder `.tools` with a nats-server.
    std::fs::copy(tagtrail_testkit::binary(), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command
        .args([
            "up",
            "--config",
            "/dev/null",
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(&data)
        .args(["--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0"])
        .env("PATH", "/no/such/folder");
    let mut process = Process::spawn("tagtrail up", command);
    assert_eq!(process.ended(SOON).await.code(), Some(1));
    let log = process.log();
    assert!(
        log.contains("nats-server 2.12 or newer was not found"),
        "{log}"
    );
    assert!(!data.join("postgres").exists(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_the_data_decides_which_postgres_is_started() {
    use_ring();
    let folder = shared_folder();
    let data = folder.path().join("data");
    let file = config(folder.path(), "registry.example.com", "http://127.0.0.1:9/");
    let mut up = Up::start(&data, &file).await;
    up.process.signal("TERM");
    assert_eq!(up.process.ended(SOON).await.code(), Some(0));

    // A newer release is installed, and comes first.
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let newer = bin.join("postgres");
    std::fs::write(&newer, "#!/bin/sh\necho 'postgres (PostgreSQL) 99.1'\n").unwrap();
    std::fs::set_permissions(&newer, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var_os("PATH").unwrap().display()
    );
    let place = [
        "--data",
        data.to_str().unwrap(),
        "--config",
        file.to_str().unwrap(),
    ];
    let addresses = [
        "--gateway",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let arguments = [&["up"], &place[..], &addresses].concat();
    let environment = [&tagtrail_e2e::SECRETS[..], &[("PATH", path.as_str())]].concat();
    let mut process = Process::tagtrail(&arguments, &environment);
    eventually("tagtrail up to be ready", SOON, async || {
        assert!(process.running(), "tagtrail up ended");
        data.join("endpoints.json").exists().then_some(())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.ended(SOON).await.code(), Some(0));

    // Only other releases are installed.
    std::fs::write(data.join("postgres/PG_VERSION"), "98\n").unwrap();
    let mut process = Process::tagtrail(&arguments, &environment);
    let ended = process.ended(std::time::Duration::from_secs(5)).await;
    assert_eq!(ended.code(), Some(1));
    let log = process.log();
    for text in [
        "is of Postgres 98",
        "is 99.1",
        "postgresql-98",
        "tagtrail upgrade-data",
    ] {
        assert!(log.contains(text), "{text}: {log}");
    }
}

/// Starts `up` with a trigger whose command writes its user and its environment into `said`.
async fn up_with_command(folder: &Path, more: &[&str]) -> (Process, String) {
    let (file, said) = (folder.join("tagtrail.toml"), folder.join("said"));
    let text = format!(
        r#"
[[source]]
name = "ci"
kind = "generic"
registry = "registry.example.com"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[trigger]]
name = "shop"
images.web = "registry.example.com/shop/web:latest"
settle = "0s"
target.command = {{ run = ["sh", "-c", "(id -u; env) > new && mv new {}"] }}
"#,
        said.display()
    );
    std::fs::write(&file, text).unwrap();
    let (gateway, data) = (free_address(), folder.join("data"));
    let place = [
        "--data",
        data.to_str().unwrap(),
        "--config",
        file.to_str().unwrap(),
    ];
    let addresses = [
        "--gateway",
        &gateway,
        "--api",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let arguments = [&["up"], &place[..], &addresses, more].concat();
    let mut process = Process::tagtrail(&arguments, &tagtrail_e2e::SECRETS);
    let hook = async || {
        let digest = tagtrail_proto::Digest::sha256_of(more.concat().as_bytes()).to_string();
        let posted = reqwest::Client::new()
            .post(format!("http://{gateway}/hooks/ci"))
            .bearer_auth(HOOK_SECRET)
            .json(&json!({ "repository": "shop/web", "tag": "latest", "digest": digest }))
            .send();
        posted
            .await
            .is_ok_and(|answer| answer.status() == 202)
            .then_some(())
    };
    eventually("the push to be taken", SOON, async || {
        assert!(process.running(), "tagtrail up ended");
        hook().await
    })
    .await;
    let text = eventually("the command", SOON, async || {
        std::fs::read_to_string(&said).ok()
    })
    .await;
    (process, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn root_may_leave_everything_to_another_user() {
    use_ring();
    let folder = shared_folder();
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    if own != 0 {
        let user = [
            "up",
            "--user",
            "nobody",
            "--data",
            folder.path().to_str().unwrap(),
        ];
        let mut refused = Process::tagtrail(&user, &[]);
        assert_eq!(refused.ended(SOON).await.code(), Some(1));
        assert!(refused.log().contains("only root"), "{}", refused.log());
        return;
    }
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();

    // As root `up` warns and goes on; Postgres and nats-server have another user all the same.
    let (mut process, said) = up_with_command(folder.path(), &[]).await;
    assert_eq!(said.lines().next(), Some("0"));
    assert!(process.log().contains("--user NAME"), "{}", process.log());
    wait_children(&process, |user| user != 0).await;
    process.signal("TERM");
    assert_eq!(process.ended(SOON).await.code(), Some(0));

    // The same data folder, given to another user: no process of root is left, and no secret of
    // the services is in the command's environment.
    std::fs::remove_file(folder.path().join("said")).unwrap();
    let (mut process, said) = up_with_command(folder.path(), &["--user", "nobody"]).await;
    let nobody = user(process.pid()).unwrap();
    assert_ne!(nobody, 0);
    assert_eq!(said.lines().next(), Some(nobody.to_string().as_str()));
    assert!(
        !said.contains("SECRET") && said.contains("TAGTRAIL_IMAGE_WEB="),
        "{said}"
    );
    wait_children(&process, |user| user == nobody).await;
    assert!(!process.log().contains("--user NAME"), "{}", process.log());
    process.signal("TERM");
    assert_eq!(process.ended(SOON).await.code(), Some(0));

    // Now the folder is of that user, so root alone does not take it.
    let place = ["up", "--data", &format!("{}/data", folder.path().display())];
    let mut refused = Process::tagtrail(&place, &[]);
    assert_eq!(refused.ended(SOON).await.code(), Some(1));
    assert!(
        refused.log().contains("another user (nobody)"),
        "{}",
        refused.log()
    );
}

/// Waits until the users of all child processes are the expected ones. The command of the rollout
/// has the user of `up` and is a child for a moment longer than its file has been written.
async fn wait_children(process: &Process, expected: impl Fn(u32) -> bool) {
    eventually("the users of the child processes", SOON, async || {
        let children = children(process.pid());
        let users: Vec<u32> = children.into_iter().filter_map(user).collect();
        (!users.is_empty() && users.iter().all(|user| expected(*user))).then_some(())
    })
    .await;
}

/// The user of a process, none if the process has ended.
fn user(pid: u32) -> Option<u32> {
    Some(std::fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

/// The child processes of a process.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|children| {
            children
                .split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_request_is_followed_while_a_server_does_not_start() {
    let folder = shared_folder();
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let server = programs.join("nats-server");
    let script = "#!/bin/sh\n[ \"$1\" != --version ] || exec echo 'nats-server: v2.15.1'\nexit 1\n";
    std::fs::write(&server, script).unwrap();
    for path in [&programs, &server] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let others = std::env::var_os("PATH").unwrap();
    let path = format!("{}:{}", programs.display(), others.display());
    let data = folder.path().join("data");
    let mut process = Process::tagtrail(
        &[
            "up",
            "--data",
            data.to_str().unwrap(),
            "--config",
            "/dev/null",
            "--admin",
            "127.0.0.1:0",
        ],
        &[("PATH", &path)],
    );
    eventually("a death of nats-server", SOON, async || {
        process.log().contains("nats-server died").then_some(())
    })
    .await;
    process.signal("TERM");
    let asked = std::time::Instant::now();
    let code = process.ended(SOON).await.code();
    assert_eq!(code, Some(0), "{}", process.log());
    assert!(asked.elapsed() < std::time::Duration::from_secs(5));
}
