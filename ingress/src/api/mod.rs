//! HTTP. [`front`] finds the pool, checks the token and reads what every request carries; then the
//! router below, which is the table of contents, picks the operation.

use axum::{Router, extract::DefaultBodyLimit, handler::Handler, middleware, routing};
use tower::util::MapRequestLayer;

use crate::{app::App, trace};

pub mod accept;
pub mod address;
pub mod body;
pub mod coding;
pub mod content;
pub mod cors;
pub mod execution;
pub mod extension;
pub mod file_name;
pub mod files;
pub mod front;
pub mod health;
pub mod host;
pub mod linger;
pub mod link;
pub mod multipart;
pub mod openapi;
pub mod outcome;
pub mod query;
pub mod ran;
pub mod range;
pub mod request;
pub mod result;
pub mod sent;
pub mod stream;
pub mod strict;
pub mod surrogates;
pub mod table;
pub mod timestamp;
pub mod v2024_02;
pub mod v2024_10;

use front::Front;
use table::{Methods, Table, get, post};
use v2024_02 as old;
use v2024_10::{executions, metadata, sessions};

/// The server's outermost router.
pub fn router(app: App) -> Router {
    let front = Front {
        operations: operations(app.clone()),
        app: app.clone(),
    };
    Router::new()
        .route("/healthz", routing::get(health::alive))
        .route("/readyz", routing::get(health::ready))
        .merge(openapi::router())
        .route_layer(middleware::from_fn(host::demand))
        .fallback_service(routing::any(front::enter).with_state(front))
        .layer(MapRequestLayer::new(linger::over_rest))
        .with_state(app)
}

/// Operations below a pool's address.
pub fn operations(app: App) -> Router {
    table()
        .into_router()
        .route_layer(middleware::from_fn(trace::note_route))
        .fallback(front::unknown_operation)
        .method_not_allowed_fallback(front::unknown_method)
        // Each operation bounds its own body.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// Their table of contents. Each is described beside its handler, for [`openapi`].
#[must_use]
pub fn table() -> Table {
    Table::default()
        // The old contract.
        .route("/code/execute", post(old::execute))
        .route("/python/execute", post(old::execute_top_level))
        .route("/python/files", get(old::list_handler))
        .route("/uploadFile", post(old::upload))
        .route("/python/uploadFile", post(old::upload))
        .route("/python/downloadFile", get(old::download_by_query))
        .route("/file/content/{*name}", get(files::get_by_alias))
        // Both.
        .route("/files", get(files::list).post(files::upload))
        .route(
            "/files/{*rest}",
            get(files::get)
                .post(files::upload_below)
                .delete(files::remove),
        )
        // The new one.
        .route(
            "/executions",
            post(executions::execute).get(executions::list),
        )
        .route(
            "/executions/{id}",
            get(executions::get).delete(executions::cancel),
        )
        .route("/executions/{id}/cancel", post(executions::cancel))
        .route("/execute", post(executions::execute))
        .route(
            "/execute/{id}",
            get(executions::get).delete(executions::cancel),
        )
        .route("/metadata", get(metadata::get))
        .route("/session", get(sessions::get).delete(sessions::delete))
        .route("/session/interrupt", post(sessions::interrupt))
        .route("/listSessions", get(sessions::list))
        .route("/.management/getSession", both(sessions::get_managed))
        .route("/.management/listSessions", both(sessions::list_managed))
        .route("/.management/stopSession", both(sessions::stop))
        .route("/.management/interruptSession", post(sessions::interrupt))
}

/// The documentation of `.management` has both methods.
fn both<H: Handler<T, App>, T: 'static>(handler: H) -> Methods {
    get(handler.clone()).post(handler)
}
