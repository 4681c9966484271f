//! Whether the process lives, and whether it can do its work.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use proto::health::Readiness;

use crate::app::App;

/// The process answers.
pub async fn alive() -> &'static str {
    "alive\n"
}

/// How all checks stand. Not ready only for what this process alone suffers from: trouble that all
/// processes share must not take every one of them away from who balances load.
pub async fn ready(State(app): State<App>) -> impl IntoResponse {
    let report = app.health.report();
    let status = match report.status {
        Readiness::Ready | Readiness::Degraded => StatusCode::OK,
        Readiness::Unready => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report))
}
