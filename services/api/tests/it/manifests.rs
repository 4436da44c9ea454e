//! The manifest of a digest.

use serde_json::{Value, json};

use crate::rows::{digest, image, text};
use crate::server::Api;

#[tokio::test]
async fn a_manifest_is_returned_with_all_fields() {
    let (api, mut rows) = Api::start().await;
    rows.manifest(1).await;
    let answer = api.found(&format!("/v1/manifests/{}", digest(1))).await;
    assert_eq!(
        answer,
        json!({
            "digest": digest(1),
            "registry": "registry.example.com",
            "repository": "shop/web",
            "media_type": "application/vnd.oci.image.index.v1+json",
            "size": 1234,
            "artifact_type": null,
            "platforms": [
                { "os": "linux", "architecture": "amd64", "variant": null, "digest": digest(2) },
                { "os": "linux", "architecture": "arm64", "variant": "v8", "digest": digest(3) },
            ],
            "created": text(-60),
            "labels": { "maintainer": "Ann" },
            "annotations": { "org.opencontainers.image.revision": "9f2c" },
            "revision": "9f2c",
            "source": null,
            "version": null,
            "tombstone": false,
            "image": null,
            "index": null,
            "read_at": text(5),
        })
    );
}

#[tokio::test]
async fn layers_settings_and_manifests_of_an_index_are_returned_if_they_were_read() {
    let (api, mut rows) = Api::start().await;
    rows.manifest(1).await;
    let image = image(1, &[3, 4], &json!({ "PATH": "/bin" }));
    let index = json!({
        "children": [{ "digest": digest(2), "size": 528, "media_type": null, "platform": "linux/amd64" }],
        "children_left_out": 1,
    });
    rows.contents(1, &image, &index).await;
    let answer = api.found(&format!("/v1/manifests/{}", digest(1))).await;
    assert_eq!((&answer["image"], &answer["index"]), (&image, &index));
}

#[tokio::test]
async fn an_unread_digest_is_unknown_and_an_invalid_digest_is_refused() {
    let (api, mut rows) = Api::start().await;
    rows.manifest(1).await;
    let unknown = api.get(&format!("/v1/manifests/{}", digest(9))).await;
    assert_eq!(unknown.problem(), "404 manifest_unknown");
    let detail = unknown.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("not been read yet") && detail.contains("[[registry]]"),
        "{detail}"
    );
    for wrong in [
        "sha256:abc",
        "latest",
        &digest(1).to_string().to_uppercase(),
    ] {
        let answer = api.get(&format!("/v1/manifests/{wrong}")).await;
        assert_eq!(answer.problem(), "400 digest_invalid", "{wrong}");
    }
    let more = api
        .get(&format!("/v1/manifests/{}?limit=1", digest(1)))
        .await;
    assert_eq!(more.problem(), "400 parameter_unknown");
}

#[tokio::test]
async fn the_report_view_has_the_same_manifest() {
    let (_api, mut rows) = Api::start().await;
    rows.manifest(1).await;
    sqlx::raw_sql("set role tagtrail_report")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let row: Value = sqlx::query_scalar("select to_jsonb(m) - array['labels', 'annotations', 'created', 'read_at'] from report.manifest m")
        .fetch_one(&mut rows.db)
        .await
        .unwrap();
    let digest = digest(1);
    assert_eq!(
        row,
        json!({
            "digest": digest, "registry": "registry.example.com", "repository": "shop/web",
            "pinned": format!("registry.example.com/shop/web@{digest}"),
            "media_type": "application/vnd.oci.image.index.v1+json", "artifact_type": null, "size_bytes": 1234,
            "platforms": ["linux/amd64", "linux/arm64/v8"],
            "vcs_revision": "9f2c", "vcs_source": null, "version": null,
            "tombstone": false,
        })
    );
}
