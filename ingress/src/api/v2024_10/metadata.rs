//! `GET metadata`: what a pool's sandboxes hold.

use axum::{Extension, Json, extract::State, response::IntoResponse};
use proto::{
    about::{About, Kernel, Software},
    execution::Language,
};
use serde::Serialize;

use crate::{
    api::{front::Caller, moment::moment},
    app::App,
    error::ApiError,
    sessions,
};

/// `GET metadata`
pub async fn get(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, ApiError> {
    let About {
        runtimes,
        packages,
        kernel,
    } = app.service.about(&caller.pool).await?;
    let runs_cells = caller.language() == Language::Python;
    Ok(Json(Metadata {
        runtimes: runtimes.into_iter().map(Named::from).collect(),
        pre_installed_packages: packages.into_iter().map(Named::from).collect(),
        created_at: moment(sessions::at(caller.pool.id.given_ms())),
        last_updated_at: moment(app.pools_written()),
        jupyter_kernel: kernel.filter(|_| runs_cells).map(JupyterKernel::from),
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    runtimes: Vec<Named>,
    pre_installed_packages: Vec<Named>,
    created_at: String,
    last_updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    jupyter_kernel: Option<JupyterKernel>,
}

#[derive(Serialize)]
struct Named {
    name: String,
    version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JupyterKernel {
    name: String,
    version: String,
    project_url: String,
    description: String,
}

impl From<Software> for Named {
    fn from(software: Software) -> Self {
        let Software { name, version } = software;
        Self { name, version }
    }
}

impl From<Kernel> for JupyterKernel {
    fn from(kernel: Kernel) -> Self {
        let Kernel {
            name,
            version,
            project_url,
            description,
        } = kernel;
        Self {
            name,
            version,
            project_url,
            description,
        }
    }
}
