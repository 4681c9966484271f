//! What this server answers, as OpenAPI 3.1: one document for each contract, because their answers differ
//! where they share a path. Operations are described beside their handlers, bodies by the types that are
//! written; [`assembly`] adds what all have in common.

use std::sync::LazyLock;

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use utoipa::{
    OpenApi, PartialSchema as _, ToSchema as _,
    openapi::{Components, Info, License},
};

use self::assembly::{Alias, assemble};
use super::{
    content, query, v2024_02 as old,
    v2024_10::{executions, files, metadata, sessions},
};
use crate::{app::App, error::Body};

pub mod answers;
pub mod assembly;
pub mod parameters;

#[cfg(test)]
mod tests;

/// For how long a copy may be used: as long as a roll-out may take.
const CACHED: &str = "public, max-age=300";

/// Whose operations a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Of api-versions before 2024-10-02-preview.
    Old,
    /// Of that version and those since.
    New,
}

#[derive(OpenApi)]
#[openapi(
    paths(
        content::send,
        old::execute,
        old::execute_top_level,
        old::upload,
        old::list,
        old::stat,
        old::delete_file,
        old::download_by_query,
    ),
    components(schemas(old::Referenced, old::Executed))
)]
struct Old;

#[derive(OpenApi)]
#[openapi(paths(
    content::send,
    executions::execute,
    executions::list,
    executions::get,
    executions::cancel,
    files::list,
    files::upload,
    files::stat,
    files::delete,
    metadata::get,
    sessions::get,
    sessions::delete,
    sessions::interrupt,
    sessions::list,
    sessions::get_managed,
    sessions::list_managed,
    sessions::stop,
))]
struct New;

/// Other spellings: method and path, and those that are described.
const OLD_ALIASES: [Alias; 7] = [
    Alias::moved("GET /files/content/{name}", "GET /files/{name}/content"),
    Alias::of("GET /file/content/{name}", "GET /files/content/{name}"),
    Alias::of("POST /files", "POST /files/upload"),
    Alias::of("POST /files/uploadFile", "POST /files/upload"),
    Alias::of("POST /uploadFile", "POST /files/upload"),
    Alias::of("POST /python/uploadFile", "POST /files/upload"),
    Alias::of("GET /python/files", "GET /files"),
];
const NEW_ALIASES: [Alias; 8] = [
    Alias::of("POST /execute", "POST /executions"),
    Alias::of("GET /execute/{id}", "GET /executions/{id}"),
    Alias::of("DELETE /execute/{id}", "DELETE /executions/{id}"),
    Alias::of("POST /executions/{id}/cancel", "DELETE /executions/{id}"),
    Alias::of(
        "POST /.management/interruptSession",
        "POST /session/interrupt",
    ),
    Alias::of(
        "GET /.management/getSession",
        "POST /.management/getSession",
    ),
    Alias::of(
        "GET /.management/listSessions",
        "POST /.management/listSessions",
    ),
    Alias::of(
        "GET /.management/stopSession",
        "POST /.management/stopSession",
    ),
];

impl Contract {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Old, Self::New];

    /// In the names of files and addresses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    /// Its api-versions.
    #[must_use]
    pub fn versions(self) -> Vec<&'static str> {
        let versions = query::API_VERSIONS.into_iter();
        let is_new = |version: &str| version >= query::NEW_CONTRACT;
        versions
            .filter(|version| is_new(version) == (self == Self::New))
            .collect()
    }

    /// Its description.
    ///
    /// # Errors
    /// Never: there is nothing in it that is not JSON.
    pub fn document(self) -> Result<Value, serde_json::Error> {
        let (mut document, aliases, title) = match self {
            Self::Old => (
                Old::openapi(),
                OLD_ALIASES.as_slice(),
                "Hearth, old contract",
            ),
            Self::New => (
                New::openapi(),
                NEW_ALIASES.as_slice(),
                "Hearth, new contract",
            ),
        };
        let versions = self.versions();
        let mut info = Info::new(title, versions.last().copied().unwrap_or_default());
        info.description = Some(format!(
            "Sandboxes for untrusted Python behind the HTTP contract of Azure Container Apps dynamic sessions, \
             in the api-versions {}.",
            versions.join(", ")
        ));
        info.license = Some(License::new("Apache-2.0"));
        document.info = info;
        let components = document.components.get_or_insert_with(Components::new);
        components.responses = answers::refusals();
        let mut schemas = vec![(Body::name().into_owned(), Body::schema())];
        Body::schemas(&mut schemas);
        components.schemas.extend(schemas);
        assemble(&document, aliases, &versions)
    }

    /// The description as it is served and committed.
    #[must_use]
    pub fn text(self) -> &'static str {
        static TEXTS: LazyLock<[String; 2]> = LazyLock::new(|| Contract::ALL.map(written));
        let [old, new] = &*TEXTS;
        match self {
            Self::Old => old,
            Self::New => new,
        }
    }
}

fn written(contract: Contract) -> String {
    let text = contract
        .document()
        .and_then(|document| serde_json::to_string_pretty(&document));
    format!("{}\n", text.unwrap_or_default())
}

/// Where the documents are, for everybody.
pub fn router() -> Router<App> {
    let new = || async { served(Contract::New) };
    Router::new()
        .route("/openapi.json", get(new))
        .route("/openapi/new.json", get(new))
        .route("/openapi/old.json", get(|| async { served(Contract::Old) }))
}

fn served(contract: Contract) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, CACHED),
    ];
    (headers, contract.text()).into_response()
}
