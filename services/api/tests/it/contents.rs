//! Layers and settings: comparisons and pages.

use serde_json::{Value, json};

use crate::pages_tag::show;
use crate::rows::{Rows, digest, image};
use crate::server::Api;

/// Writes the manifests of an index for each of two contents: 1 and 11.
async fn two(rows: &mut Rows, before: &Value, after: &Value) {
    for (content, image) in [(1, before), (11, after)] {
        rows.manifest(content).await;
        let children: Vec<Value> = [content + 1, content + 2]
            .map(|child| json!({ "digest": digest(child), "size": 528, "media_type": null, "platform": "linux/amd64" }))
            .into();
        let index = json!({ "children": children, "children_left_out": 2 });
        rows.contents(content, image, &index).await;
    }
}

fn query() -> String {
    format!("/v1/compare?a={}&b={}", digest(1), digest(11))
}

fn page() -> String {
    format!("/compare/{}..{}", digest(1), digest(11))
}

/// Returns the fields of some groups as `group name: before > after`, without equal ones.
fn differences(answer: &Value) -> Vec<String> {
    let fields = answer["fields"].as_array().unwrap().iter();
    let differs = fields.filter(|field| field["difference"] != "same");
    let text = |field: &Value| {
        let [group, name, before, after] = ["group", "name", "before", "after"]
            .map(|key| field[key].as_str().unwrap_or("none").to_owned());
        format!("{group} {name}: {before} > {after}")
    };
    differs.map(text).collect()
}

fn layers(answer: &Value, set: &str) -> (Vec<Value>, u64) {
    let set = &answer["layers"][set];
    let layers = set["layers"].as_array().unwrap().iter();
    let digests = layers.map(|layer| layer["digest"].clone()).collect();
    (digests, set["size"].as_u64().unwrap())
}

fn names(contents: &[u8]) -> Vec<Value> {
    let name = |content: &u8| json!(digest(*content));
    contents.iter().map(name).collect()
}

#[tokio::test]
async fn layers_and_settings_of_two_digests_are_compared() {
    let (api, mut rows) = Api::start().await;
    // The empty layer 7 is in each image twice.
    let before = image(
        2,
        &[20, 7, 21, 7],
        &json!({ "SAME": "1", "OLD": "<b>", "MODE": "a" }),
    );
    let mut after = image(
        12,
        &[20, 7, 22, 23, 7],
        &json!({ "SAME": "1", "NEW": "2", "MODE": "b" }),
    );
    after["layers"][2]["created_by"] = json!("COPY 21 /");
    after["settings"]["user"] = json!("0");
    after["settings"]["ports"] = json!([]);
    after["settings"]["command"] = json!(["a b", "c"]);
    two(&mut rows, &before, &after).await;
    let answer = api.found(&query()).await;
    assert_eq!(
        differences(&answer),
        [
            "contents size: 5500 > 7900",
            "contents user: 65532 > 0",
            "contents ports: [\"8080/tcp\"] > none",
            "contents command: none > [\"a b\",\"c\"]",
            "environment MODE: a > b",
            "environment NEW: none > 2",
            "environment OLD: <b> > none",
        ]
    );
    assert_eq!(layers(&answer, "shared"), (names(&[20, 7]), 2700));
    assert_eq!(layers(&answer, "only_a"), (names(&[21]), 2100));
    assert_eq!(layers(&answer, "only_b"), (names(&[22, 23]), 4500));
    assert_eq!(answer["notes"], json!([]));

    let shown = show(&api, &page()).await;
    assert_eq!(shown.status, 200);
    for part in [
        "the user, ports and command differ; 3 differences of the environment; 2 of 4 layers differ, 4.5 KB to pull",
        "Variable MODE",
        "<code>&lt;b&gt;</code>",
        "5.5 KB",
        "7.9 KB (+2.4 KB)",
        "aria-label=\"became\"",
        "linux/amd64; shared layers are pulled once",
        "2 layers are the same",
    ] {
        assert!(shown.html.contains(part), "{part}: {}", shown.html);
    }
    // Changed rows come first.
    let place = |text: &str| shown.html.find(text).unwrap();
    assert!(place("Variable NEW") < place(">Entrypoint<"));
    assert!(
        !shown.html.contains("Variable SAME"),
        "equal variables are folded"
    );

    let same = format!("/compare/{}..{}", digest(1), digest(1));
    let same = show(&api, &same).await.html;
    assert!(same.contains("both are the same digest") && same.contains("3 layers are the same"));
}

#[tokio::test]
async fn fields_that_one_side_lacks_are_left_out_with_a_note() {
    let (api, mut rows) = Api::start().await;
    let whole = image(12, &[20, 21], &json!({ "A": "1", "B": "2" }));
    two(&mut rows, &Value::Null, &whole).await;
    let answer = api.found(&query()).await;
    assert_eq!(differences(&answer), [""; 0]);
    assert_eq!(answer["layers"], json!(null));
    let note = answer["notes"][0].as_str().unwrap();
    assert!(
        note.starts_with("Not compared: layers and settings. Those of the digest before"),
        "{note}"
    );
    let shown = show(&api, &page()).await.html;
    assert!(
        shown.contains(note) && !shown.contains("<h2>Layers"),
        "{shown}"
    );

    // The config of one side was not read: layers are compared.
    let mut bare = whole.clone();
    bare["settings"] = Value::Null;
    rows.contents(1, &bare, &Value::Null).await;
    let answer = api.found(&query()).await;
    assert_eq!(differences(&answer), [""; 0]);
    assert_eq!(layers(&answer, "shared").0, names(&[20, 21]));
    assert_eq!(
        answer["notes"],
        json!([
            "Not compared: environment, user, ports, entrypoint and command. The config of the digest before was not read."
        ])
    );

    // Lists that lack items say nothing about the items that the other side has.
    let mut cut = image(2, &[20], &json!({ "A": "0" }));
    cut["platform"] = json!("linux/arm64");
    cut["layers_left_out"] = json!(9872);
    cut["settings"]["ports"] = json!([]);
    cut["settings"]["left_out"] =
        json!({ "environment": 5, "ports": 1, "entrypoint": 0, "command": 0 });
    rows.contents(1, &cut, &Value::Null).await;
    let answer = api.found(&query()).await;
    assert_eq!(
        differences(&answer),
        ["contents size: 2000 > 4100", "environment A: 0 > 1"]
    );
    assert_eq!(answer["layers"], json!(null));
    assert_eq!(
        answer["notes"],
        json!([
            "The image for linux/arm64 before is compared with the image for linux/amd64 after.",
            "Not compared: layers. The list of the digest before is not kept as a whole.",
            "Not compared: ports. The list of the digest before is not kept as a whole.",
            "Not compared: variables that one side lacks. The list of the digest before is not kept as a whole.",
        ])
    );

    // Nobody misses the layers of two artifacts.
    for content in [1, 11] {
        rows.contents(content, &Value::Null, &Value::Null).await;
    }
    sqlx::query("update manifest set artifact_type = 'application/x'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(api.found(&query()).await["notes"], json!([]));
}

#[tokio::test]
async fn the_page_of_a_digest_shows_layers_and_settings() {
    let (api, mut rows) = Api::start().await;
    let mut of = image(2, &[20, 21], &json!({ "TOKEN": "<script>" }));
    of["layers_left_out"] = json!(3);
    of["layers"][1]["created_by"] = json!(null);
    two(&mut rows, &of, &Value::Null).await;
    let shown = show(&api, &format!("/d/{}", digest(1))).await.html;
    for part in [
        "linux/amd64, 4.1 KB",
        "COPY 20 /",
        "not stated",
        "3 layers are not listed",
        "of the image for linux/amd64",
        "<code>8080/tcp</code>",
        "<code>[&quot;/app/server&quot;]</code>",
        "1 variable of the environment",
        "<code>&lt;script&gt;</code>",
        "528 B",
        "2 more manifests in the index",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let unread = show(&api, &format!("/d/{}", digest(11))).await.html;
    assert!(!unread.contains("<h2>Layers") && !unread.contains("Settings"));
}
