//! The old contract: api-versions 2024-02-02-preview and 2024-08-02-preview, with the still older
//! `python/*` paths.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proto::{
    execution::Outcome,
    file::{DirectoryPath, FileEntry, FileKind, FilePath},
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::{body::ExecuteBody, front::Caller, multipart, outcome, range, result::CellResult};
use crate::{
    app::App,
    download::Content,
    error::{ApiError, ErrorCode},
    service::ServiceError,
};

type Name = Result<Path<String>, PathRejection>;

/// `POST code/execute`
pub async fn execute(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let outcome = run(&app, &caller, body).await?;
    let body = Json(Referenced {
        id: "1",
        properties: Executed::new("2", &outcome),
    });
    Ok((outcome::headers(&outcome), body))
}

/// `POST python/execute`: the same at the top level.
pub async fn execute_top_level(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let outcome = run(&app, &caller, body).await?;
    let body = Json(Executed::new("1", &outcome));
    Ok((outcome::headers(&outcome), body))
}

async fn run(app: &App, caller: &Caller, body: Body) -> Result<Outcome, ApiError> {
    let body = ExecuteBody::read(body).await?;
    let session = match (&caller.identifier, body.identifier) {
        (None, Some(identifier)) => caller.session_of(app, identifier.parse()?),
        _ => caller.session(app)?,
    };
    Ok(app
        .service
        .execute(&session, body.code, body.timeout)
        .await?)
}

/// `POST files/upload` and its aliases.
pub async fn upload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let session = caller.session(&app)?;
    let directory: DirectoryPath = caller.query.get("path")?.unwrap_or_default().parse()?;
    let (parts, body) = request.into_parts();
    let place = (&app.service, &session);
    let received = multipart::receive(&parts.headers, body, &directory, place).await?;
    let mut stored = vec![];
    let mut received = received.into_iter();
    while let Some((path, content)) = received.next() {
        match app.service.upload(&session, path, content).await {
            Ok(entry) => stored.push(entry),
            Err(error) => {
                for (_, content) in received {
                    app.service.discard(&content).await;
                }
                return Err(error.into());
            }
        }
    }
    Ok(Json(Files::new(&stored)))
}

/// `GET files`: files only, those of sub-directories with their relative paths.
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, ApiError> {
    let session = caller.session(&app)?;
    let directory: DirectoryPath = caller.query.get("path")?.unwrap_or_default().parse()?;
    let mut entries = app.service.list(&session, directory, true).await?;
    entries.retain(|entry| entry.kind == FileKind::File);
    Ok(Json(Files::new(&entries)))
}

/// `GET files/content/{name}` and `GET file/content/{name}`, also with another `/content` at the end,
/// as some documentation spells it.
pub async fn download(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    name: Name,
) -> Result<Response, ApiError> {
    let name = decoded(name)?;
    let answer = send_file(&app, &caller, &headers, &name).await;
    match (answer, name.strip_suffix("/content")) {
        (Err(error), Some(name)) if error.code.is_about_the_path() => {
            send_file(&app, &caller, &headers, name).await
        }
        (answer, _) => answer,
    }
}

/// `GET python/downloadFile?filename=`
pub async fn download_by_query(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match caller.query.get("filename")? {
        Some(name) => send_file(&app, &caller, &headers, name).await,
        None => Err(ApiError::invalid(
            "the query parameter `filename` is missing",
        )),
    }
}

/// `GET files/{name}`
pub async fn stat(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Name,
) -> Result<impl IntoResponse, ApiError> {
    let session = caller.session(&app)?;
    let entry = app
        .service
        .stat(&session, path(&caller, &decoded(name)?)?)
        .await?;
    Ok(Json(Files::new(&[entry])))
}

/// `DELETE files/{name}`
pub async fn delete_file(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Name,
) -> Result<impl IntoResponse, ApiError> {
    #[derive(Serialize)]
    struct Deleted {
        message: &'static str,
    }
    let session = caller.session(&app)?;
    app.service
        .delete(&session, path(&caller, &decoded(name)?)?)
        .await?;
    Ok(Json(Deleted {
        message: "file deleted successfully",
    }))
}

/// `DELETE session`
pub async fn delete_session(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<StatusCode, ApiError> {
    stop(&app, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST .management/stopSession`
pub async fn stop_session(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<String, ApiError> {
    let session = caller.session(&app)?;
    stop(&app, &caller).await?;
    let (identifier, pool) = (session.identifier, &caller.pool.name);
    Ok(format!(
        "Session {identifier} in session pool {pool} stopped."
    ))
}

async fn stop(app: &App, caller: &Caller) -> Result<(), ApiError> {
    let session = caller.session(app)?;
    match app.service.stop(&session).await {
        Err(error) if error.is_not_running() => {
            let message = "no session with this identifier is running";
            Err(ApiError::new(
                ErrorCode::SessionWithIdentifierNotFound,
                message,
            ))
        }
        stopped => Ok(stopped?),
    }
}

fn decoded(name: Name) -> Result<String, ApiError> {
    match name {
        Ok(Path(name)) => Ok(name),
        Err(_) => Err(ApiError::invalid("the file name is not UTF-8 text")),
    }
}

fn path(caller: &Caller, name: &str) -> Result<FilePath, ApiError> {
    let directory: DirectoryPath = caller.query.get("path")?.unwrap_or_default().parse()?;
    Ok(FilePath::in_directory(&directory, name)?)
}

async fn send_file(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    name: &str,
) -> Result<Response, ApiError> {
    let session = caller.session(app)?;
    let path = path(caller, name)?;
    let download = app.service.download(&session, path.clone()).await?;
    let entry = download.entry.clone();
    let wanted = match range::wanted(headers, entry.size) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            download.give_up().await;
            let mut response = refusal.into_response();
            range::describe_refusal(&mut response, entry.size);
            return Ok(response);
        }
    };
    let part = wanted.bytes(entry.size);
    let content = download.read(part).await.map_err(ServiceError::from)?;
    let mut response = file_response(&path, &entry, content);
    wanted.describe(&mut response, entry.size);
    Ok(response)
}

/// A file for its owner. What a session stored must never run in a browser at this address, so it
/// is always an attachment of a type that is not guessed.
fn file_response(path: &FilePath, entry: &FileEntry, content: Content) -> Response {
    let kind = mime_guess::from_path(path.name()).first_or_octet_stream();
    let name = utf8_percent_encode(path.name(), NON_ALPHANUMERIC);
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, kind.as_ref());
    set(header::CONTENT_LENGTH, &entry.size.to_string());
    set(
        header::CONTENT_DISPOSITION,
        &format!("attachment; filename*=UTF-8''{name}"),
    );
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::LAST_MODIFIED, &http_date(entry.modified_ns));
    (headers, Body::from_stream(content)).into_response()
}

/// An answer in the style of a serializer that numbers its objects.
#[derive(Serialize)]
struct Referenced<T> {
    #[serde(rename = "$id")]
    id: &'static str,
    properties: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    #[serde(rename = "$id")]
    id: &'static str,
    status: &'static str,
    stdout: String,
    stderr: String,
    result: CellResult,
    /// What later documentation calls `result`: both are there, with the same value.
    execution_result: CellResult,
    execution_time_in_milliseconds: u64,
}

impl Executed {
    fn new(id: &'static str, outcome: &Outcome) -> Self {
        let result = CellResult::of(outcome);
        let mut stderr = outcome.stderr.clone();
        if let Some(explanation) = outcome.ending.explanation() {
            if !stderr.is_empty() && !stderr.ends_with('\n') {
                stderr.push('\n');
            }
            stderr.push_str(&explanation);
        }
        Self {
            id,
            status: if outcome.ending.succeeded() {
                "Success"
            } else {
                "Failure"
            },
            stdout: outcome.stdout.clone(),
            stderr,
            execution_result: result.clone(),
            result,
            execution_time_in_milliseconds: outcome.duration_ms,
        }
    }
}

#[derive(Serialize)]
struct Files {
    #[serde(rename = "$id")]
    id: String,
    value: Vec<FileValue>,
}

#[derive(Serialize)]
struct FileValue {
    #[serde(rename = "$id")]
    id: String,
    properties: FileProperties,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileProperties {
    #[serde(rename = "$id")]
    id: String,
    filename: String,
    size: u64,
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

/// Seven fractional digits and `Z`, as the service being re-implemented writes times.
const SEVEN_DIGITS: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");
/// RFC 9110 §5.6.7.
const HTTP_DATE: &[BorrowedFormatItem<'static>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

fn seven_digits(nanoseconds: i64) -> String {
    at(nanoseconds).format(SEVEN_DIGITS).unwrap_or_default()
}

fn http_date(nanoseconds: i64) -> String {
    at(nanoseconds).format(HTTP_DATE).unwrap_or_default()
}

/// A session may set any time on its files; what no calendar holds is 1970.
fn at(nanoseconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
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
        }
    }

    #[test]
    fn an_answer_has_both_names_of_the_result_and_numbered_objects() {
        let outcome = outcome(Ending::Succeeded);
        let answer = Referenced {
            id: "1",
            properties: Executed::new("2", &outcome),
        };
        let expected = json!({ "$id": "1", "properties": {
            "$id": "2", "status": "Success", "stdout": "out", "stderr": "err", "result": "",
            "executionResult": "", "executionTimeInMilliseconds": 8 } });
        assert_eq!(serde_json::to_value(answer).unwrap(), expected);
    }

    #[test]
    fn a_failure_explains_itself_after_what_the_code_wrote() {
        let answer = Executed::new("1", &outcome(Ending::OutOfMemory));
        assert_eq!(answer.status, "Failure");
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
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(seven_digits(i64::MIN).len(), 28);
    }
}
