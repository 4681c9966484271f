//! Whether the process lives, and whether it can do its work.

use axum::{extract::State, http::header, response::IntoResponse};

use crate::{
    app::App,
    bus::BusError,
    error::{ApiError, ErrorCode},
    route::RouteError,
};

/// The process answers.
pub async fn alive() -> &'static str {
    "alive\n"
}

/// The bus answers; keys and pools were read at start.
///
/// # Errors
/// The bus does not answer.
pub async fn ready(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    match app.bus.check().await {
        Ok(()) => Ok(([(header::CACHE_CONTROL, "no-store")], "ready\n")),
        Err(error @ BusError::Lost(_)) => Err(RouteError::Bus(error).into()),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "not ready");
            Err(ApiError::new(
                ErrorCode::BusUnavailable,
                "the bus does not answer",
            ))
        }
    }
}
