//! The admin page: for probes and people, not for the public.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use axum::{Router, routing};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Health, http};

/// Where the admin page is.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// Address of the admin page: `/healthz` (alive) and `/readyz` (can do its work).
    #[arg(long, env = "TAGTRAIL_ADMIN", default_value = "127.0.0.1:8402")]
    pub admin: SocketAddr,
}

/// Serves the admin page until `shutdown`.
pub(crate) async fn serve(
    address: SocketAddr,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address} for the admin page; choose another with --admin")
    })?;
    let router = Router::new()
        .route("/healthz", routing::get(async || "ok\n"))
        .route(
            "/readyz",
            routing::get(move || std::future::ready(readiness(&health))),
        );
    http::serve(
        listener,
        router,
        shutdown,
        http::Limits {
            connections: 64,
            ..http::Limits::default()
        },
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
