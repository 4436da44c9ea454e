use serde_json::{Value, json};
use time::macros::datetime;

use super::json::MAX_TEXTS;
use super::*;

fn digest(content: &str) -> Digest {
    Digest::sha256_of(content.as_bytes())
}

fn parsed(manifest: &Value) -> ManifestFields {
    super::manifest(manifest.to_string().as_bytes())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// Formats platforms as `os/architecture/variant`, with digests.
fn platforms(parsed: &ManifestFields) -> Vec<(String, Option<Digest>)> {
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
    parsed.platforms.iter().map(name).collect()
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
            parsed(&image),
            ManifestFields {
                media_type: Some(media_type.to_owned()),
                annotations: map(&[("org.opencontainers.image.revision", "9f2c")]),
                config: Some(digest("config")),
                ..ManifestFields::default()
            }
        );
    }
    // An OCI manifest may omit the media type; the registry's header then states it.
    let image = json!({ "config": { "mediaType": CONFIG, "digest": digest("c") }, "layers": [] });
    assert_eq!(parsed(&image).media_type.as_deref(), Some(IMAGE));
}

#[test]
fn an_index_names_its_platforms_and_the_image_whose_config_is_read() {
    let one = |name: &str, os: &str, architecture: &str| json!({ "mediaType": IMAGE, "digest": digest(name), "size": 7, "platform": { "os": os, "architecture": architecture } });
    let mut arm = one("arm", "linux", "arm64");
    arm["platform"]["variant"] = "v8".into();
    let mut attestation = one("attestation", "unknown", "unknown");
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest("amd") });
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "annotations": { "a": "b" },
        "manifests": [attestation, arm, one("amd", "linux", "amd64"), one("windows", "windows", "amd64")],
    });
    let found = parsed(&index);
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

    let first = |manifests: Value| parsed(&json!({ "manifests": manifests })).image;
    assert_eq!(first(json!([attestation, arm])), Some(digest("arm")));
    let nested = json!({ "mediaType": INDEX, "digest": digest("nested") });
    let signature =
        json!({ "mediaType": IMAGE, "digest": digest("s"), "artifactType": "application/x" });
    assert_eq!(first(json!([attestation, nested, signature])), None);
    let bare = json!({ "digest": digest("bare") });
    assert_eq!(first(json!([bare])), Some(digest("bare")));
}

#[test]
fn a_descriptor_with_the_type_of_an_image_config_is_an_image() {
    // Entries as ko 0.19.1 and crane 0.22.1 write them.
    let entry = |name: &str, kind: &str, architecture: Option<&str>| {
        let mut entry = json!({ "mediaType": IMAGE, "digest": digest(name), "size": 909, "artifactType": kind });
        if let Some(architecture) = architecture {
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        }
        entry
    };
    let image_of =
        |entries: Value| parsed(&json!({ "mediaType": INDEX, "manifests": entries })).image;
    for kind in [CONFIG, DOCKER_CONFIG, ""] {
        let signature = entry(
            "signature",
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            None,
        );
        let (arm, amd) = (
            entry("arm", kind, Some("arm64")),
            entry("amd", kind, Some("amd64")),
        );
        assert_eq!(
            image_of(json!([signature, arm, amd])),
            Some(digest("amd")),
            "{kind}"
        );
        assert_eq!(
            image_of(json!([signature, arm])),
            Some(digest("arm")),
            "{kind}"
        );
        let bare = entry("bare", kind, None);
        assert_eq!(
            image_of(json!([signature, bare])),
            Some(digest("bare")),
            "{kind}"
        );
        // An attestation of BuildKit stays an attestation.
        let mut attestation = entry("attestation", kind, None);
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        assert_eq!(image_of(json!([attestation])), None, "{kind}");
        // A manifest may state the type as well.
        let image = json!({ "artifactType": kind, "config": { "mediaType": CONFIG, "digest": digest("c") } });
        let found = parsed(&image);
        assert_eq!(
            (found.artifact_type, found.config),
            (None, Some(digest("c"))),
            "{kind}"
        );
    }
}

#[test]
fn an_index_of_blobs_has_the_type_of_its_one_entry_that_is_no_layer() {
    let cache = "application/vnd.buildkit.cacheconfig.v0";
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    for (entries, expected) in [
        (vec![layer, layer, cache], Some(cache)),
        (vec![cache, docker], Some(cache)),
        (vec![layer, cache, IMAGE], None),
        (vec![INDEX], None),
        (vec![cache, "application/x"], None),
        (vec![layer], None),
        (vec![], None),
    ] {
        let entry = |kind: &&str| json!({ "mediaType": kind, "digest": digest(kind), "size": 9 });
        let list: Vec<Value> = entries.iter().map(entry).collect();
        let found = parsed(&json!({ "mediaType": INDEX, "manifests": list }));
        assert_eq!(found.artifact_type.as_deref(), expected, "{entries:?}");
    }
    // An entry without a media type may be an image.
    let bare = parsed(
        &json!({ "manifests": [{ "digest": digest("a") }, { "mediaType": cache, "digest": digest("b") }] }),
    );
    assert_eq!(bare.artifact_type, None);
}

#[test]
fn images_for_windows_differ_by_the_version_of_the_system() {
    let one = |version: &Value| {
        json!({
            "mediaType": IMAGE, "digest": digest(&version.to_string()),
            "platform": { "os": "windows", "architecture": "amd64", "os.version": version },
        })
    };
    let versions = [json!("10.0.20348.2113"), json!("10.0.26100.1"), json!(7)];
    let list: Vec<Value> = versions.iter().map(one).collect();
    let found = parsed(&json!({ "mediaType": INDEX, "manifests": list }));
    let found = found.platforms.iter().map(|one| one.os_version.as_deref());
    let expected = [Some("10.0.20348.2113"), Some("10.0.26100.1"), None];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let config = json!({ "os": "windows", "architecture": "amd64", "os.version": "10.0.1" });
    let platform = super::config(config.to_string().as_bytes()).platform;
    assert_eq!(platform.unwrap().os_version.as_deref(), Some("10.0.1"));
}

#[test]
fn an_index_of_indexes_names_the_first_one() {
    let entry = |kind: &str, name: &str| json!({ "mediaType": kind, "digest": digest(name) });
    for (entries, expected) in [
        (vec![entry(INDEX, "a"), entry(INDEX, "b")], Some("a")),
        (vec![entry(DOCKER_INDEX, "a")], Some("a")),
        // An image of its own goes before, and a signature is no index.
        (vec![entry(INDEX, "a"), entry(IMAGE, "b")], None),
        (vec![entry("application/x", "a")], None),
    ] {
        let found = parsed(&json!({ "mediaType": INDEX, "manifests": entries }));
        assert_eq!(found.index, expected.map(digest), "{entries:?}");
    }
}

#[test]
fn the_zero_time_of_go_is_no_build_time() {
    let created = |text: &str| config(json!({ "created": text }).to_string().as_bytes()).created;
    for text in [
        "0001-01-01T00:00:00Z",
        "0001-06-30T12:00:00+02:00",
        "0000-12-31T23:59:59Z",
    ] {
        assert_eq!(created(text), None, "{text}");
    }
    // A time that a reproducible build sets is kept.
    assert_eq!(
        created("1970-01-01T00:00:00Z"),
        Some(OffsetDateTime::UNIX_EPOCH)
    );
}

#[test]
fn an_artifact_has_a_type_and_no_config() {
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
        let found = parsed(&manifest);
        assert_eq!(found.artifact_type.as_deref(), kind, "{manifest}");
        assert_eq!(found.config, None);
    }
}

#[test]
fn a_schema_1_manifest_has_only_a_media_type() {
    let old = json!({ "schemaVersion": 1, "name": "shop/web", "tag": "latest", "architecture": "amd64", "fsLayers": [], "history": [] });
    let expected = ManifestFields {
        media_type: Some(SCHEMA_1.to_owned()),
        ..ManifestFields::default()
    };
    assert_eq!(parsed(&old), expected);
}

#[test]
fn a_config_holds_creation_time_platform_and_labels() {
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
fn malformed_fields_are_left_out_and_the_rest_is_kept() {
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
        let found = parsed(&image);
        assert_eq!(found.annotations, map(&[("good", "kept")]), "{image}");
        assert_eq!(found.config, Some(digest("config")), "{image}");
        assert_eq!((found.image, found.platforms), (None, vec![]), "{image}");
        let config =
            json!({ "os": wrong, "architecture": "amd64", "created": wrong, "config": wrong });
        let found = super::config(config.to_string().as_bytes());
        assert_eq!((found.created, found.labels.len()), (None, 0), "{config}");
    }
    // A config over the limit is not read.
    let large = json!({ "config": { "mediaType": CONFIG, "digest": digest("c"), "size": 1024 * 1024 + 1 } });
    assert_eq!(parsed(&large).config, None);
}

#[test]
fn hostile_bytes_have_no_fields() {
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
        assert_eq!(
            super::manifest(&bytes),
            ManifestFields::default(),
            "{start}"
        );
        assert_eq!(super::config(&bytes), ImageConfig::default(), "{start}");
    }
    // Deep nesting beside the parsed fields and inside them.
    let (lists, artifact) = (deep("[", "]"), json!("x"));
    let whole = format!(
        r#"{{"x":{lists},"artifactType":{artifact},"annotations":{{"a":{lists},"b":"c"}},"manifests":[{lists}]}}"#
    );
    let found = super::manifest(whole.as_bytes());
    assert_eq!(found.artifact_type.as_deref(), Some("x"));
    assert_eq!(found.annotations, map(&[("b", "c")]));
}

#[test]
fn an_image_made_up_for_the_deletion_of_a_tag_is_a_tombstone() {
    let with = |labels: Value| {
        let config = json!({ "config": { "Labels": labels } });
        super::config(config.to_string().as_bytes()).is_tombstone()
    };
    assert!(with(json!({
        "delete-tag": "stable", "delete-date": "2026-03-03 14:02:13.9 +0000 UTC m=+0.02", "a": "b",
    })));
    assert!(!with(json!({ "delete-tag": "stable" })));
    assert!(!with(json!({ "delete-date": "2026-03-03" })));
    assert!(!with(json!({ "delete-tag": null, "delete-date": 7 })));
    assert!(!with(json!(null)));
}

#[test]
fn platforms_and_annotations_are_bounded() {
    let many: Vec<Value> = (0..100_000)
        .map(|n| json!({ "digest": digest(&n.to_string()), "platform": { "os": "linux", "architecture": format!("a{n}") } }))
        .collect();
    let labels: BTreeMap<String, String> = (0..100_000)
        .map(|n| (format!("{n:06}"), n.to_string()))
        .collect();
    let found = parsed(&json!({ "manifests": many, "annotations": labels }));
    assert_eq!(found.platforms.len(), Manifest::PLATFORMS);
    assert_eq!(found.annotations.len(), MAX_TEXTS);
    // Of two fields with the same name the last counts, as in most parsers.
    let twice = super::manifest(br#"{"mediaType":"a","mediaType":"b"}"#);
    assert_eq!(twice.media_type.as_deref(), Some("b"));
}
