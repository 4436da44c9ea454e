//! Metrics of every process, and a trace across all processes.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::sync::{LazyLock, Mutex};

use axum::Router;
use axum::body::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use tagtrail_e2e::Fleet;
use tagtrail_proto::{Digest, TraceContext, instant};
use tagtrail_testkit::{SOON, TestNats, TestPostgres, eventually};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Service, name, trace id, parent span id and span id of each span.
type Spans = Vec<(String, String, u128, u64, u64)>;

static SPANS: Mutex<Spans> = Mutex::new(Vec::new());
/// Listener and URL of the collector of traces.
static COLLECTOR: LazyLock<(std::net::TcpListener, String)> = LazyLock::new(|| {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
});

async fn collect(body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = SPANS.lock().unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let service = attributes
            .into_iter()
            .find(|attribute| attribute.key == "service.name");
        let Some(Value::StringValue(service)) = service.unwrap().value.unwrap().value else {
            panic!("service.name is no text")
        };
        for span in resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_be_bytes);
            let trace = u128::from_be_bytes(span.trace_id.as_slice().try_into().unwrap());
            spans.push((
                service.clone(),
                span.name,
                trace,
                number(&span.parent_span_id),
                number(&span.span_id),
            ));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_hook_to_the_webhook_and_metrics_count_each_step() {
    let mut collector = JoinSet::new();
    let listener = TcpListener::from_std(COLLECTOR.0.try_clone().unwrap()).unwrap();
    let router = Router::new().route("/v1/traces", axum::routing::post(collect));
    collector.spawn(async move { axum::serve(listener, router).await.unwrap() });

    let (postgres, nats) = (TestPostgres::start().await, TestNats::start().await);
    let fleet = Fleet::start_with("registry.example.com", postgres, nats, |_, _| {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR.1.clone()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ]
    })
    .await;
    let given: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .unwrap();
    let now = instant::format(OffsetDateTime::now_utc()).unwrap();
    for repository in ["shop/worker", "shop/web"] {
        let digest = Digest::sha256_of(repository.as_bytes()).to_string();
        let request = fleet.request(repository, &digest, &now);
        let sent = request
            .header("traceparent", given.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), 202);
        eventually(repository, SOON, async || {
            let path = format!("/v1/resolve?image=registry.example.com/{repository}");
            (fleet.get(&path).await?.0 == 200).then_some(())
        })
        .await;
    }

    // The webhook carries the trace id of the hook.
    let delivery = fleet.sink.wait(1).await.remove(0);
    let delivered: TraceContext = delivery.header("traceparent").parse().unwrap();
    assert_eq!((delivered.trace, delivered.sampled), (given.trace, true));
    assert_ne!(delivered.parent, given.parent);

    // The collector has a span for each step, with the step before as the parent. Processes export
    // spans at different times, and two pushes share the trace: so the test waits for the chain of
    // parents, and not just for all names.
    let chain = eventually("the spans", SOON, async || {
        let spans = SPANS.lock().unwrap().clone();
        let ours: Vec<_> = spans
            .into_iter()
            .filter(|span| span.2 == given.trace)
            .collect();
        let attempt = ours.iter().find(|span| span.1 == "attempt")?;
        let mut chain = vec![attempt.clone()];
        while let Some(cause) = ours
            .iter()
            .find(|span| chain.last().is_some_and(|last| span.4 == last.3))
        {
            chain.push(cause.clone());
        }
        (chain.len() >= 4).then_some(chain)
    })
    .await;
    let steps: Vec<String> = chain
        .iter()
        .map(|(service, name, ..)| format!("{service} {name}"))
        .collect();
    assert_eq!(
        steps,
        [
            "tagtrail-trigger attempt",
            "tagtrail-trigger plan",
            "tagtrail-indexer record",
            "tagtrail-gateway hook",
        ]
    );
    assert_eq!(
        delivered.parent, chain[0].4,
        "the attempt is the webhook's parent"
    );
    assert_eq!(
        chain[3].3, given.parent,
        "the sender's span is the hook's parent"
    );

    for (service, lines) in [
        (
            "gateway",
            &[
                "tagtrail_gateway_events_total{source=\"ci\",outcome=\"accepted\"} 2",
                "tagtrail_gateway_requests_total{source=\"ci\",status=\"202\"} 2",
            ][..],
        ),
        (
            "indexer",
            &[
                "tagtrail_indexer_revisions_total{kind=\"created\"} 2",
                "tagtrail_indexer_push_to_revision_seconds_count 2",
                "tagtrail_indexer_partitions 8",
            ],
        ),
        (
            "trigger",
            &[
                "tagtrail_trigger_attempts_total{trigger=\"shop\",outcome=\"done\"} 1",
                "tagtrail_trigger_rollouts_total{trigger=\"shop\",state=\"succeeded\"} 1",
            ],
        ),
        (
            "api",
            &["tagtrail_api_requests_total{operation=\"resolve\",status=\"200\"}"],
        ),
        (
            "resolver",
            &["# HELP tagtrail_resolver_question_seconds Time that a registry takes"],
        ),
    ] {
        eventually(&format!("the metrics of {service}"), SOON, async || {
            let text = fleet.admin(service, "metrics").await?;
            assert!(text.contains("tagtrail_ready 1.0"), "{service}: {text}");
            lines
                .iter()
                .all(|line| text.lines().any(|found| found.starts_with(line)))
                .then_some(())
        })
        .await;
    }
    // No partition lags.
    let text = fleet.admin("indexer", "metrics").await.unwrap();
    let lags: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("tagtrail_indexer_lag_messages{"))
        .collect();
    assert!(
        !lags.is_empty() && lags.iter().all(|line| line.ends_with("} 0")),
        "{lags:?}"
    );
}
