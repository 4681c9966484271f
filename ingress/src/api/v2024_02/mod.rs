//! The old contract: api-versions 2024-02-02-preview and 2024-08-02-preview, with the still older
//! `python/*` paths.

use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::declare::{Declare, another};

pub mod code;
pub mod files;

#[derive(OpenApi)]
#[openapi(components(schemas(code::Referenced, code::Executed)))]
struct Answers;

/// Operations at paths that only this contract has.
pub fn routes() -> OpenApiRouter {
    OpenApiRouter::with_openapi(Answers::openapi())
        .routes(routes!(code::execute))
        .routes(routes!(code::execute_top_level))
        .routes(another!(Get "/python/files", files::list))
        .routes(routes!(files::download_by_query))
        .routes(another!(Get "/file/content/{*name}", files::content))
        .routes(another!(Post "/uploadFile", files::upload))
        .routes(another!(Post "/python/uploadFile", files::upload))
        .routes_at("/files/{*rest}", routes!(files::upload))
        .described(another!(Post "/files/uploadFile", files::upload))
}

/// Operations at paths that both contracts have.
pub fn shared() -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(files::list))
        .routes(another!(Post "/files", files::upload))
        .routes_at("/files/{*rest}", routes!(files::get, files::delete))
        .described(routes!(files::content))
}
