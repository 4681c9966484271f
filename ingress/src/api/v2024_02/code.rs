//! Running code in the old contract, and in the oldest.

use axum::{body::Body, http::HeaderMap, response::Response};
use proto::execution::Outcome;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{
        execution,
        extension::HearthAnswer,
        front::Caller,
        outcome,
        ran::Ran,
        request::{Kind, Request, parts},
        result::CellResult,
        schema::{
            answers::{RefusedExecution, Waited},
            parameters::{InSession, Named, PerhapsInSession},
        },
    },
    error::{ApiError, ErrorCode},
    service::Wishes,
};

/// `POST code/execute`
#[utoipa::path(post, path = "/code/execute", operation_id = "execute", tag = "code",
    summary = "Run code", params(InSession, Named), request_body = Wrapped,
    responses(Waited<Referenced>, RefusedExecution))]
pub async fn execute(caller: Caller, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    run::<Referenced>(&caller, &headers, body).await
}

/// `POST python/execute`: the same at the top level.
#[utoipa::path(post, path = "/python/execute", operation_id = "executePython", tag = "code",
    summary = "Run code, in the oldest form", params(PerhapsInSession, Named),
    request_body = OldestWrapped, responses(Waited<Executed>, RefusedExecution))]
pub async fn execute_top_level(
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    run::<Executed>(&caller, &headers, body).await
}

/// Callers of this contract always wait.
async fn run<T: From<Ran> + Serialize + 'static>(
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    caller.refuse_shell()?;
    let (session, Request { code, kind, .. }) = execution::read(caller, body).await?;
    if kind != Kind::Synchronous {
        let message = "`executionType` must be `synchronous` at this path: `executions` has others";
        let code = ErrorCode::SessionRequestNotSupported;
        return Err(ApiError::new(code, message));
    }
    execution::run::<T>(caller, headers, session, code).await
}

/// A request to run code in the old contract.
#[derive(Debug, ToSchema)]
#[schema(as = CodeExecuteRequest,
         example = json!({ "properties": { "codeInputType": "inline", "executionType": "synchronous",
                                           "code": "print('hello')\n6 * 7" } }))]
pub struct Wrapped {
    /// What it says.
    pub properties: OldCell,
}

/// A request to run code in the oldest contract.
#[derive(Debug, ToSchema)]
#[schema(as = PythonExecuteRequest,
         example = json!({ "properties": { "identifier": "user-1", "pythonCode": "print('hello')" } }))]
pub struct OldestWrapped {
    /// What it says.
    pub properties: OldestCell,
}

/// What both may say.
const OPTIONS: [&str; 4] = [
    "codeInputType",
    "executionType",
    "timeoutInSeconds",
    "hearth",
];

parts! {
    /// Code in the old contract.
    OldCell as "CodeExecuteProperties": OPTIONS, "code"; in the words of Words;
    /// Code in the oldest contract.
    OldestCell as "PythonExecuteProperties": OPTIONS, "pythonCode", "identifier"; in the words of Words;
}

/// The words that are others than those of the new contract.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Words {
    /// How the code is written.
    pub code_input_type: Option<CodeInputType>,
    /// Whether the caller waits.
    pub execution_type: Option<ExecutionType>,
}

/// How code is written.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub enum CodeInputType {
    /// As it is.
    Inline,
    /// As it is.
    InlineText,
    /// As base64 of its UTF-8 text.
    InlineBase64,
}

/// Whether the caller waits.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub enum ExecutionType {
    /// For the end.
    Synchronous,
}

/// An answer in the style of a serializer that numbers its objects.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeExecuteResponse)]
pub(super) struct Referenced {
    #[serde(rename = "$id")]
    id: &'static str,
    properties: Executed,
}

/// How code ended and what it left.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeExecuteResult)]
#[serde(rename_all = "camelCase")]
pub(super) struct Executed {
    #[serde(rename = "$id")]
    id: &'static str,
    status: Status,
    stdout: String,
    stderr: String,
    result: CellResult,
    /// What later documentation calls `result`: both are there, with the same value.
    execution_result: CellResult,
    execution_time_in_milliseconds: u64,
    /// If the request had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hearth: Option<HearthAnswer>,
}

/// How code ended.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CodeExecuteStatus)]
enum Status {
    /// It did what it was asked to.
    Success,
    /// It did not.
    Failure,
}

impl From<Ran> for Referenced {
    fn from(ran: Ran) -> Self {
        Self {
            id: "1",
            properties: Executed::new("2", &ran.outcome, ran.wishes),
        }
    }
}

impl From<Ran> for Executed {
    fn from(ran: Ran) -> Self {
        Self::new("1", &ran.outcome, ran.wishes)
    }
}

impl Executed {
    fn new(id: &'static str, outcome: &Outcome, wishes: Wishes) -> Self {
        let result = CellResult::of(outcome);
        let explanation = outcome.ending.explanation();
        Self {
            id,
            status: if outcome.ending.succeeded() {
                Status::Success
            } else {
                Status::Failure
            },
            stdout: CellResult::stdout(outcome),
            stderr: outcome::stderr(outcome, explanation),
            execution_result: result.clone(),
            result,
            execution_time_in_milliseconds: outcome.duration_ms,
            hearth: wishes
                .extended
                .then(|| HearthAnswer::new(outcome, (false, false))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::execution::Ending;
    use serde_json::json;

    use super::*;
    use crate::api::outcome::tests::outcome;

    #[test]
    fn an_answer_has_both_names_of_the_result_and_numbered_objects() {
        let outcome = outcome(Ending::Succeeded);
        let answer = Referenced {
            id: "1",
            properties: Executed::new("2", &outcome, Wishes::default()),
        };
        let expected = json!({ "$id": "1", "properties": {
            "$id": "2", "status": "Success", "stdout": "out", "stderr": "err", "result": "",
            "executionResult": "", "executionTimeInMilliseconds": 8 } });
        assert_eq!(serde_json::to_value(answer).unwrap(), expected);
    }

    #[test]
    fn a_failure_explains_itself_after_what_the_code_wrote() {
        let answer = Executed::new("1", &outcome(Ending::OutOfMemory), Wishes::default());
        assert_eq!(answer.status, Status::Failure);
        assert!(
            answer.stderr.starts_with("err\nExecution aborted"),
            "{}",
            answer.stderr
        );
    }
}
