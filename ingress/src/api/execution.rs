//! Running code: from a request of any contract to what the code left.

use axum::{body::Body, http::HeaderMap};
use proto::{execution::Outcome, id::Identifier};

use super::{
    body::{ExecuteBody, Wishes},
    front::Caller,
    outcome::{self, Times},
};
use crate::{app::App, error::ApiError};

/// What an answer is made of.
#[derive(Debug)]
pub struct Ran {
    /// The session.
    pub identifier: Identifier,
    /// What the code left.
    pub outcome: Outcome,
    /// How the caller wishes it.
    pub wishes: Wishes,
    /// What is told beside the body.
    pub headers: HeaderMap,
}

/// Reads the request and runs its code.
///
/// # Errors
/// The request is wrong, or the platform failed.
pub async fn run(app: &App, caller: &Caller, body: Body) -> Result<Ran, ApiError> {
    let language = caller.language();
    let body = ExecuteBody::read(body, language).await?;
    let session = match (&caller.identifier, body.identifier) {
        (None, Some(identifier)) => caller.session_of(app, identifier.parse()?),
        _ => caller.session(app)?,
    };
    let preparation = caller.arrived.elapsed();
    let code = (language, body.code);
    let outcome = app.service.execute(&session, code, body.timeout).await?;
    let times = Times {
        preparation,
        service: caller.arrived.elapsed().saturating_sub(preparation),
    };
    Ok(Ran {
        identifier: session.identifier,
        headers: outcome::headers(&outcome, times),
        outcome,
        wishes: body.wishes,
    })
}
