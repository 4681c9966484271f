//! `executions`: runs a cell, or a command where the pool runs a shell; and tells of those that have a
//! record, whose callers named them or do not wait.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use proto::{
    execution::{Ending, Language, Outcome},
    fault::{Fault, FaultCode},
    id::{Identifier, OperationId},
    record::{ExecutionRecord, RecordState},
};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    api::{
        body::{Kind, Wishes},
        execution::{self, Ran},
        front::{Caller, OPERATION_ID},
        moment::moment,
        outcome, query,
        result::CellResult,
    },
    app::App,
    error::{ApiError, ErrorCode, Told},
    executions::Execution,
    service::{Asked, Session},
};

/// Where the execution is told of.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// `POST executions`
pub async fn execute(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, ApiError> {
    if !caller.query.is_since(query::SHELL)? {
        caller.refuse_shell()?;
    }
    let (session, body) = execution::read(&app, &caller, body).await?;
    match body.kind {
        Kind::Synchronous => {
            let ran = execution::perform(&app, &caller, session, body).await?;
            Ok(told_of(&caller, ran).into_response())
        }
        Kind::Asynchronous { retry } => {
            let asked = Asked::of(caller.language(), &body);
            let submitted = app.service.submit(&session, asked, body.code, retry);
            let (headers, execution) = told(&caller, &session, submitted.await?);
            Ok((StatusCode::ACCEPTED, headers, Json(execution)).into_response())
        }
    }
}

/// `GET executions/{id}`
pub async fn get(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let session = named(&app, &caller, &id)?;
    let found = app.service.execution(&session).await?;
    Ok(answered(&session, found.ok_or_else(not_found)?))
}

/// `DELETE executions/{id}` and `POST executions/{id}/cancel`
pub async fn cancel(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let session = named(&app, &caller, &id)?;
    let found = app.service.cancel(&session).await?;
    Ok(answered(&session, found.ok_or_else(not_found)?))
}

/// `GET executions`
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, ApiError> {
    let session = caller.session(&app)?;
    let from = match caller.query.get("skip")? {
        None | Some("") => 0,
        Some(text) => text
            .parse()
            .map_err(|_| ApiError::invalid("`skip` is not a whole number of at least 0"))?,
    };
    let page = app.service.executions(&session, from).await?;
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
fn named(app: &App, caller: &Caller, id: &str) -> Result<Session, ApiError> {
    Ok(Session {
        operation: id.parse()?,
        ..caller.session(app)?
    })
}

fn not_found() -> ApiError {
    ApiError::new(
        ErrorCode::ExecutionNotFound,
        "the session has no execution of this id, or it ended more than a day ago",
    )
}

/// The answer to whoever waited.
fn told_of(caller: &Caller, ran: Ran) -> (HeaderMap, Response) {
    let Ran {
        identifier,
        outcome,
        wishes,
        mut headers,
    } = ran;
    let resource = Resource::of(caller.language(), &outcome, wishes);
    if caller.named {
        locate(&mut headers, caller, &caller.operation, &identifier);
    }
    let execution = Answered {
        id: &caller.operation,
        identifier: &identifier,
        execution_type: "Synchronous",
        resource,
    };
    (headers, Json(execution).into_response())
}

fn locate(
    headers: &mut HeaderMap,
    caller: &Caller,
    operation: &OperationId,
    identifier: &Identifier,
) {
    let location = caller
        .here
        .of_execution(operation.as_str(), identifier.as_str());
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(OPERATION_LOCATION, location);
    }
}

/// The answer to whoever does not wait.
fn told(caller: &Caller, session: &Session, execution: Execution) -> (HeaderMap, Value) {
    let (mut headers, execution) = answered(session, execution);
    locate(
        &mut headers,
        caller,
        &session.operation,
        &session.identifier,
    );
    (headers, execution.0)
}

/// An execution as its record tells it.
fn answered(session: &Session, execution: Execution) -> (HeaderMap, Json<Value>) {
    let Execution { record, end } = execution;
    let mut headers = match &end {
        Some(Ok(outcome)) => outcome::headers_of(outcome),
        Some(Err(_)) | None => HeaderMap::new(),
    };
    if let Ok(value) = HeaderValue::from_str(session.operation.as_str()) {
        headers.insert(OPERATION_ID, value);
    }
    let resource = match end {
        Some(Ok(outcome)) => {
            let (language, wishes) = asked(&record);
            Resource::of(language, &outcome, wishes)
        }
        Some(Err(fault)) => Resource::of_failure(record.state, fault),
        None => Resource::under_way(record.state),
    };
    let told = Answered {
        id: &session.operation,
        identifier: &session.identifier,
        execution_type: execution_type(&record),
        resource,
    };
    // Nothing in it is a map without text keys, and so it is always a value.
    (
        headers,
        Json(serde_json::to_value(told).unwrap_or_default()),
    )
}

fn asked(record: &ExecutionRecord) -> (Language, Wishes) {
    match &record.submission {
        Some(submission) => {
            let characters = submission.stream_characters;
            let wishes = Wishes {
                stream_characters: characters.and_then(|most| usize::try_from(most).ok()),
                all_forms: submission.all_forms,
            };
            (submission.language, wishes)
        }
        None => (Language::default(), Wishes::default()),
    }
}

fn execution_type(record: &ExecutionRecord) -> &'static str {
    match record.queued() {
        Some(_) => "Asynchronous",
        None => "Synchronous",
    }
}

/// `status` in words.
fn status(state: RecordState) -> &'static str {
    match state {
        RecordState::Queued => "NotStarted",
        RecordState::Running => "Running",
        RecordState::Succeeded => "Succeeded",
        RecordState::Cancelled => "Canceled",
        RecordState::Failed
        | RecordState::TimedOut
        | RecordState::Refused
        | RecordState::Lost
        | RecordState::Unknown => "Failed",
    }
}

/// A failure of the platform's that ended an execution, with whether its code may have run.
fn failure(state: RecordState, fault: Fault) -> Told {
    let may_have_executed = Some(state != RecordState::Refused);
    // A worker's words for "start it over".
    let code = match fault.code {
        FaultCode::Refused => FaultCode::Busy,
        code => code,
    };
    let error = ApiError::from(Fault { code, ..fault });
    let error = ApiError {
        may_have_executed,
        ..error
    };
    error.told(None)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Executions {
    value: Vec<Listed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_link: Option<String>,
}

/// An execution in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: OperationId,
    identifier: Identifier,
    execution_type: &'static str,
    status: &'static str,
    created_at: String,
    last_changed_at: String,
}

impl Listed {
    /// Without its id, which older servers did not record, nobody could ask for it.
    fn of(session: &Session, record: &ExecutionRecord) -> Option<Self> {
        let submission = record.submission.as_ref()?;
        let at = |milliseconds: u64| {
            moment(OffsetDateTime::UNIX_EPOCH + Duration::from_millis(milliseconds))
        };
        Some(Self {
            id: submission.operation.clone(),
            identifier: session.identifier.clone(),
            execution_type: execution_type(record),
            status: status(record.state),
            created_at: at(record.created_ms),
            last_changed_at: at(record.written_ms),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    id: &'a OperationId,
    identifier: &'a Identifier,
    execution_type: &'static str,
    #[serde(flatten)]
    resource: Resource,
}

/// How it ended and what it left.
#[derive(Serialize)]
struct Resource {
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Left>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Told>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    stdout: String,
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_result: Option<Shown>,
    execution_time_in_milliseconds: u64,
}

/// `executionResult`.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    One(CellResult),
    AllForms(Value),
}

impl Resource {
    fn of(language: Language, outcome: &Outcome, wishes: Wishes) -> Self {
        match language {
            Language::Shell => Self::of_command(outcome, wishes),
            Language::Python | Language::Unknown => Self::of_cell(outcome, wishes),
        }
    }

    /// It has no end yet.
    fn under_way(state: RecordState) -> Self {
        Self {
            status: status(state).to_owned(),
            result: None,
            error: None,
        }
    }

    /// The platform ended it.
    fn of_failure(state: RecordState, fault: Fault) -> Self {
        Self {
            error: Some(failure(state, fault)),
            ..Self::under_way(state)
        }
    }

    fn of_cell(outcome: &Outcome, wishes: Wishes) -> Self {
        let status = match &outcome.ending {
            Ending::Cancelled { .. } => "Canceled",
            ending if ending.succeeded() => "Succeeded",
            _ => "Failed",
        };
        let shown = if wishes.all_forms {
            Shown::AllForms(CellResult::all_forms(outcome))
        } else {
            Shown::One(CellResult::of(outcome))
        };
        Self {
            status: status.to_owned(),
            result: Some(Left::new(
                outcome,
                outcome.ending.explanation(),
                Some(shown),
                wishes,
            )),
            error: None,
        }
    }

    /// A command's status is its exit status, as text.
    fn of_command(outcome: &Outcome, wishes: Wishes) -> Self {
        let explanation = outcome.ending.explanation_of_command();
        Self {
            status: outcome.ending.exit_status().to_string(),
            result: Some(Left::new(outcome, explanation, None, wishes)),
            error: None,
        }
    }
}

impl Left {
    fn new(
        outcome: &Outcome,
        explanation: Option<String>,
        execution_result: Option<Shown>,
        wishes: Wishes,
    ) -> Self {
        let mut stdout = outcome.stdout.clone();
        let mut stderr = outcome::stderr(outcome, explanation);
        if let Some(most) = wishes.stream_characters {
            cut_end(&mut stdout, most);
            // Why code failed stands at the end.
            if outcome.ending.succeeded() {
                cut_end(&mut stderr, most);
            } else {
                cut_start(&mut stderr, most);
            }
        }
        Self {
            stdout,
            stderr,
            execution_result,
            execution_time_in_milliseconds: outcome.duration_ms,
        }
    }
}

fn cut_end(text: &mut String, most: usize) {
    if let Some((at, _)) = text.char_indices().nth(most) {
        text.truncate(at);
    }
}

fn cut_start(text: &mut String, most: usize) {
    let excess = text.chars().count().saturating_sub(most);
    if let Some((at, _)) = text.char_indices().nth(excess) {
        text.drain(..at);
    } else {
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::execution::{Bundle, Durability};
    use serde_json::json;

    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        Outcome {
            ending,
            stdout: "out".into(),
            stderr: "err".into(),
            displays: vec![],
            result: Some(Bundle(vec![("text/plain".into(), "42".into())])),
            duration_ms: 8,
            durability: Durability::Durable,
            moved: None,
            incarnation: None,
        }
    }

    fn told(resource: Resource) -> Value {
        let execution = Answered {
            id: &"op-1".parse().unwrap(),
            identifier: &"user-1".parse().unwrap(),
            execution_type: "Synchronous",
            resource,
        };
        serde_json::to_value(execution).unwrap()
    }

    #[test]
    fn a_cell_is_answered_flat() {
        let ran = outcome(Ending::Succeeded);
        let expected = json!({
            "id": "op-1", "identifier": "user-1", "executionType": "Synchronous",
            "status": "Succeeded", "result": { "stdout": "out", "stderr": "err",
                "executionResult": 42, "executionTimeInMilliseconds": 8 } });
        assert_eq!(told(Resource::of_cell(&ran, Wishes::default())), expected);
        let forms = Wishes {
            all_forms: true,
            ..Wishes::default()
        };
        let told = told(Resource::of_cell(&ran, forms));
        assert_eq!(
            told["result"]["executionResult"],
            json!({ "text/plain": "42" })
        );
    }

    #[test]
    fn what_the_platform_ended_says_whether_it_may_have_run() {
        let of = |state, fault| told(Resource::of_failure(state, fault));
        let lost = of(RecordState::Lost, proto::record::lost());
        let error = (&lost["status"], &lost["error"]["code"]);
        assert_eq!(error, (&json!("Failed"), &json!("ExecutionLost")));
        let may = json!({ "mayHaveExecuted": true });
        assert_eq!(lost["error"]["innererror"], may);
        let words = Fault::new(FaultCode::Refused, "refused");
        let refused = of(RecordState::Refused, words);
        let may = json!({ "mayHaveExecuted": false });
        assert_eq!(refused["error"]["innererror"], may);
        assert_eq!(refused.get("result"), None);
    }

    #[test]
    fn what_has_no_end_has_no_result() {
        for (state, expected) in [
            (RecordState::Queued, "NotStarted"),
            (RecordState::Running, "Running"),
        ] {
            let told = told(Resource::under_way(state));
            assert_eq!(told["status"], expected);
            assert_eq!((told.get("result"), told.get("error")), (None, None));
        }
    }

    #[test]
    fn a_command_has_its_exit_status_as_text_and_no_result() {
        let ran = outcome(Ending::Exited { status: 3 });
        let told = told(Resource::of_command(&ran, Wishes::default()));
        let result = json!({ "stdout": "out", "stderr": "err", "executionTimeInMilliseconds": 8 });
        assert_eq!((&told["status"], &told["result"]), (&json!("3"), &result));
    }

    #[test]
    fn streams_are_as_long_as_wished_and_keep_why_code_failed() {
        let wishes = Wishes {
            stream_characters: Some(2),
            ..Wishes::default()
        };
        let of = |ending| Resource::of_cell(&outcome(ending), wishes).result.unwrap();
        let left = of(Ending::Succeeded);
        assert_eq!((left.stdout.as_str(), left.stderr.as_str()), ("ou", "er"));
        assert_eq!(
            of(Ending::Raised {
                name: "E".into(),
                message: "m".into(),
                traceback: "E: m".into(),
            })
            .stderr,
            " m"
        );
    }

    proptest! {
        #[test]
        fn cut_texts_are_parts_of_the_whole(text in "\\PC{0,20}", most in 0..25_usize) {
            let (mut start, mut end) = (text.clone(), text.clone());
            cut_end(&mut start, most);
            cut_start(&mut end, most);
            let kept = text.chars().count().min(most);
            prop_assert!(text.starts_with(&start) && text.ends_with(&end));
            prop_assert_eq!((start.chars().count(), end.chars().count()), (kept, kept));
        }
    }
}
