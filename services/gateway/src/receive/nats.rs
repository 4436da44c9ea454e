//! Sources that publish to a NATS subject of their own instead of posting: one gateway of all hears each message.
//!
//! Core NATS promises nothing: what is published while no gateway listens is lost, and the reconciler finds it. What was heard is
//! kept until it is stored.

use std::sync::Arc;

use axum::http::HeaderMap;
use tagtrail_bus::{BusError, Subscription};
use tagtrail_daemon::{Context, Span, SpanKind, backoff};
use time::OffsetDateTime;

use crate::config::Source;
use crate::receive::{self, Inbound, Reply};
use crate::shared::Shared;
use crate::source::NatsSubject;

/// Hears a source until a stop is asked for. A subject that can't be heard is no reason to turn other sources away.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    name: String,
    nats: NatsSubject,
    ctx: Context,
) -> anyhow::Result<()> {
    let Some(source) = shared.sources.get(&name) else {
        return Ok(());
    };
    let (shutdown, group) = (&ctx.shutdown, format!("tagtrail-{name}"));
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let credentials = nats.credentials.as_deref();
        let opened = Subscription::listen(&nats.url, &nats.subject, &group, credentials, shutdown);
        match opened.await {
            Ok(mut subject) => {
                failures = 0;
                tracing::info!(source = name, subject = nats.subject, "listening");
                while let Some(body) = tokio::select! {
                    body = subject.next() => body,
                    () = shutdown.cancelled() => None,
                } {
                    store(&shared, source, &body, &ctx).await;
                }
            }
            Err(BusError::Stopped) => return Ok(()),
            Err(error) => {
                tracing::error!(
                    source = name,
                    subject = nats.subject,
                    "can't listen: {error}"
                );
            }
        }
        failures += 1;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(backoff(failures)) => {}
        }
    }
    Ok(())
}

/// Stores what was heard. Nobody sends it again, so that is tried until it works.
async fn store(shared: &Shared, source: &Source, body: &[u8], ctx: &Context) {
    let name = source.rules.name.as_ref();
    let headers = HeaderMap::new();
    let inbound = Inbound {
        headers: &headers,
        body,
        received_at: OffsetDateTime::now_utc(),
    };
    if body.len() > source.rules.kind.max_body {
        tracing::warn!(
            source = name,
            "a message of {} bytes is no event",
            body.len()
        );
        return;
    }
    let mut failures = 0;
    while !ctx.shutdown.is_cancelled() {
        let mut span = Span::start("heard", SpanKind::Consumer, None);
        span.set("tagtrail.source", name.to_owned());
        let bus = shared.bus.get();
        match receive::store(bus, &source.rules, &inbound, span.context()).await {
            Ok(Reply::Receipt(receipt)) => return shared.metrics.took(name, &receipt),
            Ok(Reply::Handshake(_)) => return,
            Err(error) => {
                failures += 1;
                span.fail(&error);
                tracing::warn!(
                    source = name,
                    "a message was not stored, trying again: {error}"
                );
                tokio::select! {
                    () = ctx.shutdown.cancelled() => {}
                    () = tokio::time::sleep(backoff(failures)) => {}
                }
            }
        }
    }
}
