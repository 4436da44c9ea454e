//! The pages of comparisons, of searches, and of a digest.

use serde_json::{Value, json};

use crate::pages_tag::show;
use crate::pages_triggers::run;
use crate::rows::{Rows, digest, on_time};
use crate::server::Api;

const IMAGE: &str = "registry.example.com/shop/web:latest";

/// Writes a manifest with labels.
async fn manifest(rows: &mut Rows, content: u8, commit: &str, labels: Value) {
    sqlx::query(
        "insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, labels, annotations, revision, source, version, read_at)
         values ($1, 'registry.example.com', 'shop/web', 'application/vnd.oci.image.manifest.v1+json', 900,
                 '[{\"os\": \"linux\", \"architecture\": \"amd64\", \"variant\": null, \"digest\": null}]', $2, '{}', $3,
                 'https://github.com/acme/shop', $4, now())",
    )
    .bind(digest(content).as_bytes())
    .bind(labels)
    .bind(commit)
    .bind(format!("1.0.{content}"))
    .execute(&mut rows.db)
    .await
    .unwrap();
}

async fn two(rows: &mut Rows) {
    rows.tag(IMAGE, &[on_time(1, 1, 0), on_time(2, 2, 10)])
        .await;
    let base = "org.opencontainers.image.base.digest";
    let bad = "<script>alert(1)</script>\u{202e}";
    manifest(
        rows,
        1,
        "51ab0e93",
        json!({ "team": "a", "old": bad, "same": "x", base: digest(7).to_string() }),
    )
    .await;
    manifest(
        rows,
        2,
        "9f2c41d7",
        json!({ "team": "b", "new": "1", "same": "x", base: digest(8).to_string() }),
    )
    .await;
}

#[tokio::test]
async fn a_comparison_shows_the_fields_that_differ() {
    let (api, mut rows) = Api::start().await;
    two(&mut rows).await;
    let (a, b) = (digest(1), digest(2));
    let answer = api.found(&format!("/v1/compare?a={a}&b={b}")).await;
    let differences: Vec<String> = answer["fields"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|field| field["difference"] != "same")
        .map(|field| {
            format!(
                "{} {}",
                field["name"].as_str().unwrap(),
                field["difference"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        differences,
        [
            "commit changed",
            "version changed",
            "base digest changed",
            "old gone",
            "team changed",
            "new added"
        ]
    );
    let shown = show(&api, &format!("/compare/{a}..{b}?image={IMAGE}")).await;
    assert_eq!(shown.status, 200);
    for part in [
        "From version 1.0.1 to version 1.0.2",
        "revision 1 of latest",
        "the commit, version and base image differ; 3 differences of labels and annotations",
        "The platforms are the same.",
        "https://github.com/acme/shop/compare/51ab0e93...9f2c41d7",
        "1 more variable, label or annotation is the same",
        "Label team",
        "&lt;script&gt;",
        "\\u{202e}",
    ] {
        assert!(shown.html.contains(part), "{part}: {}", shown.html);
    }
    let rows_of = |word: &str| shown.html.matches(&format!("</svg>{word}</span>")).count();
    assert_eq!(
        (rows_of("changed"), rows_of("added"), rows_of("gone")),
        (4, 1, 1)
    );
    // First digits lead to the whole digests.
    let short = |digest: &tagtrail_proto::Digest| digest.to_string()[7..17].to_owned();
    let brief = show(&api, &format!("/compare/{}..{}", short(&a), short(&b))).await;
    assert_eq!(
        (brief.status, brief.location),
        (303, format!("/compare/{a}..{b}"))
    );
    // An answer about whole digests is final; first digits may be those of a later digest.
    let whole = api.get(&format!("/v1/compare?a={a}&b={b}")).await;
    let brief = api.get(&format!("/v1/compare?a={a}&b={}", short(&b))).await;
    let kept = [&whole, &brief].map(|answer| answer.header("cache-control"));
    assert_eq!(kept, ["private, max-age=86400, immutable", "no-store"]);
    let unread = show(&api, &format!("/compare/{a}..{}", digest(3))).await;
    assert!(unread.html.contains("The manifest of the digest after"));
    let unread = api.get(&format!("/v1/compare?a={a}&b={}", digest(3))).await;
    assert_eq!(unread.problem(), "404 manifest_unknown");
    assert_eq!(show(&api, "/compare/abc").await.status, 400);
}

#[tokio::test]
async fn the_sentence_of_a_comparison_names_a_version_that_alone_differs() {
    let (api, mut rows) = Api::start().await;
    for content in 1..=2 {
        manifest(&mut rows, content, "51ab0e93", json!({ "team": "a" })).await;
    }
    let page = format!("/compare/{}..{}", digest(1), digest(2));
    let shown = show(&api, &page).await.html;
    assert!(shown.contains("the version differs. "), "{shown}");
    assert!(!shown.contains("labels are the same"), "{shown}");
    run(
        &mut rows,
        "update manifest set version = '1', platforms = '[]'",
    )
    .await;
    let shown = show(&api, &page).await.html;
    assert!(shown.contains("nothing that is compared below differs. "));
    assert!(!shown.contains("latforms are the same"), "{shown}");
}

#[tokio::test]
async fn two_selected_revisions_lead_to_their_comparison() {
    let (api, mut rows) = Api::start().await;
    two(&mut rows).await;
    let location = format!("/compare/{}..{}?image={IMAGE}", digest(1), digest(2));
    for query in ["rev=2&rev=1", "rev=1&rev=2", "rev=1"] {
        let shown = show(&api, &format!("/i/{IMAGE}?{query}")).await;
        assert_eq!((shown.status, &shown.location), (303, &location), "{query}");
    }
    for (query, status) in [("rev=1&rev=2&rev=3", 400), ("rev=x", 400), ("rev=9", 404)] {
        assert_eq!(
            show(&api, &format!("/i/{IMAGE}?{query}")).await.status,
            status,
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_search_leads_to_its_only_answer() {
    let (api, mut rows) = Api::start().await;
    two(&mut rows).await;
    let trigger = rows.trigger("shop", true).await;
    rows.rollout(trigger, 1, "succeeded", 20).await;
    let whole = digest(1).to_string();
    for (question, location) in [
        (IMAGE, format!("/i/{IMAGE}")),
        (
            "docker+pull+registry.example.com/shop/web:latest",
            format!("/i/{IMAGE}"),
        ),
        ("shop/web:latest", format!("/i/{IMAGE}")),
        (&whole, format!("/d/{whole}")),
        (
            &format!("registry.example.com/shop/web@{whole}"),
            format!("/d/{whole}"),
        ),
        (&whole[7..20], format!("/d/{whole}")),
        ("9f2c41", format!("/d/{}", digest(2))),
        ("SHOP/We", "/i/registry.example.com/shop/web".to_owned()),
        ("shop%231", "/rollouts/shop/1".to_owned()),
    ] {
        let shown = show(&api, &format!("/search?q={question}")).await;
        assert_eq!(
            (shown.status, shown.location),
            (303, location),
            "{question}"
        );
    }
    // A part of the names of a repository and of a trigger.
    let both = show(&api, "/search?q=shop").await;
    assert_eq!(both.status, 200);
    assert!(
        both.html.contains("/triggers/shop") && both.html.contains("registry.example.com/shop/web")
    );
    let json = api.found("/v1/search?q=shop").await;
    assert_eq!(
        (&json["triggers"], &json["repositories"][0]["repository"]),
        (&json!(["shop"]), &json!("shop/web"))
    );
}

#[tokio::test]
async fn a_search_without_an_answer_names_similar_images() {
    let (api, mut rows) = Api::start().await;
    two(&mut rows).await;
    let none = show(&api, "/search?q=registry.example.com/shop/webb:latest").await;
    assert_eq!(none.status, 200);
    assert!(
        none.html.contains("Did you mean") && none.html.contains("registry.example.com/shop/web<"),
        "{}",
        none.html
    );
    let hostile = show(&api, "/search?q=%3Cscript%3E%22'%E2%80%AE").await;
    assert!(hostile.html.contains("&lt;script&gt;") && hostile.html.contains("\\u{202e}"));
    for empty in ["/search", "/search?q="] {
        assert!(show(&api, empty).await.html.contains("Paste anything"));
    }
    assert_eq!(
        api.get("/v1/search?q=").await.problem(),
        "400 question_invalid"
    );
    let long = "x".repeat(601);
    assert_eq!(show(&api, &format!("/search?q={long}")).await.status, 400);
}

#[tokio::test]
async fn the_page_of_a_digest_says_whether_it_is_in_use() {
    let (api, mut rows) = Api::start().await;
    two(&mut rows).await;
    manifest(&mut rows, 3, "9f2c41d7", json!({})).await;
    let trigger = rows.trigger("shop", true).await;
    rows.rollout(trigger, 1, "succeeded", 20).await;
    rows.tag(
        "registry.example.com/shop/web:1.0",
        &[on_time(1, 1, 5), on_time(2, 3, 6), on_time(3, 1, 7)],
    )
    .await;
    let used = show(&api, &format!("/d/{}", digest(1))).await.html;
    assert!(
        used.contains("In force for 1 tag, and run by 1 trigger."),
        "{used}"
    );
    assert!(used.contains("would break <a href=\"/triggers/shop\">"));
    assert!(used.contains("2 images in 3 intervals"));
    let free = show(&api, &format!("/d/{}", digest(3))).await.html;
    assert!(free.contains("In force for no tag, and run by no trigger."));
    assert!(free.contains("1 more digest was built from this commit"));
    assert_eq!(show(&api, &format!("/d/{}", digest(9))).await.status, 404);
}

#[tokio::test]
async fn the_page_of_an_unknown_repository_names_similar_ones() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &[on_time(1, 1, 0)]).await;
    let missing = show(&api, "/i/registry.example.com/shop/webb").await;
    let link = "href=\"/i/registry.example.com/shop/web\"";
    assert_eq!(missing.status, 404);
    assert!(missing.html.contains(link), "{}", missing.html);
    let missing = show(&api, "/i/registry.example.com/other/thing").await;
    assert_eq!(missing.status, 404);
    assert!(!missing.html.contains("Did you mean"), "{}", missing.html);
}

#[tokio::test]
async fn a_part_of_a_tag_is_found_and_signatures_are_not() {
    let (api, mut rows) = Api::start().await;
    let image = |tag: &str| format!("registry.example.com/shop/web:{tag}");
    let signature = format!("sha256-{}.sig", "ab".repeat(32));
    for tag in ["sha-9F2C41D7", "2026-night", "night", &signature] {
        rows.tag(&image(tag), &[on_time(1, 1, 0)]).await;
    }
    // Known to the ids only: a tag without a revision is no image yet.
    rows.empty_tag(&image("night-2")).await;
    for (part, expected) in [
        ("night", vec![image("night"), image("2026-night")]),
        ("9f2c41d7", vec![image("sha-9F2C41D7")]),
        ("%25", vec![]),
        ("sha256-ab", vec![]),
    ] {
        let found = api.found(&format!("/v1/search?q={part}")).await;
        assert_eq!(found["tags"], json!(expected), "{part}");
    }
    let one = show(&api, "/search?q=9f2c41d7").await;
    let address = format!("/i/{}", image("sha-9F2C41D7"));
    assert_eq!((one.status, one.location), (303, address));
    let both = show(&api, "/search?q=night").await;
    assert!(both.html.contains("2026-night"), "{}", both.html);
}
