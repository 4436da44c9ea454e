use serde_json::{Value, json};
use time::macros::datetime;

use super::*;

fn digest(content: &str) -> Digest {
    Digest::sha256_of(content.as_bytes())
}

fn said(manifest: &Value) -> Said {
    super::manifest(manifest.to_string().as_bytes())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// As `os/architecture/variant`, with digests.
fn platforms(said: &Said) -> Vec<(String, Option<Digest>)> {
    let name = |one: &Platform| {
        let variant = one.variant.as_ref().map(|variant| format!("/{variant}"));
        let name = format!(
            "{}/{}{}",
            one.os,
            one.architecture,
            variant.unwrap_or_default()
        );
        (name, one.digest.clone())
    };
    said.platforms.iter().map(name).collect()
}

#[test]
fn an_image_names_its_config() {
    for (media_type, config_type) in [(IMAGE, CONFIG), (DOCKER_IMAGE, DOCKER_CONFIG)] {
        let image = json!({
            "schemaVersion": 2, "mediaType": media_type,
            "config": { "mediaType": config_type, "digest": digest("config"), "size": 7 },
            "layers": [{ "mediaType": "x", "digest": digest("layer"), "size": 9 }],
            "annotations": { "org.opencontainers.image.revision": "9f2c", "number": 7 },
        });
        assert_eq!(
            said(&image),
            Said {
                media_type: Some(media_type.to_owned()),
                annotations: map(&[("org.opencontainers.image.revision", "9f2c")]),
                config: Some(digest("config")),
                ..Said::default()
            }
        );
    }
    // The media type of an OCI manifest may be left to the registry to say.
    let image = json!({ "config": { "mediaType": CONFIG, "digest": digest("c") }, "layers": [] });
    assert_eq!(said(&image).media_type.as_deref(), Some(IMAGE));
}

#[test]
fn an_index_names_its_platforms_and_the_image_that_speaks_for_all() {
    let one = |name: &str, os: &str, architecture: &str| json!({ "mediaType": IMAGE, "digest": digest(name), "size": 7, "platform": { "os": os, "architecture": architecture } });
    let mut arm = one("arm", "linux", "arm64");
    arm["platform"]["variant"] = "v8".into();
    let mut attestation = one("attestation", "unknown", "unknown");
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest("amd") });
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "annotations": { "a": "b" },
        "manifests": [attestation, arm, one("amd", "linux", "amd64"), one("windows", "windows", "amd64")],
    });
    let found = said(&index);
    assert_eq!(found.media_type.as_deref(), Some(INDEX));
    assert_eq!(
        platforms(&found),
        [
            ("linux/arm64/v8".to_owned(), Some(digest("arm"))),
            ("linux/amd64".to_owned(), Some(digest("amd"))),
            ("windows/amd64".to_owned(), Some(digest("windows"))),
        ]
    );
    assert_eq!(found.image, Some(digest("amd")));
    assert_eq!(
        (found.config, found.annotations),
        (None, map(&[("a", "b")]))
    );

    let first = |manifests: Value| said(&json!({ "manifests": manifests })).image;
    assert_eq!(first(json!([attestation, arm])), Some(digest("arm")));
    let nested = json!({ "mediaType": INDEX, "digest": digest("nested") });
    let signature =
        json!({ "mediaType": IMAGE, "digest": digest("s"), "artifactType": "application/x" });
    assert_eq!(first(json!([attestation, nested, signature])), None);
    let bare = json!({ "digest": digest("bare") });
    assert_eq!(first(json!([bare])), Some(digest("bare")));
}

#[test]
fn an_artifact_says_what_it_is_and_has_no_config_to_read() {
    let helm = "application/vnd.cncf.helm.config.v1+json";
    for (manifest, kind) in [
        (
            json!({ "artifactType": "application/x", "config": { "mediaType": EMPTY, "digest": digest("{}") } }),
            Some("application/x"),
        ),
        (
            json!({ "config": { "mediaType": helm, "digest": digest("chart") } }),
            Some(helm),
        ),
        (
            json!({ "config": { "mediaType": EMPTY, "digest": digest("{}") } }),
            None,
        ),
        (
            json!({ "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "artifactType": "application/y", "blobs": [] }),
            Some("application/y"),
        ),
    ] {
        let found = said(&manifest);
        assert_eq!(found.artifact_type.as_deref(), kind, "{manifest}");
        assert_eq!(found.config, None);
    }
}

#[test]
fn what_older_than_images_had_a_config_is_known_by_its_type_alone() {
    let old = json!({ "schemaVersion": 1, "name": "shop/web", "tag": "latest", "architecture": "amd64", "fsLayers": [], "history": [] });
    let expected = Said {
        media_type: Some(SCHEMA_1.to_owned()),
        ..Said::default()
    };
    assert_eq!(said(&old), expected);
}

#[test]
fn a_config_says_when_for_what_and_by_which_labels() {
    let config = json!({
        "os": "linux", "architecture": "arm", "variant": "v7", "created": "2026-03-03T14:02:11.5+01:00",
        "config": { "Env": ["A=B"], "Labels": { "org.opencontainers.image.source": "https://git.example.com/shop", "maintainer": "Ann" } },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let found = super::config(config.to_string().as_bytes());
    let platform = found.platform.unwrap();
    assert_eq!(
        (
            platform.os.as_str(),
            platform.architecture.as_str(),
            platform.variant.as_deref(),
            platform.digest
        ),
        ("linux", "arm", Some("v7"), None)
    );
    assert_eq!(found.created, Some(datetime!(2026-03-03 13:02:11.5 UTC)));
    assert_eq!(
        found.labels,
        map(&[
            ("maintainer", "Ann"),
            (
                "org.opencontainers.image.source",
                "https://git.example.com/shop"
            )
        ])
    );
}

#[test]
fn what_is_wrong_is_left_out_and_the_rest_is_kept() {
    for wrong in [
        json!(7),
        json!("x"),
        json!([1]),
        json!({ "x": 1 }),
        json!(null),
        json!(true),
    ] {
        let image = json!({
            "mediaType": if wrong.is_string() { json!(1) } else { wrong.clone() }, "artifactType": [], "manifests": if wrong.is_array() { json!(1) } else { wrong.clone() },
            "annotations": { "good": "kept", "bad": if wrong.is_string() { json!(2) } else { wrong.clone() } },
            "config": { "mediaType": CONFIG, "digest": digest("config"), "size": wrong },
        });
        let found = said(&image);
        assert_eq!(found.annotations, map(&[("good", "kept")]), "{image}");
        assert_eq!(found.config, Some(digest("config")), "{image}");
        assert_eq!((found.image, found.platforms), (None, vec![]), "{image}");
        let config =
            json!({ "os": wrong, "architecture": "amd64", "created": wrong, "config": wrong });
        let found = super::config(config.to_string().as_bytes());
        assert_eq!((found.created, found.labels.len()), (None, 0), "{config}");
    }
    // A config larger than any is not asked for.
    let large = json!({ "config": { "mediaType": CONFIG, "digest": digest("c"), "size": 1024 * 1024 + 1 } });
    assert_eq!(said(&large).config, None);
}

#[test]
fn hostile_bytes_say_nothing() {
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(200_000), close.repeat(200_000));
    for bytes in [
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        br#"{"mediaType":"x"} more"#.to_vec(),
        b"\xff\xfe".to_vec(),
        b"{\"mediaType\":\"\xff\"}".to_vec(),
        deep("[", "]").into_bytes(),
        deep(r#"{"config":"#, "1}").into_bytes(),
    ] {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(super::manifest(&bytes), Said::default(), "{start}");
        assert_eq!(super::config(&bytes), Config::default(), "{start}");
    }
    // As deep as it likes, beside what is asked for and inside it.
    let (lists, artifact) = (deep("[", "]"), json!("x"));
    let whole = format!(
        r#"{{"x":{lists},"artifactType":{artifact},"annotations":{{"a":{lists},"b":"c"}},"manifests":[{lists}]}}"#
    );
    let found = super::manifest(whole.as_bytes());
    assert_eq!(found.artifact_type.as_deref(), Some("x"));
    assert_eq!(found.annotations, map(&[("b", "c")]));
}

#[test]
fn no_more_is_looked_at_than_anybody_needs() {
    let many: Vec<Value> = (0..100_000)
        .map(|n| json!({ "digest": digest(&n.to_string()), "platform": { "os": "linux", "architecture": format!("a{n}") } }))
        .collect();
    let labels: BTreeMap<String, String> = (0..100_000)
        .map(|n| (format!("{n:06}"), n.to_string()))
        .collect();
    let found = said(&json!({ "manifests": many, "annotations": labels }));
    assert_eq!(found.platforms.len(), Manifest::PLATFORMS);
    assert_eq!(found.annotations.len(), TEXTS);
    // Of two fields with one name the last counts, as most readers have it.
    let twice = super::manifest(br#"{"mediaType":"a","mediaType":"b"}"#);
    assert_eq!(twice.media_type.as_deref(), Some("b"));
}
