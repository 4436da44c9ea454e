//! Triggers of annotated objects, on a real API server.

use std::time::Duration;

use serde_json::Value;
use tagtrail_config::File;
use tagtrail_proto::RolloutState::{Failed, Held, Succeeded, Watching};
use tagtrail_testkit::{Process, SOON, TestKubernetes, eventually, resident};
use tagtrail_trigger::Outlive;

use crate::kubernetes::{Place, pinned};
use crate::world::*;

const SECOND: Outlive = Outlive(Duration::from_secs(1));

/// A trigger as recorded.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    configured: bool,
    paused: bool,
    /// The mistake, if the trigger is broken.
    broken: Option<String>,
}

impl Place {
    /// Discovers annotated objects of the namespace, with further keys of the cluster.
    fn discover(&self, more: &str) {
        self.discover_by(&self.cluster.kubeconfig().display().to_string(), more);
    }

    fn discover_by(&self, kubeconfig: &str, more: &str) {
        let namespace = &self.namespace;
        self.world.configure(&format!(
            "[[cluster]]\nname = \"test\"\nkubeconfig = {{ file = \"{kubeconfig}\" }}\n\
             discover = [\"tagtrail\", \"openshift\", \"keel\"]\nnamespaces = [\"{namespace}\"]\n\
             imagestreams = \"registry.example.com/{{namespace}}/{{name}}\"\n{more}\n"
        ));
    }

    /// A Deployment that was annotated, rolled out, and then set back by a person to a revision
    /// without annotations.
    async fn undone(annotations: &[&str]) -> (Place, Service) {
        let mut place = Place::new().await;
        place.run("Deployment", "web", 1);
        place.discover("");
        let service = place
            .world
            .start_with(PACE, |config| config.outlive = SECOND)
            .await;
        place.world.push(WEB, 1).await;
        // The ReplicaSet of the first revision never has the annotations.
        let image = "web=registry.example.com/shop/web:v1";
        place.kubectl(&["set", "image", "deployment/web", image]);
        eventually("a second revision", SOON, async || {
            let object = place.cluster.get(&place.namespace, "deployment/web");
            let revision = "/metadata/annotations/deployment.kubernetes.io~1revision";
            (object.pointer(revision)? == "2").then_some(())
        })
        .await;
        place.annotate("deployment/web", annotations);
        place.wait(1, Succeeded).await;
        place.kubectl(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
        (place, service)
    }

    fn annotate(&self, object: &str, annotations: &[&str]) {
        self.kubectl(&[&["annotate", "--overwrite", object], annotations].concat());
    }

    fn trigger(&self, kind: &str, name: &str) -> String {
        format!("test-{}-{kind}-{name}", self.namespace)
    }

    async fn seen(&mut self, trigger: &str) -> Option<Seen> {
        let row: Option<(bool, bool, bool, Option<String>)> = sqlx::query_as(
            "select configured, state = 'paused', broken, problem from trigger where name = $1",
        )
        .bind(trigger)
        .fetch_optional(&mut self.world.sql)
        .await
        .unwrap();
        row.map(|(configured, paused, broken, problem)| Seen {
            configured,
            paused,
            broken: problem.filter(|_| broken),
        })
    }

    async fn configured(&mut self, trigger: &str, configured: bool) {
        let what = format!("trigger {trigger}, configured: {configured}");
        eventually(&what, SOON * 2, async || {
            let seen = self.seen(trigger).await.unwrap_or_default();
            let good = seen.broken.is_none() || !configured;
            (seen.configured == configured && good).then_some(())
        })
        .await;
    }

    async fn mistake(&mut self, trigger: &str) -> String {
        eventually("a mistake", SOON * 2, async || {
            self.seen(trigger).await?.broken
        })
        .await
    }

    async fn becomes(&self, object: &str, container: usize, image: &str) {
        eventually(&format!("{object} runs {image}"), SOON * 2, async || {
            (self.image(object, container) == image).then_some(())
        })
        .await;
    }

    /// Waits for an event on an object that has this text.
    async fn told(&self, name: &str, text: &str) {
        eventually(&format!("an event with {text}"), SOON * 2, async || {
            let arguments = ["get", "events.v1.events.k8s.io", "--output=json"];
            let all: Value = serde_json::from_str(&self.kubectl(&arguments)).unwrap();
            let mut all = all["items"].as_array().unwrap().iter();
            let is = |event: &&Value| {
                event["regarding"]["name"] == name
                    && event["note"]
                        .as_str()
                        .is_some_and(|note| note.contains(text))
            };
            all.find(is).map(|_| ())
        })
        .await;
    }

    /// Waits until the metrics of the service that discovers show so many objects of a kind:
    /// triggers, refused ones, and those that are left out.
    async fn counts<const N: usize>(
        &self,
        services: [&Service; N],
        kind: &str,
        expected: [u32; 3],
    ) {
        let results = ["trigger", "refused", "left_out"];
        let lines = results.iter().zip(expected).map(|(result, count)| {
            format!("tagtrail_trigger_discovered_objects{{cluster=\"test\",kind=\"{kind}\",result=\"{result}\"}} {count}\n")
        });
        let lines: Vec<String> = lines.collect();
        eventually(&format!("{expected:?} of {kind}"), SOON * 2, async || {
            let shown = services.map(|service| service.ctx.metrics.text().unwrap());
            let has_all = |shown: &String| lines.iter().all(|line| shown.contains(line));
            shown.iter().any(has_all).then_some(())
        })
        .await;
    }

    /// Creates an object as soon as its kind is there.
    async fn create_soon(&self, object: &str) {
        eventually("the kind of an object", SOON, async || {
            self.cluster
                .try_kubectl(&["create", "-f", "-"], object)
                .ok()
        })
        .await;
    }

    /// Waits until `kubectl get imagetriggers` shows these texts.
    async fn shows(&self, name: &str, texts: &[&str]) {
        eventually(&format!("{name} with {texts:?}"), SOON * 2, async || {
            let shown = self.kubectl(&["get", "imagetriggers", name]);
            texts.iter().all(|text| shown.contains(text)).then_some(())
        })
        .await;
    }

    /// Returns the findings of the doctor about the cluster.
    async fn inspected_cluster(&self) -> Vec<String> {
        let path = self.world.folder.path().join("tagtrail.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let file = File::parse(&text, &path).unwrap();
        let problems = tagtrail_trigger::inspect_cluster(&file, 0).await.unwrap();
        let problems = problems.iter();
        let found = problems.map(|problem| format!("{}; {}", problem.found, problem.cure));
        found.collect()
    }

    /// Ends all holds of a trigger as the api does, with the order to look at the present images.
    async fn release(&mut self, trigger: &str) {
        sqlx::query(
            "with a as (insert into act (actor, act, trigger, request_id) values ('ann', 'release', $1, 'x') returning id),
                 h as (update hold set released_at = now(), released_by = 'ann' where released_at is null)
             insert into rollout_order (act_id, trigger_id, kind, cause, actor)
             select a.id, t.id, 'release', 'release', 'ann' from a, trigger t where t.name = $1",
        )
        .bind(trigger)
        .execute(&mut self.world.sql)
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotated_object_needs_no_other_configuration() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.run("StatefulSet", "db", 0);
    place.discover("");
    let service = place.world.start().await;
    place.world.push(WEB, 1).await;
    // One that is there already, and one that is annotated later.
    place.annotate(
        "deployment/web",
        &["tagtrail.dev/follow=web", "tagtrail.dev/settle=0s"],
    );
    place.becomes("deployment/web", 0, &pinned(1)).await;
    let trigger = place.trigger("deployment", "web");
    place.configured(&trigger, true).await;
    let proxy = "registry.example.com/infra/proxy:1";
    assert_eq!(place.image("deployment/web", 1), proxy);
    place.annotate(
        "statefulset/db",
        &[
            "keel.sh/policy=force",
            "keel.sh/matchTag=true",
            "keel.sh/monitorContainers=^web$",
        ],
    );
    place.becomes("statefulset/db", 0, &pinned(1)).await;
    place.counts([&service], "deployment", [1, 0, 0]).await;
    // The tag is known although the container no longer names it.
    place.world.push(WEB, 2).await;
    place.becomes("deployment/web", 0, &pinned(2)).await;
    place.becomes("statefulset/db", 0, &pinned(2)).await;
    // Settings change with their annotations, and a pause too.
    place.annotate("deployment/web", &["tagtrail.dev/paused=true"]);
    eventually("a pause", SOON, async || {
        place.seen(&trigger).await.filter(|seen| seen.paused)
    })
    .await;
    place.annotate("deployment/web", &["tagtrail.dev/paused-"]);
    eventually("its end", SOON, async || {
        place.seen(&trigger).await.filter(|seen| !seen.paused)
    })
    .await;
    service.stop().await;
    let doors: Vec<(String, String, String)> = sqlx::query_as(
        "select distinct s.door, s.actor, s.file from trigger_spec s join trigger t on t.id = s.trigger_id where t.name = $1",
    )
    .bind(&trigger)
    .fetch_all(&mut place.world.sql)
    .await
    .unwrap();
    let object = format!(
        "deployment/web in namespace {} of cluster test",
        place.namespace
    );
    assert_eq!(
        doors,
        [("kubernetes".to_owned(), "kubernetes".to_owned(), object)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_an_event_and_a_broken_trigger_and_harms_no_other() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.run("Deployment", "api", 1);
    place.annotate("deployment/web", &["tagtrail.dev/follow=web"]);
    place.annotate("deployment/api", &["tagtrail.dev/folow=web"]);
    place.discover("");
    let service = place.world.start().await;
    place.world.push(WEB, 1).await;
    place.becomes("deployment/web", 0, &pinned(1)).await;
    let (web, api) = (
        place.trigger("deployment", "web"),
        place.trigger("deployment", "api"),
    );
    let text = place.mistake(&api).await;
    assert!(text.contains("did you mean tagtrail.dev/follow?"), "{text}");
    place.told("api", "did you mean tagtrail.dev/follow?").await;
    // A wrong setting is one as well, and the settings before stay in force.
    place.annotate("deployment/web", &["tagtrail.dev/settle=soon"]);
    let text = place.mistake(&web).await;
    assert!(
        text.contains("soon") && text.contains("the entry before stays in force"),
        "{text}"
    );
    place.told("web", "tagtrail.dev/settle: \"soon\"").await;
    place.counts([&service], "deployment", [0, 2, 0]).await;
    place.world.push(WEB, 2).await;
    place.becomes("deployment/web", 0, &pinned(2)).await;
    // Both heal without a restart.
    place.annotate("deployment/web", &["tagtrail.dev/settle-"]);
    place.annotate(
        "deployment/api",
        &["tagtrail.dev/folow-", "tagtrail.dev/follow=web"],
    );
    place.configured(&web, true).await;
    place.configured(&api, true).await;
    place.becomes("deployment/api", 0, &pinned(2)).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_goes_with_its_object_and_outlives_its_annotations() {
    let mut place = Place::new().await;
    place.discover("");
    let service = place.world.start().await;
    place.world.push(WEB, 1).await;
    for name in ["web", "api"] {
        place.run("Deployment", name, 1);
        place.annotate(&format!("deployment/{name}"), &["tagtrail.dev/follow=web"]);
        place
            .becomes(&format!("deployment/{name}"), 0, &pinned(1))
            .await;
    }
    let (web, api) = (
        place.trigger("deployment", "web"),
        place.trigger("deployment", "api"),
    );
    place.annotate("deployment/web", &["tagtrail.dev/follow-"]);
    place.kubectl(&["delete", "deployment/api"]);
    place.configured(&api, false).await;
    // The other one is still there, and another process removes it after a while.
    place.configured(&web, true).await;
    service.stop().await;
    let service = place
        .world
        .start_with(PACE, |config| config.outlive = SECOND)
        .await;
    place.configured(&web, false).await;
    // The history goes on when the annotations come back.
    place.annotate("deployment/web", &["tagtrail.dev/follow=web"]);
    place.configured(&web, true).await;
    place.world.push(WEB, 2).await;
    place.becomes("deployment/web", 0, &pinned(2)).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_takes_the_annotations_away_is_a_hold() {
    let (mut place, service) =
        Place::undone(&["tagtrail.dev/follow.web=latest", "tagtrail.dev/settle=0s"]).await;
    let object = place.cluster.get(&place.namespace, "deployment/web");
    let annotations = object.pointer("/metadata/annotations").unwrap();
    assert!(
        annotations.get("tagtrail.dev/settle").is_none(),
        "{annotations}"
    );
    let fault = place.fault().await;
    assert!(fault.contains("kubectl has changed web to"), "{fault}");
    // A newer image changes nothing, and the trigger lasts as long as the hold.
    place.world.push(WEB, 2).await;
    place.wait(2, Held).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = "registry.example.com/shop/web:latest";
    assert_eq!(place.image("deployment/web", 0), before);
    let trigger = place.trigger("deployment", "web");
    place.configured(&trigger, true).await;
    place.release(&trigger).await;
    eventually("the annotations", SOON * 2, async || {
        let object = place.cluster.get(&place.namespace, "deployment/web");
        let follow = object.pointer("/metadata/annotations/tagtrail.dev~1follow.web")?;
        (follow == "latest").then_some(())
    })
    .await;
    place.becomes("deployment/web", 0, &pinned(2)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    place.configured(&trigger, true).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_removes_no_trigger() {
    let mut place = Place::alone().await;
    place.run("Deployment", "web", 0);
    place.annotate("deployment/web", &["tagtrail.dev/follow=web"]);
    place.discover("");
    let service = place
        .world
        .start_with(PACE, |config| config.outlive = SECOND)
        .await;
    place.world.push(WEB, 1).await;
    place.becomes("deployment/web", 0, &pinned(1)).await;
    service.stop().await;
    place.cluster.signal_api_server("KILL");
    let service = place
        .world
        .start_with(PACE, |config| config.outlive = SECOND)
        .await;
    let trigger = place.trigger("deployment", "web");
    tokio::time::sleep(Duration::from_secs(3)).await;
    place.configured(&trigger, true).await;
    place.world.push(WEB, 2).await;
    place.becomes("deployment/web", 0, &pinned(2)).await;
    place.configured(&trigger, true).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_namespaces_are_left_alone_and_two_processes_share_a_cluster() {
    let mut place = Place::new().await;
    let elsewhere = place.cluster.namespace();
    place.run("Deployment", "web", 1);
    let here = std::mem::replace(&mut place.namespace, elsewhere);
    place.run("Deployment", "web", 1);
    place.annotate("deployment/web", &["tagtrail.dev/follow=web"]);
    let other = place.trigger("deployment", "web");
    let elsewhere = std::mem::replace(&mut place.namespace, here);
    place.discover("most = 1");
    let (one, two) = (place.world.start().await, place.world.start().await);
    place.world.push(WEB, 1).await;
    place.annotate(
        "deployment/web",
        &["tagtrail.dev/follow=web", "tagtrail.dev/settle=0s"],
    );
    place.wait(1, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    // One more than the entry allows.
    place.run("DaemonSet", "agent", 0);
    place.annotate("daemonset/agent", &["tagtrail.dev/follow=web"]);
    place.told("agent", "raise `most`").await;
    place.counts([&one, &two], "daemonset", [0, 0, 1]).await;
    one.stop().await;
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(place.world.rollouts().await.len(), 2);
    assert_eq!(place.seen(&other).await, None);
    let more = place.trigger("daemonset", "agent");
    assert_eq!(place.seen(&more).await, None);
    place.namespace = elsewhere;
    let before = "registry.example.com/shop/web:latest";
    assert_eq!(place.image("deployment/web", 0), before);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_group_are_one_trigger() {
    let mut place = Place::new().await;
    for name in ["web", "api"] {
        place.run("Deployment", name, 0);
        place.annotate(
            &format!("deployment/{name}"),
            &[
                "tagtrail.dev/follow=web",
                "tagtrail.dev/group=shop",
                "tagtrail.dev/settle=0s",
            ],
        );
    }
    place.discover("");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.becomes("deployment/web", 0, &pinned(1)).await;
    place.becomes("deployment/api", 0, &pinned(1)).await;
    let group = place.trigger("group", "shop");
    place.configured(&group, true).await;
    let triggers: i64 = sqlx::query_scalar("select count(*) from trigger")
        .fetch_one(&mut place.world.sql)
        .await
        .unwrap();
    assert_eq!(triggers, 1);
    // One that leaves the group leaves the trigger.
    place.annotate("deployment/api", &["tagtrail.dev/group-"]);
    let api = place.trigger("deployment", "api");
    place.configured(&api, true).await;
    place.kubectl(&["delete", "deployment/web"]);
    place.configured(&group, false).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_role_suffices_for_annotations_and_image_triggers() {
    let mut place = Place::alone().await;
    for namespace in ["shop", "tagtrail"] {
        place.cluster.kubectl(&["create", "namespace", namespace]);
    }
    place
        .cluster
        .kubectl(&["-n", "tagtrail", "create", "serviceaccount", "tagtrail"]);
    place.namespace = "shop".to_owned();
    place.run("Deployment", "web", 1);
    place.run("Deployment", "api", 1);
    let kubeconfig = place.kubeconfig_of_account("tagtrail");
    place.discover_by(&kubeconfig, "");
    let found = place.inspected_cluster().await;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found[0].contains("give Tagtrail's account the rights of deploy/kubernetes/discover.yaml"),
        "{found:?}"
    );
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/");
    for file in ["discover.yaml", "images-only.yaml", "imagetrigger.yaml"] {
        let path = format!("{folder}{file}");
        place
            .cluster
            .kubectl(&["create", "--validate=strict", "-f", &path]);
    }
    let found = eventually("the rights", SOON, async || {
        Some(place.inspected_cluster().await).filter(Vec::is_empty)
    });
    found.await;
    place.annotate(
        "deployment/web",
        &["tagtrail.dev/follow=web", "tagtrail.dev/settle=0s"],
    );
    let object = "{apiVersion: tagtrail.dev/v1alpha1, kind: ImageTrigger, metadata: {name: apis, namespace: shop}, spec: {\
        objects: [deployment/api], settle: 0s, images: {web: \"registry.example.com/shop/web:latest\"}}}";
    place.create_soon(object).await;
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.becomes("deployment/web", 0, &pinned(1)).await;
    place.becomes("deployment/api", 0, &pinned(1)).await;
    let trigger = place.trigger("imagetrigger", "apis");
    place.configured(&trigger, true).await;
    let short = pinned(1)[pinned(1).find("sha256:").unwrap()..].to_owned();
    let short = &short[..19];
    place
        .shows(
            "apis",
            &[short, "settled", "registry.example.com/shop/web:latest"],
        )
        .await;
    // A mistake is in the status, and the specification before stays in force.
    let patch = "{\"spec\":{\"settle\":\"soon\"}}";
    place.kubectl(&["patch", "imagetrigger/apis", "--type=merge", "-p", patch]);
    place
        .shows("apis", &["broken", "spec.settle: \"soon\""])
        .await;
    place.told("apis", "soon").await;
    place.world.push(WEB, 2).await;
    place.becomes("deployment/api", 0, &pinned(2)).await;
    place.becomes("deployment/web", 0, &pinned(2)).await;
    place.kubectl(&["delete", "imagetrigger/apis"]);
    place.configured(&trigger, false).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_of_others_are_named_to_a_person_after_an_undo() {
    let keel = ["keel.sh/policy=force", "keel.sh/monitorContainers=^web$"];
    let (mut place, service) = Place::undone(&keel).await;
    place.fault().await;
    let trigger = place.trigger("deployment", "web");
    tokio::time::sleep(Duration::from_secs(4)).await;
    place.configured(&trigger, true).await;
    place.release(&trigger).await;
    place
        .told("web", "has lost its annotations of keel: write them back")
        .await;
    // Nobody does.
    place.configured(&trigger, false).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_trigger_takes_an_object_from_its_annotations_and_gives_it_back() {
    let mut place = Place::alone().await;
    let kind = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/kubernetes/imagetrigger.yaml"
    );
    place.cluster.kubectl(&["create", "-f", kind]);
    for name in ["web", "api"] {
        place.run("Deployment", name, 1);
        place.annotate(
            &format!("deployment/{name}"),
            &["tagtrail.dev/follow=web", "tagtrail.dev/settle=0s"],
        );
    }
    place.discover("");
    let stable = "registry.example.com/shop/web:stable";
    let names_object = |object: &str| {
        format!(
            "{{apiVersion: tagtrail.dev/v1alpha1, kind: ImageTrigger, metadata: {{name: apis, namespace: default}}, spec: {{\
             objects: [{object}], settle: 0s, images: {{web: \"{stable}\"}}}}}}"
        )
    };
    place.world.push(WEB, 1).await;
    place.world.push(stable, 2).await;
    let service = place.world.start().await;
    place.becomes("deployment/web", 0, &pinned(1)).await;
    place.becomes("deployment/api", 0, &pinned(1)).await;
    place.create_soon(&names_object("deploy/api")).await;
    place.becomes("deployment/api", 0, &pinned(2)).await;
    let refused = place.trigger("deployment", "api");
    let text = place.mistake(&refused).await;
    let names =
        "because imagetrigger.tagtrail.dev/apis names it (trigger test-default-imagetrigger-apis)";
    assert!(
        text.contains(names) && !text.contains("stays in force"),
        "{text}"
    );
    place.told("api", names).await;
    place.counts([&service], "deployment", [1, 1, 0]).await;
    place.counts([&service], "imagetrigger", [1, 0, 0]).await;
    // An object that nothing names has its own trigger, before a restart and after it.
    service.stop().await;
    let service = place.world.start().await;
    place.world.push(WEB, 3).await;
    place.becomes("deployment/web", 0, &pinned(3)).await;
    // A change of the annotations changes nothing.
    place.annotate("deployment/api", &["tagtrail.dev/timeout=10m"]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(place.image("deployment/api", 0), pinned(2));
    assert!(place.mistake(&refused).await.contains(names));
    // The object is named no longer: its images are those of its annotations again.
    place.kubectl(&["delete", "imagetrigger/apis"]);
    place.configured(&refused, true).await;
    place.becomes("deployment/api", 0, &pinned(3)).await;
    place.counts([&service], "deployment", [2, 0, 0]).await;
    // So they are if the tag has not moved meanwhile.
    place.run("Deployment", "other", 1);
    place.create_soon(&names_object("deployment/api")).await;
    place.becomes("deployment/api", 0, &pinned(2)).await;
    // Without the version of the object, whose status may change at the same time.
    let other = "{\"spec\":{\"objects\":[\"deployment/other\"]}}";
    place.kubectl(&["patch", "imagetrigger/apis", "--type=merge", "-p", other]);
    place.configured(&refused, true).await;
    place.becomes("deployment/api", 0, &pinned(3)).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_images_two_triggers_change_has_an_event() {
    let mut place = Place::alone().await;
    let kind = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/kubernetes/imagetrigger.yaml"
    );
    place.cluster.kubectl(&["create", "-f", kind]);
    for name in ["web", "api", "other"] {
        place.run("Deployment", name, 1);
    }
    let shop = format!(
        "[[trigger]]\nname = \"shop\"\nimages.web = \"{WEB}\"\n\
         target.kubernetes = {{ cluster = \"test\", namespace = \"default\", objects = [\"deployment/web\"] }}"
    );
    place.discover(&shop);
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    for (name, object) in [
        ("one", "api"),
        ("two", "api"),
        ("three", "web"),
        ("four", "other"),
    ] {
        let object = format!(
            "{{apiVersion: tagtrail.dev/v1alpha1, kind: ImageTrigger, metadata: {{name: {name}, namespace: default}}, spec: {{\
             objects: [deploy/{object}], settle: 0s, images: {{web: \"{WEB}\"}}}}}}"
        );
        place.create_soon(&object).await;
    }
    let notes = eventually("two events", SOON * 2, async || {
        let arguments = ["get", "events.v1.events.k8s.io", "--output=json"];
        let all: Value = serde_json::from_str(&place.kubectl(&arguments)).unwrap();
        let all = all["items"].as_array().unwrap().iter();
        let shared = all.filter(|event| event["reason"] == "TagtrailShared");
        let note = |event: &Value| event["note"].as_str().unwrap().to_owned();
        let mut notes: Vec<String> = shared.map(note).collect();
        notes.sort();
        (notes.len() == 2).then_some(notes)
    })
    .await;
    for (note, [one, other, object]) in notes.iter().zip([
        ["test-default-imagetrigger-three", "shop", "web"],
        [
            "test-default-imagetrigger-two",
            "test-default-imagetrigger-one",
            "api",
        ],
    ]) {
        let expected = format!(
            "trigger {one} and trigger {other} change the same images of deployment/{object} in namespace default of cluster test, in turn;"
        );
        assert!(note.starts_with(&expected), "{note}");
    }
    place.becomes("deployment/other", 0, &pinned(1)).await;
    // Each of the objects tells so, too, once it waits for nothing.
    eventually("the statuses", SOON * 2, async || {
        let columns = "custom-columns=:metadata.name,:status.state,:status.why";
        let list = place.kubectl(&["get", "imagetriggers", "--no-headers", "--output", columns]);
        let line = |name: &str| list.lines().find(|line| line.starts_with(name));
        let has = |name: &str, text: &str| line(name).is_some_and(|line| line.contains(text));
        let shared = ["one", "two", "three"].map(|name| has(name, "change the same images of"));
        (shared == [true; 3] && has("four", "<none>")).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_of_argo_is_a_trigger_and_its_phase_is_the_result() {
    let mut place = Place::alone().await;
    // As that of Argo Rollouts, without the schema of the specification.
    place.cluster.create(
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: rollouts.argoproj.io}, spec: {group: argoproj.io, scope: Namespaced, \
         names: {kind: Rollout, singular: rollout, plural: rollouts, shortNames: [ro]}, versions: [{name: v1alpha1, served: true, storage: true, subresources: {status: {}}, \
         schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}, \
         status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}]}}",
    );
    let crd = "crd/rollouts.argoproj.io";
    place
        .cluster
        .kubectl(&["wait", "--for=condition=Established", crd]);
    place.cluster.create(
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: api, namespace: default}\nspec: {replicas: 1, strategy: {canary: {}}, selector: {matchLabels: {app: api}}, \
         template: {metadata: {labels: {app: api}}, spec: {containers: [{name: web, image: \"registry.example.com/shop/web:latest\"}, {name: proxy, image: \"registry.example.com/infra/proxy:1\"}]}}}\n---\n\
         apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: refers, namespace: default}\nspec: {workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n",
    );
    let rollout = "rollouts.argoproj.io/api";
    for (object, follow) in [(rollout, "web"), ("rollouts.argoproj.io/refers", "true")] {
        let follow = format!("tagtrail.dev/follow={follow}");
        place.annotate(object, &[&follow, "tagtrail.dev/settle=0s"]);
    }
    place.discover("");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.becomes(rollout, 0, &pinned(1)).await;
    let proxy = "registry.example.com/infra/proxy:1";
    assert_eq!(place.image(rollout, 1), proxy);
    let reports = |place: &Place, behind: i64, phase: &str| {
        let object = place.cluster.get("default", rollout);
        let seen = object["metadata"]["generation"].as_i64().unwrap() - behind;
        let status = format!(
            "{{\"status\":{{\"observedGeneration\":\"{seen}\",\"phase\":\"{phase}\",\"message\":\"it is {phase}\"}}}}"
        );
        place.kubectl(&[
            "patch",
            rollout,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ]);
    };
    // Health of the images before is none of these.
    reports(&place, 1, "Healthy");
    place.wait(1, Watching).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    place.wait(1, Watching).await;
    reports(&place, 0, "Healthy");
    place.wait(1, Succeeded).await;
    place.world.push(WEB, 2).await;
    place.becomes(rollout, 0, &pinned(2)).await;
    reports(&place, 0, "Degraded");
    place.wait(2, Failed).await;
    let error = place.world.error().await.unwrap();
    assert!(error.contains("it is Degraded"), "{error}");
    reports(&place, 0, "Healthy");
    place.wait(2, Succeeded).await;
    // A change by a person is a hold, although a custom resource has one owner of all containers.
    let image = "[{\"op\":\"replace\",\"path\":\"/spec/template/spec/containers/0/image\",\"value\":\"registry.example.com/shop/web:v1\"}]";
    place.kubectl(&["patch", rollout, "--type=json", "-p", image]);
    let fault = place.fault().await;
    assert!(fault.contains("kubectl-patch has changed"), "{fault}");
    let refers = place.trigger("rollout", "refers");
    let text = place.mistake(&refers).await;
    assert!(
        text.contains("its pods are those of Deployment web"),
        "{text}"
    );
    place.counts([&service], "rollout", [1, 1, 0]).await;
    service.stop().await;
}

/// The time and the memory that many annotated objects need, in the log.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a minute"]
async fn a_thousand_annotated_objects_are_measured() {
    let cluster: &'static TestKubernetes = Box::leak(Box::new(TestKubernetes::start().await));
    let mut place = Place {
        world: World::new().await,
        namespace: "default".to_owned(),
        cluster,
    };
    let object = |n: usize| {
        format!(
            "{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{{\"name\":\"web-{n}\",\"namespace\":\"default\",\"annotations\":{{\"tagtrail.dev/follow\":\"web\",\"tagtrail.dev/paused\":\"true\"}}}},\
             \"spec\":{{\"replicas\":0,\"selector\":{{\"matchLabels\":{{\"app\":\"web-{n}\"}}}},\"template\":{{\"metadata\":{{\"labels\":{{\"app\":\"web-{n}\"}}}},\
             \"spec\":{{\"containers\":[{{\"name\":\"web\",\"image\":\"registry.example.com/shop/web:latest\"}}]}}}}}}}}"
        )
    };
    for part in 0..10 {
        let objects: Vec<String> = (part * 100..part * 100 + 100).map(object).collect();
        place.cluster.create(&objects.join("\n---\n"));
    }
    let memory = |process: &Process| resident(process.pid()).unwrap() / 1024;
    place.world.configure("");
    let process = place.world.process();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let without = memory(&process);
    let begun = std::time::Instant::now();
    place.discover("");
    eventually("1000 triggers", SOON * 20, async || {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from trigger where configured and door = 'kubernetes' and images <> '{}'",
        )
        .fetch_one(&mut place.world.sql)
        .await
        .unwrap();
        (count == 1000).then_some(())
    })
    .await;
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let with = memory(&process);
    tracing::warn!(
        "1000 annotated objects: {took:?}; memory {without} MB without, {with} MB with them"
    );
    drop(process);
}
