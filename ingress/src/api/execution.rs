//! Running code for a caller who waits: from a request of any contract to an answer in the contract's own words.

use axum::{
    Json,
    body::Body,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    accept, body,
    front::Caller,
    outcome,
    ran::{self, Ran},
    request::{Fields, Request},
    stream,
};
use crate::{
    error::ApiError,
    service::{Code, Session},
};

/// Reads a request, and finds the session that it or its address names.
///
/// # Errors
/// It is wrong.
pub async fn read(caller: &Caller, body: Body) -> Result<(Session, Request), ApiError> {
    let fields = Fields::of(body::read(body).await?)?;
    let request = fields.read(caller.language())?;
    let session = match (&caller.identifier, &request.identifier) {
        (None, Some(identifier)) => caller.session_of(identifier.parse()?),
        _ => caller.session()?,
    };
    Ok((session, request))
}

/// Runs code, to its end or as it happens, whichever the caller prefers, and answers with `T`.
///
/// # Errors
/// The platform failed.
pub async fn run<T: From<Ran> + Serialize + 'static>(
    caller: &Caller,
    headers: &HeaderMap,
    session: Session,
    code: Code,
) -> Result<Response, ApiError> {
    if accept::prefers_events(headers) {
        return stream::run::<T>(caller, session, code).await;
    }
    let ran = ran::run(&caller.app.service, caller.arrived, session, code, None).await?;
    let headers = outcome::headers(&ran.outcome, ran.times);
    Ok((headers, Json(T::from(ran))).into_response())
}
