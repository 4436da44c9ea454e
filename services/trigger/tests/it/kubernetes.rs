//! The target `kubernetes` on a real API server.

use tagtrail_proto::Digest;
use tagtrail_proto::RolloutState::{self, Failed, Succeeded, Watching};
use tagtrail_testkit::{SOON, TestKubernetes, eventually};

use crate::world::*;

/// A world whose trigger `shop` acts on a namespace of its own.
pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) cluster: &'static TestKubernetes,
    pub(crate) namespace: String,
}

impl Place {
    pub(crate) async fn new() -> Place {
        let cluster = TestKubernetes::shared().await;
        Place {
            world: World::new().await,
            namespace: cluster.namespace(),
            cluster,
        }
    }

    /// Starts a service whose first rollout has an image that no registry has, and waits until the
    /// Deployment `web` has failed by its deadline.
    pub(crate) async fn without_image(&mut self) -> Service {
        self.kubectl(&[
            "patch",
            "deployment/web",
            "--type=merge",
            "-p",
            "{\"spec\":{\"progressDeadlineSeconds\":3}}",
        ]);
        self.configure("[\"deployment/web\"]", "");
        self.push_digest(&no_image()).await;
        let service = self.world.start().await;
        self.wait(1, Failed).await;
        service
    }

    /// Rolls image 1 out to a Deployment `web` with so many pods, by these further settings.
    pub(crate) async fn rolled_out(replicas: u32, more: &str) -> (Place, Service) {
        let mut place = Place::new().await;
        place.run("Deployment", "web", replicas);
        place.configure("[\"deployment/web\"]", more);
        place.world.push(WEB, 1).await;
        let service = place.world.start().await;
        place.wait(1, Succeeded).await;
        (place, service)
    }

    /// Runs kubectl in the namespace, as an administrator. Returns its output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = ["--namespace", self.namespace.as_str()];
        self.cluster.kubectl(&[&namespace[..], arguments].concat())
    }

    /// Configures the trigger with these objects and further settings of the target.
    pub(crate) fn configure(&self, objects: &str, more: &str) {
        self.configure_by(
            &self.cluster.kubeconfig().display().to_string(),
            objects,
            more,
        );
    }

    pub(crate) fn configure_by(&self, kubeconfig: &str, objects: &str, more: &str) {
        let namespace = &self.namespace;
        self.world.configure(&format!(
            "[[cluster]]\nname = \"test\"\nkubeconfig = {{ file = \"{kubeconfig}\" }}\n\
             [[trigger]]\nname = \"shop\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\n\
             [trigger.target.kubernetes]\ncluster = \"test\"\nnamespace = \"{namespace}\"\nobjects = {objects}\n{more}\n"
        ));
    }

    /// Writes a kubeconfig of the service account `tagtrail` of a namespace, and returns its path.
    pub(crate) fn kubeconfig_of_account(&self, namespace: &str) -> String {
        let arguments = ["--namespace", namespace, "create", "token", "tagtrail"];
        let token = self.cluster.kubectl(&arguments);
        let admin = std::fs::read_to_string(self.cluster.kubeconfig()).unwrap();
        let start = admin.find("token: ").unwrap() + "token: ".len();
        let end = start + admin[start..].find(['}', ',', '\n']).unwrap();
        let path = self.world.folder.path().join("kubeconfig");
        let text = format!("{}{}{}", &admin[..start], token.trim(), &admin[end..]);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Creates an object of an apps kind with one container of the image `web`, and waits until it
    /// runs.
    pub(crate) fn run(&self, kind: &str, name: &str, replicas: u32) {
        let (namespace, number) = (&self.namespace, format!("replicas: {replicas}, "));
        let replicas = if kind == "DaemonSet" { "" } else { &number };
        let service = if kind == "StatefulSet" {
            "serviceName: web, "
        } else {
            ""
        };
        self.cluster.create(&format!(
            "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{replicas}{service}\
             selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{\
             containers: [{{name: web, image: \"registry.example.com/shop/web:latest\"}}, {{name: proxy, image: \"registry.example.com/infra/proxy:1\"}}]}}}}}}}}"
        ));
    }

    /// Returns the image of a container of an object.
    pub(crate) fn image(&self, object: &str, container: usize) -> String {
        let object = self.cluster.get(&self.namespace, object);
        let at = format!("/spec/template/spec/containers/{container}/image");
        object.pointer(&at).unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) async fn push_digest(&mut self, digest: &str) {
        let digest: Digest = digest.parse().unwrap();
        self.world
            .head_with(WEB, Some(digest), "event", ("event", 0))
            .await;
    }

    pub(crate) async fn wait(&mut self, number: i64, state: RolloutState) {
        eventually(&format!("rollout {number} {state}"), SOON * 2, async || {
            let rollouts = self.world.rollouts().await;
            rollouts
                .iter()
                .any(|row| (row.0, row.1) == (number, state))
                .then_some(())
        })
        .await;
    }
}

pub(crate) fn pinned(n: u8) -> String {
    format!("registry.example.com/shop/web@{}", digest(n))
}

/// A digest whose containers never get ready in the fake kubelet, and one that can't be pulled.
pub(crate) fn never_ready() -> String {
    format!("sha256:0dead{}", "0".repeat(59))
}

pub(crate) fn no_image() -> String {
    format!("sha256:0404{}", "0".repeat(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_gets_the_digest_and_succeeds_once_its_pods_run_it() {
    let (mut place, service) = Place::rolled_out(2, "").await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    // Another container keeps its image.
    assert_eq!(
        place.image("deployment/web", 1),
        "registry.example.com/infra/proxy:1"
    );
    let object = place.cluster.get(&place.namespace, "deployment/web");
    assert_eq!(object["status"]["updatedReplicas"], 2);
    let notes = &object["metadata"]["annotations"];
    assert_eq!(notes["tagtrail.dev/rollout"], "shop#1");
    assert_eq!(
        notes["kubernetes.io/change-cause"],
        format!("tagtrail rollout 1 of shop: {WEB}")
    );
    // Scaling up starts the same digest.
    place
        .world
        .push("registry.example.com/shop/web:other", 9)
        .await;
    place.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    let pods = eventually("four pods", SOON, async || {
        let pods = place.kubectl(&[
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].spec.containers[0].image}",
        ]);
        (pods.split(' ').count() == 4).then_some(pods)
    })
    .await;
    assert!(pods.split(' ').all(|image| image == pinned(1)), "{pods}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_and_cron_jobs_get_the_digest_too() {
    let mut place = Place::new().await;
    place.run("StatefulSet", "db", 2);
    place.run("DaemonSet", "agent", 1);
    let namespace = &place.namespace;
    place.cluster.create(&format!(
        "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: nightly, namespace: {namespace}, annotations: {{a: b}}}}, spec: {{schedule: \"0 3 * * *\", \
         jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: web, image: \"registry.example.com/shop/web:latest\"}}]}}}}}}}}}}}}"
    ));
    place.configure(
        "[\"statefulset/db\", \"daemonset/agent\", \"cronjob/nightly\"]",
        "",
    );
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    for object in ["statefulset/db", "daemonset/agent"] {
        assert_eq!(place.image(object, 0), pinned(1), "{object}");
    }
    let cron = place.cluster.get(&place.namespace, "cronjob/nightly");
    let image = cron.pointer("/spec/jobTemplate/spec/template/spec/containers/0/image");
    assert_eq!(image.unwrap(), pinned(1).as_str());
    assert_eq!(cron["metadata"]["annotations"]["a"], "b");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_do_not_run_fail_the_rollout_with_their_reason_and_a_good_image_repairs_it() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    let service = place.without_image().await;
    let error = place.world.error().await.unwrap();
    assert!(
        error.contains("deployment/web: ") && error.contains("ImagePullBackOff"),
        "{error}"
    );
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_pods_that_are_ready_do_not_make_a_rollout_succeed() {
    let (mut place, service) = Place::rolled_out(2, "").await;
    place.push_digest(&never_ready()).await;
    place.wait(2, Watching).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let object = place.cluster.get(&place.namespace, "deployment/web");
    assert_eq!(object["status"]["availableReplicas"], 2);
    place.wait(2, Watching).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_objects_change_or_none() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.run("Deployment", "worker", 1);
    // An account that may change one of them alone.
    let namespace = place.namespace.clone();
    place.cluster.create(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: tagtrail, namespace: {namespace}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: tagtrail, namespace: {namespace}}}\nrules:\n\
         - {{apiGroups: [apps], resources: [deployments], resourceNames: [web, worker], verbs: [get, list, watch]}}\n\
         - {{apiGroups: [apps], resources: [deployments], resourceNames: [web], verbs: [patch]}}\n\
         - {{apiGroups: [\"\"], resources: [pods], verbs: [list]}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: tagtrail, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: tagtrail}}\n\
         subjects: [{{kind: ServiceAccount, name: tagtrail, namespace: {namespace}}}]\n"
    ));
    let kubeconfig = place.kubeconfig_of_account(&namespace);
    place.configure_by(
        &kubeconfig,
        "[\"deployment/web\", \"deployment/worker\"]",
        "",
    );
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.fails("no right to change deployment/worker").await;
    for object in ["deployment/web", "deployment/worker"] {
        assert_eq!(
            place.image(object, 0),
            "registry.example.com/shop/web:latest"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_is_named_with_its_cure() {
    let mut place = Place::new().await;
    place.configure("[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place
        .fails("deployments.apps \"web\" not found); create it, or correct objects")
        .await;
    // No person has to say that the object is there now.
    place.run("Deployment", "web", 1);
    place.wait(1, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_objects_that_can_t_be_read_or_run_no_image() {
    let place = Place::new().await;
    place.configure("[\"deployment/web\"]", "");
    let found = place.inspected().await;
    // Of images that an unread object may run, nothing is said.
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("deployments.apps \"web\" not found"));
    place.run("Deployment", "web", 1);
    assert_eq!(place.inspected().await, Vec::<String>::new());
    place.run("Deployment", "other", 1);
    let image = "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"web\",\"image\":\"registry.example.com/shop/api:v1\"}]}}}}";
    place.kubectl(&["patch", "deployment/other", "-p", image]);
    place.configure("[\"deployment/web\", \"deployment/other\"]", "");
    let found = place.inspected().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("deployment/other runs no image of the trigger, so it never changes")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_the_cluster_does_not_have_is_named_with_its_cure() {
    let mut place = Place::new().await;
    place.configure("[\"gizmo.example.net/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place
        .fails("has no kind gizmo in the group example.net: install its CustomResourceDefinition")
        .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_no_container_runs_is_named_with_its_cure() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.configure("[\"deployment/web\"]", "containers.web = [\"app\"]");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place
        .fails("no container of deployment/web runs registry.example.com/shop/web; name its containers by containers.web, or correct objects")
        .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_delays_a_rollout_and_loses_nothing() {
    let mut place = Place::new().await;
    // A cluster of its own, since others use the shared one.
    let own = TestKubernetes::start().await;
    own.create("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: default}, spec: {selector: {matchLabels: {app: web}}, \
                template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: \"registry.example.com/shop/web:latest\"}]}}}}");
    place.namespace = "default".to_owned();
    place.configure_by(
        &own.kubeconfig().display().to_string(),
        "[\"deployment/web\"]",
        "",
    );
    own.signal_api_server("KILL");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let object = own.get("default", "deployment/web");
    let image = object.pointer("/spec/template/spec/containers/0/image");
    assert_eq!(image.unwrap(), pinned(1).as_str());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_each_the_second_object_changes_after_the_first_is_healthy() {
    let mut place = Place::new().await;
    place.run("Deployment", "canary", 1);
    place.run("Deployment", "web", 1);
    place.configure(
        "[\"deployment/canary\", \"deployment/web\"]",
        "wait = \"each\"",
    );
    place.push_digest(&never_ready()).await;
    let service = place.world.start().await;
    place.wait(1, Watching).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(
        place
            .image("deployment/canary", 0)
            .ends_with(&never_ready())
    );
    assert_eq!(
        place.image("deployment/web", 0),
        "registry.example.com/shop/web:latest"
    );
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(place.image("deployment/canary", 0), pinned(2));
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_person_while_a_rollout_is_watched_is_named() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.configure("[\"deployment/web\"]", "");
    place.push_digest(&never_ready()).await;
    let service = place.world.start().await;
    place.wait(1, Watching).await;
    place.kubectl(&[
        "set",
        "image",
        "deployment/web",
        "web=registry.example.com/shop/web:v1",
    ]);
    place.wait(1, Failed).await;
    let error = place.world.error().await.unwrap();
    assert!(
        error.contains("kubectl-set has changed web to registry.example.com/shop/web:v1"),
        "{error}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_of_a_person_lasts_until_the_trigger_is_released() {
    let (mut place, service) = Place::rolled_out(1, "").await;
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    place.kubectl(&["rollout", "undo", "deployment/web"]);
    eventually("a fault", SOON, async || {
        let faults: Vec<String> = sqlx::query_scalar(
            "select reason from hold where kind = 'fault' and released_at is null",
        )
        .fetch_all(&mut place.world.sql)
        .await
        .unwrap();
        let fault = faults.first()?;
        assert!(fault.contains("kubectl has changed web to"), "{fault}");
        Some(())
    })
    .await;
    // A newer image does not overwrite the undo.
    place.world.push(WEB, 3).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    place.world.release().await;
    place.wait(3, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(3));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_repair_the_images_are_rolled_out_again() {
    let (mut place, service) = Place::rolled_out(1, "on_foreign_change = \"repair\"").await;
    place.kubectl(&[
        "set",
        "image",
        "deployment/web",
        "web=registry.example.com/shop/web:v1",
    ]);
    place.wait(2, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_and_the_policy_that_are_shipped_suffice_and_allow_nothing_else() {
    let mut place = Place::new().await;
    place.cluster.kubectl(&["create", "namespace", "shop"]);
    place.cluster.kubectl(&["create", "namespace", "tagtrail"]);
    place
        .cluster
        .kubectl(&["-n", "tagtrail", "create", "serviceaccount", "tagtrail"]);
    // All files of the folder, and no field in them that the API server does not know.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes");
    place
        .cluster
        .kubectl(&["create", "--validate=strict", "-f", folder]);
    place.namespace = "shop".to_owned();
    place.run("Deployment", "web", 1);
    let kubeconfig = place.kubeconfig_of_account("tagtrail");
    place.configure_by(&kubeconfig, "[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    place.event("TagtrailRollout").await;
    let found = place.inspected().await;
    assert!(found.is_empty(), "{found:?}");
    service.stop().await;
    for (patch, expected) in [
        (
            "{\"spec\":{\"replicas\":5}}",
            "only the pod template may change",
        ),
        (
            "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"web\",\"image\":\"registry.example.com/shop/web:v1\"}]}}}}",
            "a new image must be pinned by digest",
        ),
    ] {
        let refused = eventually("the policy in force", SOON, async || {
            let arguments = [
                "-n",
                "shop",
                "--as=system:serviceaccount:tagtrail:tagtrail",
                "patch",
                "deployment/web",
                "--dry-run=server",
                "-p",
                patch,
            ];
            place.cluster.try_kubectl(&arguments, "").err()
        })
        .await;
        assert!(refused.contains(expected), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_between_two_patches_leaves_the_rest_to_the_next_one() {
    let mut place = Place::new().await;
    place.run("Deployment", "web", 1);
    place.run("Deployment", "worker", 1);
    place.configure("[\"deployment/web\", \"deployment/worker\"]", "");
    place.world.push(WEB, 1).await;
    let mut first = place
        .world
        .process_with(&[("TAGTRAIL_FAILPOINT", "trigger.patched:abort")]);
    first.ended(SOON).await;
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    assert_eq!(
        place.image("deployment/worker", 0),
        "registry.example.com/shop/web:latest"
    );
    let _second = place.world.process();
    place.wait(1, Succeeded).await;
    assert_eq!(place.image("deployment/worker", 0), pinned(1));
    assert_eq!(place.world.outcomes().await, ["interrupted", "applied"]);
}
