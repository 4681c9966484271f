//! Running code for a caller who waits: from a request of any contract to what the code left, which the contract
//! then puts in its own words.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{
    accept, body,
    front::Caller,
    outcome,
    ran::{self, Ran},
    request::{Fields, Kind, Request},
    stream::{self, Running},
};
use crate::{
    error::{ApiError, ErrorCode},
    service::{Code, Session},
};

/// What became of it.
#[derive(Debug)]
pub enum Waited {
    /// It has ended.
    Ended(Box<Ran>),
    /// It runs, and its caller is told of it as it happens.
    Runs(Running),
}

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

/// Reads one of a contract whose callers always wait.
///
/// # Errors
/// It is wrong.
pub async fn read_synchronous(caller: &Caller, body: Body) -> Result<(Session, Code), ApiError> {
    let (session, request) = read(caller, body).await?;
    if request.kind != Kind::Synchronous {
        let message = "`executionType` must be `synchronous` at this path: `executions` has others";
        let code = ErrorCode::SessionRequestNotSupported;
        return Err(ApiError::new(code, message));
    }
    Ok((session, request.code))
}

/// Runs code, to its end or as it happens, whichever the caller prefers.
///
/// # Errors
/// The platform failed.
pub async fn run(
    caller: &Caller,
    headers: &HeaderMap,
    session: Session,
    code: Code,
) -> Result<Waited, ApiError> {
    if accept::prefers_events(headers) {
        let running = stream::run(caller, session, code).await?;
        return Ok(Waited::Runs(running));
    }
    let ran = ran::run(&caller.app.service, caller.arrived, session, code, None).await?;
    Ok(Waited::Ended(Box::new(ran)))
}

impl Waited {
    /// The answer, with the body that the contract makes of what the code left.
    ///
    /// # Errors
    /// Never: bodies are JSON.
    pub fn answer<F>(self, body: F) -> Result<Response, ApiError>
    where
        F: Fn(&Ran) -> Result<Vec<u8>, serde_json::Error> + Send + 'static,
    {
        match self {
            Self::Ended(ran) => {
                let body = body(&ran).map_err(|error| ApiError::internal(&error))?;
                let json = HeaderValue::from_static("application/json");
                let headers = outcome::headers(&ran.outcome, ran.times);
                Ok(([(header::CONTENT_TYPE, json)], headers, body).into_response())
            }
            Self::Runs(running) => Ok(running.answer(body)),
        }
    }
}
