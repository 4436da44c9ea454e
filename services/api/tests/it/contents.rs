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
