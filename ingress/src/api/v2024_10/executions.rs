//! `executions`: runs a cell, or a command where the pool runs a shell; and tells of those that have a
//! record, whose callers named them or do not wait.

use axum::{
    Json,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use proto::{
    id::{Identifier, OperationId},
    record::ExecutionRecord,
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::resource::{Answered, Status, execution_type, status};
use crate::{
    api::{
        contract, execution,
        front::{Caller, OPERATION_ID},
        outcome,
        request::{ExecutionType, Kind, Request, parts},
        schema::{
            answers::{Refused, RefusedExecution, Waited},
            parameters::{InSession, Named, OfExecution, Paged},
        },
        timestamp::timestamp,
    },
    error::{ApiError, ErrorCode},
    executions::Execution,
    service::Session,
    sessions,
};

/// Where the execution is told of.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// `POST executions`
#[utoipa::path(post, path = "/executions", operation_id = "execute", tag = "executions",
    summary = "Run code or a command",
    params(InSession, Named), request_body = ExecutionRequest,
    responses(
        Waited<Answered>,
        (status = 202, description = "Nobody waits: the execution is queued or runs.", body = Answered,
         headers(("operation-location" = String, description = "Where the execution is told of.")),
         links(
            ("ask" = (operation_id = "getExecution", parameters(
                ("identifier" = "$request.query.identifier"), ("id" = "$response.body#/id")))),
            ("cancel" = (operation_id = "cancelExecution", parameters(
                ("identifier" = "$request.query.identifier"), ("id" = "$response.body#/id")))))),
        RefusedExecution))]
pub async fn execute(caller: Caller, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    if !caller.query.is_since(contract::SHELL)? {
        caller.refuse_shell()?;
    }
    let (session, Request { code, kind, .. }) = execution::read(&caller, body).await?;
    let location = location(&caller, &session);
    let has_record = caller.named || kind != Kind::Synchronous;
    let mut response = match kind {
        Kind::Synchronous => execution::run::<Answered>(&caller, &headers, session, code).await?,
        Kind::Asynchronous { retry } => {
            let submitted = caller.app.service.submit(&session, code, retry).await?;
            (StatusCode::ACCEPTED, recorded(session, submitted)).into_response()
        }
    };
    if let Some(location) = location.filter(|_| has_record) {
        response.headers_mut().insert(OPERATION_LOCATION, location);
    }
    Ok(response)
}

fn location(caller: &Caller, session: &Session) -> Option<HeaderValue> {
    let (operation, identifier) = (session.operation.as_str(), session.identifier.as_str());
    HeaderValue::from_str(&caller.here.of_execution(operation, identifier)).ok()
}

/// An execution as its record tells it.
fn recorded(session: Session, execution: Execution) -> Response {
    let mut headers = match &execution.end {
        Some(Ok(outcome)) => outcome::headers_of(outcome),
        Some(Err(_)) | None => HeaderMap::new(),
    };
    if let Ok(value) = HeaderValue::from_str(session.operation.as_str()) {
        headers.insert(OPERATION_ID, value);
    }
    (headers, Json(Answered::as_recorded(session, execution))).into_response()
}

/// `GET executions/{id}`
#[utoipa::path(get, path = "/executions/{id}", operation_id = "getExecution", tag = "executions",
    summary = "Tell how an execution stands", params(InSession, OfExecution),
    responses((status = 200, description = "The execution.", body = Answered), Refused))]
pub async fn get(caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = named(&caller, &id)?;
    let found = caller.app.service.execution(&session).await?;
    Ok(recorded(session, found.ok_or_else(not_found)?))
}

/// `DELETE executions/{id}` and `POST executions/{id}/cancel`
#[utoipa::path(delete, path = "/executions/{id}", operation_id = "cancelExecution", tag = "executions",
    summary = "Cancel an execution", params(InSession, OfExecution),
    responses((status = 200, description = "How it stands now.", body = Answered), RefusedExecution))]
pub async fn cancel(caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let session = named(&caller, &id)?;
    let found = caller.app.service.cancel(&session).await?;
    Ok(recorded(session, found.ok_or_else(not_found)?))
}

/// `GET executions`
#[utoipa::path(get, path = "/executions", operation_id = "listExecutions", tag = "executions",
    summary = "List the session's executions that have a record", params(InSession, Paged),
    responses((status = 200, description = "A page of them.", body = Executions), Refused))]
pub async fn list(caller: Caller) -> Result<Json<Executions>, ApiError> {
    let session = caller.session()?;
    let from = caller.query.skip()?;
    let page = caller.app.service.executions(&session, from).await?;
    let value = page.records.iter();
    let value = value.filter_map(|record| Listed::of(&session, record));
    Ok(Json(Executions {
        value: value.collect(),
        next_link: page
            .next
            .map(|next| caller.here.with("skip", &next.to_string())),
    }))
}

/// The session as the one of the execution that the path names.
fn named(caller: &Caller, id: &str) -> Result<Session, ApiError> {
    Ok(Session {
        operation: id.parse()?,
        ..caller.session()?
    })
}

fn not_found() -> ApiError {
    ApiError::new(
        ErrorCode::ExecutionNotFound,
        "the session has no execution of this id, or it ended more than a day ago",
    )
}

/// What `POST executions` runs.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum ExecutionRequest {
    /// In a Python pool.
    Cell(Cell),
    /// In a Shell pool.
    Command(Command),
    /// In a Shell pool, without a shell's reading of it.
    Program(Program),
}

/// What all of them may say.
const OPTIONS: [&str; 5] = [
    "executionType",
    "timeoutInSeconds",
    "outputStreamsMaxLength",
    "retryOnWorkerLoss",
    "hearth",
];

parts! {
    /// Python for the session's interpreter.
    Cell as "Cell": OPTIONS, "code", "codeInputType", "returnJupyterFormatExecutionResult", "useEmptyKernel";
        like json!({ "code": "print('hello')\n6 * 7" });
    /// A command of bash.
    Command as "Command": OPTIONS, "shellCommand"; like json!({ "shellCommand": "ls; exit 3" });
    /// A program with its arguments.
    Program as "Program": OPTIONS, "execCommandAndArgs";
        like json!({ "execCommandAndArgs": ["echo", "a b"] });
}

/// A page of a session's executions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Executions {
    value: Vec<Listed>,
    /// Where the next page is, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_link: Option<String>,
}

/// An execution in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedExecution)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[schema(value_type = String)]
    id: OperationId,
    #[schema(value_type = String)]
    identifier: Identifier,
    execution_type: ExecutionType,
    status: Status,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    last_changed_at: String,
}

impl Listed {
    /// Without its id, which older servers did not record, nobody could ask for it.
    fn of(session: &Session, record: &ExecutionRecord) -> Option<Self> {
        let submission = record.submission.as_ref()?;
        let at = |milliseconds| timestamp(sessions::at(milliseconds));
        Some(Self {
            id: submission.operation.clone(),
            identifier: session.identifier.clone(),
            execution_type: execution_type(Some(submission)),
            status: status(record.state),
            created_at: at(record.created_ms),
            last_changed_at: at(record.written_ms),
        })
    }
}
