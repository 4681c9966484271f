//! HTTP. [`front`] finds the pool, checks the token and reads what every request carries; then the
//! router below, which is the table of contents, picks the operation.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{delete, get, post},
};

use crate::app::App;

pub mod address;
pub mod body;
pub mod front;
pub mod health;
pub mod multipart;
pub mod outcome;
pub mod query;
pub mod range;
pub mod result;
pub mod v2024_02;

use v2024_02 as old;

/// The server's outermost router.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(front::enter)
        .with_state(app)
}

/// Operations below a pool's address.
pub fn operations(app: App) -> Router {
    Router::new()
        .route("/code/execute", post(old::execute))
        .route("/python/execute", post(old::execute_top_level))
        .route("/files", get(old::list).post(old::upload))
        .route("/python/files", get(old::list))
        .route("/files/upload", post(old::upload))
        .route("/files/uploadFile", post(old::upload))
        .route("/uploadFile", post(old::upload))
        .route("/python/uploadFile", post(old::upload))
        .route("/files/content/{*name}", get(old::download))
        .route("/file/content/{*name}", get(old::download))
        .route("/python/downloadFile", get(old::download_by_query))
        .route("/files/{name}", get(old::stat).delete(old::delete_file))
        .route("/session", delete(old::delete_session))
        .route("/.management/stopSession", post(old::stop_session))
        .fallback(front::unknown_operation)
        .method_not_allowed_fallback(front::unknown_method)
        // Each operation bounds its own body.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}
