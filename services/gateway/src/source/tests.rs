//! The decoding of each kind: the fixtures, and malformed bodies.

mod captured;
mod shapes;

use std::collections::BTreeMap;

use axum::http::HeaderName;
use serde::Deserialize;
use serde_json::json;
use tagtrail_proto::{Action, Origin, Scope, TimeSource, instant};
use time::macros::datetime;

use super::*;

const RECEIVED_AT: OffsetDateTime = datetime!(2026-03-10 12:00 UTC);
const DIGEST: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn fixture(file: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/fixtures/{file}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn decode(kind: &str, registry: Option<&str>, body: &[u8]) -> Result<Vec<Meaning>, DecodeError> {
    let route = Route::of(registry);
    decode_with(kind, &route, &HeaderMap::new(), body)
}

fn decode_with(
    kind: &str,
    route: &Route,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Vec<Meaning>, DecodeError> {
    let registry = route.registry.as_ref().map(|name| name.parse().unwrap());
    let source = "main".parse().unwrap();
    let names = Names::default();
    let ctx = Context {
        source: &source,
        registry: registry.as_ref(),
        names: &names,
        received_at: RECEIVED_AT,
        unread_times: RefCell::default(),
    };
    let options = Kind::named(kind).unwrap().configure(&route.settings);
    (options.unwrap().decode)(headers, body, &ctx)
}

/// Decodes an event of kind `generic`.
fn generic(event: &Value) -> Result<Meaning, DecodeError> {
    let mut events = decode(
        "generic",
        Some("registry.example.com"),
        event.to_string().as_bytes(),
    )?;
    assert_eq!(events.len(), 1);
    match events.remove(0) {
        Meaning::Malformed(malformed) => Err(malformed),
        decoded => Ok(decoded),
    }
}

/// Decodes an event of kind `generic` that is a push with a digest.
fn generic_push(event: &Value) -> Push {
    match generic(event).unwrap() {
        Meaning::Push(push) => *push,
        other => panic!("not a push with a digest: {other:?}"),
    }
}

/// Decodes an event of kind `distribution`, the push of a tag, with some fields changed.
fn distribution(change: impl FnOnce(&mut Value)) -> Meaning {
    let mut body: Value =
        serde_json::from_slice(&fixture("distribution-push-sha512.json")).unwrap();
    change(&mut body["events"][0]);
    let mut events = decode("distribution", None, body.to_string().as_bytes()).unwrap();
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn pushed(decoded: Meaning) -> Push {
    match decoded {
        Meaning::Push(push) => *push,
        other => panic!("not a push with a digest: {other:?}"),
    }
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    file: String,
    kind: String,
    headers: BTreeMap<String, String>,
    route: Option<Route>,
    outcome: String,
    events: Vec<Expected>,
}

/// The settings of the source in `tagtrail.toml`.
#[derive(Clone, Default, Deserialize)]
struct Route {
    registry: Option<String>,
    #[serde(flatten)]
    settings: Settings,
}

impl Route {
    fn of(registry: Option<&str>) -> Route {
        Route {
            registry: registry.map(str::to_owned),
            settings: Settings::default(),
        }
    }

    fn with(registry: Option<&str>, key: &str, value: &str) -> Route {
        Route {
            settings: serde_json::from_value(json!({ key: value })).unwrap(),
            ..Route::of(registry)
        }
    }
}

impl Case {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    fn decode(&self) -> Result<Vec<Meaning>, DecodeError> {
        let default = Route::default();
        let route = self.route.as_ref().unwrap_or(&default);
        decode_with(&self.kind, route, &self.headers(), &fixture(&self.file))
    }
}

#[derive(Deserialize)]
struct Expected {
    action: String,
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
    media_type: Option<String>,
    size: Option<u64>,
    actor: Option<String>,
    occurred_at: String,
    occurred_at_source: String,
    event_id: String,
    index_effect: String,
}

impl Expected {
    fn decoded(&self) -> Meaning {
        let scope = match self.index_effect.as_str() {
            "manifest-only" | "none" => return Meaning::Ignored,
            "set-tag" | "untag" | "resolve-then-set-tag" => Scope::Tag,
            "untag-all-of-digest" => Scope::Digest,
            "drop-repository" => Scope::Repository,
            other => panic!("{other}"),
        };
        let resolve = self.index_effect == "resolve-then-set-tag";
        let push = Box::new(Push {
            action: self.action.parse().unwrap(),
            scope,
            registry: self.registry.parse().unwrap(),
            repository: self.repository.parse().unwrap(),
            tag: self.tag.as_ref().map(|tag| tag.parse().unwrap()),
            digest: self.digest.as_ref().map(|digest| digest.parse().unwrap()),
            media_type: self.media_type.clone(),
            size: self.size,
            actor: self.actor.clone(),
            occurred_at: instant::parse(&self.occurred_at).unwrap(),
            occurred_at_source: self.occurred_at_source.parse().unwrap(),
            source: "main".to_owned(),
            origin: Origin::Event,
            event_id: self.event_id.clone(),
        });
        match resolve {
            true => Meaning::Unresolved(push),
            false => Meaning::Push(push),
        }
    }
}

#[test]
fn every_fixture_decodes_to_the_events_of_its_case() {
    let cases: Cases = serde_json::from_slice(&fixture("CASES.json")).unwrap();
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let bodies = names.filter(|name| name.ends_with(".json") && name != "CASES.json");
    assert_eq!(cases.cases.len(), bodies.count(), "a case for each body");
    for case in cases.cases {
        let decoded = case.decode();
        let decoded = decoded.unwrap_or_else(|error| panic!("{}: {error}", case.file));
        let (malformed, understood): (Vec<_>, Vec<_>) = decoded
            .into_iter()
            .partition(|event| matches!(event, Meaning::Malformed(_)));
        let expected: Vec<Meaning> = match case.events.is_empty() {
            // A body without a change has an ignored event, except an empty list of events.
            true if case.file != "distribution-empty-envelope.json" => vec![Meaning::Ignored],
            _ => case.events.iter().map(Expected::decoded).collect(),
        };
        assert_eq!(understood, expected, "{}", case.file);
        assert_eq!(
            malformed.len(),
            usize::from(case.file == "distribution-bad-digest-sibling.json"),
            "{}",
            case.file
        );
        assert_eq!(
            case.events.is_empty(),
            case.outcome != "accept",
            "{}",
            case.file
        );
    }
}

#[test]
fn the_pushes_of_a_kind_have_a_time_as_the_table_of_kinds_says() {
    let cases: Cases = serde_json::from_slice(&fixture("CASES.json")).unwrap();
    for kind in ALL.iter().filter(|kind| kind.name != "generic") {
        let of_kind = cases
            .cases
            .iter()
            .filter(|case| kind.names().any(|name| name == case.kind));
        let pushes = of_kind.flat_map(|case| &case.events);
        let mut times = pushes
            .filter(|event| event.action == "push" && event.index_effect != "manifest-only")
            .map(|event| event.occurred_at_source == "event");
        assert_eq!(times.any(|own| own), kind.has_time, "{}", kind.name);
    }
}

#[test]
fn every_kind_has_a_fixture() {
    let cases: Cases = serde_json::from_slice(&fixture("CASES.json")).unwrap();
    for kind in ALL.iter().filter(|kind| kind.name != "generic") {
        let accepted =
            |case: &&Case| kind.names().any(|name| name == case.kind) && case.outcome == "accept";
        assert!(
            cases.cases.iter().any(|case| accepted(&case)),
            "{}",
            kind.name
        );
    }
}

/// Every fixture, with each value replaced by wrong ones: no body causes a panic, and each push in
/// the result is valid.
#[test]
fn malformed_fixtures_cause_neither_panics_nor_invalid_pushes() {
    const WRONG: &[fn() -> Value] = &[
        || Value::Null,
        || json!(7),
        || json!(-1.5e300),
        || json!(""),
        || json!("\u{0}../..%2f\u{202e}"),
        || json!([]),
        || json!({}),
        || json!([[[[{"a": 1}]]]]),
        || json!("a".repeat(5000)),
    ];
    fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                let key = key.replace('~', "~0").replace('/', "~1");
                found.push(format!("{at}/{key}"));
                paths(value, &format!("{at}/{key}"), found);
            }),
            Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| {
                found.push(format!("{at}/{index}"));
                paths(value, &format!("{at}/{index}"), found);
            }),
            _ => {}
        }
    }
    let cases: Cases = serde_json::from_slice(&fixture("CASES.json")).unwrap();
    for case in cases.cases {
        let whole: Value = serde_json::from_slice(&fixture(&case.file)).unwrap();
        let mut places = Vec::new();
        paths(&whole, "", &mut places);
        let route = case.route.clone().unwrap_or_default();
        for place in places {
            for wrong in WRONG {
                let mut body = whole.clone();
                *body.pointer_mut(&place).unwrap() = wrong();
                let body = body.to_string();
                let decoded = decode_with(&case.kind, &route, &case.headers(), body.as_bytes());
                for event in decoded.into_iter().flatten() {
                    match event {
                        Meaning::Push(push) | Meaning::Observed(push) => push.check().unwrap(),
                        Meaning::Unresolved(push) => assert!(push.image().is_some()),
                        Meaning::Ignored | Meaning::Handshake(_) | Meaning::Malformed(_) => {}
                    }
                }
            }
        }
    }
}

/// The form of a pull by tag of distribution 3.1.2, which 2.8.2 sends too.
fn pull(change: impl FnOnce(&mut Value)) -> Meaning {
    let mut event = json!({
        "id": "01a21a74", "timestamp": "2026-03-10T09:00:00.845183548Z", "action": "pull",
        "target": {
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": DIGEST, "size": 491,
            "repository": "shop/web", "tag": "v1",
            "url": format!("http://registry.example.com:5000/v2/shop/web/manifests/{DIGEST}"),
        },
        "request": { "host": "registry.example.com:5000", "method": "GET", "useragent": "crane/v0.22.1" },
        "actor": { "name": "reader" },
    });
    change(&mut event);
    let body = json!({ "events": [event] }).to_string();
    let mut events = decode("distribution", None, body.as_bytes()).unwrap();
    assert_eq!(events.len(), 1);
    events.remove(0)
}

#[test]
fn a_pull_by_tag_is_an_observation_of_the_time_of_receipt() {
    let Meaning::Observed(seen) = pull(|_| {}) else {
        panic!("no observation");
    };
    let image = seen.image().unwrap().to_string();
    assert_eq!(image, "registry.example.com:5000/shop/web:v1");
    assert_eq!(seen.digest, Some(DIGEST.parse().unwrap()));
    assert_eq!(seen.event_id, "observed:01a21a74");
    assert_eq!(
        (seen.occurred_at, seen.occurred_at_source),
        (RECEIVED_AT, TimeSource::Received)
    );
    assert_eq!(seen.actor, None, "a reader is not the author of the tag");
}

#[test]
fn other_pulls_are_ignored_and_never_malformed() {
    let wrong: [(&str, Value); 6] = [
        ("/request/useragent", json!("tagtrail/0.1.0")),
        ("/target/tag", json!("")),
        ("/target/digest", json!("none")),
        ("/target/repository", json!("No Name")),
        ("/request/host", json!("bad host")),
        ("/target/mediaType", json!("application/octet-stream")),
    ];
    for (place, value) in wrong {
        let meaning = pull(|event| *event.pointer_mut(place).unwrap() = value);
        assert_eq!(meaning, Meaning::Ignored, "{place}");
    }
    assert_eq!(
        pull(|event| event["target"] = Value::Null),
        Meaning::Ignored
    );
}

/// A malformed event must never delete more than the names in the event.
#[test]
fn a_delete_without_tag_and_digest_deletes_no_repository() {
    let emptied = |kind: &str, file: &str, fields: &[&str]| {
        let mut body: Value = serde_json::from_slice(&fixture(file)).unwrap();
        for field in fields {
            *body.pointer_mut(field).unwrap() = json!("");
        }
        let route = Route::of(Some("registry.example.com"));
        match decode_with(kind, &route, &HeaderMap::new(), body.to_string().as_bytes()) {
            Ok(mut events) => events.remove(0),
            Err(malformed) => Meaning::Malformed(malformed),
        }
    };
    for decoded in [
        emptied(
            "harbor",
            "harbor-delete-artifact.json",
            &[
                "/event_data/resources/0/digest",
                "/event_data/resources/0/tag",
            ],
        ),
        emptied("gitea", "gitea-package-deleted.json", &["/package/version"]),
        emptied(
            "zot",
            "zot-nats-image-deleted-tag.json",
            &["/data/reference", "/data/digest"],
        ),
        emptied("artifactory", "artifactory-deleted.json", &["/data/tag"]),
        emptied(
            "nexus",
            "nexus-component-deleted.json",
            &["/component/version"],
        ),
        emptied("msr", "msr-tag-delete.json", &["/contents/tag"]),
    ] {
        assert!(matches!(decoded, Meaning::Malformed(_)), "{decoded:?}");
    }
    let ecr = fixture("ecr-push.json");
    let ecr = String::from_utf8(ecr).unwrap().replace("PUSH", "DELETE");
    let mut ecr: Value = serde_json::from_str(&ecr).unwrap();
    (ecr["detail"]["image-tag"], ecr["detail"]["image-digest"]) = (json!(""), json!(""));
    let decoded = decode("ecr", None, ecr.to_string().as_bytes());
    assert!(
        !matches!(decoded.as_deref(), Ok([Meaning::Push(_)])),
        "{decoded:?}"
    );
}

#[test]
fn no_name_means_two_kinds() {
    let mut names: Vec<&str> = ALL.iter().flat_map(Kind::names).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_registry_of_the_source_overrides_the_host_of_the_event() {
    let body = fixture("distribution-push-sha512.json");
    let events = decode("distribution", Some("hub.example.com:5000"), &body).unwrap();
    let push = pushed(events.into_iter().next().unwrap());
    assert_eq!(push.registry.as_ref(), "hub.example.com:5000");
}

#[test]
fn the_port_443_of_https_is_not_part_of_a_registrys_name() {
    let registry = |host: &str, url: Value| {
        let decoded = distribution(|event| {
            event["request"]["host"] = host.into();
            event["target"]["url"] = url;
        });
        pushed(decoded).registry.to_string()
    };
    assert_eq!(
        registry(
            "R.example.com:443",
            "https://r.example.com/v2/a/manifests/x".into()
        ),
        "r.example.com"
    );
    assert_eq!(
        registry(
            "r.example.com:443",
            "http://r.example.com/v2/a/manifests/x".into()
        ),
        "r.example.com:443"
    );
    assert_eq!(
        registry(
            "r.example.com:5443",
            "https://r.example.com/v2/a/manifests/x".into()
        ),
        "r.example.com:5443"
    );
    // A delete has no address, and must concern the same registry as the pushes before.
    assert_eq!(registry("r.example.com:443", Value::Null), "r.example.com");
    assert_eq!(
        registry("", "https://r.example.com/v2/a/manifests/x".into()),
        "r.example.com"
    );
}

#[test]
fn an_invalid_host_is_refused_with_the_setting_that_cures_it() {
    for host in ["registry", "", "a b", "../x", "\u{0}"] {
        let decoded = distribution(|event| {
            event["request"]["host"] = host.into();
            event["target"]["url"] = Value::Null;
        });
        let Meaning::Malformed(reason) = decoded else {
            panic!("{host:?}: {decoded:?}")
        };
        assert!(
            reason.to_string().contains("set `registry` of the source"),
            "{reason}"
        );
    }
}

#[test]
fn a_repository_may_be_called_blobs() {
    let decoded = distribution(|event| {
        event["target"]["repository"] = "team/blobs".into();
        event["target"]["url"] =
            "https://registry.example.com/v2/team/blobs/manifests/sha512:ab".into();
    });
    assert_eq!(pushed(decoded).repository.as_ref(), "team/blobs");
}

#[test]
fn a_tag_without_a_usable_digest_is_to_be_resolved() {
    for digest in [
        json!(null),
        json!(""),
        json!("sha256:0123"),
        json!("sha256:2C26B46B68FFC68FF99B453C1D30413413422D706483BFA0F98A5E886266E7AE"),
    ] {
        let decoded = distribution(|event| event["target"]["digest"] = digest.clone());
        let Meaning::Unresolved(push) = decoded else {
            panic!("{digest}: {decoded:?}")
        };
        assert_eq!((push.tag.unwrap().as_ref(), push.digest), ("fips", None));
    }
}

#[test]
fn invalid_descriptive_fields_are_dropped() {
    let push = pushed(distribution(|event| {
        event["id"] = json!({ "a": [] });
        event["timestamp"] = json!({ "seconds": 1_773_000_000 });
        event["actor"] = json!("x");
        event["target"]["mediaType"] = json!(7);
        event["target"]["size"] = json!(-1);
        event["target"]["length"] = json!(u64::MAX);
    }));
    assert_eq!((push.actor, push.media_type, push.size), (None, None, None));
    assert_eq!(
        (push.occurred_at, push.occurred_at_source),
        (RECEIVED_AT, TimeSource::Received)
    );
    assert!(
        push.event_id.starts_with("body:") && push.event_id.len() == 5 + 32,
        "{}",
        push.event_id
    );
}

#[test]
fn free_text_is_cleaned_and_cut() {
    let push = pushed(distribution(|event| {
        event["actor"]["name"] = "a\u{0}b\nc".into();
        event["target"]["mediaType"] = "m".repeat(10_000).into();
        event["id"] = "é".repeat(10_000).into();
    }));
    assert_eq!(push.actor.as_deref(), Some("a\u{fffd}b\u{fffd}c"));
    assert_eq!(push.media_type.map(|text| text.len()), Some(255));
    assert_eq!(push.event_id.len(), 256);
}

#[test]
fn an_invalid_time_is_replaced_by_the_time_of_receipt() {
    for time in [
        "",
        "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "2026-03-09T11:00:00",
        "2026-03-09",
        "yesterday",
        "17730000",
        "9999-12-31T23:59:59-14:00",
        "0000-01-01T00:00:00+14:00",
        "2026-13-40T25:61:61Z",
    ] {
        let push = pushed(distribution(|event| event["timestamp"] = time.into()));
        assert_eq!(
            (push.occurred_at, push.occurred_at_source),
            (RECEIVED_AT, TimeSource::Received),
            "{time}"
        );
    }
    let push = pushed(distribution(|event| {
        event["timestamp"] = "2026-03-09T13:00:00.123456789+02:00".into()
    }));
    assert_eq!(
        (push.occurred_at, push.occurred_at_source),
        (
            datetime!(2026-03-09 11:00:00.123456789 UTC),
            TimeSource::Event
        )
    );
}

#[test]
fn invalid_names_and_digests_are_malformed() {
    let long = "a".repeat(300);
    for repository in [
        "", "..", "a/../b", "/a", "a/", "a//b", "A/b", "a b", "a\u{0}b", "a\nb", "a%2fb", "a:b",
        "é", "*", ">", "a.>", &long,
    ] {
        let decoded = distribution(|event| event["target"]["repository"] = repository.into());
        assert!(
            matches!(decoded, Meaning::Malformed(_)),
            "{repository:?}: {decoded:?}"
        );
    }
    for tag in [
        "..", ".a", "-a", "a/b", "a b", "a\u{0}", "a\n", "é", "*", ">", "a:b", &long,
    ] {
        let decoded = distribution(|event| event["target"]["tag"] = tag.into());
        assert!(
            matches!(decoded, Meaning::Malformed(_)),
            "{tag:?}: {decoded:?}"
        );
    }
}

#[test]
fn a_malformed_event_leaves_its_siblings_valid() {
    let good = json!({ "repository": "shop/web", "tag": "v1", "digest": DIGEST });
    for bad in [
        json!(1),
        json!(null),
        json!("x"),
        json!([]),
        json!({}),
        json!({ "repository": 1 }),
        json!({ "repository": "a", "action": "pull" }),
    ] {
        let body = json!([bad, good]).to_string();
        let events = decode("generic", Some("registry.example.com"), body.as_bytes()).unwrap();
        let [Meaning::Malformed(reason), Meaning::Push(_)] = events.as_slice() else {
            panic!("{bad}: {events:?}")
        };
        assert!(reason.to_string().starts_with("event 1 of 2: "), "{reason}");
    }
    // A number too large for any type makes only that event malformed.
    let body = format!(
        r#"{{"events":[{{"action":"push","target":{{"size":1e999,"repository":7}}}},{good}]}}"#
    );
    let events = decode("generic", Some("registry.example.com"), body.as_bytes()).unwrap();
    assert!(
        matches!(events.as_slice(), [Meaning::Malformed(_), Meaning::Push(_)]),
        "{events:?}"
    );
}

#[test]
fn bodies_that_are_no_events_are_malformed_as_a_whole() {
    let deep = "[".repeat(200_000);
    let deep_object = r#"{"events":"#.repeat(100_000);
    let many = format!(r#"{{"events":[{}1]}}"#, "1,".repeat(Parts::MOST));
    for body in [
        b"".as_slice(),
        b" ",
        b"null",
        b"1",
        b"\"events\"",
        b"{",
        b"{\"events\":[}",
        b"events=1",
        b"\xff\xfe",
        b"{\"events\":[{\"action\":\"\xff\"}]}",
        b"{\"events\":1}",
        b"{\"events\":{}}",
        b"{\"events\":[],\"events\":[]}",
        b"{} {}",
        deep.as_bytes(),
        deep_object.as_bytes(),
        many.as_bytes(),
    ] {
        for kind in ["distribution", "generic"] {
            let outcome = decode(kind, Some("registry.example.com"), body);
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
            match (kind, outcome) {
                (_, Err(reason)) => assert!(
                    reason.to_string().len() <= DecodeError::SHOWN,
                    "{kind} {shown}"
                ),
                (_, Ok(events)) => panic!("{kind} {shown}: {events:?}"),
            }
        }
    }
}

#[test]
fn depth_where_nobody_looks_does_no_harm() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(
        r#"{{"repository":"shop/web","tag":"v1","digest":"{DIGEST}","metadata":{deep},"actor":{deep}}}"#
    );
    let events = decode("generic", Some("registry.example.com"), body.as_bytes()).unwrap();
    assert!(
        matches!(events.as_slice(), [Meaning::Push(_)]),
        "{events:?}"
    );
}

#[test]
fn an_envelope_of_something_else_is_not_taken_for_an_empty_one() {
    assert_eq!(decode("distribution", None, b" {\n} ").unwrap(), []);
    assert_eq!(
        decode("distribution", None, br#"{"events":[]}"#).unwrap(),
        []
    );
    // An event without an envelope, as Azure's registry sends.
    assert!(
        decode(
            "distribution",
            None,
            br#"{"id":"x","action":"push","target":{}}"#
        )
        .is_err()
    );
}

#[test]
fn a_script_needs_few_fields() {
    let push =
        generic_push(&json!({ "repository": "shop/web", "tag": "latest", "digest": DIGEST }));
    assert_eq!((push.action, push.scope), (Action::Push, Scope::Tag));
    assert_eq!(
        push.image().unwrap().to_string(),
        "registry.example.com/shop/web:latest"
    );
    assert_eq!(
        (push.occurred_at, push.occurred_at_source),
        (RECEIVED_AT, TimeSource::Received)
    );
}

#[test]
fn a_script_may_send_every_field() {
    let push = generic_push(&json!({
        "repository": "shop/web", "tag": "latest", "digest": DIGEST, "action": "push", "actor": "ci", "time": "2026-03-09T11:00:00Z",
        "id": "build-17", "media_type": "application/vnd.oci.image.index.v1+json", "size": 1234, "metadata": { "commit": "abc" }, "other": 1,
    }));
    assert_eq!(
        (push.actor.as_deref(), push.size, push.event_id.as_str()),
        (Some("ci"), Some(1234), "build-17")
    );
    assert_eq!(
        push.media_type.as_deref(),
        Some("application/vnd.oci.image.index.v1+json")
    );
    assert_eq!(
        (push.occurred_at, push.occurred_at_source),
        (datetime!(2026-03-09 11:00 UTC), TimeSource::Event)
    );
}

#[test]
fn the_format_of_the_old_registry_extension_is_decoded() {
    // The id of an image is not the digest of the manifest, despite the same form: the resolver
    // must ask the registry.
    for image_id in [
        "4986bf8c15363d1c5d15512d5266f8777bfba4974ac56e3270e7760f6f0a8125",
        DIGEST,
    ] {
        let event = json!({ "namespace": "shop", "repository": "web", "tag": "latest", "image_id": image_id, "metadata": { "author": "x" } });
        let Meaning::Unresolved(push) = generic(&event).unwrap() else {
            panic!()
        };
        assert_eq!(push.repository.as_ref(), "shop/web");
    }
    let push = generic_push(
        &json!({ "namespace": "", "repository": "web", "tag": "latest", "digest": DIGEST }),
    );
    assert_eq!(push.repository.as_ref(), "web");
}

#[test]
fn a_delete_has_the_scope_of_its_names() {
    let scope = |event: Value| {
        let push = generic_push(&event);
        (push.scope, push.tag.is_some(), push.digest.is_some())
    };
    assert_eq!(
        scope(json!({ "action": "delete", "repository": "a", "tag": "v1" })),
        (Scope::Tag, true, false)
    );
    assert_eq!(
        scope(json!({ "action": "delete", "repository": "a", "tag": "v1", "digest": DIGEST })),
        (Scope::Tag, true, true)
    );
    assert_eq!(
        scope(json!({ "action": "delete", "repository": "a", "digest": DIGEST })),
        (Scope::Digest, false, true)
    );
    assert_eq!(
        scope(json!({ "action": "delete", "repository": "a" })),
        (Scope::Repository, false, false)
    );
}

#[test]
fn an_empty_variable_in_a_script_does_not_delete_a_repository() {
    for event in [
        json!({ "action": "delete", "repository": "a", "tag": "" }),
        json!({ "action": "delete", "repository": "a", "digest": "" }),
        json!({ "action": "delete", "repository": "a", "tag": "", "digest": DIGEST }),
        json!({ "action": "delete", "repository": "a", "digest": "sha256:1" }),
        json!({ "action": "Delete", "repository": "a" }),
    ] {
        assert!(generic(&event).is_err(), "{event}");
    }
}

#[test]
fn events_without_an_id_get_one_from_their_body() {
    let event = json!({ "repository": "a", "tag": "v1", "digest": DIGEST });
    let ids = |body: &Value| -> Vec<String> {
        let events = decode(
            "generic",
            Some("registry.example.com"),
            body.to_string().as_bytes(),
        )
        .unwrap();
        events
            .into_iter()
            .map(|event| pushed(event).event_id)
            .collect()
    };
    let one = ids(&event);
    assert_eq!(one.len(), 1);
    assert!(!one[0].contains('#'));
    let two = ids(&json!({ "events": [event, event] }));
    assert!(two[0].ends_with("#0") && two[1].ends_with("#1"), "{two:?}");
    assert_eq!(two[0].split('#').next(), two[1].split('#').next());
}

#[test]
fn a_senders_id_is_never_taken_for_a_question_of_tagtrail() {
    for id in [
        "doubt:registry.example.com/shop/web:latest#2",
        "second:7",
        "observed:7",
        "body:00000000000000000000000000000000",
    ] {
        let push = pushed(distribution(|event| event["id"] = id.into()));
        assert_eq!(push.event_id, format!("sender:{id}"));
        // The resolver gets an event without a digest as it is.
        let unresolved = distribution(|event| {
            event["id"] = id.into();
            event["target"]["digest"] = "".into();
        });
        let Meaning::Unresolved(push) = unresolved else {
            panic!("{unresolved:?}")
        };
        assert_eq!(push.event_id, format!("sender:{id}"));
        let Meaning::Observed(seen) = pull(|event| event["id"] = id.into()) else {
            panic!("no observation");
        };
        assert_eq!(seen.event_id, format!("observed:sender:{id}"));
    }
    let long = pushed(distribution(|event| {
        event["id"] = format!("doubt:{}", "x".repeat(10_000)).into();
    }));
    assert_eq!(long.event_id.len(), 256);
    // A beginning that only resembles one stays.
    let plain = pushed(distribution(|event| event["id"] = "doubtful:7".into()));
    assert_eq!(plain.event_id, "doubtful:7");
}

#[test]
fn the_examples_of_the_manual_are_decoded() {
    let manual = std::fs::read_to_string(format!(
        "{}/../../docs/generic-source.md",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap();
    let examples: Vec<&str> = manual
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let events = decode("generic", Some("registry.example.com"), example.as_bytes()).unwrap();
        assert!(!events.is_empty());
        for event in events {
            assert!(
                matches!(event, Meaning::Push(_) | Meaning::Unresolved(_)),
                "{example}: {event:?}"
            );
        }
    }
}
