//! Files in the old contract.

use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use proto::file::{FileEntry, FileKind};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{
        file_name,
        files::{self, Found},
        front::{self, Caller},
        multipart,
        schema::{
            answers::{Bytes, RefusedDownload, RefusedInSession, RefusedUpload},
            parameters::{ByName, InDirectory, InSession, OfBytes, OfFile},
        },
        timestamp::seven_digits,
    },
    error::ApiError,
};

/// `GET files`: files only, those of sub-directories with their relative paths.
#[utoipa::path(get, path = "/files", operation_id = "listFiles", tag = "files",
    summary = "List files, those below the directory too", params(InSession, InDirectory),
    responses((status = 200, description = "The files.", body = Files), RefusedInSession))]
pub async fn list(caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let (session, directory) = (caller.session()?, caller.directory()?);
    let mut entries = caller.app.service.list(&session, directory, true).await?;
    entries.retain(|entry| entry.kind == FileKind::File);
    Ok(Json(Files::new(&entries)))
}

/// `POST files/upload` and its other spellings, of which two are below `files` too.
#[utoipa::path(post, path = "/files/upload", operation_id = "uploadFiles", tag = "files",
    summary = "Store files", params(InSession, InDirectory),
    request_body(content = multipart::Uploads, content_type = "multipart/form-data"),
    responses((status = 200, description = "The files.", body = Files), RefusedUpload))]
pub async fn upload(caller: Caller, request: Request) -> Result<impl IntoResponse, ApiError> {
    let below = request.uri().path().strip_prefix("/files/");
    if !below.is_none_or(|below| matches!(below, "upload" | "uploadFile")) {
        return Err(front::unknown_operation().await);
    }
    let stored = files::store(&caller, request, multipart::FILES).await?;
    Ok(Json(Files::new(&stored)))
}

/// `GET files/{name}`, `GET files/content/{name}`
#[utoipa::path(get, path = "/files/{name}", operation_id = "getFile", tag = "files",
    summary = "Tell of a file", params(InSession, OfFile, InDirectory),
    responses((status = 200, description = "The file.", body = Files), RefusedInSession))]
pub async fn get(caller: Caller, headers: HeaderMap, uri: Uri) -> Result<Response, ApiError> {
    Ok(match files::find(&caller, &headers, &uri).await? {
        Found::Content(response) => response,
        Found::Description(entry) => Json(Files::new(&[entry])).into_response(),
    })
}

/// `GET files/content/{name}`
#[utoipa::path(
    get,
    path = "/files/content/{name}",
    operation_id = "getFileContent",
    tag = "files",
    summary = "Send a file",
    params(InSession, OfFile, InDirectory, OfBytes),
    responses(Bytes, RefusedDownload)
)]
pub async fn content(caller: Caller, headers: HeaderMap, uri: Uri) -> Result<Response, ApiError> {
    get(caller, headers, uri).await
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
pub async fn download_by_query(caller: Caller, headers: HeaderMap) -> Result<Response, ApiError> {
    match caller.query.get("filename")? {
        Some(name) => {
            let names = file_name::candidates(name, name);
            files::send(&caller, &headers, &names).await
        }
        None => Err(ApiError::invalid(
            "the query parameter `filename` is missing",
        )),
    }
}

/// `DELETE files/{name}`
#[utoipa::path(delete, path = "/files/{name}", operation_id = "deleteFile", tag = "files",
    summary = "Delete a file", params(InSession, OfFile, InDirectory),
    responses((status = 200, description = "It is gone.", body = Deleted), RefusedInSession))]
pub async fn delete(caller: Caller, uri: Uri) -> Result<impl IntoResponse, ApiError> {
    files::delete(&caller, &uri).await?;
    let message = "file deleted successfully";
    Ok(Json(Deleted { message }))
}

/// What is said of a file that was deleted.
#[derive(Serialize, ToSchema)]
struct Deleted {
    message: &'static str,
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
    use serde_json::json;

    use super::*;

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
