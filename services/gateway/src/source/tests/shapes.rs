//! Forms that vendors document and no fixture has.

use super::*;

fn one(kind: &str, registry: Option<&str>, body: &Value) -> Meaning {
    one_with(kind, registry, &[], &body.to_string())
}

fn one_with(
    kind: &str,
    registry: Option<&str>,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Meaning {
    let route = Route::of(registry);
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    let mut events = decode_with(kind, &route, &map, body.as_bytes()).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn changed(file: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut body = serde_json::from_slice(&fixture(file)).unwrap();
    change(&mut body);
    body
}

fn image(decoded: Meaning) -> String {
    match decoded {
        Meaning::Push(push) | Meaning::Unresolved(push) => push.image().unwrap().to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn harbor_1_10() {
    let body = changed("harbor-push-nested-repo.json", |body| {
        body["type"] = "pushImage".into()
    });
    assert_eq!(
        image(one("harbor", None, &body)),
        "harbor.example.com:8443/team/backend/api/app:latest"
    );
    let documented = json!({
        "event_type": "pushImage",
        "events": [{
            "project": "prj", "repo_name": "repo1", "tag": "latest", "full_name": "prj/repo1",
            "trigger_time": 1_583_222_332_130_u64, "image_id": DIGEST, "project_type": "Private"
        }]
    });
    let Meaning::Unresolved(push) = one("harbor", Some("harbor.example.com"), &documented) else {
        panic!("an image's id is no digest")
    };
    assert_eq!(push.occurred_at, datetime!(2020-03-03 07:58:52.13 UTC));
    let mut unnamed = decode("harbor", None, documented.to_string().as_bytes()).unwrap();
    assert!(
        matches!(unnamed.remove(0), Meaning::Malformed(why) if why.to_string().contains("set `registry`"))
    );
}

#[test]
fn harbor_with_several_resources() {
    let body = changed("harbor-cloudevents-push.json", |body| {
        let mut second = body["data"]["resources"][0].clone();
        second["tag"] = "1.4".into();
        body["data"]["resources"]
            .as_array_mut()
            .unwrap()
            .push(second);
    });
    let events = decode("harbor", None, body.to_string().as_bytes()).unwrap();
    let tags: Vec<String> = events.into_iter().map(image).collect();
    assert_eq!(
        tags,
        [
            "harbor.example.com/team/app:1.4.3",
            "harbor.example.com/team/app:1.4"
        ]
    );
}

#[test]
fn a_repository_that_is_part_of_harbors_host_is_not_looked_for_there() {
    let body = changed("harbor-push-nested-repo.json", |body| {
        body["event_data"]["repository"]["repo_full_name"] = "app/app".into();
        body["event_data"]["resources"][0]["resource_url"] = "app/app/app:latest".into();
    });
    // "app" is no registry, but stands in its place.
    let mut events = decode("harbor", None, body.to_string().as_bytes()).unwrap();
    assert!(matches!(events.remove(0), Meaning::Malformed(_)));
}

#[test]
fn docker_hubs_older_times() {
    let body = changed("dockerhub-push.json", |body| {
        body["push_data"]["pushed_at"] = json!(1.773_043_2e9);
    });
    let Meaning::Unresolved(push) = one("dockerhub", None, &body) else {
        panic!()
    };
    assert_eq!(push.occurred_at, datetime!(2026-03-09 08:00 UTC));
}

#[test]
fn github_without_metadata() {
    // The update of a version: its address still names the tag.
    let body = changed("ghcr-package-published.json", |body| {
        body["action"] = "updated".into();
        body["package"]["package_version"]["container_metadata"] = Value::Null;
        body["package"]["package_version"]["package_url"] = "ghcr.io/Acme/App:1.4.2".into();
    });
    assert_eq!(image(one("ghcr", None, &body)), "ghcr.io/acme/app:1.4.2");
    let body = changed("ghcr-package-published.json", |body| {
        body["package"]["package_version"] = Value::Null;
    });
    assert_eq!(one("ghcr", None, &body), Meaning::Ignored);
    let body = changed("ghcr-package-published.json", |body| {
        body["action"] = "deleted".into()
    });
    assert_eq!(one("ghcr", None, &body), Meaning::Ignored);
}

#[test]
fn gitea_with_headers_of_forgejo() {
    let json = String::from_utf8(fixture("gitea-package-created-tag.json")).unwrap();
    let headers = [
        ("x-forgejo-event", "package"),
        ("x-forgejo-delivery", "of-forgejo"),
        ("x-gitea-delivery", "of-gitea"),
    ];
    let Meaning::Unresolved(push) = one_with("forgejo", None, &headers, &json) else {
        panic!()
    };
    assert_eq!(
        (push.event_id.as_str(), push.repository.as_ref()),
        ("of-forgejo", "acme/app")
    );
    let headers = [("x-gitea-event", "push"), ("x-github-event", "package")];
    assert_eq!(one_with("gitea", None, &headers, "{}"), Meaning::Ignored);
    // A part of an index has its digest as version.
    let body = changed("gitea-package-created-tag.json", |body| {
        body["package"]["version"] = DIGEST.into()
    });
    assert_eq!(one("gitea", None, &body), Meaning::Ignored);
    let body = changed("gitea-package-deleted.json", |body| {
        body["package"]["version"] = DIGEST.into()
    });
    assert_eq!(pushed(one("gitea", None, &body)).scope, Scope::Digest);
}

#[test]
fn zot_in_binary_mode() {
    let whole: Value = serde_json::from_slice(&fixture("zot-nats-image-updated.json")).unwrap();
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-type", "zotregistry.image.updated"),
        ("ce-id", "of-the-header"),
        ("ce-time", "2026-03-09T08:50:00.5Z"),
        ("content-type", "application/json"),
    ];
    let zot = Some("zot.example.com:5000");
    let push = pushed(one_with("zot", zot, &headers, &whole["data"].to_string()));
    assert_eq!(
        push.image().unwrap().to_string(),
        "zot.example.com:5000/golang:1.20"
    );
    assert_eq!(push.event_id, "of-the-header");
    assert_eq!(push.occurred_at, datetime!(2026-03-09 08:50:00.5 UTC));
    // The delete of a digest removes all its tags.
    let mut data = whole["data"].clone();
    data["reference"] = data["digest"].clone();
    let headers = [("ce-type", "zotregistry.image.deleted"), ("ce-id", "x")];
    let push = pushed(one_with("zot", zot, &headers, &data.to_string()));
    assert_eq!((push.scope, push.tag), (Scope::Digest, None));
}

#[test]
fn ecr_in_envelopes() {
    let event = String::from_utf8(fixture("ecr-push.json")).unwrap();
    let sns = json!({"Type": "Notification", "Message": event}).to_string();
    let sqs = json!({"Records": [
        {"messageId": "1", "eventSource": "aws:sqs", "body": sns},
        {"messageId": "2", "eventSource": "aws:sqs", "body": "{"},
        {"messageId": "3", "eventSource": "aws:sqs", "body": event},
    ]});
    let events = decode("ecr", None, sqs.to_string().as_bytes()).unwrap();
    assert!(
        matches!(
            events.as_slice(),
            [Meaning::Push(_), Meaning::Malformed(_), Meaning::Push(_)]
        ),
        "{events:?}"
    );
    let mut deep = event;
    for _ in 0..5 {
        deep = json!({"Type": "Notification", "Message": deep}).to_string();
    }
    assert!(decode("ecr", None, deep.as_bytes()).is_err());
    let asks =
        json!({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example/confirm"});
    let asks = decode("ecr", None, asks.to_string().as_bytes()).unwrap_err();
    assert!(
        asks.to_string()
            .ends_with("open https://sns.example/confirm"),
        "{asks}"
    );
}

#[test]
fn ecr_elsewhere() {
    let body = changed("ecr-push.json", |body| body["region"] = "cn-north-1".into());
    assert_eq!(
        image(one("ecr", None, &body)),
        "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/team/web:latest"
    );
    let body = changed("ecr-push.json", |body| {
        body["detail"]["result"] = "FAILURE".into()
    });
    assert_eq!(one("ecr", None, &body), Meaning::Ignored);
    let cached = changed("ecr-push.json", |body| {
        body["detail-type"] = "ECR Pull Through Cache Action".into();
        body["detail"] = json!({
            "sync-status": "SUCCESS", "repository-name": "hub/alpine", "image-tag": "3", "image-digest": DIGEST
        });
    });
    assert!(image(one("ecr", None, &cached)).ends_with("/hub/alpine:3"));
}

#[test]
fn googles_tag_and_digest_of_two_images() {
    let body = changed("gar-unwrapped.json", |body| {
        body["tag"] = "us-east1-docker.pkg.dev/other/app:v1".into()
    });
    assert!(decode("gar", None, body.to_string().as_bytes()).is_err());
    for body in [
        json!({"message": {"data": "!"}}),
        json!({"message": {}}),
        json!({"action": "INSERT"}),
    ] {
        assert!(
            decode("gar", None, body.to_string().as_bytes()).is_err(),
            "{body}"
        );
    }
}

#[test]
fn azures_handshakes_and_schemas() {
    let question = json!([{
        "id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6", "validationUrl": "https://example.com"}
    }]);
    assert_eq!(
        one("acr", None, &question),
        Meaning::Handshake(json!({"validationResponse": "512d38b6"}))
    );
    let grid: Value = serde_json::from_slice(&fixture("acr-eventgrid-push.json")).unwrap();
    let cloud = json!({
        "specversion": "1.0", "type": "Microsoft.ContainerRegistry.ImagePushed", "id": "1", "data": grid[0]["data"]
    });
    assert_eq!(one("acr", None, &cloud), one("acr", None, &grid));
    assert_eq!(
        image(one("acr", None, &cloud)),
        "acmeregistry.azurecr.io/team/hello:v1"
    );
}

#[test]
fn artifactory_by_every_access() {
    let image_by = |access, registry: Option<&str>| {
        let route = Route::with(registry, "artifactory_access", access);
        let body = changed("artifactory-deleted.json", |body| {
            body["event_type"] = "promoted".into()
        });
        let decoded = decode_with(
            "artifactory",
            &route,
            &HeaderMap::new(),
            body.to_string().as_bytes(),
        );
        decoded.map(|mut events| image(events.remove(0)))
    };
    assert_eq!(
        image_by("repository-path", None).unwrap(),
        "acme.jfrog.io/docker-local/team/app:1.4.2"
    );
    assert_eq!(
        image_by("sub-domain", None).unwrap(),
        "docker-local.acme.jfrog.io/team/app:1.4.2"
    );
    assert!(image_by("port", None).is_err());
    assert_eq!(
        image_by("port", Some("acme.example.com:8444")).unwrap(),
        "acme.example.com:8444/team/app:1.4.2"
    );
}

#[test]
fn artifactorys_local_repository_is_the_virtual_one_that_clients_name() {
    let configure = |settings: Value| {
        let route = Route {
            settings: serde_json::from_value(settings).unwrap(),
            ..Route::of(None)
        };
        let kind = Kind::named("artifactory").unwrap();
        kind.configure(&route.settings).map(|_| route)
    };
    let behind = json!({ "docker": ["docker-remote", "docker-local"], "other": ["x"] });
    for (access, expected) in [
        ("repository-path", "acme.jfrog.io/docker/team/app:1.4.2"),
        ("sub-domain", "docker.acme.jfrog.io/team/app:1.4.2"),
    ] {
        let route = json!({ "virtual": behind, "artifactory_access": access });
        let route = configure(route).unwrap();
        let body = fixture("artifactory-deleted.json");
        let decoded = decode_with("artifactory", &route, &HeaderMap::new(), &body);
        assert_eq!(image(decoded.unwrap().remove(0)), expected);
    }
    for (wrong, message) in [
        (
            json!({ "virtual": { "a": ["x"], "b": ["x"] } }),
            "\"x\" is behind \"a\" and \"b\"",
        ),
        (
            json!({ "virtual": { "a": ["x", "x"] } }),
            "\"x\" is behind \"a\" and \"a\"",
        ),
        (
            json!({ "virtual": { "a": ["a"] } }),
            "\"a\" is behind itself",
        ),
        (
            json!({ "virtual": behind, "artifactory_access": "port" }),
            "no repository key",
        ),
    ] {
        let error = configure(wrong).map(|_| ()).unwrap_err();
        assert!(
            error.key == "virtual" && error.message.contains(message),
            "{error:?}"
        );
    }
}

#[test]
fn artifactorys_image_is_its_path_without_tag_and_file() {
    let decoded = |path: Value| {
        let body = changed("artifactory-deleted.json", |body| {
            body["data"]["path"] = path;
        });
        decode("artifactory", None, body.to_string().as_bytes())
    };
    for (path, expected) in [
        ("web/1.4.2/manifest.json", "web"),
        ("team-a/web/1.4.2/manifest.json", "team-a/web"),
        ("team-b/web/1.4.2/manifest.json", "team-b/web"),
        ("/a/b/c/d/1.4.2/list.manifest.json", "a/b/c/d"),
    ] {
        let mut events = decoded(path.into()).unwrap();
        assert_eq!(
            image(events.remove(0)),
            format!("acme.jfrog.io/docker-local/{expected}:1.4.2")
        );
    }
    for path in [
        json!(null),
        json!(""),
        json!("manifest.json"),
        json!("1.4.2/manifest.json"),
        json!("//manifest.json"),
    ] {
        assert!(decoded(path.clone()).is_err(), "{path}");
    }
}

#[test]
fn a_time_of_something_else_is_not_the_events_own() {
    let own = |kind: &str, file: &str, change: fn(&mut Value)| {
        let (Meaning::Push(push) | Meaning::Unresolved(push)) =
            one(kind, None, &changed(file, change))
        else {
            panic!("{file}")
        };
        (push.occurred_at_source == TimeSource::Event).then_some(push.occurred_at)
    };
    let deleted = datetime!(2026-03-09 19:45 UTC);
    // The time of the push is no time of the delete after it.
    let time = own("msr", "msr-tag-delete.json", |body| {
        body["contents"]["pushedAt"] = "2026-01-02T03:04:05Z".into();
    });
    assert_eq!(time, Some(deleted));
    let time = own("msr", "msr-tag-delete.json", |body| {
        body["contents"]["pushedAt"] = "2026-01-02T03:04:05Z".into();
        body["contents"]["deletedAt"] = Value::Null;
        body["createdAt"] = "2026-03-09T19:46:00Z".into();
    });
    assert_eq!(time, Some(datetime!(2026-03-09 19:46 UTC)));
    let time = own("msr", "msr-tag-push.json", |body| {
        body["contents"]["deletedAt"] = "2026-01-02T03:04:05Z".into();
    });
    assert_eq!(time, Some(datetime!(2026-03-09 19:39:40 UTC)));
    assert_eq!(own("gitea", "gitea-package-deleted.json", |_| {}), None);
    let time = own("gitea", "gitea-package-created-tag.json", |_| {});
    assert_eq!(time, Some(datetime!(2026-03-09 08:40 UTC)));
    // GHCR: the last change of the package, but not its creation.
    let time = own("ghcr", "ghcr-package-published.json", |body| {
        body["package"]["package_version"]["updated_at"] = "2026-03-01T00:00:00Z".into();
    });
    assert_eq!(time, Some(datetime!(2026-03-09 08:30 UTC)));
    let time = own("ghcr", "ghcr-package-published.json", |body| {
        body["package"]["created_at"] = "2026-03-09T08:30:00Z".into();
    });
    assert_eq!(time, None);
}

#[test]
fn nexus_with_routing_by_path() {
    let route = Route::with(Some("nexus.example.com"), "nexus_access", "repository-path");
    let body = fixture("nexus-component-created.json");
    let mut events = decode_with("nexus", &route, &HeaderMap::new(), &body).unwrap();
    assert_eq!(
        image(events.remove(0)),
        "nexus.example.com/docker-hosted/team/app:3.4"
    );
}

#[test]
fn mirantis_without_a_host() {
    let body = changed("msr-tag-push.json", |body| {
        body["contents"]["imageName"] = "ops/tool:latest".into()
    });
    assert!(decode("msr", None, body.to_string().as_bytes()).is_err());
    assert_eq!(
        image(one("msr", Some("msr.example.com"), &body)),
        "msr.example.com/ops/tool:latest"
    );
}
