use std::path::Path;

use serde_json::json;
use tagtrail_proto::Digest;

use super::*;

fn target(settings: &str) -> KubernetesTarget {
    let text = format!(
        "[[registry]]\nname = \"registry.example.com\"\nurl = \"https://registry.example.com\"\naliases = [\"10.0.0.7:5000\"]\n\
         [[cluster]]\nname = \"prod\"\n\
         [[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\nimages.proxy = \"docker.io/library/nginx:stable\"\n\
         target.kubernetes = {{ cluster = \"prod\", namespace = \"shop\", objects = [\"deployment/web\"]{settings} }}\n"
    );
    let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
    assert_eq!(file.broken, []);
    let (trigger, clusters) = (&file.trigger[0], Clusters::of(&file, None));
    KubernetesTarget::new(trigger.target().value, trigger, (&file, &clusters)).unwrap()
}

fn images() -> BTreeMap<String, RolloutImage> {
    let image = |text: &str| {
        let image: tagtrail_proto::Image = text.parse().unwrap();
        let digest = Digest::sha256_of(text.as_bytes());
        RolloutImage {
            pinned: image.pinned(&digest),
            image,
            revision: 1,
            digest,
            actor: None,
            previous: None,
        }
    };
    BTreeMap::from([
        (
            "web".to_owned(),
            image("registry.example.com/shop/web:latest"),
        ),
        ("proxy".to_owned(), image("docker.io/library/nginx:stable")),
    ])
}

fn deployment(containers: &[(&str, &str)]) -> Value {
    let list: Vec<Value> = containers
        .iter()
        .map(|(name, image)| json!({"name": name, "image": image}))
        .collect();
    json!({"metadata": {"uid": "u"}, "spec": {"template": {"spec": {"containers": list}}}})
}

fn changed(target: &KubernetesTarget, containers: &[(&str, &str)]) -> Vec<(String, String)> {
    let object = "deployment/web".parse().unwrap();
    let used = target.used(&object, &deployment(containers)).unwrap();
    let changes = target.changes(used, &images());
    let pair = |change: Change| (change.place.name, change.to);
    changes.into_iter().map(pair).collect()
}

#[test]
fn containers_are_found_by_their_repositories() {
    let web = images()["web"].digest.clone();
    let proxy = images()["proxy"].digest.clone();
    let found = changed(
        &target(""),
        &[
            ("web", "registry.example.com/shop/web:latest"),
            ("by-alias", "10.0.0.7:5000/shop/web:v1"),
            ("proxy", "nginx"),
            ("other", "registry.example.com/shop/web-admin:latest"),
            ("done", &format!("registry.example.com/shop/web@{web}")),
        ],
    );
    // A cluster may reach the registry by the name that it uses alone.
    let expected = [
        ("web", format!("registry.example.com/shop/web@{web}")),
        ("by-alias", format!("10.0.0.7:5000/shop/web@{web}")),
        ("proxy", format!("nginx@{proxy}")),
    ];
    assert_eq!(found, expected.map(|(name, to)| (name.to_owned(), to)));
}

#[test]
fn containers_that_are_named_run_the_image_whatever_they_ran_before() {
    let target = target(", containers.web = [\"migrate\"]");
    let found = changed(
        &target,
        &[
            ("web", "registry.example.com/shop/web:latest"),
            ("migrate", "registry.example.com/shop/old-migrate:3"),
        ],
    );
    let to = images()["web"].pinned.to_string();
    assert_eq!(found, [("migrate".to_owned(), to)]);
}

#[test]
fn other_places_get_the_part_that_they_hold() {
    let target = target(
        ", paths.web = [{ object = \"thing.example.com/x\", at = \"/spec/digest\", write = \"digest\" }, { object = \"thing.example.com/x\", at = \"/spec/image\" }]",
    );
    let object: ObjectName = "thing.example.com/x".parse().unwrap();
    let value =
        json!({"spec": {"digest": "sha256:old", "image": "registry.example.com/shop/web:1"}});
    let used = target.used(&object, &value).unwrap();
    let changes = target.changes(used, &images());
    let to: Vec<String> = changes.into_iter().map(|change| change.to).collect();
    let web = &images()["web"];
    assert_eq!(to, [web.digest.to_string(), web.pinned.to_string()]);
    let used = target.used(&object, &json!({"spec": {}}));
    let error = used.err().unwrap();
    assert!(error.contains("/spec/digest"), "{error}");
}

#[test]
fn a_note_of_an_image_gets_its_first_value_and_nobody_decides_there() {
    let target = target(
        ", paths.web = [{ object = \"thing.example.com/x\", at = \"/spec/0/last\", record = true }]",
    );
    let object: ObjectName = "thing.example.com/x".parse().unwrap();
    let value = json!({"metadata": {"resourceVersion": "1"}, "spec": [{"first": 1}]});
    let changes = target.changes(target.used(&object, &value).unwrap(), &images());
    let pinned = images()["web"].pinned.to_string();
    assert_eq!(
        tagtrail_kubernetes::patch(&value, &changes, &[]),
        json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
            {"op": "add", "path": "/spec/0/last", "value": pinned},
        ])
    );
    let used = target.used(&object, &value).unwrap();
    assert_eq!(target.running_changes(&object, used, &images()), []);
    // Without the map above, the place is a mistake.
    for value in [
        json!({"spec": []}),
        json!({"spec": [7]}),
        json!({"spec": [{"last": 7}]}),
    ] {
        let error = target.used(&object, &value).err().unwrap();
        assert!(error.contains("/spec/0/last"), "{error}");
    }
}
