//! Triggers of the API, without a trigger service: what is recorded, and what is refused.

use serde_json::{Value, json};

use crate::rows::Rows;
use crate::server::{Answer, Api};

/// Starts the service with a token of team a and one of all teams.
async fn start(more: &str) -> (Api, Rows, tempfile::TempDir) {
    let db = tagtrail_testkit::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    let mut text = more.to_owned();
    for (name, triggers) in [("team-a", "[\"team-a-*\"]"), ("ops", "[\"*\"]")] {
        let secret = folder.path().join(name);
        std::fs::write(&secret, format!("{name}-0123456789abcdef")).unwrap();
        text += &format!(
            "[[token]]\nname = \"{name}\"\nrole = \"operate\"\ntriggers = {triggers}\nsecret = {{ file = {secret:?} }}\n"
        );
    }
    let path = folder.path().join("tagtrail.toml");
    std::fs::write(&path, text).unwrap();
    let api = Api::with(&db, |config| config.config = Some(path)).await;
    api.ctx.health.wait_ready().await;
    let rows = Rows::new(db.connect().await).await;
    (api, rows, folder)
}

const ON: &str =
    "[api_triggers]\n[[secret]]\nname = \"hook\"\nenv = \"HOOK\"\ntriggers = [\"team-a-*\"]\n";

async fn send(
    api: &Api,
    (method, token, name): (&str, &str, &str),
    replaces: Option<&str>,
    body: Option<Value>,
) -> Answer {
    let mut request = api.request(method, &format!("/v1/triggers/{name}"));
    request = request.bearer_auth(format!("{token}-0123456789abcdef"));
    if let Some(replaces) = replaces {
        request = request.header("If-Match", replaces);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::read(request.send().await.unwrap()).await
}

fn spec(tag: &str) -> Value {
    json!({
        "images": { "web": format!("registry.example.com/shop/web:{tag}") },
        "target": { "webhook": { "url": "https://a.example/", "secret": { "secret": "hook" } } },
    })
}

#[tokio::test]
async fn a_change_names_the_generation_that_it_replaces() {
    let (api, mut rows, _folder) = start(ON).await;
    let put = ("PUT", "team-a", "team-a-app");
    let made = send(&api, put, None, Some(spec("1"))).await;
    assert_eq!(made.status, 200, "{made:?}");
    let made = made.body;
    assert_eq!(
        (&made["generation"], &made["changed"]),
        (&json!(1), &json!(true))
    );
    // Nobody plans here.
    assert_eq!(made["done"], false);
    for (replaces, tag, expected) in [
        (None, "2", Err("428 generation_required")),
        (Some("\"7\""), "2", Err("412 generation_changed")),
        (Some("x"), "2", Err("400 generation_invalid")),
        (Some("1"), "1", Ok((1, false))),
        (Some("\"1\""), "2", Ok((2, true))),
    ] {
        let answer = send(&api, put, replaces, Some(spec(tag))).await;
        let found = match answer.status {
            200 => Ok((
                answer.body["generation"].as_u64().unwrap(),
                answer.body["changed"].as_bool().unwrap(),
            )),
            _ => Err(answer.problem()),
        };
        let found = found.as_ref().copied().map_err(String::as_str);
        assert_eq!(found, expected, "{replaces:?}");
    }
    let removed = send(&api, ("DELETE", "team-a", "team-a-app"), Some("2"), None).await;
    assert_eq!(removed.body["generation"], 3);
    assert_eq!(removed.body["done"], true);
    let again = send(&api, ("DELETE", "team-a", "team-a-app"), None, None).await;
    assert_eq!(again.problem(), "404 trigger_unknown");
    // A return needs no generation.
    let returned = send(&api, put, None, Some(spec("3"))).await;
    assert_eq!(returned.body["generation"], 4);
    let recorded: Vec<(i64, String, String, Option<Value>)> = sqlx::query_as(
        "select generation, door, actor, spec from trigger_spec order by generation",
    )
    .fetch_all(&mut rows.db)
    .await
    .unwrap();
    assert_eq!(recorded.len(), 4);
    assert!(
        recorded
            .iter()
            .all(|one| one.1 == "api" && one.2 == "team-a")
    );
    let first = recorded[0].3.as_ref().unwrap();
    assert_eq!(first["name"], "team-a-app");
    assert_eq!(
        first["target"]["webhook"]["secret"],
        json!({ "secret": "hook" })
    );
    assert_eq!(recorded[2].3, None);
    let acts: Vec<String> = sqlx::query_scalar("select act from act order by id")
        .fetch_all(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(acts, ["apply", "apply", "remove", "apply"]);
}

#[tokio::test]
async fn the_api_makes_only_triggers_that_the_file_allows() {
    let (api, mut rows, _folder) = start(ON).await;
    rows.trigger("team-a-file", true).await;
    let mut program = spec("1");
    program["target"] = json!({ "command": { "run": ["true"] } });
    let mut reads = spec("1");
    reads["target"]["webhook"]["secret"] = json!({ "file": "/etc/passwd" });
    for (token, name, body, expected) in [
        ("team-a", "team-b-app", spec("1"), "403 out_of_scope"),
        ("team-a", "team-a-app", program, "400 trigger_invalid"),
        ("team-a", "team-a-app", reads, "400 trigger_invalid"),
        (
            "team-a",
            "team-a-app",
            json!({ "name": "team-a-other" }),
            "400 trigger_invalid",
        ),
        (
            "team-a",
            "team-a-app",
            json!({ "images": {} }),
            "400 trigger_invalid",
        ),
        // The secret belongs to the triggers of team a.
        ("ops", "team-b-app", spec("1"), "400 trigger_invalid"),
        ("ops", "Team", spec("1"), "400 trigger_invalid"),
        ("team-a", "team-a-file", spec("1"), "409 trigger_of_file"),
    ] {
        let answer = send(&api, ("PUT", token, name), None, Some(body)).await;
        assert_eq!(answer.problem(), expected, "{name} {answer:?}");
    }
    let removed = send(&api, ("DELETE", "team-a", "team-a-file"), None, None).await;
    assert_eq!(removed.problem(), "409 trigger_of_file");
    let large = json!({ "labels": { "a": "x".repeat(70_000) } });
    let large = send(&api, ("PUT", "team-a", "team-a-app"), None, Some(large)).await;
    assert_eq!(large.problem(), "413 body_too_large");
    let count: i64 = sqlx::query_scalar("select count(*) from trigger_spec")
        .fetch_one(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(count, 0);

    let (few, _rows, _few_folder) =
        start(&ON.replace("[api_triggers]\n", "[api_triggers]\nmost = 1\n")).await;
    let plain = json!({
        "images": { "web": "registry.example.com/shop/web:1" },
        "target": { "webhook": { "url": "https://a.example/" } },
    });
    for (name, expected) in [
        ("team-a-app", 200),
        ("team-a-app", 428),
        ("team-a-more", 409),
    ] {
        let answer = send(&few, ("PUT", "team-a", name), None, Some(plain.clone())).await;
        assert_eq!(answer.status, expected, "{name} {answer:?}");
    }

    let (off, ..) = start("").await;
    let answer = send(&off, ("PUT", "ops", "shop"), None, Some(spec("1"))).await;
    assert_eq!(answer.problem(), "403 api_triggers_off");
}
