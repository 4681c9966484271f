//! The old contract: api-versions 2024-02-02-preview and 2024-08-02-preview, with the still older
//! `python/*` paths.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use proto::{
    execution::Outcome,
    file::{FileEntry, FileKind},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    execution,
    extension::HearthAnswer,
    file_name, files,
    front::Caller,
    multipart,
    openapi::{
        answers::{
            Bytes, RefusedDownload, RefusedExecution, RefusedInSession, RefusedUpload, Waited,
        },
        parameters::{ByName, InDirectory, InSession, Named, OfBytes, OfFile, PerhapsInSession},
    },
    outcome,
    request::parts,
    result::CellResult,
    timestamp::seven_digits,
};
use crate::{app::App, error::ApiError, service::Wishes};

/// `POST code/execute`
#[utoipa::path(post, path = "/code/execute", operation_id = "execute", tag = "code",
    summary = "Run code", params(InSession, Named), request_body = Wrapped,
    responses(Waited<Referenced>, RefusedExecution))]
pub async fn execute(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    caller.refuse_shell()?;
    let (session, code) = execution::read_synchronous(&app, &caller, body).await?;
    let waited = execution::run(app, &caller, &headers, session, code).await?;
    waited.answer(|ran| {
        serde_json::to_vec(&Referenced {
            id: "1",
            properties: Executed::new("2", &ran.outcome, ran.wishes),
        })
    })
}

/// `POST python/execute`: the same at the top level.
#[utoipa::path(post, path = "/python/execute", operation_id = "executePython", tag = "code",
    summary = "Run code, in the oldest form", params(PerhapsInSession, Named),
    request_body = OldestWrapped, responses(Waited<Executed>, RefusedExecution))]
pub async fn execute_top_level(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    caller.refuse_shell()?;
    let (session, code) = execution::read_synchronous(&app, &caller, body).await?;
    let waited = execution::run(app, &caller, &headers, session, code).await?;
    waited.answer(|ran| serde_json::to_vec(&Executed::new("1", &ran.outcome, ran.wishes)))
}

/// `POST files/upload` and its aliases.
#[utoipa::path(post, path = "/files/upload", operation_id = "uploadFiles", tag = "files",
    summary = "Store files", params(InSession, InDirectory),
    request_body(content = multipart::Uploads, content_type = "multipart/form-data"),
    responses((status = 200, description = "The files.", body = Files), RefusedUpload))]
pub async fn upload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let stored = files::store(&app, &caller, request, multipart::FILES).await?;
    Ok(Json(Files::new(&stored)))
}

/// `GET python/files`
pub async fn list_handler(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    list(&app, &caller).await
}

/// `GET files`: files only, those of sub-directories with their relative paths.
#[utoipa::path(get, path = "/files", operation_id = "listFiles", tag = "files",
    summary = "List files, those below the directory too", params(InSession, InDirectory),
    responses((status = 200, description = "The files.", body = Files), RefusedInSession))]
pub async fn list(app: &App, caller: &Caller) -> Result<Response, ApiError> {
    let (session, directory) = (caller.session(app)?, caller.directory()?);
    let mut entries = app.service.list(&session, directory, true).await?;
    entries.retain(|entry| entry.kind == FileKind::File);
    Ok(Json(Files::new(&entries)).into_response())
}

/// `GET python/downloadFile?filename=`
#[utoipa::path(
    get,
    path = "/python/downloadFile",
    operation_id = "downloadPythonFile",
    tag = "files",
    summary = "Send a file, in the oldest form",
    params(InSession, ByName, InDirectory, OfBytes),
    responses(Bytes, RefusedDownload)
)]
pub async fn download_by_query(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match caller.query.get("filename")? {
        Some(name) => {
            let names = file_name::candidates(name, name);
            files::send_first(&app, &caller, &headers, &names).await
        }
        None => Err(ApiError::invalid(
            "the query parameter `filename` is missing",
        )),
    }
}

/// `GET files/{name}`
#[utoipa::path(get, path = "/files/{name}", operation_id = "getFile", tag = "files",
    summary = "Tell of a file", params(InSession, OfFile, InDirectory),
    responses((status = 200, description = "The file.", body = Files), RefusedInSession))]
pub async fn stat(app: &App, caller: &Caller, name: &str) -> Result<Response, ApiError> {
    let entry = files::describe(app, caller, name).await?;
    Ok(Json(Files::new(&[entry])).into_response())
}

/// `DELETE files/{name}`
#[utoipa::path(delete, path = "/files/{name}", operation_id = "deleteFile", tag = "files",
    summary = "Delete a file", params(InSession, OfFile, InDirectory),
    responses((status = 200, description = "It is gone.", body = Deleted), RefusedInSession))]
pub async fn delete_file(app: &App, caller: &Caller, name: &str) -> Result<Response, ApiError> {
    files::delete(app, caller, name).await?;
    let message = "file deleted successfully";
    Ok(Json(Deleted { message }).into_response())
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

/// What is said of a file that was deleted.
#[derive(Serialize, ToSchema)]
struct Deleted {
    message: &'static str,
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

/// Files.
#[derive(Serialize, ToSchema)]
struct Files {
    #[serde(rename = "$id")]
    id: String,
    value: Vec<FileValue>,
}

/// A file.
#[derive(Serialize, ToSchema)]
#[schema(as = File)]
struct FileValue {
    #[serde(rename = "$id")]
    id: String,
    properties: FileProperties,
}

/// What is told of a file.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FileProperties {
    #[serde(rename = "$id")]
    id: String,
    filename: String,
    size: u64,
    #[schema(format = DateTime)]
    last_modified_time: String,
}

impl Files {
    fn new(entries: &[FileEntry]) -> Self {
        let numbered = entries.iter().zip((2..).step_by(2));
        let value = numbered.map(|(entry, number)| FileValue {
            id: number.to_string(),
            properties: FileProperties {
                id: (number + 1).to_string(),
                filename: entry.path.clone(),
                size: entry.size,
                last_modified_time: seven_digits(entry.modified_ns),
            },
        });
        Self {
            id: "1".to_owned(),
            value: value.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::execution::Ending;
    use serde_json::json;

    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        let text = |text: &str| text.to_owned();
        Outcome {
            ending,
            stdout: text("out"),
            stderr: text("err"),
            displays: vec![],
            result: None,
            duration_ms: 8,
            durability: proto::execution::Durability::Durable,
            moved: None,
            incarnation: None,
            details: None,
        }
    }

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

    #[test]
    fn files_are_listed_with_seven_digits() {
        let entry = FileEntry {
            path: "sub/x.txt".into(),
            kind: FileKind::File,
            size: 16,
            modified_ns: 1_714_634_467_992_261_799,
        };
        let expected = json!({ "$id": "1", "value": [{ "$id": "2", "properties": {
            "$id": "3", "filename": "sub/x.txt", "size": 16,
            "lastModifiedTime": "2024-05-02T07:21:07.9922617Z" } }] });
        assert_eq!(
            serde_json::to_value(Files::new(&[entry])).unwrap(),
            expected
        );
    }
}
