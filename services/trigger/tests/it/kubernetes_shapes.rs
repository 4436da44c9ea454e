//! Lists of images in custom resources, and pods that a `StatefulSet` does not replace, on a real
//! API server.

use tagtrail_proto::RolloutState::{Succeeded, Watching};
use tagtrail_testkit::{SOON, eventually};

use crate::kubernetes::{Place, never_ready, pinned};
use crate::world::*;

impl Place {
    /// Makes a kind of custom resources that takes any content.
    fn define(&self, group: &str, kind: &str) {
        let (singular, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
        self.cluster.create(&format!(
            "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {plural}.{group}}}, spec: {{group: {group}, scope: Namespaced, \
             names: {{kind: {kind}, singular: {singular}, plural: {plural}}}, versions: [{{name: v1, served: true, storage: true, \
             schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}"
        ));
        self.cluster.kubectl(&[
            "wait",
            "--for=condition=Established",
            &format!("crd/{plural}.{group}"),
        ]);
    }

    fn pod_image(&self, pod: &str) -> String {
        self.kubectl(&["get", pod, "-o", "jsonpath={.spec.containers[0].image}"])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_flux_and_argo_cd_get_the_digest() {
    let mut place = Place::new().await;
    place.define("kustomize.toolkit.fluxcd.io", "Kustomization");
    place.define("argoproj.io", "Application");
    let namespace = place.namespace.clone();
    let old = digest(9);
    place.cluster.create(&format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: shop, namespace: {namespace}}}\nspec:\n  images:\n\
         \x20 - {{name: proxy, newTag: \"1\"}}\n\
         \x20 - {{name: web, newName: registry.example.com/shop/web, digest: \"{old}\"}}\n---\n\
         apiVersion: argoproj.io/v1\nkind: Application\nmetadata: {{name: shop, namespace: {namespace}}}\nspec: {{source: {{kustomize: {{images: [\"nginx:1\", \"web=registry.example.com/shop/web:v1\"]}}}}}}\n"
    ));
    place.configure(
        "[]",
        "paths.web = [{ object = \"kustomization.kustomize.toolkit.fluxcd.io/shop\", at = \"/spec/images\" }, \
         { object = \"application.argoproj.io/shop\", at = \"/spec/source/kustomize/images\" }]",
    );
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let flux = place.cluster.get(
        &namespace,
        "kustomizations.kustomize.toolkit.fluxcd.io/shop",
    );
    assert_eq!(
        flux["spec"]["images"],
        serde_json::json!([
            {"name": "proxy", "newTag": "1"},
            {"name": "web", "newName": "registry.example.com/shop/web", "digest": digest(1)},
        ])
    );
    let argo = place
        .cluster
        .get(&namespace, "applications.argoproj.io/shop");
    assert_eq!(
        argo["spec"]["source"]["kustomize"]["images"],
        serde_json::json!(["nginx:1", format!("web={}", pinned(1))])
    );
    // A person's change of the list is one of the entry: a custom resource has one owner of it.
    place.kubectl(&[
        "patch",
        "applications.argoproj.io/shop",
        "--type=json",
        "-p",
        "[{\"op\": \"replace\", \"path\": \"/spec/source/kustomize/images/1\", \"value\": \"web=registry.example.com/shop/web:v2\"}]",
    ]);
    let fault = place.fault().await;
    assert!(
        fault.contains("kubectl-patch has changed") && fault.contains("shop/web:v2"),
        "{fault}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_pod_of_a_stateful_set_is_deleted_if_the_settings_say_so() {
    let mut place = Place::new().await;
    place.run("StatefulSet", "db", 1);
    place.configure("[\"statefulset/db\"]", "");
    place.push_digest(&never_ready()).await;
    let service = place.world.start().await;
    place.wait(1, Watching).await;
    eventually("the broken pod", SOON, async || {
        place
            .pod_image("pod/db-0")
            .ends_with(&never_ready())
            .then_some(())
    })
    .await;
    // The StatefulSet keeps the broken pod, and the rollout names the cure.
    place.world.push(WEB, 2).await;
    let seen = eventually("the cure", SOON, async || {
        let seen = sqlx::query_scalar("select seen from rollout where number = 2");
        let seen: Option<Option<String>> = seen.fetch_optional(&mut place.world.sql).await.unwrap();
        seen.flatten().filter(|seen| seen.contains("db-0"))
    })
    .await;
    let command = format!("kubectl --namespace {} delete pod db-0", place.namespace);
    assert!(seen.contains(&command), "{seen}");
    assert!(place.pod_image("pod/db-0").ends_with(&never_ready()));
    place.configure("[\"statefulset/db\"]", "repair_pods = true");
    place.wait(2, Succeeded).await;
    assert_eq!(place.pod_image("pod/db-0"), pinned(2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_there_already_are_owned_so_that_a_manifest_may_drop_them() {
    let mut place = Place::new().await;
    let namespace = place.namespace.clone();
    let manifest = |image: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{replicas: 1, selector: {{matchLabels: {{app: web}}}}, \
             template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: web{image}}}]}}}}}}}}"
        )
    };
    let apply = |place: &Place, manifest: &str| {
        let arguments = [
            "apply",
            "--server-side",
            "--field-manager=gitops",
            "-f",
            "-",
        ];
        place.cluster.try_kubectl(&arguments, manifest).unwrap();
    };
    apply(&place, &manifest(&format!(", image: \"{}\"", pinned(1))));
    place.configure("[\"deployment/web\"]", "");
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    // Without a second owner this would take the image away, and be refused.
    apply(&place, &manifest(""));
    assert_eq!(place.image("deployment/web", 0), pinned(1));
    place.world.push(WEB, 2).await;
    place.wait(2, Succeeded).await;
    assert_eq!(place.image("deployment/web", 0), pinned(2));
    service.stop().await;
}
