//! `GET metadata`: what a pool's sandboxes hold.

use axum::{Json, response::IntoResponse};
use proto::{
    about::{About, Software},
    execution::Language,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{front::Caller, schema::answers::Refused, timestamp::timestamp},
    error::ApiError,
    sessions,
};

/// `GET metadata`
#[utoipa::path(get, path = "/metadata", operation_id = "getMetadata", tag = "pool",
    summary = "Tell what the pool's sandboxes hold",
    responses((status = 200, description = "What they hold.", body = Metadata), Refused))]
pub async fn get(caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let About {
        runtimes,
        packages,
        kernel,
    } = caller.app.service.about(&caller.pool).await?;
    let named = |Software { name, version }| Named { name, version };
    let runs_cells = caller.language() == Language::Python;
    let kernel = kernel.filter(|_| runs_cells);
    Ok(Json(Metadata {
        runtimes: runtimes.into_iter().map(named).collect(),
        pre_installed_packages: packages.into_iter().map(named).collect(),
        created_at: timestamp(sessions::at(caller.pool.id.given_ms())),
        last_updated_at: timestamp(caller.app.pools_written()),
        jupyter_kernel: kernel.map(|kernel| JupyterKernel {
            name: kernel.name,
            version: kernel.version,
            project_url: kernel.project_url,
            description: kernel.description,
        }),
    }))
}

/// What sandboxes hold.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    runtimes: Vec<Named>,
    pre_installed_packages: Vec<Named>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    last_updated_at: String,
    /// Not of a Shell pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    jupyter_kernel: Option<JupyterKernel>,
}

/// Software.
#[derive(Serialize, ToSchema)]
#[schema(as = Software)]
struct Named {
    name: String,
    version: String,
}

/// What runs cells.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct JupyterKernel {
    name: String,
    version: String,
    project_url: String,
    description: String,
}
