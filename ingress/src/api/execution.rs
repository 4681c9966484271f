//! Running code: from a request of any contract to what the code left.

use axum::{body::Body, http::HeaderMap};
use proto::{
    execution::{Language, Outcome},
    id::Identifier,
};

use super::{
    body::{ExecuteBody, Kind, Wishes},
    front::Caller,
    outcome::{self, Times},
};
use crate::{
    app::App,
    error::{ApiError, ErrorCode},
    service::{Asked, Session},
};

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

impl Asked {
    /// What a request asks for, beside the code itself.
    #[must_use]
    pub fn of(language: Language, body: &ExecuteBody) -> Self {
        let characters = body.wishes.stream_characters;
        Self {
            language,
            timeout: body.timeout,
            stream_characters: characters.and_then(|most| u64::try_from(most).ok()),
            all_forms: body.wishes.all_forms,
        }
    }
}

/// Reads the request.
///
/// # Errors
/// It is wrong.
pub async fn read(
    app: &App,
    caller: &Caller,
    body: Body,
) -> Result<(Session, ExecuteBody), ApiError> {
    let body = ExecuteBody::read(body, caller.language()).await?;
    let session = match (&caller.identifier, &body.identifier) {
        (None, Some(identifier)) => caller.session_of(app, identifier.parse()?),
        _ => caller.session(app)?,
    };
    Ok((session, body))
}

/// Reads the request of a contract whose callers always wait, and runs its code.
///
/// # Errors
/// The request is wrong, or the platform failed.
pub async fn run(app: &App, caller: &Caller, body: Body) -> Result<Ran, ApiError> {
    let (session, body) = read(app, caller, body).await?;
    if body.kind != Kind::Synchronous {
        let message = "`executionType` must be `synchronous` at this path: `executions` has others";
        return Err(ApiError::new(
            ErrorCode::SessionRequestNotSupported,
            message,
        ));
    }
    perform(app, caller, session, body).await
}

/// Runs the code while its caller waits.
///
/// # Errors
/// The platform failed.
pub async fn perform(
    app: &App,
    caller: &Caller,
    session: Session,
    body: ExecuteBody,
) -> Result<Ran, ApiError> {
    let preparation = caller.arrived.elapsed();
    let asked = Asked::of(caller.language(), &body);
    let outcome = app.service.execute(&session, asked, body.code).await?;
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
