//! The answers of the other systems' own code, by way of their manifests and our output.

use serde_json::{Value, json};
use tagtrail_policy::selection::{ImagePolicy, Outcome, TagHead, Times, WatchedImage};
use tagtrail_proto::Digest;
use time::OffsetDateTime;

use super::*;

const VECTORS: &str =
    include_str!("../../../rules/policy/tests/selection/fixtures/policies-vectors.json");

/// Cases whose answer differs by design; the mapping calls these parts close.
const CLOSE: [&str; 7] = [
    "as-flux-012",
    "as-flux-013",
    "as-flux-015",
    "as-flux-016",
    "as-flux-017",
    "as-flux-018",
    "as-flux-024",
];

/// Imports manifests, and reads the output as TOML.
fn output(system: System, manifests: &[Value]) -> (Found, toml::Table) {
    let text: Vec<String> = manifests.iter().map(Value::to_string).collect();
    let objects = objects::parse(&text.join("\n---\n")).unwrap();
    let found = system.import(&objects);
    let text = write(system, &found);
    let read = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    (found, read)
}

/// Returns the tag that the only policy of the output selects; null for none, or no policy.
fn select(system: System, manifests: &[Value], tags: &Value) -> Value {
    let (_, read) = output(system, manifests);
    let Some(images) = read.get("trigger").map(|triggers| &triggers[0]["images"]) else {
        return Value::Null;
    };
    let image = images.as_table().unwrap().values().next().unwrap();
    let watched: WatchedImage = image.clone().try_into().unwrap();
    let WatchedImage::Policy(policy) = watched else {
        panic!("{image}");
    };
    choose(&policy, tags)
}

fn choose(policy: &ImagePolicy, tags: &Value) -> Value {
    let policy = policy.compile().unwrap();
    let now = OffsetDateTime::now_utc();
    let head = |tag: &Value| TagHead {
        tag: tag.as_str().unwrap().parse().unwrap(),
        digest: Some(Digest::sha256_of(b"")),
        times: Times {
            pushed: now,
            created: None,
        },
        recorded_at: now,
        tombstone: false,
        fit: policy.rule().fit(None),
    };
    let heads: Vec<TagHead> = tags.as_array().unwrap().iter().map(head).collect();
    match policy.select(&heads, None, now).outcome {
        Outcome::Select { head, .. } => json!(head.tag),
        _ => Value::Null,
    }
}

fn flux(given: &Value) -> Vec<Value> {
    let policy = match given["policy"].as_str().unwrap() {
        "semver" => json!({ "semver": { "range": given["arg"] } }),
        order => json!({ order: { "order": given["arg"] } }),
    };
    let filter = json!({ "pattern": given["pattern"], "extract": given["extract"] });
    vec![
        json!({ "kind": "ImageRepository", "metadata": { "name": "r", "namespace": "n" },
                "spec": { "image": "registry.example.com/shop/api", "exclusionList": [] } }),
        json!({ "kind": "ImagePolicy", "metadata": { "name": "p", "namespace": "n" },
                "spec": { "imageRepositoryRef": { "name": "r" }, "policy": policy, "filterTags": filter } }),
    ]
}

fn argo(given: &Value) -> Vec<Value> {
    let constraint = given["constraint"].as_str().unwrap();
    let colon = if constraint.is_empty() { "" } else { ":" };
    let image = format!("registry.example.com/shop/api{colon}{constraint}");
    let settings = json!({ "updateStrategy": given["strategy"], "ignoreTags": given["ignore"] });
    let images = json!([{ "alias": "api", "imageName": image, "commonUpdateSettings": settings }]);
    let references = json!([{ "namePattern": "shop", "images": images }]);
    vec![
        json!({ "kind": "ImageUpdater", "metadata": { "name": "u", "namespace": "argocd" },
                 "spec": { "applicationRefs": references } }),
    ]
}

fn kargo(given: &Value) -> Vec<Value> {
    let image = json!({
        "repoURL": "registry.example.com/shop/api", "constraint": given["constraint"],
        "strictSemvers": given["strict"], "allowTagsRegexes": given["allow"], "ignoreTagsRegexes": given["ignore"],
    });
    vec![
        json!({ "kind": "Warehouse", "metadata": { "name": "w", "namespace": "n" },
                 "spec": { "subscriptions": [{ "image": image }] } }),
    ]
}

fn keel(given: &Value) -> Vec<Value> {
    let image = format!(
        "registry.example.com/shop/api:{}",
        given["current"].as_str().unwrap()
    );
    let annotations = json!({
        "keel.sh/policy": given["policy"], "keel.sh/matchPreRelease": given["match_prerelease"].to_string(),
    });
    vec![
        json!({ "kind": "Deployment", "metadata": { "name": "d", "namespace": "n", "annotations": annotations },
                 "spec": { "template": { "spec": { "containers": [{ "name": "api", "image": image }] } } } }),
    ]
}

#[test]
fn each_system_selects_the_same_tag_by_way_of_our_output() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut counts = [0; 4];
    for case in vectors["cases"].as_array().unwrap() {
        let (id, given) = (case["id"].as_str().unwrap(), &case["given"]);
        let (place, system, manifests) = match case["group"].as_str().unwrap() {
            "as-flux" => (0, System::Flux, flux(given)),
            "as-argo" => (1, System::Argo, argo(given)),
            "as-kargo" => (2, System::Kargo, kargo(given)),
            "as-keel" => (3, System::Keel, keel(given)),
            _ => continue,
        };
        counts[place] += 1;
        if CLOSE.contains(&id) {
            let (found, _) = output(system, &manifests);
            let close = found
                .parts
                .iter()
                .filter(|part| part.fate == found::Fate::Close);
            assert!(close.count() > 1, "{id}: {:?}", found.parts);
            continue;
        }
        let selected = select(system, &manifests, &given["tags"]);
        // Where nothing is selected or a rule is refused, some of the systems report an error.
        let expected = match &case["expect"] {
            error if error == "error" => Value::Null,
            expected => expected.clone(),
        };
        assert_eq!(selected, expected, "{case:#}");
    }
    assert_eq!(counts, [28, 12, 11, 12]);
}
