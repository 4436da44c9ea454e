//! The manifest of a pushed image: labels, annotations, time of the build, platforms.

use serde_json::{Value, json};
use tagtrail_e2e::{HOOK_SECRET, Up, config, free_address, shared_folder, use_ring};
use tagtrail_testkit::{Registry, SOON, Sink, TestImage, eventually};

const REVISION: &str = "org.opencontainers.image.revision";

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_of_a_pushed_digest_is_recorded() {
    use_ring();
    let folder = shared_folder();
    let (sink, gateway) = (Sink::start().await, free_address());
    let hook = format!("http://{gateway}/hooks/main");
    let registry = Registry::start(&hook, &format!("Bearer {HOOK_SECRET}")).await;
    let host = registry.host();
    let file = config(folder.path(), host, sink.url());
    let data = folder.path().join("data");

    // Pushed while the registry has no `[[registry]]`, so the manifest can't be read.
    let mut up = Up::start_at(&data, &file, &gateway).await;
    let old = TestImage::new("old").label(REVISION, "0a1b");
    let old = registry.push(&old, "shop/old:latest").to_string();
    let cli = up.cli();
    eventually("the push", SOON, async || {
        let resolved = cli.run(&["resolve", &format!("{host}/shop/old")]);
        (resolved.code == 0).then_some(())
    })
    .await;
    let unknown = cli.run(&["manifest", &old]);
    assert_eq!((unknown.code, unknown.out.as_str()), (3, ""));
    assert!(
        unknown.err.contains("[[registry]]") && unknown.err.contains(&old),
        "{}",
        unknown.err
    );
    assert_eq!(cli.run(&["manifest", "latest"]).code, 2);

    // Once the registry is configured, manifests of earlier pushes are read too.
    let mut text = std::fs::read_to_string(&file).unwrap();
    text += &format!("[[registry]]\nname = \"{host}\"\nurl = \"http://{host}\"\n");
    std::fs::write(&file, text).unwrap();
    up.process.signal("TERM");
    assert_eq!(up.process.ended(SOON).await.code(), Some(0));
    let up = Up::start_at(&data, &file, &gateway).await;
    let cli = up.cli();
    let recorded = async |digest: &str| -> Value {
        eventually(&format!("the manifest of {digest}"), SOON, async || {
            let url = format!("{}/v1/manifests/{digest}", up.address("api"));
            let answer = reqwest::get(url).await.ok()?;
            (answer.status() == 200).then_some(())?;
            answer.json().await.ok()
        })
        .await
    };
    assert_eq!(recorded(&old).await["revision"], "0a1b");

    let index = TestImage::index("new")
        .label("maintainer", "Ann")
        .annotation(REVISION, "9f2c");
    let new = registry.push(&index, "shop/web:latest").to_string();
    let manifest = recorded(&new).await;
    assert_eq!(
        (
            &manifest["digest"],
            &manifest["registry"],
            &manifest["repository"]
        ),
        (&json!(new), &json!(host), &json!("shop/web"))
    );
    assert_eq!(manifest["labels"], json!({ "maintainer": "Ann" }));
    assert_eq!(manifest["annotations"], json!({ REVISION: "9f2c" }));
    assert_eq!(
        (&manifest["revision"], &manifest["created"]),
        (
            &json!("9f2c"),
            &json!(TestImage::CREATED.replace('Z', ".000000Z"))
        )
    );
    let platforms: Vec<&str> = manifest["platforms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|platform| platform["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);

    // The client prints the same manifest, as JSON and as a table.
    assert_eq!(cli.json(&["manifest", &new]), manifest);
    let shown = cli.run(&["manifest", &new, "--output", "wide"]).out;
    for part in [
        &new,
        "linux/amd64, linux/arm64",
        "label maintainer",
        "Ann",
        "9f2c",
        TestImage::CREATED,
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    // A second tag of the same digest does not change the recorded manifest.
    assert_eq!(registry.push(&index, "shop/web:v1").to_string(), new);
    assert_eq!(recorded(&new).await, manifest);
}
