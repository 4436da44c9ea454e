use serde_json::{Map, Value, json};
use tagtrail_config::Discover;

use super::*;

const BOTH: [Discover; 2] = [Discover::Keel, Discover::Tagtrail];

fn object(annotations: Value, containers: Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {"template": {"spec": {"containers": containers,
            "initContainers": [{"name": "migrate", "image": "registry.example.com/shop/migrate:v1"}]}}},
    })
}

fn web() -> Value {
    json!([{"name": "web", "image": "registry.example.com/shop/web:latest"}])
}

fn read_with(object: &Value, earlier: Value) -> Option<Reading> {
    let earlier: Map<String, Value> = earlier.as_object().unwrap().clone();
    let annotated = Annotated {
        kind: "deployment",
        namespace: "shop",
        object,
        streams: None,
        earlier: &earlier,
    };
    read(&BOTH, &annotated)
}

fn wish(annotations: Value) -> Wish {
    let reading = read_with(&object(annotations, web()), json!({})).unwrap();
    reading.wish.unwrap()
}

fn mistake(annotations: Value) -> String {
    let reading = read_with(&object(annotations, web()), json!({})).unwrap();
    reading.wish.unwrap_err()
}

fn images(wish: &Wish) -> Value {
    let images = wish.images.iter();
    let images = images.map(|(name, followed)| (name.clone(), followed.image.clone()));
    Value::Object(images.collect())
}

#[test]
fn an_object_without_annotations_asks_for_nothing() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for annotations in [
        json!({}),
        json!({"other.example.com/follow": "true"}),
        json!({"tagtrail.dev/rollout": "shop#17"}),
        json!({"tagtrail.dev/follow": "false", "tagtrail.dev/settle": "1s"}),
        json!({"keel.sh/policy": "never"}),
        json!({"keel.sh/digest": digest}),
    ] {
        let object = object(annotations.clone(), web());
        assert_eq!(read_with(&object, json!({})), None, "{annotations}");
    }
    assert!(!may_ask(&BOTH, "deployment", &json!({"name": "web"})));
    assert!(may_ask(
        &BOTH,
        "deployment",
        &json!({"labels": {"keel.sh/policy": "major"}})
    ));
}

#[test]
fn containers_follow_the_tags_that_they_name() {
    let all = wish(json!({"tagtrail.dev/follow": "true"}));
    assert_eq!(
        images(&all),
        json!({"web": "registry.example.com/shop/web:latest", "migrate": "registry.example.com/shop/migrate:v1"})
    );
    assert!(!all.paused && all.warnings.is_empty() && all.group.is_none());
    for annotations in [
        json!({"tagtrail.dev/follow": "web"}),
        json!({"tagtrail.dev/follow": "*", "tagtrail.dev/follow.migrate": "false"}),
        json!({"tagtrail.dev/follow.web": "latest"}),
        json!({"tagtrail.dev/follow.web": "true"}),
        json!({"tagtrail.dev/follow.web": "registry.example.com/shop/web:latest"}),
    ] {
        let found = images(&wish(annotations.clone()));
        let expected = json!({"web": "registry.example.com/shop/web:latest"});
        assert_eq!(found, expected, "{annotations}");
    }
    let policy = wish(json!({"tagtrail.dev/follow.web": "{\"semver\": \"^1.4\"}"}));
    assert_eq!(
        images(&policy),
        json!({"web": {"repository": "registry.example.com/shop/web", "semver": "^1.4"}})
    );
}

#[test]
fn settings_stand_in_annotations_of_their_own() {
    let wish = wish(json!({
        "tagtrail.dev/follow": "web", "tagtrail.dev/settle": "30s", "tagtrail.dev/retry": "{\"attempts\": 3}",
        "tagtrail.dev/on_foreign_change": "repair", "tagtrail.dev/paused": "False", "tagtrail.dev/group": "shop",
        "tagtrail.dev/rollout": "x#1",
    }));
    assert_eq!(
        Value::Object(wish.settings),
        json!({"settle": "30s", "retry": {"attempts": 3}})
    );
    assert_eq!(
        Value::Object(wish.target),
        json!({"on_foreign_change": "repair"})
    );
    assert_eq!((wish.paused, wish.group.as_deref()), (false, Some("shop")));
    assert_eq!(
        wish.warnings,
        ["tagtrail.dev/paused: \"False\" is read as false"]
    );
}

#[test]
fn mistakes_name_annotation_and_cure() {
    for (annotations, expected) in [
        (
            json!({"tagtrail.dev/folow": "true"}),
            "tagtrail.dev/folow is no annotation that is read; did you mean tagtrail.dev/follow?",
        ),
        (
            json!({"tagtrail.dev/follow": "api, web"}),
            "no container \"api\"; known are migrate, web",
        ),
        (
            json!({"tagtrail.dev/follow.api": "latest"}),
            "no container \"api\"",
        ),
        (
            json!({"tagtrail.dev/follow.web": "{"}),
            "tagtrail.dev/follow.web is no JSON object",
        ),
        (json!({"tagtrail.dev/follow.web": ""}), "is empty"),
        (
            json!({"tagtrail.dev/settle": "1s"}),
            "tagtrail.dev/follow is missing",
        ),
        (
            json!({"tagtrail.dev/follow": "web", "tagtrail.dev/paused": "maybe"}),
            "neither true nor false",
        ),
        (
            json!({"tagtrail.dev/follow": "web", "tagtrail.dev/target": "x"}),
            "is no annotation that is read",
        ),
        (
            json!({"tagtrail.dev/follow": "x".repeat(LONGEST + 1)}),
            "at most 16384 are read",
        ),
        (
            json!({"tagtrail.dev/follow.web": "{\"newest\":\"pushed\",\"ignore\":[\"\\u0000\"]}"}),
            "has the character NUL",
        ),
        (
            json!({"tagtrail.dev/follow": "web", "tagtrail.dev/group": "Shop\u{0}"}),
            "is no name of a group",
        ),
        (
            json!({"keel.sh/policy": "newest"}),
            "Keel has no policy \"newest\"",
        ),
        (
            json!({"keel.sh/policy": "major"}),
            "container web runs registry.example.com/shop/web:latest, which names none",
        ),
        (
            json!({"keel.sh/policy": "force", "keel.sh/monitorContainers": "("}),
            "keel.sh/monitorContainers: ",
        ),
        (
            json!({"keel.sh/policy": "force", "keel.sh/monitorContainers": "^db$"}),
            "no container has a name",
        ),
        (
            json!({"keel.sh/policy": "force", "keel.sh/approvals": "two"}),
            "\"two\" is no number",
        ),
    ] {
        let found = mistake(annotations.clone());
        assert!(found.contains(expected), "{annotations}: {found}");
    }
}

#[test]
fn a_container_that_runs_a_digest_keeps_its_tag() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned =
        json!([{"name": "web", "image": format!("registry.example.com/shop/web@{digest}")}]);
    let follow = object(json!({"tagtrail.dev/follow": "web"}), pinned.clone());
    let before = json!({"web": "registry.example.com/shop/web:v7"});
    let reading = read_with(&follow, before.clone()).unwrap();
    assert_eq!(images(&reading.wish.unwrap()), before);
    // The tag of another repository is none of this one.
    for other in [
        json!({}),
        json!({"web": "registry.example.com/shop/api:v7"}),
    ] {
        let mistake = read_with(&follow, other).unwrap().wish.unwrap_err();
        assert!(
            mistake.contains(
                "names no tag to follow; name one by the annotation tagtrail.dev/follow.web"
            ),
            "{mistake}"
        );
    }
    let keel = object(json!({"keel.sh/policy": "minor"}), pinned);
    let before = json!({"web": {"repository": "registry.example.com/shop/web",
        "semver": {"within": "minor", "from": "1.4.0", "parse": "loose", "suffix": "same"}, "match": r"\."}});
    let reading = read_with(&keel, before.clone()).unwrap();
    assert_eq!(images(&reading.wish.unwrap()), before);
}

#[test]
fn policies_of_keel_are_read() {
    let containers = json!([{"name": "web", "image": "shop/web:1.4.0"}]);
    let of = |annotations: Value| {
        let object = object(annotations, containers.clone());
        let reading = read_with(&object, json!({})).unwrap();
        assert_eq!(reading.by, Discover::Keel);
        reading.wish.unwrap()
    };
    let repository = "docker.io/shop/web";
    let semver = |more: Value| {
        let mut semver = json!({"from": "1.4.0", "parse": "loose"});
        let more = more.as_object().unwrap().clone();
        semver.as_object_mut().unwrap().extend(more);
        json!({"repository": repository, "match": r"\.", "semver": semver})
    };
    for (annotations, expected) in [
        (
            json!({"keel.sh/policy": "major"}),
            semver(json!({"within": "major", "suffix": "same"})),
        ),
        (
            json!({"keel.sh/policy": "all"}),
            semver(json!({"within": "all"})),
        ),
        (
            json!({"keel.sh/policy": "patch", "keel.sh/matchPreRelease": "false"}),
            semver(json!({"within": "patch", "prereleases": "all"})),
        ),
        (
            json!({"keel.sh/policy": "force"}),
            json!({"repository": repository, "newest": "pushed"}),
        ),
        (
            json!({"keel.sh/policy": "force", "keel.sh/match-tag": "true"}),
            json!("docker.io/shop/web:1.4.0"),
        ),
        (
            json!({"keel.sh/policy": "glob:build-*"}),
            json!({"repository": repository, "glob": "build-*", "alphabetical": "last"}),
        ),
        (
            json!({"keel.sh/policy": "regexp:^(?P<compare>[0-9]+)$"}),
            json!({"repository": repository, "match": "^(?P<compare>[0-9]+)$", "order": ["compare:text"]}),
        ),
    ] {
        assert_eq!(
            images(&of(annotations.clone()))["web"],
            expected,
            "{annotations}"
        );
    }
    let with = of(
        json!({"keel.sh/policy": "force", "keel.sh/initContainers": "true", "keel.sh/approvals": "2", "keel.sh/notify": "slack",
        "keel.sh/trigger": "poll", "keel.sh/pollSchedule": "@every 1m"}),
    );
    assert_eq!(with.images.len(), 2);
    assert_eq!(
        with.settings["approvals"],
        json!({"needs": 2, "within": "24h"})
    );
    assert_eq!(with.warnings.len(), 1);
}

#[test]
fn the_first_of_several_systems_counts() {
    let annotations = json!({"tagtrail.dev/follow": "web", "keel.sh/policy": "force"});
    let reading = read_with(&object(annotations, web()), json!({})).unwrap();
    assert_eq!(reading.by, Discover::Tagtrail);
    let wish = reading.wish.unwrap();
    assert_eq!(
        wish.warnings,
        ["the annotations of keel have no effect, because those of tagtrail are there"]
    );
}

#[test]
fn paused_images_are_left_out_unless_all_are() {
    let followed = |paused| Followed {
        image: json!("x/y:z"),
        paused,
    };
    let of = |states: [bool; 2]| {
        let names = ["a", "b"].map(str::to_owned).into_iter();
        let images = names.zip(states.map(followed)).collect();
        let wish = whole(Wish {
            images,
            ..Wish::default()
        });
        let wish = wish.unwrap();
        (wish.images.len(), wish.paused)
    };
    assert_eq!(of([false, false]), (2, false));
    assert_eq!(of([true, false]), (1, false));
    assert_eq!(of([true, true]), (2, true));
}

#[test]
fn an_image_trigger_names_objects_of_its_namespace() {
    let of = |spec: Value| {
        let object = json!({"metadata": {"name": "shop", "namespace": "shop"}, "spec": spec});
        let annotated = Annotated {
            kind: "imagetrigger",
            namespace: "shop",
            object: &object,
            streams: None,
            earlier: &Map::new(),
        };
        read(&BOTH, &annotated).unwrap().wish
    };
    let image = "registry.example.com/shop/web:latest";
    let wish = of(json!({
        "images": {"web": image}, "objects": ["deploy/web", "rollout.argoproj.io/api"],
        "containers": {"web": ["web"]}, "settle": "0s", "wait": "each", "paused": true,
    }))
    .unwrap();
    assert_eq!(images(&wish), json!({"web": image}));
    let objects = ["deployment/web", "rollout.argoproj.io/api"].map(str::to_owned);
    assert_eq!(wish.objects.unwrap(), objects);
    assert_eq!(wish.containers.unwrap()["web"], json!(["web"]));
    assert!(wish.paused);
    assert_eq!(Value::Object(wish.settings), json!({"settle": "0s"}));
    assert_eq!(Value::Object(wish.target), json!({"wait": "each"}));
    for (spec, expected) in [
        (json!(null), "spec is missing"),
        (json!({"images": {"web": image}}), "spec.objects is empty"),
        (
            json!({"images": {"web": image}, "objects": []}),
            "spec.objects is empty",
        ),
        (
            json!({"images": [image], "objects": ["deployment/web"]}),
            "spec.images is no map",
        ),
        (
            json!({"objects": ["deployment/web"]}),
            "no container is named",
        ),
        (
            json!({"images": {"web": image}, "objects": ["pay/deployment/web"]}),
            "spec.objects: ",
        ),
        (
            json!({"images": {"web": image}, "objects": ["deployment/web"], "namespace": "pay"}),
            "spec.namespace is no setting",
        ),
        (
            json!({"images": {"web": image}, "objects": ["deployment/web"], "verify": []}),
            "spec.verify is no setting",
        ),
    ] {
        let found = of(spec.clone()).unwrap_err();
        assert!(found.contains(expected), "{spec}: {found}");
    }
    // Annotations of other systems are about objects with pods.
    assert!(may_ask(&BOTH, "imagetrigger", &json!({})));
    assert!(!may_ask(
        &[Discover::Keel],
        "imagetrigger",
        &json!({"annotations": {"keel.sh/policy": "all"}})
    ));
}

#[test]
fn the_kind_image_trigger_has_each_setting_and_both_copies_are_equal() {
    let plain = include_str!("../../../../deploy/kubernetes/imagetrigger.yaml");
    let chart = include_str!("../../../../deploy/helm/tagtrail/crds/imagetrigger.yaml");
    assert_eq!(plain, chart);
    // An API server drops a field that the schema lacks, and tells nobody.
    for key in tagtrail::SETTINGS.iter().chain(&tagtrail::TARGET) {
        let field = format!("\n                {key}: {{ type: ");
        assert!(plain.contains(&field), "{key}");
    }
}
