//! What operators and their probes ask a process over HTTP, best at an address that only its host reaches: whether
//! it lives, whether it can do its work, with reasons, and its metrics.

use std::net::SocketAddr;

use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use proto::health::{Health, HealthReport, Readiness};
use tokio::net::TcpListener;

use crate::{metrics::Metrics, preflight::ports::ALIVE};

/// An address that is listened at and where nothing is answered yet.
#[derive(Debug)]
pub struct Admin(TcpListener);

impl Admin {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub async fn listen(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("failed to listen at {address}"))?;
        tracing::info!(%address, "telling readiness");
        Ok(Self(listener))
    }

    /// Tells how these checks stand, and shows these metrics, for as long as the process lives.
    pub fn tell(self, health: Health, metrics: Metrics) {
        let figures = Router::new()
            .route("/metrics", routing::get(show))
            .with_state(metrics);
        let router = Router::new()
            .route("/healthz", routing::get(|| async { ALIVE }))
            .route("/readyz", routing::get(ready))
            .with_state(health)
            .merge(figures);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(self.0, router).await {
                tracing::error!(%error, "readiness and metrics are not told any more");
            }
        });
    }
}

async fn show(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    match metrics.expose(accept) {
        Ok(shown) => ([(header::CONTENT_TYPE, shown.content_type)], shown.text).into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    answer(health.report())
}

/// Not ready only for what this process alone suffers from: trouble that all processes share must not take every
/// one of them away from who balances load.
pub fn answer(report: HealthReport) -> impl IntoResponse + use<> {
    let status = match report.status {
        Readiness::Ready | Readiness::Degraded => StatusCode::OK,
        Readiness::Unready => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report))
}
