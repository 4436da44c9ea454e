//! Changes between the read of an object and its patch, on a real API server.

use std::path::Path;

use tagtrail_daemon::{Span, SpanKind};
use tagtrail_proto::{Cause, CauseReason, Digest, Rollout, RolloutState};
use tagtrail_testkit::TestKubernetes;
use time::OffsetDateTime;

use super::super::*;
use super::*;

const IMAGE: &str = "registry.example.com/shop/web";

struct Race {
    cluster: &'static TestKubernetes,
    namespace: String,
    target: KubernetesTarget,
}

impl Race {
    async fn new(more: &str) -> Race {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = TestKubernetes::shared().await;
        let namespace = cluster.namespace();
        cluster.create(&format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{replicas: 0, \
             selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{\
             containers: [{{name: web, image: \"{IMAGE}:v0\"}}]}}}}}}}}"
        ));
        let kubeconfig = cluster.kubeconfig();
        let text = format!(
            "[[cluster]]\nname = \"test\"\nkubeconfig = {{ file = {kubeconfig:?} }}\n\
             [[trigger]]\nname = \"shop\"\nimages.web = \"{IMAGE}:latest\"\n\
             target.kubernetes = {{ cluster = \"test\", namespace = \"{namespace}\", objects = [\"deployment/web\"]{more} }}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        let (trigger, clusters) = (&file.trigger[0], Clusters::of(&file, None));
        let target =
            KubernetesTarget::new(trigger.target().value, trigger, (&file, &clusters)).unwrap();
        Race {
            cluster,
            namespace,
            target,
        }
    }

    fn kubectl(&self, arguments: &[&str]) {
        let namespace = ["--namespace", self.namespace.as_str()];
        self.cluster.kubectl(&[&namespace[..], arguments].concat());
    }

    /// Plans the change to image `n`, lets a person act, and makes the change.
    async fn overtaken(&self, n: u8, person: &[&str]) -> Result<(), Outcome> {
        let order = order(n);
        let plan = self.target.plan(&order).await.unwrap();
        self.kubectl(person);
        self.target.change(&plan[0], &order).await
    }

    fn image(&self) -> String {
        let object = self.cluster.get(&self.namespace, "deployment/web");
        let image = object.pointer("/spec/template/spec/containers/0/image");
        image.unwrap().as_str().unwrap().to_owned()
    }
}

fn order(n: u8) -> Order {
    let image: tagtrail_proto::Image = format!("{IMAGE}:latest").parse().unwrap();
    let digest = Digest::sha256_of(&[n]);
    let images = BTreeMap::from([(
        "web".to_owned(),
        RolloutImage {
            pinned: image.pinned(&digest),
            image,
            revision: 1,
            digest,
            actor: None,
            previous: None,
        },
    )]);
    let rollout = Rollout {
        id: format!("rollout-{n}"),
        trigger: "shop".to_owned(),
        number: n.into(),
        epoch: OffsetDateTime::UNIX_EPOCH,
        state: RolloutState::Pending,
        images,
        cause: Cause {
            reason: CauseReason::Revision,
            changed: Vec::new(),
            not_adopted: None,
        },
        attempts: 0,
        created_at: OffsetDateTime::UNIX_EPOCH,
        finished_at: None,
        error: None,
        gates: Vec::new(),
        opens_at: None,
    };
    let span = Span::start("test", SpanKind::Client, None);
    Order::new(&rollout, *span.context()).unwrap()
}

fn pinned(n: u8) -> String {
    format!("{IMAGE}@{}", Digest::sha256_of(&[n]))
}

const SET: [&str; 4] = [
    "set",
    "image",
    "deployment/web",
    "web=registry.example.com/shop/web:v1",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_person_between_read_and_patch_stays() {
    let race = Race::new("").await;
    // The object was nobody's before the first rollout, so its image is not taken from anybody.
    race.overtaken(1, &SET).await.unwrap();
    assert_eq!(race.image(), pinned(1));
    let outcome = race.overtaken(2, &SET).await.unwrap_err();
    let Outcome::Foreign { error, since } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        error,
        format!("deployment/web: kubectl-set has changed web to {IMAGE}:v1")
    );
    assert!(since.is_some());
    assert_eq!(race.image(), format!("{IMAGE}:v1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_between_read_and_patch_stays() {
    let race = Race::new("").await;
    let plan = race.target.plan(&order(1)).await.unwrap();
    race.target.change(&plan[0], &order(1)).await.unwrap();
    // The undo takes the annotation away, by which the object is known as ours.
    let undo = ["rollout", "undo", "deployment/web"];
    let outcome = race.overtaken(2, &undo).await.unwrap_err();
    assert!(matches!(outcome, Outcome::Foreign { .. }), "{outcome:?}");
    assert_eq!(race.image(), format!("{IMAGE}:v0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_decided_and_other_fields_do_not_stop_a_change() {
    let race = Race::new("").await;
    let plan = race.target.plan(&order(1)).await.unwrap();
    race.target.change(&plan[0], &order(1)).await.unwrap();
    let mut decided = order(2);
    decided.decided = true;
    let plan = race.target.plan(&decided).await.unwrap();
    race.kubectl(&SET);
    race.target.change(&plan[0], &decided).await.unwrap();
    assert_eq!(race.image(), pinned(2));
    race.overtaken(3, &["scale", "deployment/web", "--replicas=1"])
        .await
        .unwrap();
    assert_eq!(race.image(), pinned(3));
    let race = Race::new(", on_foreign_change = \"ignore\"").await;
    race.overtaken(1, &SET).await.unwrap();
    race.overtaken(2, &SET).await.unwrap();
    assert_eq!(race.image(), pinned(2));
}
