//! Storing the manifests of MANIFESTS in Postgres.

use sqlx::{Connection as _, PgConnection};
use tagtrail_proto::{
    Digest, ImageContents, ImageSettings, IndexContents, Layer, Manifest, Platform, Subject,
};
use tagtrail_testkit::{SOON, TestNats, eventually};

use crate::bench::*;

fn manifest(n: u64) -> Manifest {
    Manifest {
        digest: digest(n),
        registry: "registry.example.com".parse().unwrap(),
        repository: "foo/bar".parse().unwrap(),
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        size: n,
        artifact_type: Some("application/x".to_owned()),
        platforms: vec![Platform {
            os: "linux".to_owned(),
            architecture: "arm64".to_owned(),
            variant: Some("v8".to_owned()),
            os_version: None,
            digest: Some(digest(n + 1)),
        }],
        created: Some(at(1)),
        labels: [("maintainer".to_owned(), "Ann".to_owned())].into(),
        annotations: [("number".to_owned(), n.to_string())].into(),
        revision: Some("9f2c".to_owned()),
        source: None,
        version: Some("1.0".to_owned()),
        tombstone: false,
        image: Some(ImageContents {
            digest: digest(n + 1),
            platform: Some("linux/arm64/v8".to_owned()),
            size: 7,
            layers: vec![Layer {
                digest: digest(n + 2),
                size: 7,
                created_by: None,
            }],
            layers_left_out: 0,
            settings: Some(ImageSettings::default()),
        }),
        index: Some(IndexContents::default()),
        read_at: at(2),
    }
}

async fn publish(nats: &TestNats, manifest: Manifest) {
    let digest = manifest.digest.clone();
    let body = serde_json::to_vec(&manifest.event()).unwrap();
    publish_body(nats, &digest, body).await;
}

/// Publishes any body on MANIFESTS.
async fn publish_body(nats: &TestNats, digest: &Digest, body: Vec<u8>) {
    let digest = digest.clone();
    let subject = Subject::Manifest { digest }.to_string();
    let jetstream = nats.jetstream().await;
    let stored = jetstream.publish(subject, body.into()).await.unwrap();
    stored.await.unwrap();
}

/// Returns the numbers of the stored manifests, from their annotation.
async fn stored(db: &mut PgConnection) -> Vec<i64> {
    sqlx::query_scalar("select (annotations ->> 'number')::bigint from manifest order by 1")
        .fetch_all(db)
        .await
        .unwrap()
}

async fn wait_stored(db: &mut PgConnection, expected: &[i64]) {
    eventually("the manifests", SOON, async || {
        (stored(db).await == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_manifest_is_stored_once_by_the_instance_with_the_lock() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let first = Indexer::start(db.url(), nats.url());
    first.ctx.health.wait_ready().await;
    let second = Indexer::start(db.url(), nats.url());
    second.ctx.health.wait_ready().await;
    let mut connection = db.connect().await;
    for n in 1..=20 {
        publish(&nats, manifest(n)).await;
    }
    wait_stored(&mut connection, &(1..=20).collect::<Vec<_>>()).await;
    let counted = |indexer: &Indexer| indexer.metric("tagtrail_indexer_manifests_total");
    eventually("what was stored to be counted", SOON, async || {
        (counted(&first) + counted(&second) == 20.0).then_some(())
    })
    .await;
    first.stop().await;
    publish(&nats, manifest(21)).await;
    wait_stored(&mut connection, &(1..=21).collect::<Vec<_>>()).await;
    second.stop().await;

    let row: serde_json::Value = sqlx::query_scalar(
        "select to_jsonb(m) - 'read_at' - 'created' from manifest m where size_bytes = 7",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(
        row,
        serde_json::json!({
            "digest": format!("\\x{}", &digest(7).to_string()[7..]), "registry": "registry.example.com", "repository": "foo/bar",
            "media_type": "application/vnd.oci.image.index.v1+json", "size_bytes": 7, "artifact_type": "application/x",
            "platforms": [{ "os": "linux", "architecture": "arm64", "variant": "v8", "digest": digest(8) }],
            "labels": { "maintainer": "Ann" }, "annotations": { "number": "7" },
            "revision": "9f2c", "source": null, "version": "1.0", "tombstone": false,
            "image": {
                "digest": digest(8), "platform": "linux/arm64/v8", "size": 7, "layers_left_out": 0,
                "layers": [{ "digest": digest(9), "size": 7, "created_by": null }],
                "settings": {
                    "environment": {}, "user": null, "ports": [], "entrypoint": [], "command": [],
                    "left_out": { "environment": 0, "ports": 0, "entrypoint": 0, "command": 0 },
                },
            },
            "index": { "children": [], "children_left_out": 0 },
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_an_earlier_version_is_stored_without_contents() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let mut event = serde_json::to_value(manifest(1).event()).unwrap();
    let fields = event["data"].as_object_mut().unwrap();
    fields.remove("image").unwrap();
    fields.remove("index").unwrap();
    publish_body(&nats, &digest(1), event.to_string().into_bytes()).await;
    publish(&nats, manifest(2)).await;
    let mut connection = db.connect().await;
    wait_stored(&mut connection, &[1, 2]).await;
    let unread: Vec<i64> =
        sqlx::query_scalar("select size_bytes from manifest where image is null and index is null")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(unread, [1]);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_older_backup_or_with_a_recreated_stream_manifests_are_read_again() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let mut connection = db.connect().await;
    publish(&nats, manifest(1)).await;
    wait_stored(&mut connection, &[1]).await;
    indexer.stop().await;
    connection.close().await.unwrap();
    let backup = db.copy().await;
    let indexer = Indexer::start(db.url(), nats.url());
    let mut connection = db.connect().await;
    publish(&nats, manifest(2)).await;
    wait_stored(&mut connection, &[1, 2]).await;
    indexer.stop().await;

    let indexer = Indexer::start(backup.url(), nats.url());
    let mut restored = backup.connect().await;
    wait_stored(&mut restored, &[1, 2]).await;
    // The recreated stream has new manifests under old sequences.
    nats.jetstream()
        .await
        .delete_stream("MANIFESTS")
        .await
        .unwrap();
    eventually("the stream to be made again", SOON, async || {
        nats.jetstream().await.get_stream("MANIFESTS").await.ok()
    })
    .await;
    publish(&nats, manifest(3)).await;
    wait_stored(&mut restored, &[1, 2, 3]).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_messages_and_nul_characters_stop_nothing() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    publish_body(&nats, &digest(1), b"{}".to_vec()).await;
    // A manifest under the digest of another one.
    let misplaced = serde_json::to_vec(&manifest(2).event()).unwrap();
    publish_body(&nats, &digest(3), misplaced).await;
    // Postgres keeps no NUL in a text.
    let nul = Manifest {
        labels: [("a\0b".to_owned(), "\0".to_owned())].into(),
        version: Some("1\0".to_owned()),
        ..manifest(4)
    };
    publish(&nats, nul).await;
    publish(&nats, manifest(5)).await;
    let mut connection = db.connect().await;
    wait_stored(&mut connection, &[4, 5]).await;
    indexer.stop().await;
}
