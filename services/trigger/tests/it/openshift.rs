//! Objects that are annotated for `OpenShift`, and its kind `DeploymentConfig`, on a real API
//! server.

mod cases;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::{SOON, TestKubernetes, eventually};

use self::cases::{CASES, Case, Expected, images};
use crate::kubernetes::{Place as Target, pinned};
use crate::world::*;

/// Makes the kind `DeploymentConfig`, once for all tests of the shared cluster.
async fn define_deployment_configs(cluster: &TestKubernetes) {
    static DEFINED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    DEFINED
        .get_or_init(async || {
            cluster.create(include_str!("openshift/deploymentconfig.yaml"));
            let crd = "crd/deploymentconfigs.apps.openshift.io";
            cluster.kubectl(&["wait", "--for=condition=Established", crd]);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_config_gets_its_first_image_and_the_note_of_it() {
    let mut place = Target::new().await;
    define_deployment_configs(place.cluster).await;
    let containers =
        json!([{"name": "web"}, {"name": "proxy", "image": "registry.example.com/infra/proxy:1"}]);
    let change = json!({"automatic": true, "containerNames": ["web"], "from": {"kind": "ImageStreamTag", "name": "web:latest"}});
    let object = json!({
        "apiVersion": "apps.openshift.io/v1",
        "kind": "DeploymentConfig",
        "metadata": {"name": "web", "namespace": place.namespace},
        "spec": {"replicas": 0, "triggers": [{"type": "ImageChange", "imageChangeParams": change}], "template": {"spec": {"containers": containers}}},
    });
    place.cluster.create(&object.to_string());
    place.configure(
        "[\"deploymentconfig.apps.openshift.io/web\"]",
        "containers.web = [\"web\"]\npaths.web = [{ object = \"deploymentconfig.apps.openshift.io/web\", record = true, \
         at = \"/spec/triggers/0/imageChangeParams/lastTriggeredImage\" }]",
    );
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let read = |place: &Target| -> (Value, Value) {
        let object = place.cluster.get(&place.namespace, "deploymentconfigs/web");
        let at = |at: &str| object.pointer(at).cloned().unwrap_or_default();
        (
            at("/spec/template/spec/containers/0/image"),
            at("/spec/triggers/0/imageChangeParams/lastTriggeredImage"),
        )
    };
    assert_eq!(read(&place), (json!(pinned(1)), json!(pinned(1))));
    assert_eq!(
        place.image("deploymentconfigs/web", 1),
        "registry.example.com/infra/proxy:1"
    );
    // A person who edits the triggers owns all of them, and has changed no image.
    place.kubectl(&[
        "patch",
        "deploymentconfigs/web",
        "--type=json",
        "-p",
        "[{\"op\": \"add\", \"path\": \"/spec/triggers/-\", \"value\": {\"type\": \"ConfigChange\"}}, \
          {\"op\": \"remove\", \"path\": \"/spec/triggers/0/imageChangeParams/lastTriggeredImage\"}]",
    ]);
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(read(&place), (json!(pinned(2)), json!(pinned(2))));
    service.stop().await;
}

/// A world whose objects annotated for `OpenShift` are triggers.
struct Discovered {
    world: World,
    cluster: &'static TestKubernetes,
    namespace: String,
}

impl Discovered {
    async fn new() -> Discovered {
        let cluster = TestKubernetes::shared().await;
        define_deployment_configs(cluster).await;
        let place = Discovered {
            world: World::new().await,
            namespace: cluster.namespace(),
            cluster,
        };
        let (kubeconfig, namespace) = (cluster.kubeconfig(), &place.namespace);
        place.world.configure(&format!(
            "[[cluster]]\nname = \"test\"\nkubeconfig = {{ file = \"{}\" }}\n\
             discover = [\"openshift\"]\nnamespaces = [\"{namespace}\"]\nimagestreams = \"registry.example.com/{{namespace}}/{{name}}\"\n",
            kubeconfig.display()
        ));
        place
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = ["--namespace", self.namespace.as_str()];
        self.cluster.kubectl(&[&namespace[..], arguments].concat())
    }

    /// Returns all objects of the cases, by name.
    fn objects(&self) -> BTreeMap<String, Value> {
        let text = self.kubectl(&[
            "get",
            "statefulsets,deploymentconfigs",
            "--output=json",
            "--show-managed-fields",
        ]);
        let list: Value = serde_json::from_str(&text).unwrap();
        let objects = list["items"].as_array().unwrap().iter();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        objects
            .map(|object| (name(object), object.clone()))
            .collect()
    }

    /// Returns the notes of the events of an object.
    fn notes(&self, name: &str) -> String {
        let field = format!("involvedObject.name={name}");
        self.kubectl(&[
            "get",
            "events",
            "--field-selector",
            &field,
            "-o",
            "jsonpath={.items[*].message}",
        ])
    }
}

/// Returns the difference between an object and the expected state of its case, if there is one.
fn difference(case: &Case, object: &Value, namespace: &str) -> Option<String> {
    let generation = object["metadata"]["generation"].as_i64();
    let before = case.object(namespace);
    let (expected, writes) = match &case.expected {
        Expected::Nothing | Expected::Mistake(_) => (images(&before), 0),
        Expected::Images(containers, last) => {
            let pairs = containers.iter();
            let pairs = pairs.map(|(name, image)| ((*name).to_owned(), case.written(*image)));
            let last = last.iter().map(|image| case.written(*image));
            ((pairs.collect(), last.collect()), 1)
        }
    };
    let found = images(object);
    let written = generation.map(|generation| generation - 1);
    (found != expected || written != Some(writes)).then(|| {
        format!(
            "{}: {found:?} after {written:?} writes, not {expected:?} after {writes}",
            case.name
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cases_of_openshift_end_as_openshift_ends_them() {
    let mut place = Discovered::new().await;
    let namespace = place.namespace.clone();
    let objects: Vec<Value> = CASES.iter().map(|case| case.object(&namespace)).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    place.cluster.create(&list.to_string());
    for case in &CASES {
        for (stream, n) in case.known {
            let image = format!("registry.example.com/{}/{stream}:1", case.other());
            place.world.push(&image, *n).await;
        }
    }
    let service = place.world.start().await;
    let different = |place: &Discovered| -> Vec<String> {
        let objects = place.objects();
        let all = CASES.iter();
        all.filter_map(|case| difference(case, &objects[case.name], &place.namespace))
            .collect()
    };
    let mut last = Vec::new();
    for _ in 0..60 {
        last = different(&place);
        if last.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(last.is_empty(), "{}", last.join("\n"));
    // People see each mistake at the object itself.
    for case in &CASES {
        if let Expected::Mistake(text) = case.expected {
            eventually(case.name, SOON, async || {
                place.notes(case.name).contains(text).then_some(())
            })
            .await;
        }
    }
    // And nothing follows: each object has come to rest.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let last = different(&place);
    assert!(last.is_empty(), "{}", last.join("\n"));
    service.stop().await;
    // TestAnnotationJSONPath: the path is one of JSONPath, too.
    let found = place.kubectl(&[
        "get",
        "statefulset/annotation-6",
        "-o",
        "jsonpath={.spec.template.spec.containers[?(@.name==\"test\")].image}",
    ]);
    assert_eq!(
        found,
        format!(
            "registry.example.com/annotation-6-other/stream-1@{}",
            digest(1)
        )
    );
}

/// Returns a `DeploymentConfig` without pods, whose triggers follow tags of streams of its
/// namespace.
fn deployment_config(name: &str, namespace: &str, tags: &[(&str, &str, bool)]) -> Value {
    let containers: Value = tags
        .iter()
        .map(|(container, ..)| json!({"name": container}))
        .collect();
    let triggers = tags.iter().map(|(container, tag, automatic)| {
        json!({"type": "ImageChange", "imageChangeParams": {
            "automatic": automatic, "containerNames": [container], "from": {"kind": "ImageStreamTag", "name": tag}}})
    });
    let triggers: Value = triggers.collect();
    json!({
        "apiVersion": "apps.openshift.io/v1",
        "kind": "DeploymentConfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 0, "triggers": triggers, "template": {"spec": {"containers": containers}}},
    })
}

/// Returns a Deployment without pods, whose annotation follows tags of streams of its namespace.
fn deployment(name: &str, namespace: &str, tags: &[(&str, &str)]) -> Value {
    let containers: Value = tags
        .iter()
        .map(|(container, _)| json!({"name": container, "image": " "}))
        .collect();
    let triggers = tags.iter().map(|(container, tag)| {
        json!({"from": {"kind": "ImageStreamTag", "name": tag},
            "fieldPath": format!("spec.template.spec.containers[?(@.name==\"{container}\")].image")})
    });
    let triggers: Value = triggers.collect();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"image.openshift.io/triggers": triggers.to_string()}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}},
    })
}

impl Discovered {
    /// Pushes an image of the tag `STREAM:TAG` of the namespace.
    async fn push(&mut self, tag: &str, n: u8) {
        let image = format!("registry.example.com/{}/{tag}", self.namespace);
        self.world.push(&image, n).await;
    }

    /// Returns the reference of an image of a stream of the namespace.
    fn pinned(&self, stream: &str, n: u8) -> String {
        format!(
            "registry.example.com/{}/{stream}@{}",
            self.namespace,
            digest(n)
        )
    }

    /// Returns the images of an object by container, the last images of its triggers, and the
    /// number of changes of its specification.
    fn state(&self, object: &str) -> (Vec<String>, Vec<String>, i64) {
        let object = self.cluster.get(&self.namespace, object);
        let (containers, last) = images(&object);
        let containers = containers.into_iter().map(|(_, image)| image);
        let generation = object["metadata"]["generation"].as_i64().unwrap();
        (containers.collect(), last, generation - 1)
    }

    /// Releases all triggers, as the api does.
    async fn release(&mut self) {
        sqlx::query(
            "with a as (insert into act (actor, act, request_id) values ('ann', 'release', 'x') returning id),
                 h as (update hold set released_at = now(), released_by = 'ann' where released_at is null)
             insert into rollout_order (act_id, trigger_id, kind, cause, actor)
             select a.id, t.id, 'release', 'release', 'ann' from a, trigger t",
        )
        .execute(&mut self.world.sql)
        .await
        .unwrap();
    }

    async fn becomes(&self, object: &str, containers: &[String]) -> (Vec<String>, i64) {
        eventually(
            &format!("{object} to run {containers:?}"),
            SOON * 2,
            async || {
                let (found, last, writes) = self.state(object);
                (found == containers).then_some((last, writes))
            },
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tags_that_move_at_once_are_one_write() {
    // TestTriggerControllerSyncImageStream: two tags of a stream, and an image of Docker.
    let mut place = Discovered::new().await;
    let namespace = place.namespace.clone();
    let mut object = deployment(
        "test",
        &namespace,
        &[
            ("one", "stream:1"),
            ("two", "stream:2"),
            ("three", "stream:3"),
        ],
    );
    let annotations = &mut object["metadata"]["annotations"]["image.openshift.io/triggers"];
    *annotations = json!(annotations.as_str().unwrap().replace(
        "ImageStreamTag\",\"name\":\"stream:3",
        "DockerImage\",\"name\":\"test/stream:1"
    ));
    place.push("stream:1", 1).await;
    place.push("stream:2", 2).await;
    place.cluster.create(&object.to_string());
    let service = place.world.start().await;
    let expected = [
        place.pinned("stream", 1),
        place.pinned("stream", 2),
        " ".to_owned(),
    ];
    let (_, writes) = place.becomes("deployment/test", &expected).await;
    assert_eq!(writes, 1);
    let note = "only an ImageStreamTag is followed";
    eventually("a remark", SOON, async || {
        place.notes("test").contains(note).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_config_changes_once_all_of_its_images_are_known() {
    // TestTriggers_MultipleICTs
    let mut place = Discovered::new().await;
    let object = deployment_config(
        "test",
        &place.namespace,
        &[("one", "stream-1:1", true), ("two", "stream-2:1", true)],
    );
    place.cluster.create(&object.to_string());
    place.push("stream-1:1", 1).await;
    let service = place.world.start().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let none = || vec![String::new(), String::new()];
    assert_eq!(place.state("deploymentconfigs/test"), (none(), none(), 0));
    place.push("stream-2:1", 2).await;
    let both = [place.pinned("stream-1", 1), place.pinned("stream-2", 2)];
    let (last, writes) = place.becomes("deploymentconfigs/test", &both).await;
    assert_eq!((last, writes), (both.to_vec(), 1));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_becomes_automatic_rolls_the_newest_image_out() {
    // TestTriggers_imageChange_nonAutomatic
    let mut place = Discovered::new().await;
    let object = deployment_config("test", &place.namespace, &[("one", "stream:1", false)]);
    place.cluster.create(&object.to_string());
    let service = place.world.start().await;
    for n in [1, 2] {
        place.push("stream:1", n).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(place.state("deploymentconfigs/test").2, 0);
    }
    place.kubectl(&[
        "patch",
        "deploymentconfigs/test",
        "--type=json",
        "-p",
        "[{\"op\": \"replace\", \"path\": \"/spec/triggers/0/imageChangeParams/automatic\", \"value\": true}]",
    ]);
    let newest = [place.pinned("stream", 2)];
    let (last, writes) = place.becomes("deploymentconfigs/test", &newest).await;
    // The change of a person, and the image.
    assert_eq!((last, writes), (newest.to_vec(), 2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_patches_by_a_person_end_in_one_hold_and_a_release_sets_the_image_again() {
    // test/extended/images/trigger/annotation.go
    let mut place = Discovered::new().await;
    let object = deployment("test", &place.namespace, &[("one", "test:v1")]);
    place.cluster.create(&object.to_string());
    let service = place.world.start().await;
    place.push("test:v1", 1).await;
    let image = [place.pinned("test", 1)];
    place.becomes("deployment/test", &image).await;
    for n in 0..50 {
        // Another text each time, so that each of them is a change.
        let patch = format!(
            "[{{\"op\": \"replace\", \"path\": \"/spec/template/spec/containers/0/image\", \"value\": \"{}\"}}]",
            " ".repeat(1 + n % 2)
        );
        place.kubectl(&["patch", "deployment/test", "--type=json", "-p", &patch]);
    }
    let faults = eventually("a hold", SOON, async || {
        let faults = "select reason from hold where kind = 'fault' and released_at is null";
        let faults: Vec<String> = sqlx::query_scalar(faults)
            .fetch_all(&mut place.world.sql)
            .await
            .unwrap();
        (!faults.is_empty()).then_some(faults)
    })
    .await;
    assert!(
        faults.len() == 1 && faults[0].contains("kubectl-patch has changed one to"),
        "{faults:?}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(place.state("deployment/test").0, ["  "]);
    place.release().await;
    place.becomes("deployment/test", &image).await;
    service.stop().await;
}

/// One step of a random walk: numbers that look random and repeat with their seed.
fn next(state: &mut u64, below: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_end_in_the_state_that_the_triggers_ask_for() {
    // TestTriggerController, smaller: 4 rounds of 16 changes of 8 tags and 8 objects.
    let mut place = Discovered::new().await;
    let namespace = place.namespace.clone();
    let mut state = 1;
    let tag = |number: u64| format!("stream-{}:{}", number / 2, number % 2);
    let mut heads = [1u8; 8];
    for number in 0..8 {
        place.push(&tag(number), 1).await;
    }
    // By object, the tags of its two containers.
    let mut follows: Vec<[u64; 2]> = (0..8).map(|n| [n, (n + 3) % 8]).collect();
    let name = |at: usize| match at % 2 {
        0 => ("deployment", format!("soak-{at}")),
        _ => ("deploymentconfigs", format!("soak-{at}")),
    };
    let object = |at: usize, tags: [u64; 2]| {
        let (kind, name) = name(at);
        let (one, two) = (tag(tags[0]), tag(tags[1]));
        match kind {
            "deployment" => deployment(&name, &namespace, &[("one", &one), ("two", &two)]),
            _ => deployment_config(
                &name,
                &namespace,
                &[("one", &one, true), ("two", &two, true)],
            ),
        }
    };
    for (at, tags) in follows.iter().enumerate() {
        place.cluster.create(&object(at, *tags).to_string());
    }
    let service = place.world.start().await;
    for round in 0..4 {
        for _ in 0..16 {
            let number = next(&mut state, 8);
            if next(&mut state, 2) == 0 {
                heads[number as usize] = 1 + next(&mut state, 5) as u8;
                place.push(&tag(number), heads[number as usize]).await;
                continue;
            }
            let (at, container) = (next(&mut state, 8) as usize, next(&mut state, 2) as usize);
            follows[at][container] = number;
            let wanted = object(at, follows[at]);
            let (kind, name) = name(at);
            let (field, value) = match kind {
                "deployment" => (
                    "/metadata/annotations/image.openshift.io~1triggers",
                    &wanted["metadata"]["annotations"]["image.openshift.io/triggers"],
                ),
                _ => ("/spec/triggers", &wanted["spec"]["triggers"]),
            };
            let patch = json!([{"op": "replace", "path": field, "value": value}]).to_string();
            place.kubectl(&[
                "patch",
                &format!("{kind}/{name}"),
                "--type=json",
                "-p",
                &patch,
            ]);
        }
        for (at, tags) in follows.iter().enumerate() {
            let (kind, name) = name(at);
            let images = tags.map(|number| {
                place.pinned(&format!("stream-{}", number / 2), heads[number as usize])
            });
            let (last, _) = place.becomes(&format!("{kind}/{name}"), &images).await;
            // A change of the triggers by hand takes their last images away.
            assert!(
                last.iter()
                    .all(|last| last.is_empty() || images.contains(last)),
                "round {round}: {last:?}"
            );
        }
    }
    service.stop().await;
}
