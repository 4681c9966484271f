//! Running code: from a request of any contract to what the code left.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use proto::{execution::Outcome, id::Identifier};

use super::{
    accept,
    body::{ExecuteBody, Kind},
    front::Caller,
    outcome::{self, Times},
    stream,
};
use crate::{
    app::App,
    error::{ApiError, ErrorCode},
    reader::Reader,
    service::{Code, Session, Waited, Wishes},
};

/// A request that was read.
#[derive(Debug)]
pub struct Request {
    /// Where it runs.
    pub session: Session,
    /// What runs.
    pub code: Code,
    /// Whether its caller waits.
    pub kind: Kind,
}

/// What an answer is made of.
#[derive(Debug)]
pub struct Ran {
    /// The session.
    pub identifier: Identifier,
    /// What the code left.
    pub outcome: Outcome,
    /// How the caller wishes it.
    pub wishes: Wishes,
    /// The caller wants what is beyond the contract.
    pub extended: bool,
    /// What is told beside the body.
    pub headers: HeaderMap,
}

/// Makes the body of an answer, in the words of one contract.
pub type Render = fn(&Caller, &Ran) -> Result<Vec<u8>, serde_json::Error>;

impl Request {
    /// Reads it.
    ///
    /// # Errors
    /// It is wrong.
    pub async fn read(app: &App, caller: &Caller, body: Body) -> Result<Self, ApiError> {
        let language = caller.language();
        let body = ExecuteBody::read(body, language).await?;
        let session = match (&caller.identifier, body.identifier) {
            (None, Some(identifier)) => caller.session_of(app, identifier.parse()?),
            _ => caller.session(app)?,
        };
        let code = Code {
            language,
            text: body.code,
            timeout: body.timeout,
            wishes: body.wishes,
            extension: body.extension,
        };
        Ok(Self {
            session,
            code,
            kind: body.kind,
        })
    }

    /// Reads one of a contract whose callers always wait.
    ///
    /// # Errors
    /// It is wrong.
    pub async fn read_synchronous(
        app: &App,
        caller: &Caller,
        body: Body,
    ) -> Result<Self, ApiError> {
        let request = Self::read(app, caller, body).await?;
        if request.kind != Kind::Synchronous {
            let message =
                "`executionType` must be `synchronous` at this path: `executions` has others";
            let code = ErrorCode::SessionRequestNotSupported;
            return Err(ApiError::new(code, message));
        }
        Ok(request)
    }
}

/// Runs the code while its caller waits, and answers in one piece or as it happens.
///
/// # Errors
/// The platform failed.
pub async fn answer(
    app: App,
    caller: Caller,
    headers: &HeaderMap,
    request: Request,
    render: Render,
) -> Result<Response, ApiError> {
    if accept::prefers_events(headers) {
        return stream::answer(app, caller, request, render).await;
    }
    let ran = run(&app, &caller, request, None).await?;
    let body = render(&caller, &ran).map_err(|error| ApiError::internal(&error))?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], ran.headers, body).into_response())
}

/// Runs the code; a reader gets its output as it happens.
///
/// # Errors
/// The platform failed.
pub async fn run(
    app: &App,
    caller: &Caller,
    Request { session, code, .. }: Request,
    reader: Option<&Reader>,
) -> Result<Ran, ApiError> {
    let preparation = caller.arrived.elapsed();
    let (wishes, extended) = (code.wishes, code.extension.is_some());
    let Waited { outcome, reading } = app.service.execute(&session, code, reader).await?;
    let times = Times {
        preparation,
        service: caller.arrived.elapsed().saturating_sub(preparation),
        reading,
    };
    Ok(Ran {
        identifier: session.identifier,
        headers: outcome::headers(&outcome, times),
        outcome,
        wishes,
        extended,
    })
}
