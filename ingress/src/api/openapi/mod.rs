//! What this server answers, as OpenAPI 3.1: one document for each contract, because their answers differ
//! where they share a path. Operations are declared and described in their contracts, bodies by the types that
//! are read and written; [`assembly`] adds what all have in common.

use axum::{http::header, response::IntoResponse};
use bytes::Bytes;
use serde_json::Value;
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{Components, Info, License},
};

use self::assembly::assemble;
use super::{contract::Contract, schema::answers, v2024_02 as old, v2024_10 as new};
use crate::error::Body;

pub mod assembly;

#[cfg(test)]
mod tests;

/// For how long a copy may be used: as long as a roll-out may take.
const CACHED: &str = "public, max-age=300";

/// The description of a contract.
///
/// # Errors
/// Never: there is nothing in it that is not JSON.
pub fn document(contract: Contract) -> Result<Value, serde_json::Error> {
    let declared = match contract {
        Contract::Old => old::routes().merge(old::shared()),
        Contract::New => new::routes().merge(new::shared()),
    };
    let mut document = declared.into_openapi();
    let versions = contract.versions();
    let title = format!("Hearth, {} contract", contract.name());
    let version = versions.last().copied().unwrap_or_default();
    let mut info = Info::new(title.as_str(), version);
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
    assemble(&document, &versions)
}

/// The description as it is served and committed.
#[must_use]
pub fn text(contract: Contract) -> String {
    let text = document(contract).and_then(|document| serde_json::to_string_pretty(&document));
    format!("{}\n", text.unwrap_or_default())
}

/// Tells anybody of a contract.
pub fn answer(contract: Contract) -> impl IntoResponse + Clone {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, CACHED),
    ];
    (headers, Bytes::from(text(contract)))
}
