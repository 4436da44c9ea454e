//! The cases of `OpenShift` (`TestAnnotationsReactor` of library-go, `TestDeploymentConfigReactor`
//! of openshift-controller-manager) as far as they are decided without a cluster, and inputs of our
//! own.

use serde_json::{Map, Value, json};

use super::super::{Annotated, Wish};

fn read_of(kind: &str, object: &Value) -> Option<Result<Wish, String>> {
    let earlier = Map::new();
    super::read(&Annotated {
        kind,
        namespace: "default",
        object,
        streams: Some("registry.example.com/{namespace}/{name}"),
        earlier: &earlier,
    })
}

/// Reads the annotation of a `StatefulSet` with these containers and init containers.
fn annotated(triggers: &Value, containers: &[&str], init: &[&str]) -> Option<Result<Wish, String>> {
    let list = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| json!({"name": name, "image": " "}))
            .collect()
    };
    let text = match triggers {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let object = json!({
        "metadata": {"name": "test", "namespace": "default", "annotations": {(super::ANNOTATION): text}},
        "spec": {"template": {"spec": {"containers": list(containers), "initContainers": list(init)}}},
    });
    read_of("statefulset", &object)
}

fn read(triggers: &Value) -> Result<Wish, String> {
    annotated(triggers, &["test", "test2"], &["setup"]).unwrap()
}

fn from(stream: &str) -> Value {
    json!({"kind": "ImageStreamTag", "namespace": "other", "name": stream})
}

fn named(name: &str) -> String {
    format!("spec.template.spec.containers[?(@.name==\"{name}\")].image")
}

/// Returns containers and images, those that are not paused.
fn images(wish: &Wish) -> Vec<(&str, &str)> {
    let images = wish.images.iter().filter(|(_, one)| !one.paused);
    images
        .map(|(name, one)| (name.as_str(), one.image.as_str().unwrap()))
        .collect()
}

const ONE: &str = "registry.example.com/other/stream-1:1";
const TWO: &str = "registry.example.com/other/stream-2:1";

#[test]
fn the_annotation_is_read_as_openshift_reads_it() {
    let one = |path: &str| json!([{"from": from("stream-1:1"), "fieldPath": path}]);
    // 0
    let bare = json!({"metadata": {"name": "test"}});
    assert_eq!(read_of("statefulset", &bare), None);
    assert_eq!(annotated(&json!([]), &["test"], &[]), None);
    // 1
    let error = annotated(&one(&named("test")), &[], &[])
        .unwrap()
        .unwrap_err();
    assert!(
        error.ends_with("names no container of the object"),
        "{error}"
    );
    // 2, 3, 4
    for path in [
        "spec.template.spec.containers[?(@.name==\"test\")]",
        "spec.template.spec.containers[?(@.name==\"test\").image",
        "spec.template.spec.containers[@.name=test].image",
    ] {
        let error = read(&one(path)).unwrap_err();
        assert!(
            error.starts_with("entry 1: fieldPath ") && error.contains("is not valid; write"),
            "{error}"
        );
    }
    // 5, 6
    assert_eq!(
        images(&read(&one(&named("test"))).unwrap()),
        [("test", ONE)]
    );
    // 7
    let init = "spec.template.spec.initContainers[?(@.name==\"setup\")].image";
    assert_eq!(images(&read(&one(init)).unwrap()), [("setup", ONE)]);
    // 8
    let paused = json!([{"from": from("stream-1:1"), "fieldPath": named("test"), "paused": true}]);
    let wish = read(&paused).unwrap();
    assert_eq!((images(&wish), wish.images.len()), (vec![], 1));
    // 9, 10, 11
    for (stream, image) in [("stream-2:1", TWO), ("stream-1:1", ONE)] {
        let both = json!([
            {"from": from("stream-1:1"), "fieldPath": named("test")},
            {"from": from(stream), "fieldPath": named("test2")},
        ]);
        let wish = read(&both).unwrap();
        assert_eq!(images(&wish), [("test", ONE), ("test2", image)]);
        assert_eq!(wish.settings["partial"], true);
    }
}

#[test]
fn containers_are_named_by_their_place_too() {
    let at = |path: &str| {
        read(
            &json!([{"from": from("stream-1:1"), "fieldPath": format!("spec.template.spec.{path}")}]),
        )
    };
    assert_eq!(
        images(&at("containers[1].image").unwrap()),
        [("test2", ONE)]
    );
    assert_eq!(
        images(&at("initContainers[0].image").unwrap()),
        [("setup", ONE)]
    );
    // OpenShift looks for a name in both lists.
    assert_eq!(
        images(&at("containers[?(@.name==\"setup\")].image").unwrap()),
        [("setup", ONE)]
    );
    for (path, expected) in [
        (
            "containers[2].image",
            "names no container, since containers has 2",
        ),
        (
            "containers[99999999999999999999999].image",
            "names no container",
        ),
        ("containers[-1].image", "is not valid"),
        ("containers[+1].image", "is not valid"),
        ("containers[].image", "is not valid"),
        ("containers[ 1 ].image", "is not valid"),
        ("containers[1]image", "is not valid"),
        ("containers[1].image.x", "is not valid"),
        ("containers[1].name", "is not valid"),
        ("containers[?(@.name=='test')].image", "is not valid"),
        ("containers[?(@.name == \"test\")].image", "is not valid"),
        ("containers[?(@.name==\"\")].image", "is not valid"),
        (
            "containers[?(@.name==\"tést\")].image",
            "names no container",
        ),
        ("volumes[0].image", "is not valid"),
    ] {
        let error = at(path).unwrap_err();
        assert!(error.contains(expected), "{path}: {error}");
    }
    let cron = json!({
        "metadata": {"annotations": {(super::ANNOTATION): json!([{"from": from("stream-1:1"), "fieldPath": "spec.jobTemplate.spec.template.spec.containers[0].image"}]).to_string()}},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "job", "image": "x"}]}}}}},
    });
    assert_eq!(
        images(&read_of("cronjob", &cron).unwrap().unwrap()),
        [("job", ONE)]
    );
}

#[test]
fn an_entry_that_openshift_passes_over_is_named() {
    for (entry, expected) in [
        (
            json!({"from": from("stream-2:1"), "fieldPath": "spec.jobTemplate.spec.template.spec.containers[0].image"}),
            "entry 2: fieldPath is \"spec.jobTemplate.spec.template.spec.containers[0].image\", so the entry has no effect; it begins with spec.template.spec. in this kind of object",
        ),
        (
            json!({"from": {"kind": "DockerImage", "name": "mysql"}, "fieldPath": named("test2")}),
            "entry 2: from.kind is \"DockerImage\"; only an ImageStreamTag is followed, as in OpenShift, so the entry has no effect",
        ),
        (
            json!({"from": from("stream-2"), "fieldPath": named("test2")}),
            "entry 2: from.name is \"stream-2\", so the entry has no effect; write stream:tag",
        ),
        (
            json!({"from": from("a:b:c"), "fieldPath": named("test2")}),
            "entry 2: from.name is \"a:b:c\", so the entry has no effect; write stream:tag",
        ),
    ] {
        let good = json!({"from": from("stream-1:1"), "fieldPath": named("test")});
        let wish = read(&json!([good, entry])).unwrap();
        assert_eq!(
            (images(&wish), &wish.warnings[..]),
            (vec![("test", ONE)], &[expected.to_owned()][..])
        );
        // Without a good entry, nothing is followed.
        let error = read(&json!([entry])).unwrap_err();
        assert!(error.contains("so the entry has no effect"), "{error}");
    }
}

#[test]
fn mistakes_name_the_entry_and_the_cure() {
    let entry = |from: Value| json!([{"from": from, "fieldPath": named("test")}]);
    let paused = |paused: Value| json!([{"from": from("stream-1:1"), "fieldPath": named("test"), "paused": paused}]);
    for (triggers, expected) in [
        (
            json!("nonsense"),
            "image.openshift.io/triggers is no list in JSON: expected ident",
        ),
        (
            json!("{}"),
            "image.openshift.io/triggers is no list in JSON",
        ),
        (json!([7]), "entry 1: \"7\" is no entry; write {\"from\""),
        (
            json!([{"from": from("stream-1:1")}]),
            "entry 1: the text fieldPath is missing",
        ),
        (
            json!([{"fieldPath": named("test"), "from": "stream-1:1"}]),
            "from.kind is \"\"",
        ),
        (
            json!([{"from": from("a:1"), "fieldPath": named("test")}, {"from": from("b:1"), "fieldPath": named("test"), "paused": true}]),
            "entries 1 and 2 have the same fieldPath",
        ),
        (
            json!([{"from": from("a:1"), "fieldPath": named("test")}, {"from": from("b:1"), "fieldPath": "spec.template.spec.containers[0].image"}]),
            "entry 2: container \"test\" gets registry.example.com/other/a:1 by another entry, so it can't get registry.example.com/other/b:1 too",
        ),
        (
            paused(json!(1)),
            "entry 1: paused is \"1\"; write true or false",
        ),
        (
            paused(json!("no")),
            "entry 1: paused is \"no\"; write true or false",
        ),
        (
            entry(json!({"kind": "ImageStreamTag", "name": 7})),
            "entry 1: from.name is no text",
        ),
        (
            entry(json!({"kind": "ImageStreamTag", "name": "a:1", "apiVersion": "evil/v1"})),
            "entry 1: from.apiVersion is \"evil/v1\"; leave it out",
        ),
        (
            entry(json!({"kind": "ImageStreamTag", "name": "a:1", "namespace": "../other"})),
            "entry 1: from.namespace is \"../other\", no namespace",
        ),
        (
            entry(from("../../other:1")),
            "entry 1: \"../../other\" is no name of an image stream",
        ),
        (
            entry(from("{namespace}:1")),
            "entry 1: \"{namespace}\" is no name of an image stream",
        ),
        (
            entry(from("Web:1")),
            "entry 1: from.name is \"Web:1\", which imagestreams makes no image of",
        ),
        (
            entry(from("web:-bad")),
            "entry 1: from.name is \"web:-bad\", which imagestreams makes no image of",
        ),
    ] {
        let error = read(&triggers).unwrap_err();
        assert!(error.contains(expected), "{triggers}: {error}");
    }
}

#[test]
fn what_people_have_written_for_years_is_read_with_a_warning() {
    let wish = read(&json!([
        {"From": from("stream-1:1"), "FIELDPATH": named("test"), "paused": "false"},
        {"from": from("stream-1:1"), "fieldPath": named("test2"), "paused": "true", "automatic": 1},
    ]))
    .unwrap();
    assert_eq!(images(&wish), [("test", ONE)]);
    assert_eq!(
        wish.warnings,
        [
            "entry 1: paused is the text \"false\", which OpenShift refuses; write paused: false without quotation marks",
            "entry 2: \"automatic\" has no effect",
            "entry 2: paused is the text \"true\", which OpenShift refuses; write paused: true without quotation marks",
        ]
    );
}

#[test]
fn hostile_texts_are_bounded_and_clean() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let long = "x".repeat(200_000);
    let many: Vec<Value> = (0..60)
        .map(|n| json!({"from": from("a:1"), "fieldPath": format!("p{n}")}))
        .collect();
    let warned: Vec<Value> = (0..50)
        .map(|n| json!({"from": from("a:1"), "fieldPath": format!("p{n}\u{202e}\u{0}")}))
        .collect();
    let texts = [
        json!(deep),
        json!(long),
        json!([{"from": from("a:1"), "fieldPath": format!("spec.template.spec.{}", "y".repeat(9000))}]),
        json!([{"from": from(&format!("{}:1", "z".repeat(9000))), "fieldPath": named("test")}]),
        json!([{"from": from("a:1\u{202e}\u{1b}[31m"), "fieldPath": named("test")}]),
        Value::Array(many),
        Value::Array(warned),
        json!("\u{0}"),
        json!("null"),
        json!("[null]"),
    ];
    for text in texts {
        let error = read(&text).unwrap_err();
        assert!(error.len() < 4000, "{} bytes", error.len());
        assert!(
            !error.contains(['\u{202e}', '\u{1b}', '\u{0}']),
            "{error:?}"
        );
    }
    for annotation in [json!(null), json!(7), json!({})] {
        let object =
            json!({"metadata": {"annotations": {(super::ANNOTATION): annotation}}, "spec": 7});
        assert_eq!(read_of("deployment", &object), None);
    }
}

fn config(triggers: Value, containers: &[&str]) -> Value {
    let containers: Value = containers
        .iter()
        .map(|name| json!({"name": name, "image": ""}))
        .collect();
    json!({"metadata": {"name": "test", "namespace": "default"}, "spec": {"triggers": triggers, "template": {"spec": {"containers": containers}}}})
}

fn change(stream: &str, containers: &[&str], last: &str) -> Value {
    json!({"type": "ImageChange", "imageChangeParams": {
        "automatic": true, "from": from(stream), "containerNames": containers, "lastTriggeredImage": last}})
}

#[test]
fn the_triggers_of_a_deployment_config_are_read_as_openshift_reads_them() {
    let read = |triggers: Value, containers: &[&str]| {
        read_of(super::CONFIG, &config(triggers, containers)).map(Result::unwrap)
    };
    // 0
    assert_eq!(
        read_of(super::CONFIG, &json!({"metadata": {"name": "test"}})),
        None
    );
    assert_eq!(read(json!([{"type": "ConfigChange"}]), &["test"]), None);
    // 1, 2, 3, 4
    for last in ["", "image-lookup-1"] {
        let wish = read(json!([change("stream-1:1", &["test"], last)]), &[]).unwrap();
        assert_eq!(images(&wish), [("test", ONE)]);
        assert!(wish.settings.is_empty(), "one image is a whole set");
    }
    // 5
    let mut manual = change("stream-1:1", &["test"], "");
    manual["imageChangeParams"]["automatic"] = json!(false);
    let wish = read(json!([manual.clone()]), &["test"]).unwrap();
    assert_eq!((images(&wish), wish.images.len()), (vec![], 1));
    // The places are known before the trigger is automatic: it then changes in no other way.
    assert!(wish.target["paths"]["test"].is_array());
    // Another trigger of the same container has a note of its own.
    let both = json!([manual, change("stream-2:1", &["test"], "")]);
    let wish = read(both, &["test"]).unwrap();
    assert_eq!(images(&wish), [("test", TWO)]);
    let at = &wish.target["paths"]["test"];
    assert_eq!(at.as_array().unwrap().len(), 1);
    assert!(
        at[0]["at"]
            .as_str()
            .unwrap()
            .starts_with("/spec/triggers/1/")
    );
    // 6 to 10: half a set is one as soon as each trigger has found an image once.
    let two = |first: &str, second: &str| {
        let (one, two) = (
            change("stream-1:1", &["test"], first),
            change("stream-2:1", &["test2"], second),
        );
        read(json!([one, two]), &["test", "test2"]).unwrap()
    };
    assert!(two("", "old-image").settings.is_empty());
    let wish = two("old-image", "image-lookup-1");
    assert_eq!(wish.settings["partial"], true);
    assert_eq!(images(&wish), [("test", ONE), ("test2", TWO)]);
    let place = |index: usize| {
        let at = format!("/spec/triggers/{index}/imageChangeParams/lastTriggeredImage");
        json!([{"object": "deploymentconfig.apps.openshift.io/test", "at": at, "record": true}])
    };
    assert_eq!(
        wish.target["paths"],
        json!({"test": place(0), "test2": place(1)})
    );
    // 11 to 14
    for triggers in [
        json!([
            change("stream-1:1", &["test"], ""),
            change("stream-1:1", &["test2"], "")
        ]),
        json!([change("stream-1:1", &["test", "test2"], "")]),
    ] {
        let wish = read(triggers, &["test", "test2"]).unwrap();
        assert_eq!(images(&wish), [("test", ONE), ("test2", ONE)]);
        assert_eq!(wish.warnings, [""; 0]);
    }
}

#[test]
fn the_indexer_of_openshift_follows_image_streams_alone() {
    // TestDeploymentConfigTriggerIndexer: stream:1 for two containers, and an image of Docker.
    let docker = json!({"type": "ImageChange", "imageChangeParams": {"automatic": true, "from": {"kind": "DockerImage", "name": "mysql"}, "containerNames": ["third"]}});
    let mut own = change("stream:1", &["first", "second"], "");
    own["imageChangeParams"]["from"]["namespace"] = Value::Null;
    let wish = read_of(
        super::CONFIG,
        &config(json!([own, docker]), &["first", "second", "third"]),
    )
    .unwrap()
    .unwrap();
    let image = "registry.example.com/default/stream:1";
    assert_eq!(images(&wish), [("first", image), ("second", image)]);
    assert_eq!(wish.warnings.len(), 1);
    for wrong in [
        json!([{"imageChangeParams": {"automatic": true, "from": from("a:1"), "containerNames": "test"}}]),
        json!([{"imageChangeParams": {"automatic": true, "from": from("a:1"), "containerNames": [7]}}]),
        json!([{"imageChangeParams": {"automatic": 7, "from": from("a:1"), "containerNames": ["test"]}}]),
        json!([{"imageChangeParams": {"automatic": true, "from": from("a:1")}}]),
    ] {
        let error = read_of(super::CONFIG, &config(wrong, &["test"]))
            .unwrap()
            .unwrap_err();
        assert!(
            error.starts_with("entry 1: ") || error.starts_with("no entry"),
            "{error}"
        );
    }
}
