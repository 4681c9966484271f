//! What operators and their probes ask a worker over HTTP: whether it lives, whether it can do its work, and its
//! metrics.

use std::net::SocketAddr;

use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use process::metrics::Metrics;
use proto::health::{Check, Health, Readiness};
use tokio::net::TcpListener;

/// Has the checks say that this worker is starting, for the first time or anew.
pub fn begin(health: &Health) {
    health.fail(Check::Starting, "this worker has not finished its start");
    health.pass(Check::Draining);
}

/// The checks of this worker, which is starting; they are told at `address`, if there is one, for as long
/// as the process lives.
///
/// # Errors
/// The address cannot be listened at.
pub async fn open(address: Option<SocketAddr>, metrics: Metrics) -> anyhow::Result<Health> {
    let health = Health::default();
    begin(&health);
    metrics.show("health", health.clone());
    let Some(address) = address else {
        return Ok(health);
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("failed to listen at {address}"))?;
    let serving = axum::serve(listener, router(health.clone(), metrics));
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "readiness is not told any more");
        }
    });
    tracing::info!(%address, "telling readiness");
    Ok(health)
}

fn router(health: Health, metrics: Metrics) -> Router {
    let figures = Router::new()
        .route("/metrics", routing::get(show))
        .with_state(metrics);
    Router::new()
        .route("/healthz", routing::get(|| async { "alive\n" }))
        .route("/readyz", routing::get(ready))
        .with_state(health)
        .merge(figures)
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
    let report = health.report();
    let status = match report.status {
        Readiness::Ready | Readiness::Degraded => StatusCode::OK,
        Readiness::Unready => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_begins_anew_is_starting_and_not_draining_any_more() {
        let health = Health::default();
        begin(&health);
        health.pass(Check::Starting);
        health.fail(Check::Draining, "this worker was asked to end");
        begin(&health);
        assert!(health.passes(Check::Draining) && !health.passes(Check::Starting));
        health.pass(Check::Starting);
        assert_eq!(health.report().status, Readiness::Ready);
    }
}
