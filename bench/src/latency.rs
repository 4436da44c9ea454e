//! Latency of single events: until a subscriber receives the revision, and until a webhook receives
//! the rollout.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::message::PublishMessage;
use axum::body::Bytes;
use futures_util::StreamExt as _;
use http_body_util::Full;
use hyper::Request;
use tagtrail_bus::topology;
use tagtrail_proto::{Event, Image, PARTITIONS, Revision, Subject};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ceiling::{self, Rows};
use crate::http::Connection;
use crate::report::{Goal, Row, Series, percentile};
use crate::stack::{ServiceProcess, Stack, push};

/// Pause after a rollout, for the work that follows it. The ceilings pause as well, since idle
/// processors wake slowly.
const PAUSE: Duration = Duration::from_millis(5);
/// Time after which a message counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Measures the time from a push to the receipt of its revision.
pub(crate) async fn revisions(
    stack: &Stack,
    name: &str,
    rounds: usize,
    count: usize,
) -> anyhow::Result<Vec<Row>> {
    let [mut p50, mut p99, mut floor] = [(); 3].map(|()| Series::default());
    let mut rows = Rows::new(stack).await?;
    let indexer = stack.service("indexer", &[]);
    indexer.ready().await?;
    // Time for the indexer to claim all partitions.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for round in 0..rounds {
        eprintln!("latency, {name}: round {} of {rounds}", round + 1);
        let acks = ceiling::acknowledged(stack, topology::Stream::Pushes, count).await?
            + ceiling::acknowledged(stack, topology::Stream::Revisions, count).await?;
        floor.push(acks + rows.single(count).await?);
        let times = one_by_one(stack, count).await?;
        p50.push(percentile(&times, 0.5));
        p99.push(percentile(&times, 0.99));
    }
    indexer.stop().await;
    Ok(vec![
        Row::against(
            format!("push to revision, p50, {name}"),
            "ms",
            p50.clone(),
            floor,
            stack.goal(Goal::AtMost(1.3)),
        ),
        Row::against(
            format!("push to revision, p99 to p50, {name}"),
            "ms",
            p99,
            p50,
            stack.goal(Goal::AtMost(2.0)),
        ),
    ])
}

pub(crate) async fn one_by_one(stack: &Stack, count: usize) -> anyhow::Result<Vec<f64>> {
    let client = stack
        .nats
        .client()
        .await
        .context("no connection to nats-server")?;
    let mut revisions = client.subscribe("tagtrail.revision.>").await?;
    client.flush().await?;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let push = push(number, OffsetDateTime::now_utc());
        let subject = Subject::of_push(&push, PARTITIONS).to_string();
        let message = PublishMessage::build()
            .message_id(push.message_id())
            .payload(serde_json::to_vec(&push.event())?.into());
        let begun = Instant::now();
        let ack = stack.jetstream.send_publish(subject, message).await?;
        tokio::time::timeout(PATIENCE, revisions.next())
            .await
            .context("no revision in time")?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        ack.await?;
    }
    Ok(times)
}

/// A webhook target that reports each request with its time.
#[derive(Debug)]
pub(crate) struct WebhookTarget {
    address: String,
    requests: mpsc::UnboundedReceiver<(OffsetDateTime, Bytes)>,
    _server: JoinSet<std::io::Result<()>>,
}

impl WebhookTarget {
    pub(crate) async fn start() -> anyhow::Result<WebhookTarget> {
        let (sender, requests) = mpsc::unbounded_channel();
        let router = axum::Router::new().fallback(async move |body: Bytes| {
            let _ = sender.send((OffsetDateTime::now_utc(), body));
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await });
        Ok(WebhookTarget {
            address,
            requests,
            _server: server,
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits for the webhook with a digest. Returns the time of its receipt.
    pub(crate) async fn receive(&mut self, digest: &str) -> anyhow::Result<OffsetDateTime> {
        loop {
            let (at, body) = tokio::time::timeout(PATIENCE, self.requests.recv())
                .await
                .context("no webhook in time")?
                .context("the target ended")?;
            let mut parts = body.windows(digest.len());
            if parts.any(|part| part == digest.as_bytes()) {
                return Ok(at);
            }
        }
    }
}

/// A trigger of one image, with its services, and the target that its webhooks reach.
pub(crate) struct Delivery<'a> {
    stack: &'a Stack,
    target: WebhookTarget,
    image: Image,
    indexer: ServiceProcess,
    trigger: ServiceProcess,
}

impl<'a> Delivery<'a> {
    pub(crate) async fn start(stack: &'a Stack, folder: &Path) -> anyhow::Result<Delivery<'a>> {
        let mut target = WebhookTarget::start().await?;
        let image: Image = push(0, OffsetDateTime::now_utc())
            .image()
            .context("no image")?;
        let config = folder.join("tagtrail.toml");
        std::fs::write(
            &config,
            format!(
                "[[trigger]]\nname = \"bench\"\nsettle = \"0s\"\nimages.app = \"{image}\"\ntarget.webhook = {{ url = \"http://{}/\", secret = {{ env = \"BENCH_SECRET\" }} }}\n",
                target.address
            ),
        )?;
        let indexer = stack.service("indexer", &[]);
        indexer.ready().await?;
        let trigger = stack.trigger(&config).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The present head is rolled out at once: skip its webhooks.
        while tokio::time::timeout(Duration::from_millis(500), target.requests.recv())
            .await
            .is_ok()
        {}
        Ok(Delivery {
            stack,
            target,
            image,
            indexer,
            trigger,
        })
    }

    /// Pushes again and again. Returns the milliseconds from each revision to its webhook.
    pub(crate) async fn times(&mut self, count: usize) -> anyhow::Result<Vec<f64>> {
        while self.target.requests.try_recv().is_ok() {}
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let push = push(0, OffsetDateTime::now_utc());
            let digest = push.digest.clone().context("no digest")?.to_string();
            let subject = Subject::of_push(&push, PARTITIONS).to_string();
            self.stack
                .jetstream
                .publish(subject, serde_json::to_vec(&push.event())?.into())
                .await?
                .await?;
            let received_at = self.target.receive(&digest).await?;
            let stored = published(self.stack, &self.image, &digest).await?;
            times.push((received_at - stored).as_seconds_f64() * 1000.0);
            tokio::time::sleep(PAUSE * 4).await;
        }
        Ok(times)
    }

    pub(crate) async fn stop(self) {
        self.trigger.stop().await;
        self.indexer.stop().await;
    }
}

/// Measures the time from a revision to the receipt of the webhook.
pub(crate) async fn rollouts(
    stack: &Stack,
    folder: &Path,
    name: &str,
    rounds: usize,
    count: usize,
) -> anyhow::Result<Vec<Row>> {
    let mut db = stack.db().await?;
    sqlx::query("create table if not exists ceiling_row (n bigint)")
        .execute(&mut db)
        .await?;
    let mut delivery = Delivery::start(stack, folder).await?;
    let address = delivery.target.address.clone();
    let [mut p50, mut floor] = [(); 2].map(|()| Series::default());
    for round in 0..rounds {
        eprintln!(
            "revision to webhook, {name}: round {} of {rounds}",
            round + 1
        );
        floor.push(
            received(stack, count).await?
                + committed(&mut db, count).await? * 2.0
                + posted(&address, count).await?,
        );
        p50.push(percentile(&delivery.times(count).await?, 0.5));
    }
    delivery.stop().await;
    Ok(vec![Row::against(
        format!("revision to webhook, p50, {name}"),
        "ms",
        p50,
        floor,
        Goal::AtMost(1.5),
    )])
}

/// Returns the time at which the last revision of an image was stored. Fails if it has another
/// digest.
pub(crate) async fn published(
    stack: &Stack,
    image: &Image,
    digest: &str,
) -> anyhow::Result<OffsetDateTime> {
    let revisions = stack.jetstream.get_stream("REVISIONS").await?;
    let subject = Subject::of_revisions(image).to_string();
    let last = revisions.get_last_raw_message_by_subject(&subject).await?;
    let event: Event<Revision> = serde_json::from_slice(&last.payload)?;
    let is = event.data.digest.map(|digest| digest.to_string());
    anyhow::ensure!(
        is.as_deref() == Some(digest),
        "another revision came in between"
    );
    Ok(last.time)
}

/// Returns the median milliseconds from the storing of a message to its receipt by a subscriber.
async fn received(stack: &Stack, count: usize) -> anyhow::Result<f64> {
    let prefix = ceiling::stream(stack, topology::Stream::Revisions).await?;
    let client = stack
        .nats
        .client()
        .await
        .context("no connection to nats-server")?;
    let subject = format!("{prefix}.received");
    let mut subscription = client.subscribe(subject.clone()).await?;
    client.flush().await?;
    let stream = stack.jetstream.get_stream("CEILING_REVISIONS").await?;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let ack = stack
            .jetstream
            .publish(subject.clone(), number.to_string().into())
            .await?;
        subscription
            .next()
            .await
            .context("the subscription ended")?;
        let at = OffsetDateTime::now_utc();
        let stored = stream.get_raw_message(ack.await?.sequence).await?.time;
        // The server may deliver a message before storing it.
        times.push(((at - stored).as_seconds_f64() * 1000.0).max(0.0));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(percentile(&times, 0.5))
}

/// Returns the median milliseconds to commit a row.
async fn committed(db: &mut sqlx::PgConnection, count: usize) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let begun = Instant::now();
        sqlx::query("insert into ceiling_row values ($1)")
            .bind(number as i64)
            .execute(&mut *db)
            .await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(percentile(&times, 0.5))
}

/// Returns the median milliseconds from a POST to its answer.
async fn posted(address: &str, count: usize) -> anyhow::Result<f64> {
    let mut client = Connection::connect(address).await?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let request = Request::post("/")
            .header("host", address)
            .body(Full::new(Bytes::from(vec![b' '; 700])))?;
        let begun = Instant::now();
        client.ask(request).await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(percentile(&times, 0.5))
}
