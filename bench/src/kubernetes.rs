//! From a push to a changed Deployment, on a real API server.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::api::{ApiResource, Patch, PatchParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, Config};
use tagtrail_proto::{PARTITIONS, Subject};
use tagtrail_testkit::TestKubernetes;
use time::OffsetDateTime;

use crate::latency::{PATIENCE, WebhookTarget};
use crate::report::{Goal, Row, Series, percentile};
use crate::stack::{Stack, any_image, push};

/// The pause before each push and each patch, in which the work of the one before ends.
const PAUSE: Duration = Duration::from_millis(200);
/// The Deployment of the trigger, and the one that the bench patches itself.
const PRODUCT: &str = "product";
const PLAIN: &str = "plain";

type Events = BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>;

/// The cluster, with a watch of both Deployments.
struct Place {
    cluster: TestKubernetes,
    api: Api<DynamicObject>,
    events: Events,
}

/// Measures the time from a push to the pod template with its digest, seen by a watch, against the
/// time to a webhook and the time of a plain patch, all in turn.
pub(crate) async fn rollouts(
    stack: &Stack,
    folder: &Path,
    rounds: usize,
    count: usize,
) -> anyhow::Result<Vec<Row>> {
    let mut target = WebhookTarget::start().await?;
    let mut place = Place::new(&any_image(1)).await?;
    let config = folder.join("kubernetes.toml");
    let (hook, kubeconfig) = (target.address(), place.cluster.kubeconfig());
    std::fs::write(
        &config,
        format!(
            "[[cluster]]\nname = \"bench\"\nkubeconfig = {{ file = {kubeconfig:?} }}\n\
             [[trigger]]\nname = \"hook\"\nsettle = \"0s\"\nimages.app = \"{}\"\n\
             target.webhook = {{ url = \"http://{hook}/\", secret = {{ env = \"BENCH_SECRET\" }} }}\n\
             [[trigger]]\nname = \"cluster\"\nsettle = \"0s\"\nimages.app = \"{}\"\n\
             target.kubernetes = {{ cluster = \"bench\", namespace = \"default\", objects = [\"deployment/{PRODUCT}\"] }}\n",
            any_image(0),
            any_image(1),
        ),
    )?;
    let indexer = stack.service("indexer", &[]);
    indexer.ready().await?;
    let trigger = stack.trigger(&config).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let [mut p50, mut p99, mut floor, mut requests] = [(); 4].map(|()| Series::default());
    for round in 0..rounds {
        eprintln!("push to Deployment: round {} of {rounds}", round + 1);
        let (mut hooks, mut patches, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let before = place.requests()?;
        for _ in 0..count {
            let (begun, digest) = pushed(stack, 0).await?;
            target.receive(&digest).await?;
            hooks.push(milliseconds(begun));
            patches.push(place.patched(round).await?);
            let (begun, digest) = pushed(stack, 1).await?;
            place.sees(PRODUCT, &digest).await?;
            times.push(milliseconds(begun));
        }
        tokio::time::sleep(PAUSE).await;
        // The plain patches are no work of the product.
        let all = place.requests()? - before - count as f64;
        requests.push(all / count as f64);
        floor.push(percentile(&hooks, 0.5) + percentile(&patches, 0.5));
        p50.push(percentile(&times, 0.5));
        p99.push(percentile(&times, 0.99));
    }
    trigger.stop().await;
    indexer.stop().await;
    Ok(vec![
        Row::against(
            "push to pod template, p50",
            "ms",
            p50.clone(),
            floor,
            Goal::AtMost(1.0),
        ),
        Row::against(
            "push to pod template, p99 to p50",
            "ms",
            p99,
            p50,
            Goal::AtMost(3.0),
        ),
        Row::alone(
            "API requests for each rollout of one Deployment",
            "requests",
            requests,
            Goal::None,
        ),
    ])
}

impl Place {
    async fn new(image: &str) -> anyhow::Result<Place> {
        let cluster = TestKubernetes::start().await;
        for name in [PRODUCT, PLAIN] {
            cluster.create(&format!(
                "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: default}}, spec: {{replicas: 0, \
                 selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{\
                 containers: [{{name: app, image: \"{image}\"}}]}}}}}}}}"
            ));
        }
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
        let resource = ApiResource::from_gvk_with_plural(&kind, "deployments");
        let api: Api<DynamicObject> =
            Api::namespaced_with(Client::try_from(config)?, "default", &resource);
        let parameters = WatchParams::default().timeout(290);
        let events = api.watch(&parameters, "0").await?.boxed();
        Ok(Place {
            cluster,
            api,
            events,
        })
    }

    /// Waits until the watch shows a text in the pod template of a Deployment.
    async fn sees(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let seeing = async {
            loop {
                let event = self.events.next().await.context("the watch ended")??;
                if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                    && object.metadata.name.as_deref() == Some(name)
                    && object
                        .data
                        .pointer("/spec/template/spec/containers/0/image")
                        .and_then(|image| image.as_str())
                        .is_some_and(|image| image.contains(text))
                {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, seeing)
            .await
            .context("no change of the Deployment in time")?
    }

    /// Patches the image of a Deployment without Tagtrail. Returns the milliseconds until the watch
    /// shows it.
    async fn patched(&mut self, round: usize) -> anyhow::Result<f64> {
        tokio::time::sleep(PAUSE).await;
        let digest = push(round, OffsetDateTime::now_utc()).digest;
        let digest = digest.context("no digest")?.to_string();
        let patch: json_patch::Patch = serde_json::from_value(serde_json::json!([
            {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": format!("registry.example.com/app@{digest}")}
        ]))?;
        let begun = Instant::now();
        let patch = Patch::<()>::Json(patch);
        let parameters = PatchParams::default();
        let asked = self.api.clone();
        let (answered, seen) = tokio::join!(asked.patch(PLAIN, &parameters, &patch), async {
            let seen = self.sees(PLAIN, &digest).await;
            seen.map(|()| milliseconds(begun))
        });
        answered?;
        seen
    }

    /// Returns the number of requests so far of the kinds that the product makes: about Deployments
    /// themselves, about events, and lists of pods.
    fn requests(&self) -> anyhow::Result<f64> {
        let text = self.cluster.kubectl(&["get", "--raw", "/metrics"]);
        let mut sum = 0.0;
        for line in text
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{"))
        {
            let has = |label: &str, value: &str| line.contains(&format!("{label}=\"{value}\""));
            let verbs: &[&str] = match line {
                _ if has("resource", "deployments") && has("subresource", "") => {
                    &["GET", "LIST", "PATCH"]
                }
                _ if has("resource", "events") && has("group", "events.k8s.io") => &["POST"],
                _ if has("resource", "pods") => &["LIST"],
                _ => &[],
            };
            if verbs.iter().any(|verb| has("verb", verb)) {
                let (_, value) = line.rsplit_once(' ').context("no value")?;
                sum += value.parse::<f64>()?;
            }
        }
        Ok(sum)
    }
}

/// Publishes a push of an image after a pause. Returns the time before and the digest.
async fn pushed(stack: &Stack, image: usize) -> anyhow::Result<(Instant, String)> {
    tokio::time::sleep(PAUSE).await;
    let push = push(image, OffsetDateTime::now_utc());
    let digest = push.digest.clone().context("no digest")?.to_string();
    let subject = Subject::of_push(&push, PARTITIONS).to_string();
    let body = serde_json::to_vec(&push.event())?;
    let begun = Instant::now();
    stack.jetstream.publish(subject, body.into()).await?.await?;
    Ok((begun, digest))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
