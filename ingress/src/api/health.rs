//! Whether the process lives, and whether it can do its work, for who balances load. Anybody may ask, so reasons are
//! told at the admin address only.

use axum::{extract::State, response::IntoResponse};
use process::{admin, preflight::ports::ALIVE};

use crate::app::App;

/// The process answers.
pub async fn alive() -> &'static str {
    ALIVE
}

/// How all checks stand, without reasons.
pub async fn ready(State(app): State<App>) -> impl IntoResponse {
    admin::answer(app.health.report().without_reasons())
}
