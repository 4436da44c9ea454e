//! The admin page: health and metrics for probes, Prometheus and operators, not for the public.

use std::net::SocketAddr;

use axum::http::header::{CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Json, Response};
use axum::{Router, routing};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Format;
use crate::{Health, Metrics, http};

/// The option of the admin page.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// Address of the admin page: `/healthz` (alive), `/readyz` (able to work) and `/metrics` (for
    /// Prometheus).
    #[arg(long, env = "TAGTRAIL_ADMIN", default_value = "127.0.0.1:8402")]
    pub admin: SocketAddr,
}

/// Binds the address of the admin page.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    http::listen(address, "the admin page", "--admin").await
}

/// Serves the admin page until `shutdown` fires.
pub(crate) async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", routing::get(async || "ok\n"))
        .route(
            "/readyz",
            routing::get(move || std::future::ready(readiness(&health))),
        )
        .route(
            "/metrics",
            routing::get(move |headers: HeaderMap| {
                let format = Format::accepted(&headers);
                let answer = match metrics.text_in(format) {
                    Ok(text) => {
                        let headers = [(CONTENT_TYPE, format.media_type()), (VARY, "accept")];
                        (headers, text).into_response()
                    }
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                };
                std::future::ready(answer)
            }),
        );
    http::serve(
        listener,
        router,
        shutdown,
        http::Limits {
            connections: 64,
            ..http::Limits::default()
        },
        Vec::new(),
    )
    .await
}

fn readiness(health: &Health) -> Response {
    let parts: serde_json::Map<_, _> = health
        .parts()
        .into_iter()
        .map(|(part, state)| {
            (
                part.to_owned(),
                state
                    .err()
                    .map_or_else(|| "ok".into(), serde_json::Value::from),
            )
        })
        .collect();
    let ready = health.ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(serde_json::json!({ "ready": ready, "parts": parts })),
    )
        .into_response()
}
