use serde_json::{Value, json};
use tagtrail_proto::{ImageContents, LeftOut};
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
                layers: parsed(&image).layers,
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

/// Parses an image with these layers and this config.
fn image(layers: &Value, config: &Value) -> ImageContents {
    let image =
        json!({ "config": { "mediaType": CONFIG, "digest": digest("c") }, "layers": layers });
    let config = super::config(config.to_string().as_bytes());
    let layers = parsed(&image).layers.unwrap();
    contents(digest("image"), None, layers, Some(&config))
}

fn layer(name: &str, size: u64) -> Value {
    json!({ "mediaType": "x", "digest": digest(name), "size": size })
}

fn commands(image: &ImageContents) -> Vec<Option<&str>> {
    let layers = image.layers.iter();
    layers.map(|layer| layer.created_by.as_deref()).collect()
}

#[test]
fn an_image_has_layers_with_their_commands_and_settings() {
    let config = json!({
        "os": "linux", "architecture": "arm64", "variant": "v8",
        "config": {
            "Env": ["PATH=/usr/bin:/bin", "EMPTY=", "SUM=a=b", "PATH=/bin"], "User": "65532:65532",
            "ExposedPorts": { "8080/tcp": {}, "53/udp": {} }, "Entrypoint": ["/app/server"], "Cmd": ["--port", "8080"],
        },
        "history": [
            { "created_by": "ADD rootfs.tar /" }, { "created_by": "ENV PATH=/bin", "empty_layer": true },
            { "created_by": "COPY /app /app", "empty_layer": false },
        ],
    });
    let found = image(&json!([layer("one", 7), layer("two", 9)]), &config);
    assert_eq!(found.digest, digest("image"));
    assert_eq!(found.platform.as_deref(), Some("linux/arm64/v8"));
    assert_eq!((found.size, found.layers_left_out), (16, 0));
    let layers = found
        .layers
        .iter()
        .map(|one| (one.digest.clone(), one.size));
    let expected = [(digest("one"), 7), (digest("two"), 9)];
    assert_eq!(layers.collect::<Vec<_>>(), expected);
    assert_eq!(
        commands(&found),
        [Some("ADD rootfs.tar /"), Some("COPY /app /app")]
    );
    let expected = ImageSettings {
        environment: map(&[("PATH", "/bin"), ("EMPTY", ""), ("SUM", "a=b")]),
        user: Some("65532:65532".to_owned()),
        ports: vec!["53/udp".to_owned(), "8080/tcp".to_owned()],
        entrypoint: vec!["/app/server".to_owned()],
        command: vec!["--port".to_owned(), "8080".to_owned()],
        left_out: LeftOut::default(),
    };
    assert_eq!(found.settings, Some(expected));

    // The platform of an image of an index is the one that the index names.
    let windows = Platform {
        os: "windows".to_owned(),
        architecture: "amd64".to_owned(),
        variant: None,
        os_version: Some("10.0.20348.2113".to_owned()),
        digest: Some(digest("image")),
    };
    let unread = contents(digest("image"), Some(&windows), Layers::default(), None);
    let name = unread.platform.as_deref();
    assert_eq!(name, Some("windows/amd64:10.0.20348.2113"));
    assert_eq!(unread.settings, None);
}

#[test]
fn a_history_that_does_not_fit_the_layers_names_none_of_them() {
    let layers = json!([layer("one", 7), layer("two", 9)]);
    let entry = |command: &str| json!({ "created_by": command });
    let empty = json!({ "created_by": "ENV A=B", "empty_layer": true });
    for (history, expected) in [
        (
            json!([entry("a"), empty, entry("b")]),
            [Some("a"), Some("b")],
        ),
        (json!([entry("a"), {}]), [Some("a"), None]),
        (json!([entry(""), { "created_by": 7 }]), [None, None]),
        // An entry is missing, and nothing says to which layer it belongs.
        (json!([entry("a"), empty]), [None, None]),
        (json!([entry("a"), entry("b"), entry("c")]), [None, None]),
        (json!([]), [None, None]),
        (json!("x"), [None, None]),
        (json!([7, [1]]), [None, None]),
        // Only `true` marks an entry without a layer.
        (
            json!([{ "created_by": "a", "empty_layer": "true" }, entry("b")]),
            [Some("a"), Some("b")],
        ),
    ] {
        let found = image(&layers, &json!({ "history": history }));
        assert_eq!(commands(&found), expected, "{history}");
    }
}

#[test]
fn malformed_layers_and_settings_are_left_out_and_counted() {
    let layers = json!([
        layer("one", 7), 7, { "digest": "sha256:x", "size": 5 }, { "digest": digest("no size") },
        { "digest": digest("negative"), "size": -1 }, layer("two", 9),
    ]);
    let entries: Vec<Value> = (0..6)
        .map(|n| json!({ "created_by": n.to_string() }))
        .collect();
    let config = json!({
        "config": {
            "Env": ["A=1", 7, null, "no value", "=x", ["B=2"]], "User": 0, "ExposedPorts": ["80/tcp"],
            "Entrypoint": "/app/server", "Cmd": ["a", 7, "b"],
        },
        "history": entries,
    });
    let found = image(&layers, &config);
    assert_eq!((found.size, found.layers_left_out), (21, 4));
    assert_eq!(commands(&found), [Some("0"), Some("5")]);
    let expected = ImageSettings {
        environment: map(&[("A", "1")]),
        command: vec!["a".to_owned(), "b".to_owned()],
        left_out: LeftOut {
            environment: 5,
            command: 1,
            ..LeftOut::default()
        },
        ..ImageSettings::default()
    };
    assert_eq!(found.settings, Some(expected));
    for config in [
        json!({ "os": "linux", "architecture": "amd64" }),
        json!({ "config": 7 }),
        json!({ "config": { "Env": {} } }),
    ] {
        let found = image(&json!([]), &config);
        assert_eq!(found.settings, Some(ImageSettings::default()), "{config}");
    }
    // Bytes that are no config say nothing about settings.
    for bytes in [json!([1]), json!({}), json!({ "os": "linux" })] {
        assert_eq!(image(&json!([]), &bytes).settings, None, "{bytes}");
    }
    let no_list = json!({ "config": { "mediaType": CONFIG, "digest": digest("c") }, "layers": 7 });
    assert_eq!(parsed(&no_list).layers, None);
    // Layers of an artifact are no layers of an image.
    let chart = json!({ "config": { "mediaType": "application/x", "digest": digest("c") }, "layers": [layer("one", 7)] });
    assert_eq!(parsed(&chart).layers, None);
}

#[test]
fn layers_and_settings_are_bounded() {
    let layers: Vec<Value> = (0..10_000).map(|n| layer(&n.to_string(), 1)).collect();
    let entries: Vec<Value> = (0..10_000)
        .map(|n| json!({ "created_by": format!("RUN {n} {}", "x".repeat(600)) }))
        .collect();
    let variables: Vec<String> = (0..10_000).map(|n| format!("NAME{n:05}=1")).collect();
    let ports: BTreeMap<String, Value> = (0..10_000).map(|n| (n.to_string(), json!({}))).collect();
    let config = json!({
        "config": { "Env": variables, "ExposedPorts": ports, "Entrypoint": vec!["a"; 10_000], "User": "u".repeat(1_000_000) },
        "history": entries,
    });
    let found = image(&json!(layers), &config);
    assert_eq!((found.layers.len(), found.layers_left_out), (128, 9872));
    assert_eq!(found.size, 10_000, "of all layers");
    let last = found.layers[127].created_by.as_deref().unwrap();
    assert!(
        last.starts_with("RUN 127 x") && last.ends_with(')'),
        "{last}"
    );
    let settings = found.settings.unwrap();
    let lengths = [
        settings.environment.len(),
        settings.ports.len(),
        settings.entrypoint.len(),
    ];
    assert_eq!(lengths, [128, 128, 128]);
    let left_out = LeftOut {
        environment: 9872,
        ports: 9872,
        entrypoint: 9872,
        command: 0,
    };
    assert_eq!(settings.left_out, left_out);
    assert_eq!(settings.user.unwrap().len(), Manifest::TEXT);

    let value = format!("A={}", "x".repeat(1024 * 1024 - 2));
    let found = image(&json!([]), &json!({ "config": { "Env": [value] } }));
    let kept = &found.settings.unwrap().environment["A"];
    assert!(
        kept.len() == Manifest::TEXT && kept.contains("… (1048574 bytes, sha256:"),
        "{kept}"
    );
    let sizes = json!([layer("one", u64::MAX), layer("two", 1)]);
    assert_eq!(image(&sizes, &json!({})).size, u64::MAX);
}

#[test]
fn an_index_has_its_manifests_with_their_sizes() {
    let entry = |name: &str, platform: Value| json!({ "mediaType": IMAGE, "digest": digest(name), "size": 528, "platform": platform });
    let found = parsed(&json!({ "mediaType": INDEX, "manifests": [
        entry("arm", json!({ "os": "linux", "architecture": "arm64", "variant": "v8" })),
        entry("attestation", json!({ "os": "unknown", "architecture": "unknown" })),
        { "digest": digest("bare"), "size": 9 }, { "digest": digest("no size") }, "x",
    ]}));
    let index = found.children.unwrap();
    let children: Vec<_> = index
        .children
        .iter()
        .map(|one| (one.digest.clone(), one.size, one.platform.as_deref()))
        .collect();
    let expected = [
        (digest("arm"), 528, Some("linux/arm64/v8")),
        (digest("attestation"), 528, None),
        (digest("bare"), 9, None),
    ];
    assert_eq!(children, expected);
    assert_eq!(index.children[0].media_type.as_deref(), Some(IMAGE));
    assert_eq!((index.children_left_out, found.layers), (2, None));

    let many: Vec<Value> = (0..10_000)
        .map(|n| entry(&n.to_string(), json!({})))
        .collect();
    let index = parsed(&json!({ "manifests": many })).children.unwrap();
    assert_eq!((index.children.len(), index.children_left_out), (128, 9872));
    assert_eq!(parsed(&json!({ "manifests": 7 })).children, None);
    let image = json!({ "config": { "mediaType": CONFIG, "digest": digest("c") }, "layers": [] });
    assert_eq!(parsed(&image).children, None);
}
