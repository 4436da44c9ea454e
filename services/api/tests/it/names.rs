//! Questions about an image under another name of its registry.

use crate::rows::on_time;
use crate::server::Api;

const FILE: &str = r#"
[[source]]
name = "forge"
kind = "gitea"
registry = "forge.example.com"
secret = { env = "S" }

[[registry]]
name = "hub.example.com"
url = "https://hub.example.com"
aliases = ["localhost:5000", "local"]
"#;

#[tokio::test]
async fn a_question_under_an_alias_is_about_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tagtrail.toml");
    std::fs::write(&file, FILE).unwrap();
    let db = tagtrail_testkit::postgres().await;
    let api = Api::with(&db, |config| config.config = Some(file)).await;
    api.ctx.health.wait_ready().await;
    let mut rows = crate::rows::Rows::new(db.connect().await).await;
    for image in [
        "hub.example.com/shop/web:V1",
        "forge.example.com/team/app:rc1",
    ] {
        rows.tag(image, &[on_time(1, 1, 10)]).await;
    }
    for (asked, expected) in [
        ("localhost:5000/shop/web:V1", "hub.example.com/shop/web:V1"),
        ("LOCAL/shop/web:V1", "hub.example.com/shop/web:V1"),
        (
            "forge.example.com/team/app:RC1",
            "forge.example.com/team/app:rc1",
        ),
    ] {
        let found = api.found(&format!("/v1/resolve?image={asked}")).await;
        assert_eq!(found["image"], expected, "{asked}");
        let found = api.found(&format!("/v1/history?image={asked}")).await;
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{asked}");
    }
    let other = api
        .get("/v1/resolve?image=localhost:5001/shop/web:V1")
        .await;
    assert_eq!(other.problem(), "404 tag_unknown");
    // The first event of the feed has the number of images that match.
    for (pattern, count) in [
        ("localhost:5000/**", 1),
        ("local*:5000/**", 1),
        ("local/shop/*", 1),
        ("**:*1", 2),
        ("**:RC*", 1),
        ("**:v1", 0),
    ] {
        let mut response = api
            .request("GET", &format!("/v1/revisions?match={pattern}"))
            .send()
            .await
            .unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        let images = format!(r#"{{"images":{count}}}"#);
        let first = String::from_utf8_lossy(&first);
        assert!(first.contains(&images), "{pattern}: {first}");
    }
}

#[tokio::test]
async fn registries_that_share_images_are_listed_in_pairs() {
    let (api, mut rows) = Api::start().await;
    let images = [
        ("hub.example.com", "shop/web", "v1", 1),
        ("hub.example.com", "shop/web", "v2", 2),
        ("hub.example.com", "shop/api", "v1", 3),
        ("localhost:5000", "shop/web", "v1", 1),
        ("localhost:5000", "shop/web", "v2", 9),
        ("localhost:5000", "tool", "v1", 1),
        ("quay.io", "shop/api", "v2", 3),
    ];
    for (registry, repository, tag, content) in images {
        let image = format!("{registry}/{repository}:{tag}");
        rows.tag(&image, &[on_time(1, content, 10)]).await;
    }
    let found = api.found("/v1/registries").await;
    let expected = serde_json::json!({
        "items": [
            { "registry": "hub.example.com", "images": 3 },
            { "registry": "localhost:5000", "images": 3 },
            { "registry": "quay.io", "images": 1 },
        ],
        "shared": [{
            "registry": "hub.example.com", "other": "localhost:5000", "images": 2, "same_digest": 1,
            "first": ["shop/web:v1", "shop/web:v2"],
        }],
    });
    assert_eq!(found, expected);
}
