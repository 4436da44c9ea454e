//! The images that had a digest, with times.

use serde_json::{Value, json};

use crate::rows::{digest, late_move, on_time, text};
use crate::server::Api;

fn path(content: u8) -> String {
    format!("/v1/digests/{}", digest(content))
}

#[tokio::test]
async fn every_image_that_ever_had_the_digest_is_listed_with_from_and_until() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        "registry.example.com/shop/web:latest",
        &[on_time(1, 1, 10), on_time(2, 2, 20), on_time(3, 1, 30)],
    )
    .await;
    rows.tag("registry.example.com/shop/web:v1", &[on_time(1, 1, 12)])
        .await;
    rows.tag(
        "mirror.example.com/web:gone",
        &[on_time(1, 1, 15), on_time(2, 0, 16)],
    )
    .await;
    let answer = api.found(&path(1)).await;
    assert_eq!(
        answer,
        json!({
            "digest": digest(1),
            "items": [
                { "image": "registry.example.com/shop/web:latest", "signature": false, "revision": 1, "from": text(10), "until": text(20) },
                { "image": "registry.example.com/shop/web:latest", "signature": false, "revision": 3, "from": text(30), "until": null },
                { "image": "registry.example.com/shop/web:v1", "signature": false, "revision": 1, "from": text(12), "until": null },
                { "image": "mirror.example.com/web:gone", "signature": false, "revision": 1, "from": text(15), "until": text(16) },
            ],
            "next": null,
        })
    );
}

#[tokio::test]
async fn a_late_revision_ends_the_one_before_it_in_time() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/web:latest", &late_move())
        .await;
    for (content, revision, from, until) in
        [(1, 1, 10, Some(20)), (2, 3, 20, Some(30)), (3, 2, 30, None)]
    {
        let items = api.found(&path(content)).await["items"].take();
        let image = "registry.example.com/shop/web:latest";
        assert_eq!(
            items,
            json!([{ "image": image, "signature": false, "revision": revision, "from": text(from), "until": until.map(text) }])
        );
    }
}

#[tokio::test]
async fn a_revision_replaced_at_its_own_time_was_never_in_force() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        "registry.example.com/shop/web:latest",
        &[on_time(1, 1, 10), on_time(2, 2, 10), on_time(3, 3, 20)],
    )
    .await;
    assert_eq!(api.found(&path(1)).await["items"], json!([]));
    assert_eq!(api.found(&path(2)).await["items"][0]["until"], text(20));
}

#[tokio::test]
async fn pages_neither_repeat_nor_leave_out() {
    let (api, mut rows) = Api::start().await;
    for tag in 1..=5 {
        // Content 2 and content 1 in turn, five times each, at the same times in every tag.
        let revisions: Vec<_> = (1..=10)
            .map(|n| on_time(n, u8::try_from(n % 2).unwrap() + 1, n))
            .collect();
        rows.tag(&format!("registry.example.com/shop/web:v{tag}"), &revisions)
            .await;
    }
    let pages = api.pages(&path(2), 10).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let seen: Vec<_> = pages
        .concat()
        .iter()
        .map(|item| {
            (
                item["image"].to_string(),
                item["revision"].as_i64().unwrap(),
            )
        })
        .collect();
    let expected: Vec<_> = (1..=5)
        .flat_map(|tag| {
            [1, 3, 5, 7, 9].map(|n| (format!("\"registry.example.com/shop/web:v{tag}\""), n))
        })
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_unused_digest_has_an_empty_list_and_an_invalid_digest_is_refused() {
    let (api, _rows) = Api::start().await;
    let answer = api.found(&path(9)).await;
    assert_eq!(
        (&answer["items"], &answer["next"]),
        (&json!([]), &Value::Null)
    );
    for wrong in [
        "sha256:abc",
        "latest",
        "md5:0123",
        "sha256:%00",
        &digest(1).to_string().to_uppercase(),
    ] {
        assert_eq!(
            api.get(&format!("/v1/digests/{wrong}")).await.problem(),
            "400 digest_invalid",
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn tags_that_hold_signatures_come_last_and_are_marked() {
    let (api, mut rows) = Api::start().await;
    let signature = format!("registry.example.com/shop/web:sha256-{}", "a".repeat(64));
    // The signature tag was seen first.
    for image in [
        signature.as_str(),
        "registry.example.com/shop/web:v1",
        "registry.example.com/shop/web:v2",
    ] {
        rows.tag(image, &[on_time(1, 1, 10)]).await;
    }
    let (mut found, mut query) = (Vec::new(), "?limit=1".to_owned());
    loop {
        let page = api.get(&format!("{}{query}", path(1))).await.body;
        for item in page["items"].as_array().unwrap() {
            let image = item["image"].as_str().unwrap().to_owned();
            found.push((image, item["signature"] == json!(true)));
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!("?limit=1&cursor={next}");
    }
    let expected = [
        ("registry.example.com/shop/web:v1".to_owned(), false),
        ("registry.example.com/shop/web:v2".to_owned(), false),
        (signature, true),
    ];
    assert_eq!(found, expected);
}
