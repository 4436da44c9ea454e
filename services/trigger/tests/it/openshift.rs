//! Objects that are annotated for `OpenShift`, and its kind `DeploymentConfig`, on a real API
//! server.

use serde_json::{Value, json};
use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::TestKubernetes;

use crate::kubernetes::{Place, pinned};
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
    let mut place = Place::new().await;
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
    let read = |place: &Place| -> (Value, Value) {
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
