//! The promises on which programs outside this repository rely.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use proptest::prelude::*;
use tagtrail_proto::*;
use time::macros::datetime;

fn revision() -> Revision {
    let image: Image = "registry.example.com/foo/bar:latest".parse().unwrap();
    let digest = Digest::sha256_of(b"17");
    Revision {
        registry: image.registry.clone(),
        repository: image.repository.clone(),
        tag: image.tag.clone(),
        revision: 17,
        kind: Kind::Moved,
        pinned: Some(image.pinned(&digest)),
        previous: Some(Point {
            revision: 16,
            digest: Some(Digest::sha256_of(b"16")),
        }),
        late: false,
        head: Point {
            revision: 17,
            digest: Some(digest.clone()),
        },
        digest: Some(digest),
        occurred_at: datetime!(2026-03-03 14:02:11.5 UTC),
        recorded_at: datetime!(2026-03-03 14:02:12 UTC),
        origin: Origin::Event,
        source: "main".to_owned(),
        actor: Some("ci-bot".to_owned()),
        media_type: None,
        size: Some(1234),
    }
}

fn push() -> Push {
    Push {
        action: Action::Push,
        scope: Scope::Tag,
        registry: "registry.example.com:5443".parse().unwrap(),
        repository: "org/unit/api".parse().unwrap(),
        tag: Some("v1.0".parse().unwrap()),
        digest: Some(Digest::sha256_of(b"")),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        size: Some(999),
        actor: None,
        occurred_at: datetime!(2026-03-09 10:08:09.987654321 UTC),
        occurred_at_source: TimeSource::Event,
        source: "main".to_owned(),
        origin: Origin::Event,
        event_id: "e1".to_owned(),
    }
}

#[test]
fn a_revision_is_written_as_the_contract_says() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&revision().event()).unwrap(), @r#"
    {
      "specversion": "1.0",
      "id": "registry.example.com/foo/bar:latest#17",
      "source": "tagtrail/registry.example.com/foo/bar",
      "type": "dev.tagtrail.revision.v1",
      "subject": "registry.example.com/foo/bar:latest",
      "time": "2026-03-03T14:02:11.500000Z",
      "datacontenttype": "application/json",
      "data": {
        "registry": "registry.example.com",
        "repository": "foo/bar",
        "tag": "latest",
        "revision": 17,
        "kind": "moved",
        "digest": "sha256:4523540f1504cd17100c4835e85b7eefd49911580f8efff0599a8f283be6b9e3",
        "pinned": "registry.example.com/foo/bar@sha256:4523540f1504cd17100c4835e85b7eefd49911580f8efff0599a8f283be6b9e3",
        "previous": {
          "revision": 16,
          "digest": "sha256:b17ef6d19c7a5b1ee83b907c595526dcb1eb06db8227d650d5dda0a9f4ce8cd9"
        },
        "late": false,
        "head": {
          "revision": 17,
          "digest": "sha256:4523540f1504cd17100c4835e85b7eefd49911580f8efff0599a8f283be6b9e3"
        },
        "occurred_at": "2026-03-03T14:02:11.500000Z",
        "recorded_at": "2026-03-03T14:02:12.000000Z",
        "origin": "event",
        "source": "main",
        "actor": "ci-bot",
        "media_type": null,
        "size": 1234
      }
    }
    "#);
}

fn manifest() -> Manifest {
    Manifest {
        digest: Digest::sha256_of(b"17"),
        registry: "registry.example.com".parse().unwrap(),
        repository: "foo/bar".parse().unwrap(),
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        size: 1234,
        artifact_type: None,
        platforms: vec![Platform {
            os: "linux".to_owned(),
            architecture: "arm64".to_owned(),
            variant: Some("v8".to_owned()),
            os_version: None,
            digest: Some(Digest::sha256_of(b"arm64")),
        }],
        created: Some(datetime!(2026-03-03 13:58 UTC)),
        labels: [("maintainer".to_owned(), "Ann".to_owned())].into(),
        annotations: [(
            "org.opencontainers.image.revision".to_owned(),
            "9f2c".to_owned(),
        )]
        .into(),
        revision: Some("9f2c".to_owned()),
        source: None,
        version: None,
        tombstone: false,
        image: Some(ImageContents {
            digest: Digest::sha256_of(b"amd64"),
            platform: Some("linux/amd64".to_owned()),
            size: 28_200_000,
            layers: vec![Layer {
                digest: Digest::sha256_of(b"layer"),
                size: 28_200_000,
                created_by: Some("COPY /app /app".to_owned()),
            }],
            layers_left_out: 0,
            settings: Some(ImageSettings {
                environment: [("PATH".to_owned(), "/bin".to_owned())].into(),
                user: Some("65532".to_owned()),
                ports: vec!["8080/tcp".to_owned()],
                entrypoint: vec!["/app/server".to_owned()],
                command: Vec::new(),
                left_out: LeftOut::default(),
            }),
        }),
        index: Some(IndexContents {
            children: vec![Child {
                digest: Digest::sha256_of(b"amd64"),
                size: 528,
                media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
                platform: Some("linux/amd64".to_owned()),
            }],
            children_left_out: 0,
        }),
        read_at: datetime!(2026-03-03 14:02:13 UTC),
    }
}

#[test]
fn a_manifest_is_written_as_the_contract_says() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&manifest().event()).unwrap(), @r#"
    {
      "specversion": "1.0",
      "id": "sha256:4523540f1504cd17100c4835e85b7eefd49911580f8efff0599a8f283be6b9e3",
      "source": "tagtrail/registry.example.com/foo/bar",
      "type": "dev.tagtrail.manifest.v1",
      "subject": "registry.example.com/foo/bar@sha256:4523540f1504cd17100c4835e85b7eefd49911580f8efff0599a8f283be6b9e3",
      "time": "2026-03-03T14:02:13.000000Z",
      "datacontenttype": "application/json",
      "data": {
        "digest": "sha256:4523540f1504cd17100c4835e85b7eefd49911580f8efff0599a8f283be6b9e3",
        "registry": "registry.example.com",
        "repository": "foo/bar",
        "media_type": "application/vnd.oci.image.index.v1+json",
        "size": 1234,
        "artifact_type": null,
        "platforms": [
          {
            "os": "linux",
            "architecture": "arm64",
            "variant": "v8",
            "digest": "sha256:f69162950f235e3cdbbad33f1f912d1a504be90d8a37d002c735d6f3e3882265"
          }
        ],
        "created": "2026-03-03T13:58:00.000000Z",
        "labels": {
          "maintainer": "Ann"
        },
        "annotations": {
          "org.opencontainers.image.revision": "9f2c"
        },
        "revision": "9f2c",
        "source": null,
        "version": null,
        "tombstone": false,
        "image": {
          "digest": "sha256:5861314d7fccb39c2192173240eab44fa35ca66426201ca2acd0630a6258dd51",
          "platform": "linux/amd64",
          "size": 28200000,
          "layers": [
            {
              "digest": "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85",
              "size": 28200000,
              "created_by": "COPY /app /app"
            }
          ],
          "layers_left_out": 0,
          "settings": {
            "environment": {
              "PATH": "/bin"
            },
            "user": "65532",
            "ports": [
              "8080/tcp"
            ],
            "entrypoint": [
              "/app/server"
            ],
            "command": [],
            "left_out": {
              "environment": 0,
              "ports": 0,
              "entrypoint": 0,
              "command": 0
            }
          }
        },
        "index": {
          "children": [
            {
              "digest": "sha256:5861314d7fccb39c2192173240eab44fa35ca66426201ca2acd0630a6258dd51",
              "size": 528,
              "media_type": "application/vnd.oci.image.manifest.v1+json",
              "platform": "linux/amd64"
            }
          ],
          "children_left_out": 0
        },
        "read_at": "2026-03-03T14:02:13.000000Z"
      }
    }
    "#);
}

#[test]
fn a_manifest_is_kept_within_bounds() {
    let long = "ü\0".repeat(10_000);
    let many: std::collections::BTreeMap<String, String> = (0..1000)
        .map(|n| (format!("label {n:04}"), long.clone()))
        .chain([(long.clone(), String::new())])
        .collect();
    let hostile = Manifest {
        media_type: long.clone(),
        artifact_type: Some(long.clone()),
        platforms: vec![manifest().platforms[0].clone(); 1000],
        created: Some(datetime!(2026-03-03 13:58:00.123456789 UTC)),
        labels: many.clone(),
        annotations: many,
        revision: Some(long),
        ..manifest()
    };
    let kept = hostile.cleaned();
    assert_eq!(kept.platforms.len(), 64);
    // 32 KiB hold this many labels, each with 10 bytes of key and 512 of value.
    assert_eq!(kept.labels.len(), 32 * 1024 / 522);
    assert!(kept.labels.keys().all(|key| key.starts_with("label 00")));
    assert_eq!(
        kept.created,
        Some(datetime!(2026-03-03 13:58:00.123456 UTC))
    );
    let text = serde_json::to_string(&kept.clone().event()).unwrap();
    assert!(text.len() < 100_000, "{}", text.len());
    assert!(!text.contains("\\u0000"));
    assert_eq!(kept.clone().cleaned(), kept);
    let few = (0..1000).map(|n| (n.to_string(), String::new()));
    let few = Manifest {
        labels: few.collect(),
        ..manifest()
    };
    assert_eq!(few.cleaned().labels.len(), 128);
    assert_eq!(manifest().cleaned(), manifest());
}

#[test]
fn contents_are_kept_within_bounds_and_name_what_is_left_out() {
    let long = "\"\0".repeat(1000);
    let layer = Layer {
        digest: Digest::sha256_of(b"layer"),
        size: u64::MAX,
        created_by: Some(long.clone()),
    };
    let child = Child {
        digest: Digest::sha256_of(b"child"),
        size: u64::MAX,
        media_type: Some(long.clone()),
        platform: Some(long.clone()),
    };
    let image = ImageContents {
        digest: Digest::sha256_of(b"image"),
        platform: Some(long.clone()),
        size: u64::MAX,
        layers: vec![layer; 10_000],
        layers_left_out: 3,
        settings: Some(ImageSettings {
            environment: (0..1000)
                .map(|n| (format!("NAME{n:04}"), long.clone()))
                .chain([(long.clone(), String::new())])
                .collect(),
            user: Some(long.clone()),
            ports: vec![long.clone(); 1000],
            entrypoint: vec![String::new(); 1000],
            command: vec!["short".to_owned(); 3],
            left_out: LeftOut::default(),
        }),
    };
    let index = IndexContents {
        children: vec![child; 1000],
        children_left_out: 0,
    };
    let many = (0..1000).map(|n| (format!("label {n:04}"), long.clone()));
    let hostile = Manifest {
        labels: many.clone().collect(),
        annotations: many.collect(),
        platforms: vec![
            Platform {
                os: long.clone(),
                architecture: long.clone(),
                variant: Some(long.clone()),
                os_version: Some(long.clone()),
                digest: None
            };
            1000
        ],
        image: Some(image),
        index: Some(index),
        ..manifest()
    };
    let kept = hostile.cleaned();
    let image = kept.image.clone().unwrap();
    assert_eq!((image.layers.len(), image.layers_left_out), (128, 9875));
    let settings = image.settings.unwrap();
    // 32 KiB hold this many variables, each with 8 bytes of name and 512 of value.
    let variables = 32 * 1024 / 520;
    assert_eq!(settings.environment.len(), variables);
    assert_eq!(settings.ports.len(), 16 * 1024 / 512);
    assert_eq!(
        (settings.entrypoint.len(), settings.command.len()),
        (128, 3)
    );
    let left_out = LeftOut {
        environment: 1001 - variables as u64,
        ports: 1000 - 32,
        entrypoint: 872,
        command: 0,
    };
    assert_eq!(settings.left_out, left_out);
    let index = kept.index.clone().unwrap();
    assert_eq!((index.children.len(), index.children_left_out), (32, 968));
    let text = serde_json::to_vec(&kept.clone().event()).unwrap();
    assert!(text.len() < 1024 * 1024, "{} bytes", text.len());
    assert_eq!(kept.clone().cleaned(), kept);
}

#[test]
fn a_text_that_is_cut_says_so_and_equals_only_a_cut_of_the_same_text() {
    let cut = |value: String| {
        let settings = ImageSettings {
            environment: [("A".to_owned(), value)].into(),
            ..ImageSettings::default()
        };
        settings.cleaned().environment.remove("A").unwrap()
    };
    let whole = "x".repeat(512);
    assert_eq!(cut(whole.clone()), whole);
    let (one, other) = (cut(format!("{whole}1")), cut(format!("{whole}2")));
    assert_eq!(one.len(), 512);
    assert!(one.contains("x… (513 bytes, sha256:"), "{one}");
    assert_ne!(one, other);
    // The cut falls between characters.
    assert!(cut("ü".repeat(600_000)).contains("ü… (1200000 bytes"));
}

#[test]
fn a_manifest_of_an_earlier_version_has_no_contents() {
    let mut event = serde_json::to_value(manifest().event()).unwrap();
    let fields = event["data"].as_object_mut().unwrap();
    fields.remove("image").unwrap();
    fields.remove("index").unwrap();
    let old: Event<Manifest> = serde_json::from_value(event).unwrap();
    let expected = Manifest {
        image: None,
        index: None,
        ..manifest()
    };
    assert_eq!(old.data, expected);
}

#[test]
fn events_are_read_as_they_were_written() {
    let text = serde_json::to_string(&manifest().event()).unwrap();
    assert_eq!(
        serde_json::from_str::<Event<Manifest>>(&text).unwrap(),
        manifest().event()
    );
    let text = serde_json::to_string(&revision().event()).unwrap();
    assert_eq!(
        serde_json::from_str::<Event<Revision>>(&text).unwrap(),
        revision().event()
    );
    let text = serde_json::to_string(&push().event()).unwrap();
    assert_eq!(
        serde_json::from_str::<Event<Push>>(&text).unwrap(),
        push().event()
    );
    assert!(
        text.contains("2026-03-09T10:08:09.987654321Z"),
        "nanoseconds are kept: {text}"
    );
}

#[test]
fn schemas_in_git_are_those_of_the_types() {
    for (file, schema) in schema::all() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("schemas")
            .join(file);
        let in_git = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            in_git,
            schema::text(&schema).unwrap(),
            "{file} is out of date: cargo run -p tagtrail-proto --example schemas"
        );
    }
}

#[test]
fn subjects_are_written_as_the_contract_says() {
    let push = push();
    let partition = partition_of(&push.registry, &push.repository, 8);
    let subject = Subject::Push {
        partition,
        registry: push.registry.clone(),
        repository: push.repository.clone(),
        tag: push.tag.clone(),
    };
    insta::assert_snapshot!(subject, @"tagtrail.push.1.registry%2Eexample%2Ecom%3A5443.org.unit.api.v1%2E0");
    let revision = revision();
    let subject = Subject::Revision {
        registry: revision.registry,
        repository: revision.repository,
        tag: revision.tag,
    };
    insta::assert_snapshot!(subject, @"tagtrail.revision.registry%2Eexample%2Ecom.foo.bar.latest");
    let subject = Subject::Manifest {
        digest: Digest::sha256_of(b""),
    };
    insta::assert_snapshot!(subject, @"tagtrail.manifest.sha256.e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    // The hash was computed with another program.
    let hold = Subject::of_hold("shop-*");
    insta::assert_snapshot!(hold, @"tagtrail.hold.2a9b65930a8cdc04");
    assert_eq!(hold.to_string().parse::<Subject>().unwrap(), hold);
    assert!("tagtrail.hold.1".parse::<Subject>().is_err());
    let whole = Subject::Push {
        partition: 3,
        registry: push.registry,
        repository: push.repository,
        tag: None,
    };
    insta::assert_snapshot!(whole, @"tagtrail.push.3.registry%2Eexample%2Ecom%3A5443.org.unit.api.%");
}

#[test]
fn the_partition_of_a_repository_never_changes() {
    let partition = |registry: &str, repository: &str, partitions| {
        partition_of(
            &registry.parse().unwrap(),
            &repository.parse().unwrap(),
            partitions,
        )
    };
    // The first 8 bytes of SHA-256("registry.example.com/foo/bar") and the others, modulo 8 and
    // 256, computed with another program.
    let known = [
        ("registry.example.com", "foo/bar"),
        ("registry.example.com", "shop/web"),
        ("localhost:5000", "a"),
    ]
    .map(|(registry, repository)| {
        (
            partition(registry, repository, 8),
            partition(registry, repository, 256),
        )
    });
    assert_eq!(known, [(0, 120), (4, 140), (5, 101)]);
}

#[test]
fn a_retry_keeps_its_message_id_and_another_push_has_its_own() {
    // Computed with another program.
    assert_eq!(
        push().message_id(),
        "11a357e3e9f1cc85bdfad4aad67cec6b7f668cfb680cdae0849e2d99338d1a38"
    );
    let mut other = push();
    other.digest = Some(Digest::sha256_of(b"other"));
    assert_ne!(other.message_id(), push().message_id());
    // The sender gave no time, and each retry is received at a different time.
    let received = |time| Push {
        occurred_at: time,
        occurred_at_source: TimeSource::Received,
        ..push()
    };
    assert_eq!(
        received(datetime!(2026-03-09 10:00 UTC)).message_id(),
        received(datetime!(2026-03-09 10:01 UTC)).message_id()
    );
}

#[test]
fn a_recheck_names_the_head_and_its_time() {
    let image: Image = "registry.example.com/foo/bar:latest".parse().unwrap();
    let question = Push::recheck(&image, 2, time::OffsetDateTime::UNIX_EPOCH, "main");
    assert_eq!(question.image(), Some(image));
    assert_eq!((&question.digest, &question.actor), (&None, &None));
    assert_eq!(question.occurred_at, time::OffsetDateTime::UNIX_EPOCH);
    assert_eq!(
        question.event_id,
        "doubt:registry.example.com/foo/bar:latest#2"
    );
}

#[test]
fn only_possible_pushes_pass_the_check() {
    let (tag, digest) = (push().tag, push().digest);
    for action in Action::ALL {
        for scope in Scope::ALL {
            for tag in [None, tag.clone()] {
                for digest in [None, digest.clone()] {
                    let candidate = Push {
                        action: *action,
                        scope: *scope,
                        tag: tag.clone(),
                        digest: digest.clone(),
                        ..push()
                    };
                    let expected = match (action, scope) {
                        (Action::Push, Scope::Tag) => tag.is_some() && digest.is_some(),
                        (Action::Push, _) => false,
                        (Action::Delete, Scope::Tag) => tag.is_some(),
                        (Action::Delete, Scope::Digest) => tag.is_none() && digest.is_some(),
                        (Action::Delete, Scope::Repository) => tag.is_none() && digest.is_none(),
                    };
                    assert_eq!(candidate.check().is_ok(), expected, "{candidate:?}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_subject_is_read_back_and_is_legal_for_nats(
        partition in any::<u16>(),
        registry in r"[a-z0-9]{1,8}\.[a-z]{2,3}(:[1-9][0-9]{0,3})?",
        repository in r"[a-z0-9]{1,5}((\.|_|__|-)[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5}){0,4}",
        tag in r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}",
    ) {
        let (registry, repository, tag): (Registry, Repository, Tag) = (registry.parse().unwrap(), repository.parse().unwrap(), tag.parse().unwrap());
        for subject in [
            Subject::Push { partition, registry: registry.clone(), repository: repository.clone(), tag: Some(tag.clone()) },
            Subject::Push { partition, registry: registry.clone(), repository: repository.clone(), tag: None },
            Subject::Unresolved { registry: registry.clone(), repository: repository.clone(), tag: tag.clone() },
            Subject::Manifest { digest: Digest::sha256_of(tag.as_ref().as_bytes()) },
            Subject::Manifest { digest: Digest::sha512_of(tag.as_ref().as_bytes()) },
            Subject::Revision { registry, repository, tag },
            Subject::Fence { partition },
        ] {
            let text = subject.to_string();
            prop_assert!(text.split('.').all(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-%".contains(&byte))), "{}", text);
            prop_assert_eq!(text.parse::<Subject>().unwrap(), subject);
        }
    }

    #[test]
    fn each_subject_has_a_single_spelling(text in r"tagtrail\.(push\.[0-9]{1,2}|revision|unresolved|fence|rollout|manifest|quarantine)(\.[a-zA-Z0-9%_-]{0,6}){0,4}") {
        if let Ok(subject) = text.parse::<Subject>() {
            prop_assert_eq!(subject.to_string(), text);
        }
    }
}
