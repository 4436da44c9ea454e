//! The repositories that have a history, and their tags.

use serde_json::{Value, json};

use crate::pages_repository::many;
use crate::rows::{digest, on_time, text};
use crate::server::Api;

const WEB: &str = "registry.example.com/shop/web";

fn names(items: &[Value]) -> Vec<String> {
    let name = |item: &Value| match item["image"].as_str() {
        Some(image) => image.to_owned(),
        None => format!("{}/{}", item["registry"], item["repository"]).replace('"', ""),
    };
    items.iter().map(name).collect()
}

#[tokio::test]
async fn repositories_are_listed_by_name_with_their_tags() {
    let (api, mut rows) = Api::start().await;
    let moves = [on_time(1, 1, 10), on_time(2, 2, 20)];
    let gone = [on_time(1, 1, 10), on_time(2, 0, 30)];
    rows.tag(&format!("{WEB}:latest"), &moves).await;
    rows.tag(&format!("{WEB}:v1"), &gone).await;
    rows.tag(&format!("{WEB}:sha256-{}", "a".repeat(64)), &gone)
        .await;
    rows.tag("registry.example.com/shop/api:latest", &moves)
        .await;
    rows.tag("mirror.example.com/shop/web:latest", &moves).await;
    rows.tag("registry.example.com/other_shop/web:latest", &moves)
        .await;
    rows.empty_tag("registry.example.com/shop/never:latest")
        .await;
    let all = [
        "mirror.example.com/shop/web",
        "registry.example.com/other_shop/web",
        "registry.example.com/shop/api",
        WEB,
    ];
    for limit in [1, 2, 4, 50] {
        let pages = api.pages("/v1/repositories?_=1", limit).await;
        assert_eq!(names(&pages.concat()), all, "{limit}");
    }
    for (prefix, expected) in [
        ("registry.example.com/", &all[1..]),
        ("registry.example.com/shop/w", &all[3..]),
        ("shop/web", &[all[0], all[3]]),
        ("shop_", &[]),
        ("%25", &[]),
    ] {
        let found = api
            .found(&format!("/v1/repositories?prefix={prefix}"))
            .await;
        assert_eq!(
            names(found["items"].as_array().unwrap()),
            expected,
            "{prefix}"
        );
    }
    let web = |found: Value| found["items"][0].clone();
    let path = format!("/v1/repositories?prefix={WEB}");
    assert_eq!(
        web(api.found(&path).await),
        json!({ "registry": "registry.example.com", "repository": "shop/web", "tags": 1, "deleted": 1, "changed_at": text(30), "recent_changes": 0 })
    );
    let with = web(api.found(&format!("{path}&signatures=true")).await);
    assert_eq!(with["deleted"], json!(2));
}

#[tokio::test]
async fn repositories_are_listed_by_part_of_the_name_and_in_each_order() {
    let (api, mut rows) = Api::start().await;
    let [busy, old, other] = ["shop/api", "shop/old", "other/web"]
        .map(|repository| format!("registry.example.com/{repository}"));
    rows.tag(&format!("{old}:v1"), &[on_time(1, 1, 10)]).await;
    // A change of a signature is none of an image.
    let signature = format!("{old}:sha256-{}.sig", "a".repeat(64));
    rows.tag(&signature, &[on_time(1, 3, 90_000)]).await;
    rows.tag(&format!("{WEB}:v1"), &[on_time(1, 1, 20)]).await;
    rows.empty_tag("registry.example.com/shop/never:latest")
        .await;
    many(&mut rows, &other, 2).await;
    many(&mut rows, &busy, 5).await;
    // Both have a tag of a minute ago.
    let only = "update tag set head_at = now() + interval '1 hour' where id = (
        select t.id from tag t join repository r on r.id = t.repository_id where r.name = 'other/web' and head is not null limit 1)";
    sqlx::query(only).execute(&mut rows.db).await.unwrap();
    for (query, expected) in [
        ("sort=name", vec![&*other, &busy, &old, WEB]),
        ("sort=newest", vec![&other, &busy, WEB, &old]),
        (
            "sort=newest&signatures=true",
            vec![&other, &busy, &old, WEB],
        ),
        ("sort=changes", vec![&busy, &other, WEB, &old]),
        ("q=WEB", vec![&other, WEB]),
        ("q=COM/Shop&sort=changes", vec![&busy, WEB, &old]),
        ("q=w_b", vec![]),
        ("q=%25", vec![]),
        ("q=web&prefix=shop/&sort=newest", vec![WEB]),
    ] {
        for limit in [1, 2, 50] {
            let pages = api.pages(&format!("/v1/repositories?{query}"), limit).await;
            assert_eq!(names(&pages.concat()), expected, "{query}, {limit}");
        }
    }
    let found = api.found("/v1/repositories").await;
    let recent = found["items"].as_array().unwrap().iter();
    let recent: Vec<_> = recent.map(|item| &item["recent_changes"]).collect();
    assert_eq!(json!(recent), json!([2, 5, 0, 0]));
    let first = api.found("/v1/repositories?sort=newest&limit=1").await;
    let next = first["next"].as_str().unwrap();
    let other = format!("/v1/repositories?sort=changes&cursor={next}");
    assert_eq!(api.get(&other).await.problem(), "400 cursor_invalid");
}

#[tokio::test]
async fn tags_have_their_digest_now_or_at_a_time() {
    let (api, mut rows) = Api::start().await;
    let gone = [on_time(1, 1, 10), on_time(2, 0, 30)];
    rows.tag(&format!("{WEB}:v1"), &gone).await;
    rows.tag(
        &format!("{WEB}:latest"),
        &[on_time(1, 1, 10), on_time(2, 2, 20)],
    )
    .await;
    rows.tag(&format!("{WEB}:v2"), &[on_time(1, 2, 21)]).await;
    let signature = format!("{WEB}:sha256-{}.sig", "a".repeat(64));
    rows.tag(&signature, &[on_time(1, 3, 10)]).await;
    rows.tag("registry.example.com/shop/api:v9", &gone).await;
    let [latest, v1, v2] = ["latest", "v1", "v2"].map(|tag| format!("{WEB}:{tag}"));
    let tags = format!("/v1/tags?repository={WEB}");
    for (query, expected) in [
        (String::new(), vec![&latest, &v2]),
        ("&deleted=true".to_owned(), vec![&latest, &v1, &v2]),
        (
            "&signatures=true".to_owned(),
            vec![&latest, &signature, &v2],
        ),
        (format!("&at={}", text(20)), vec![&latest, &v1]),
        (
            format!("&at={}&deleted=true", text(35)),
            vec![&latest, &v1, &v2],
        ),
        (format!("&at={}", text(9)), vec![]),
    ] {
        for limit in [1, 2, 50] {
            let pages = api.pages(&format!("{tags}{query}"), limit).await;
            let found = names(&pages.concat());
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                expected,
                "{query}, {limit}"
            );
        }
    }
    let item = async |query: &str| api.found(&format!("{tags}{query}")).await["items"][0].clone();
    assert_eq!(
        item("").await,
        json!({
            "image": latest, "signature": false, "revision": 2, "kind": "moved", "digest": digest(2),
            "pinned": format!("{WEB}@{}", digest(2)), "occurred_at": text(20),
            "revisions": 2, "actor": "ci-bot", "commit": null, "source_code": null, "moved_after_release": false,
        })
    );
    assert_eq!(
        item(&format!("&at={}", text(15))).await["digest"],
        json!(digest(1))
    );
}

#[tokio::test]
async fn with_a_window_each_tag_has_its_lane() {
    let (api, mut rows) = Api::start().await;
    let half = 12 * 3600;
    rows.tag(
        &format!("{WEB}:latest"),
        &[on_time(1, 1, 0), on_time(2, 2, half)],
    )
    .await;
    rows.tag(
        &format!("{WEB}:v1"),
        &[on_time(1, 1, -10), on_time(2, 0, half)],
    )
    .await;
    rows.tag(&format!("{WEB}:later"), &[on_time(1, 1, 3 * half)])
        .await;
    let lanes = async |query: &str| {
        let found = api
            .found(&format!("/v1/tags?repository={WEB}&{query}"))
            .await;
        let lanes = found["items"].as_array().unwrap().iter();
        lanes.map(|item| item["lane"].clone()).collect::<Vec<_>>()
    };
    let at = |seconds| format!("deleted=true&at={}", text(seconds));
    let sample = |moment: u32, revision: u32, content: u8, from: i64| {
        let digest = (content > 0).then(|| digest(content));
        json!({ "moment": moment, "revision": revision, "digest": digest, "from": text(from) })
    };
    let latest = json!([sample(0, 1, 1, 0), sample(45, 2, 2, half)]);
    let v1 = json!([sample(0, 1, 1, -10), sample(45, 2, 0, half)]);
    let day = format!("window=24h&{}", at(2 * half));
    assert_eq!(lanes(&day).await, [latest, v1]);
    // A week before, there was no history.
    let week = lanes(&format!("window=7d&class=moving&{}", at(2 * half))).await;
    let moments = |lane: &Value| {
        lane.as_array()
            .unwrap()
            .iter()
            .map(|one| one["moment"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(moments(&week[0]), [78, 84]);
    assert_eq!(lanes("sort=name").await, [Value::Null, Value::Null]);
    let wrong = api
        .get(&format!("/v1/tags?repository={WEB}&window=2d"))
        .await;
    assert_eq!(wrong.problem(), "400 choice_invalid");
}

#[tokio::test]
async fn a_repository_without_history_is_unknown_and_a_tag_is_refused() {
    let (api, mut rows) = Api::start().await;
    rows.empty_tag(&format!("{WEB}:latest")).await;
    let answer = api.get(&format!("/v1/tags?repository={WEB}")).await;
    assert_eq!(answer.problem(), "404 repository_unknown");
    for wrong in [
        "",
        "web",
        "registry.example.com/shop/web:v1",
        "registry.example.com/a%00b",
    ] {
        let answer = api.get(&format!("/v1/tags?repository={wrong}")).await;
        assert_eq!(answer.problem(), "400 repository_invalid", "{wrong}");
    }
    for (query, expected) in [
        ("tags?repository=a.b/c&at=noon", "400 time_invalid"),
        ("tags?repository=a.b/c&deleted=1", "400 flag_invalid"),
        ("tags?repository=a.b/c&limit=1001", "400 limit_invalid"),
        ("tags?repository=a.b/c&class=some", "400 choice_invalid"),
        ("tags?repository=a.b/c&sort=size", "400 choice_invalid"),
        ("repositories?limit=0", "400 limit_invalid"),
        ("repositories?cursor=MSB0YWdzIDE", "400 cursor_invalid"),
        ("repositories?signatures=yes", "400 flag_invalid"),
        ("repositories?sort=size", "400 choice_invalid"),
        ("repositories?match=x", "400 parameter_unknown"),
    ] {
        assert_eq!(
            api.get(&format!("/v1/{query}")).await.problem(),
            expected,
            "{query}"
        );
    }
}
