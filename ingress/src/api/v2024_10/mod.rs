//! The new contract: api-versions from 2024-10-02-preview on. Bodies are flat, and every operation has
//! a path of its own but for files, whose paths both contracts have.

use utoipa_axum::{router::OpenApiRouter, routes};

use super::declare::{Declare, another};

pub mod executions;
pub mod files;
pub mod metadata;
pub mod resource;
pub mod sessions;

/// Operations at paths that only this contract has. The documentation of `.management` has both methods.
pub fn routes() -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(executions::execute, executions::list))
        .routes(routes!(executions::get, executions::cancel))
        .routes(another!(Post "/executions/{id}/cancel", executions::cancel))
        .routes(another!(Post "/execute", executions::execute))
        .routes(another!(Get "/execute/{id}", executions::get))
        .routes(another!(Delete "/execute/{id}", executions::cancel))
        .routes(routes!(metadata::get))
        .routes(routes!(sessions::get, sessions::delete))
        .routes(routes!(sessions::interrupt))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::get_managed))
        .routes(another!(Get "/.management/getSession", sessions::get_managed))
        .routes(routes!(sessions::list_managed))
        .routes(another!(Get "/.management/listSessions", sessions::list_managed))
        .routes(routes!(sessions::stop))
        .routes(another!(Get "/.management/stopSession", sessions::stop))
        .routes(another!(Post "/.management/interruptSession", sessions::interrupt))
}

/// Operations at paths that both contracts have.
pub fn shared() -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(files::list, files::upload))
        .routes_at("/files/{*rest}", routes!(files::get, files::delete))
        .described(routes!(files::content))
}
