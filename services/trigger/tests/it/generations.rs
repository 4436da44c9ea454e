//! The generations of triggers, and processes with different files.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sqlx::Row as _;
use tagtrail_proto::{ReasonCode, RolloutState};
use tagtrail_testkit::{SOON, Sink, eventually};
use tagtrail_trigger::Replaced;

use crate::world::{PACE, SECRET, Service, WEB, World, a_while};

/// The generations of a trigger, oldest first: door, whether there are settings, file.
async fn generations(world: &mut World, name: &str) -> Vec<(i64, String, bool, String)> {
    let rows = sqlx::query(
        "select s.generation, s.door, s.spec is not null as there, s.file from trigger_spec s
         join trigger t on t.id = s.trigger_id where t.name = $1 order by s.generation",
    )
    .bind(name)
    .fetch_all(&mut world.sql)
    .await
    .unwrap();
    let of = |row: &sqlx::postgres::PgRow| {
        let file: String = row.get("file");
        let file = Path::new(&file).file_name().unwrap_or_default();
        let file = file.to_string_lossy().into_owned();
        (
            row.get("generation"),
            row.get("door"),
            row.get("there"),
            file,
        )
    };
    rows.iter().map(of).collect()
}

fn entry(name: &str, url: &str, secret: &Path, more: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nimages.web = \"{WEB}\"\n{more}\ntarget.webhook = {{ url = \"{url}\", secret = {{ file = {secret:?} }} }}\n"
    )
}

#[tokio::test]
async fn each_change_of_settings_is_a_generation() {
    let mut world = World::new().await;
    let folder = world.folder.path().join("triggers.d");
    std::fs::create_dir(&folder).unwrap();
    let team = |more: &str| {
        let text = entry("team", "http://127.0.0.1:9/", Path::new("key"), more);
        std::fs::write(folder.join("team.toml"), text).unwrap();
    };
    std::fs::write(folder.join("key"), SECRET).unwrap();
    team("labels.team = \"a\"");
    let main =
        |world: &World, more: &str| format!("triggers = \"triggers.d\"\n{}", world.shop(more));
    world.configure(&main(&world, ""));
    let service = world.start().await;
    eventually("the first generations", SOON, async || {
        (generations(&mut world, "team").await.len() == 1).then_some(())
    })
    .await;
    let labels: serde_json::Value =
        sqlx::query_scalar("select labels from trigger where name = 'team'")
            .fetch_one(&mut world.sql)
            .await
            .unwrap();
    assert_eq!(labels, serde_json::json!({ "team": "a" }));
    // A restart with the same files changes nothing.
    service.stop().await;
    let service = world.start().await;
    world.configure(&main(&world, "settle = \"1s\""));
    eventually("a second generation", SOON, async || {
        (generations(&mut world, "shop").await.len() == 2).then_some(())
    })
    .await;
    std::fs::remove_file(folder.join("team.toml")).unwrap();
    eventually("a removal", SOON, async || {
        (generations(&mut world, "team").await.len() == 2).then_some(())
    })
    .await;
    team("labels.team = \"b\"");
    eventually("a return", SOON, async || {
        (generations(&mut world, "team").await.len() == 3).then_some(())
    })
    .await;
    service.stop().await;
    let file = |name: &str| name.to_owned();
    assert_eq!(
        generations(&mut world, "team").await,
        [
            (1, file("folder"), true, file("team.toml")),
            (2, file("folder"), false, file("")),
            (3, file("folder"), true, file("team.toml")),
        ]
    );
    let shop = generations(&mut world, "shop").await;
    assert_eq!(shop.len(), 2);
    assert!(
        shop.iter()
            .all(|one| one.1 == "file" && one.3 == "tagtrail.toml")
    );
    // The recorded generations never change.
    let changed = sqlx::query("update trigger_spec set spec = null")
        .execute(&mut world.sql)
        .await;
    assert!(changed.is_err());
}

#[tokio::test]
async fn the_last_good_generation_of_a_broken_entry_survives_a_restart() {
    let mut world = World::new().await;
    let folder = world.folder.path().join("triggers.d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("key"), SECRET).unwrap();
    let sink = Sink::start().await;
    let team = entry("team", sink.url(), Path::new("key"), "");
    std::fs::write(folder.join("team.toml"), &team).unwrap();
    world.configure(&format!("triggers = \"triggers.d\"\n{}", world.shop("")));
    let service = world.start().await;
    world.push(WEB, 1).await;
    eventually("a delivery", SOON, async || {
        (!sink.deliveries().is_empty()).then_some(())
    })
    .await;
    service.stop().await;

    // One entry has an unknown kind, a whole file is no TOML.
    let shop = world.shop("").replace("target.webhook", "target.telepathy");
    world.configure(&format!("triggers = \"triggers.d\"\n{shop}"));
    std::fs::write(folder.join("team.toml"), "[[trigger\n").unwrap();
    let service = world.start().await;
    let row = async |world: &mut World, name: &str| {
        let row = sqlx::query(
            "select configured, broken, stale, problem, generation from trigger where name = $1",
        )
        .bind(name)
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
        let problem: Option<String> = row.get("problem");
        let flags: (bool, bool, bool) =
            (row.get("configured"), row.get("broken"), row.get("stale"));
        (
            flags,
            problem.unwrap_or_default(),
            row.get::<i64, _>("generation"),
        )
    };
    for (name, expected) in [("team", "is not TOML"), ("shop", "is no kind of target")] {
        let (flags, problem, generation) = eventually(name, SOON, async || {
            Some(row(&mut world, name).await).filter(|(flags, ..)| flags.2)
        })
        .await;
        assert_eq!((flags, generation), ((true, true, true), 1), "{problem}");
        assert!(
            problem.contains(expected) && problem.ends_with("the entry before stays in force"),
            "{problem}"
        );
    }
    world.push(WEB, 2).await;
    eventually("a delivery of the generation before", SOON, async || {
        (sink.deliveries().len() >= 2).then_some(())
    })
    .await;
    // The repair counts without a restart.
    std::fs::write(folder.join("team.toml"), &team).unwrap();
    eventually("a repaired entry", SOON, async || {
        (!row(&mut world, "team").await.0.1).then_some(())
    })
    .await;
    // Without its secret nothing of the generation before can be used.
    service.stop().await;
    std::fs::remove_file(folder.join("key")).unwrap();
    let service = world.start().await;
    let (flags, ..) = eventually("a broken trigger", SOON, async || {
        Some(row(&mut world, "team").await).filter(|(flags, ..)| flags.1)
    })
    .await;
    assert_eq!(flags, (true, true, false));
    service.stop().await;
}

/// Starts a service on the files of another folder.
async fn start_in(world: &World, folder: &Path, replaced: Duration) -> Service {
    world
        .start_with(PACE, |config| {
            config.config = folder.join("tagtrail.toml");
            config.replaced = Replaced(replaced);
        })
        .await
}

#[tokio::test]
async fn a_process_with_older_settings_neither_acts_nor_plans() {
    let mut world = World::new().await;
    let (old_sink, new_sink) = (Sink::start().await, Sink::start().await);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [old, new] = folders.each_ref().map(tempfile::TempDir::path);
    for (folder, sink) in [(old, &old_sink), (new, &new_sink)] {
        std::fs::write(folder.join("key"), SECRET).unwrap();
        let text = entry("shop", sink.url(), &folder.join("key"), "settle = \"0s\"");
        std::fs::write(folder.join("tagtrail.toml"), text).unwrap();
    }
    // The old process, and a new one that takes over.
    let long = Duration::from_secs(120);
    let first = start_in(&world, old, long).await;
    eventually("the first generation", SOON, async || {
        (generations(&mut world, "shop").await.len() == 1).then_some(())
    })
    .await;
    first.stop().await;
    let newer = start_in(&world, new, long).await;
    eventually("the second generation", SOON, async || {
        (generations(&mut world, "shop").await.len() == 2).then_some(())
    })
    .await;
    let older = start_in(&world, old, long).await;
    world.push(WEB, 1).await;
    world.wait(1, RolloutState::Succeeded).await;
    assert_eq!(
        (old_sink.deliveries().len(), new_sink.deliveries().len()),
        (0, 1)
    );
    // Both note which settings are theirs.
    eventually("two processes", SOON, async || {
        let rows: Vec<serde_json::Value> =
            sqlx::query_scalar("select others from trigger_process order by others")
                .fetch_all(&mut world.sql)
                .await
                .unwrap();
        (rows == [json!({}), json!({ "shop": 1 })]).then_some(())
    })
    .await;
    // Without the newer process nobody plans: the older settings do not come back.
    newer.stop().await;
    world.push(WEB, 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(generations(&mut world, "shop").await.len(), 2);
    assert_eq!(old_sink.deliveries().len(), 0);
    // People see that no process has the settings.
    eventually("a reason", SOON, async || {
        let facts = tagtrail_condition::read(&mut world.sql, Some(&["shop"])).await;
        let judged = tagtrail_condition::judge(&facts.unwrap()[0]);
        let reason = judged
            .reasons
            .into_iter()
            .find(|one| one.code == ReasonCode::OtherGeneration)?;
        assert!(
            reason.why.contains("generation 2") && reason.why.ends_with(" has 1"),
            "{reason:?}"
        );
        Some(())
    })
    .await;
    older.stop().await;
    // Later they count as a change.
    let older = start_in(&world, old, Duration::ZERO).await;
    eventually("a delivery", SOON, async || {
        (!old_sink.deliveries().is_empty()).then_some(())
    })
    .await;
    assert_eq!(generations(&mut world, "shop").await.len(), 3);
    older.stop().await;
}

#[tokio::test]
async fn a_process_takes_its_own_change_back_at_once() {
    let mut world = World::new().await;
    world.configure(&world.shop(""));
    let service = start_in(&world, world.folder.path(), Duration::from_secs(120)).await;
    for (more, count) in [("settle = \"1s\"", 2), ("", 3)] {
        world.configure(&world.shop(more));
        eventually("a generation", SOON, async || {
            (generations(&mut world, "shop").await.len() == count).then_some(())
        })
        .await;
    }
    service.stop().await;
}

#[tokio::test]
async fn a_process_with_the_name_before_does_not_take_a_rename_back() {
    let mut world = World::new().await;
    let sink = Sink::start().await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [old, new] = folders.each_ref().map(tempfile::TempDir::path);
    let key = old.join("key");
    std::fs::write(&key, SECRET).unwrap();
    for (folder, name) in [(old, "shop"), (new, "store")] {
        let text = entry(name, sink.url(), &key, "settle = \"0s\"");
        std::fs::write(folder.join("tagtrail.toml"), text).unwrap();
    }
    for (folder, name, count) in [(old, "shop", 1), (new, "store", 2)] {
        let service = start_in(&world, folder, Duration::ZERO).await;
        eventually("a generation", SOON, async || {
            (generations(&mut world, name).await.len() == count).then_some(())
        })
        .await;
        service.stop().await;
    }
    let service = start_in(&world, old, Duration::from_secs(120)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let names: Vec<String> = sqlx::query_scalar("select name from trigger")
        .fetch_all(&mut world.sql)
        .await
        .unwrap();
    assert_eq!(names, ["store"]);
    service.stop().await;
}

/// Records a generation of a trigger as the api does.
async fn apply(world: &mut World, name: &str, spec: Option<serde_json::Value>) {
    let hash = spec
        .as_ref()
        .map(|spec| tagtrail_config::hash(spec).to_vec());
    sqlx::query(
        "insert into trigger (name, images, target, configured, door) values ($1, '{}', '', false, 'api') on conflict (name) do nothing",
    )
    .bind(name)
    .execute(&mut world.sql)
    .await
    .unwrap();
    sqlx::query(
        "with t as (update trigger set generation = generation + 1, spec_hash = $3, door = 'api' where name = $1 returning id, generation)
         insert into trigger_spec (trigger_id, generation, door, spec, complete, hash, actor)
         select id, generation, 'api', $2, true, $3, 'team-a' from t",
    )
    .bind(name)
    .bind(spec)
    .bind(hash)
    .execute(&mut world.sql)
    .await
    .unwrap();
}

fn of_api(name: &str, url: &str) -> serde_json::Value {
    serde_json::json!({
        "name": name, "settle": "0s", "images": { "web": WEB },
        "target": { "webhook": { "url": url, "secret": { "secret": "hook" } } },
    })
}

#[tokio::test]
async fn triggers_of_the_api_count_without_a_restart() {
    let mut world = World::new().await;
    let sink = Sink::start().await;
    let settings = "[api_triggers]\nallow_addresses = [\"127.0.0.0/8\"]\n[[secret]]\nname = \"hook\"\nfile = \"secret\"\ntriggers = [\"team-*\"]\n";
    world.configure(&format!("{settings}{}", world.shop("")));
    let service = world.start().await;
    world.push(WEB, 1).await;
    apply(&mut world, "team-web", Some(of_api("team-web", sink.url()))).await;
    let delivered = sink.wait(1).await;
    assert_eq!(delivered[0].json()["data"]["trigger"], "team-web");
    assert!(delivered[0].header("webhook-signature").starts_with("v1,"));
    let row = async |world: &mut World, name: &str| {
        let row = sqlx::query(
            "select configured, broken, problem, generation, loaded from trigger where name = $1",
        )
        .bind(name)
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
        let problem: Option<String> = row.get("problem");
        let loaded: Option<i64> = row.get("loaded");
        (
            row.get::<bool, _>("configured"),
            row.get::<bool, _>("broken"),
            problem.unwrap_or_default(),
            loaded == Some(row.get("generation")),
        )
    };
    eventually("a generation in force", SOON, async || {
        (row(&mut world, "team-web").await == (true, false, String::new(), true)).then_some(())
    })
    .await;
    // A secret that belongs to others breaks this trigger alone.
    apply(&mut world, "other", Some(of_api("other", sink.url()))).await;
    let (configured, broken, problem, _) = eventually("a mistake", SOON, async || {
        Some(row(&mut world, "other").await).filter(|one| one.1 && one.3)
    })
    .await;
    assert!(
        configured && broken && problem.contains("[[secret]] \"hook\""),
        "{problem}"
    );
    // Addresses that the file does not allow are not reached, neither by number nor by name.
    let port = sink.url().rsplit_once(':').unwrap().1.to_owned();
    let private = "https://10.1.2.3/".to_owned();
    apply(
        &mut world,
        "team-private",
        Some(of_api("team-private", &private)),
    )
    .await;
    let (.., problem, _) = eventually("a mistake", SOON, async || {
        Some(row(&mut world, "team-private").await).filter(|one| one.1)
    })
    .await;
    assert!(
        problem.contains("10.1.2.3 is a private address"),
        "{problem}"
    );
    let none = settings.replace("127.0.0.0/8", "192.0.2.0/24");
    world.configure(&format!("{none}{}", world.shop("")));
    // The targets of before lose the address at once.
    let (.., problem, _) = eventually("a withdrawn address", SOON, async || {
        Some(row(&mut world, "team-web").await).filter(|one| one.1)
    })
    .await;
    assert!(
        problem.contains("127.0.0.1 is a private address"),
        "{problem}"
    );
    let named = format!("http://localhost:{port}");
    apply(&mut world, "team-name", Some(of_api("team-name", &named))).await;
    let error = eventually("a refused connection", SOON, async || {
        sqlx::query_scalar::<_, Option<String>>(
            "select o.error from rollout o join trigger t on t.id = o.trigger_id where t.name = 'team-name'",
        )
        .fetch_optional(&mut world.sql)
        .await
        .unwrap()
        .flatten()
    })
    .await;
    assert!(error.contains("allow_addresses"), "{error}");
    // A removal, and a file that takes the name of another one.
    apply(&mut world, "team-web", None).await;
    eventually("a removal", SOON, async || {
        (!row(&mut world, "team-web").await.0).then_some(())
    })
    .await;
    let second = entry("team-name", "http://127.0.0.1:9/", Path::new("secret"), "");
    world.configure(&format!("{none}{second}{}", world.shop("")));
    let problem = eventually("a second door", SOON, async || {
        let (.., problem, _) = row(&mut world, "team-name").await;
        Some(problem).filter(|problem| problem.contains("the API has a trigger"))
    })
    .await;
    assert!(problem.contains("tagtrail.toml:"), "{problem}");
    assert!(
        generations(&mut world, "team-name")
            .await
            .iter()
            .all(|one| one.1 == "api")
    );
    service.stop().await;
}

#[tokio::test]
async fn a_trigger_of_a_file_may_follow_one_of_the_api() {
    let mut world = World::new().await;
    let sink = Sink::start().await;
    let prod = format!(
        "[[trigger]]\nname = \"prod\"\nfollow = {{ trigger = \"team-web\" }}\ntarget.webhook = {{ url = \"{}\" }}\n",
        world.sink.url()
    );
    world.configure(&format!("{prod}[api_triggers]\nallow_addresses = [\"127.0.0.0/8\"]\n[[secret]]\nname = \"hook\"\nfile = \"secret\"\ntriggers = [\"team-*\"]\n"));
    let problem = async |world: &mut World| {
        let problem: Option<Option<String>> =
            sqlx::query_scalar("select problem from trigger where name = 'prod' and configured")
                .fetch_optional(&mut world.sql)
                .await
                .unwrap();
        problem
    };
    // While the API has no such trigger, it is missing.
    let service = world.start().await;
    let missing = eventually("a mistake", SOON, async || problem(&mut world).await?).await;
    assert!(
        missing.contains("trigger.follow: \"team-web\" is the name of no trigger"),
        "{missing}"
    );
    world.push(WEB, 1).await;
    apply(&mut world, "team-web", Some(of_api("team-web", sink.url()))).await;
    sink.wait(1).await;
    let delivered = world.sink.wait(1).await;
    assert_eq!(delivered[0].json()["data"]["trigger"], "prod");
    assert_eq!(problem(&mut world).await, Some(None));
    // A process that starts later knows both.
    service.stop().await;
    let service = world.start().await;
    world.push(WEB, 2).await;
    assert_eq!(
        world.sink.wait(2).await[1].json()["data"]["trigger"],
        "prod"
    );
    assert_eq!(problem(&mut world).await, Some(None));
    // A mistake in the trigger of the API is one of its own.
    let mut broken = of_api("team-web", sink.url());
    broken["settle"] = "soon".into();
    apply(&mut world, "team-web", Some(broken)).await;
    eventually("a mistake", SOON, async || {
        let broken: bool = sqlx::query_scalar("select broken from trigger where name = 'team-web'")
            .fetch_one(&mut world.sql)
            .await
            .unwrap();
        broken.then_some(())
    })
    .await;
    assert_eq!(problem(&mut world).await, Some(None));
    apply(&mut world, "team-web", None).await;
    eventually("a mistake", SOON, async || problem(&mut world).await?).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planner_waits_for_settings_that_it_has_not_read() {
    let mut world = World::new().await;
    let sink = Sink::start().await;
    world.configure("[api_triggers]\nallow_addresses = [\"127.0.0.0/8\"]\n[[secret]]\nname = \"hook\"\nfile = \"secret\"\ntriggers = [\"team-*\"]\n");
    let service = world.start().await;
    world.push(WEB, 1).await;
    apply(&mut world, "team-web", Some(of_api("team-web", sink.url()))).await;
    sink.wait(1).await;
    let query = "select spec_hash from trigger where name = 'team-web'";
    let read: Vec<u8> = sqlx::query_scalar(query)
        .fetch_one(&mut world.sql)
        .await
        .unwrap();
    // As the api records settings, a moment before the planner reads them.
    let in_force = async |world: &mut World, hash: &[u8]| {
        sqlx::query("update trigger set spec_hash = $1 where name = 'team-web'")
            .bind(hash)
            .execute(&mut world.sql)
            .await
            .unwrap();
    };
    let recorded = async |world: &mut World| {
        let query = "select count(*) from rollout";
        let count: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut world.sql)
            .await
            .unwrap();
        count
    };
    in_force(&mut world, &[0; 32]).await;
    world.push(WEB, 2).await;
    a_while().await;
    assert_eq!(recorded(&mut world).await, 1, "by the settings before");
    in_force(&mut world, &read).await;
    world.push(WEB, 3).await;
    sink.wait(2).await;
    assert_eq!(recorded(&mut world).await, 2);
    service.stop().await;
}
