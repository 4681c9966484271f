//! Files of the new contract, in the shapes of its answers.

use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use proto::file::{DirectoryPath, FileEntry, FileKind};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{
        contract,
        files::{self, Found},
        front::Caller,
        multipart,
        schema::{
            answers::{Bytes, RefusedDownload, RefusedInSession, RefusedUpload},
            parameters::{InDirectory, InSession, OfBytes, OfFile, Recursive},
        },
        timestamp::seven_digits,
    },
    error::ApiError,
};

/// `GET files`: what is in a directory; with `recursive=true` all that is below it.
#[utoipa::path(get, path = "/files", operation_id = "listFiles", tag = "files",
    summary = "List a directory", params(InSession, InDirectory, Recursive),
    responses((status = 200, description = "What is in it.", body = Listed), RefusedInSession))]
pub async fn list(caller: Caller) -> Result<Response, ApiError> {
    let (session, directory) = (caller.session()?, caller.directory()?);
    let knows_directories = caller.query.is_since(contract::RECURSIVE)?;
    let recursive = wants_all(&caller)? && knows_directories;
    let entries = caller
        .app
        .service
        .list(&session, directory.clone(), recursive);
    let entries = entries.await?;
    let value = entries.iter();
    let value = value.map(|entry| Resource::new(entry, &directory, knows_directories));
    let value = value.collect();
    Ok(Json(Listed { value }).into_response())
}

/// `POST files`: stores one file.
#[utoipa::path(post, path = "/files", operation_id = "uploadFile", tag = "files",
    summary = "Store a file", params(InSession, InDirectory),
    request_body(content = multipart::Upload, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The file.", body = Resource, links(
            ("describe" = (operation_id = "getFile", parameters(
                ("identifier" = "$request.query.identifier"), ("name" = "$response.body#/name")))),
            ("download" = (operation_id = "getFileContent", parameters(
                ("identifier" = "$request.query.identifier"), ("name" = "$response.body#/name")))),
            ("delete" = (operation_id = "deleteFile", parameters(
                ("identifier" = "$request.query.identifier"), ("name" = "$response.body#/name")))))),
        RefusedUpload))]
pub async fn upload(caller: Caller, request: Request) -> Result<Response, ApiError> {
    let knows_directories = caller.query.is_since(contract::RECURSIVE)?;
    let stored = files::store(&caller, request, 1).await?;
    match stored.as_slice() {
        [entry] => Ok(Json(Resource::at_its_path(entry, knows_directories)).into_response()),
        _ => Err(ApiError::invalid("the body has no file")),
    }
}

/// `GET files/{name}`, `GET files/{name}/content`
#[utoipa::path(get, path = "/files/{name}", operation_id = "getFile", tag = "files",
    summary = "Tell of a file", params(InSession, OfFile, InDirectory),
    responses((status = 200, description = "The file.", body = Resource), RefusedInSession))]
pub async fn get(caller: Caller, headers: HeaderMap, uri: Uri) -> Result<Response, ApiError> {
    Ok(match files::find(&caller, &headers, &uri).await? {
        Found::Content(response) => response,
        Found::Description(entry) => {
            let knows_directories = caller.query.is_since(contract::RECURSIVE)?;
            Json(Resource::at_its_path(&entry, knows_directories)).into_response()
        }
    })
}

/// `GET files/{name}/content`
#[utoipa::path(
    get,
    path = "/files/{name}/content",
    operation_id = "getFileContent",
    tag = "files",
    summary = "Send a file",
    params(InSession, OfFile, InDirectory, OfBytes),
    responses(Bytes, RefusedDownload)
)]
pub async fn content(caller: Caller, headers: HeaderMap, uri: Uri) -> Result<Response, ApiError> {
    get(caller, headers, uri).await
}

/// `DELETE files/{name}`
#[utoipa::path(delete, path = "/files/{name}", operation_id = "deleteFile", tag = "files",
    summary = "Delete a file", params(InSession, OfFile, InDirectory),
    responses((status = 204, description = "It is gone."), RefusedInSession))]
pub async fn delete(caller: Caller, uri: Uri) -> Result<StatusCode, ApiError> {
    files::delete(&caller, &uri).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn wants_all(caller: &Caller) -> Result<bool, ApiError> {
    match caller.query.get("recursive")?.map(str::to_ascii_lowercase) {
        None => Ok(false),
        Some(value) => match value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" | "" => Ok(false),
            _ => Err(ApiError::invalid("`recursive` is not true or false")),
        },
    }
}

/// What is in a directory.
#[derive(Serialize, ToSchema)]
#[schema(as = Files)]
struct Listed<'a> {
    value: Vec<Resource<'a>>,
}

/// A file or directory.
#[derive(Serialize, ToSchema)]
#[schema(as = File)]
#[serde(rename_all = "camelCase")]
struct Resource<'a> {
    name: &'a str,
    r#type: Kind,
    content_type: String,
    size_in_bytes: u64,
    #[schema(format = DateTime)]
    last_modified_at: String,
    /// Relative to `/mnt/data`; of 2025-10-02-preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    directory: Option<String>,
}

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FileType)]
#[serde(rename_all = "camelCase")]
enum Kind {
    File,
    Directory,
}

impl<'a> Resource<'a> {
    fn at_its_path(entry: &'a FileEntry, knows_directories: bool) -> Self {
        Self::new(entry, &DirectoryPath::default(), knows_directories)
    }

    /// Of an entry whose path is relative to the directory that was listed.
    fn new(entry: &'a FileEntry, listed: &DirectoryPath, knows_directories: bool) -> Self {
        let (below, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        let mut directory = vec![listed.as_str(), below];
        directory.retain(|part| !part.is_empty());
        let is_directory = entry.kind == FileKind::Directory;
        let content_type = if is_directory {
            mime_guess::mime::APPLICATION_OCTET_STREAM.to_string()
        } else {
            content_type(name)
        };
        Self {
            name,
            r#type: if is_directory {
                Kind::Directory
            } else {
                Kind::File
            },
            content_type,
            size_in_bytes: entry.size,
            last_modified_at: seven_digits(entry.modified_ns),
            directory: knows_directories.then(|| directory.join("/")),
        }
    }
}

/// By the name's ending. Texts are said to be UTF-8, as the service being re-implemented does.
fn content_type(name: &str) -> String {
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    if kind.type_() == "text" && kind.get_param("charset").is_none() {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(path: &str, kind: FileKind) -> FileEntry {
        FileEntry {
            path: path.into(),
            kind,
            size: 3,
            modified_ns: 1_714_634_467_992_261_799,
        }
    }

    #[test]
    fn a_file_is_told_with_its_directory_by_the_version_that_has_it() {
        let file = entry("sub/dir/README.md", FileKind::File);
        let mut expected = json!({ "name": "README.md", "type": "file",
            "contentType": "text/markdown; charset=utf-8", "sizeInBytes": 3,
            "lastModifiedAt": "2024-05-02T07:21:07.9922617Z" });
        let earlier = Resource::at_its_path(&file, false);
        assert_eq!(serde_json::to_value(earlier).unwrap(), expected);
        expected["directory"] = json!("sub/dir");
        let latest = Resource::at_its_path(&file, true);
        assert_eq!(serde_json::to_value(latest).unwrap(), expected);
    }

    #[test]
    fn entries_of_a_listed_directory_know_where_they_are() {
        for (listed, path, directory, name) in
            [("sub", "dir/x", "sub/dir", "x"), ("", "x", "", "x")]
        {
            let entry = entry(path, FileKind::File);
            let told = Resource::new(&entry, &listed.parse().unwrap(), true);
            assert_eq!(
                (told.directory.as_deref(), told.name),
                (Some(directory), name)
            );
        }
    }

    #[test]
    fn a_directory_has_a_type_of_its_own() {
        let directory = entry("a.txt", FileKind::Directory);
        let told = Resource::at_its_path(&directory, false);
        assert_eq!(
            (told.r#type, told.content_type.as_str()),
            (Kind::Directory, "application/octet-stream")
        );
    }
}
