//! Sources that publish to a NATS subject instead of posting. Of all gateways, one receives each
//! message.
//!
//! Core NATS stores nothing: a message published while no gateway is subscribed is lost, and the
//! reconciler finds the change. A received message stays in memory until it is stored.

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use tagtrail_bus::{BusError, Subscription};
use tagtrail_daemon::{Context, Retry, Span, SpanKind};
use time::OffsetDateTime;

use crate::config::Source;
use crate::receive::{self, Inbound, Reply};
use crate::shared::Shared;
use crate::source::NatsSubject;

/// Receives the messages of a source until shutdown. A failed subscription must not stop other
/// sources, so every failure is retried.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    source: Arc<Source>,
    nats: NatsSubject,
    ctx: Context,
) {
    let name = source.rules.name.as_ref();
    let (shutdown, group) = (&ctx.shutdown, format!("tagtrail-{name}"));
    let mut retry = Retry::new("subscribing");
    while !shutdown.is_cancelled() {
        let credentials = nats.credentials.as_deref();
        let opened = Subscription::listen(&nats.url, &nats.subject, &group, credentials, shutdown);
        match opened.await {
            Ok(mut subscription) => {
                retry.succeeded();
                tracing::info!(source = name, subject = nats.subject, "subscribed");
                while let Some(body) = tokio::select! {
                    body = subscription.next() => body,
                    () = shutdown.cancelled() => None,
                } {
                    store(&shared, &source, &body, &ctx).await;
                }
            }
            Err(BusError::Stopped) => return,
            Err(error) => {
                tracing::error!(
                    source = name,
                    subject = nats.subject,
                    "can't subscribe to subject {} of source {name}: {}",
                    nats.subject,
                    tagtrail_daemon::chain(&error)
                );
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(retry.pause()) => {}
        }
    }
}

/// Stores a message. No sender repeats a message, so storing is retried until success.
async fn store(shared: &Shared, source: &Source, body: &Bytes, ctx: &Context) {
    let name = source.rules.name.as_ref();
    let headers = HeaderMap::new();
    let inbound = Inbound {
        headers: &headers,
        body,
        received_at: OffsetDateTime::now_utc(),
        patience: receive::UNWATCHED,
    };
    if body.len() > source.rules.kind.max_body {
        tracing::warn!(
            source = name,
            "dropped a message of {} bytes: larger than any event of kind {}",
            body.len(),
            source.rules.kind.name
        );
        return;
    }
    let mut retry = Retry::new(format!("storing a message of source {name}"));
    loop {
        let mut span = Span::start("receive", SpanKind::Consumer, None);
        span.set("tagtrail.source", name.to_owned());
        match receive::store(shared, &source.rules, &inbound, span.context()).await {
            Ok(Reply::Receipt(receipt)) => return shared.metrics.count_events(name, &receipt),
            Ok(Reply::Handshake(_)) => return,
            Err(error) => {
                span.fail(&error);
                if !retry.wait(&error, &ctx.shutdown).await {
                    return;
                }
            }
        }
    }
}
