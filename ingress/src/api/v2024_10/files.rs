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
        files::{self, FileRequest},
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
    let version = Version::of(&caller)?;
    let all = wants_all(&caller)?;
    let recursive = all && version == Version::WithDirectories;
    let entries = caller
        .app
        .service
        .list(&session, directory.clone(), recursive);
    let entries = entries.await?;
    let value = entries.iter().map(|entry| {
        let place = Place::in_directory(&directory, &entry.path);
        Resource::new(entry, place, version)
    });
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
    let version = Version::of(&caller)?;
    let stored = files::store(&caller, request, 1).await?;
    match stored.as_slice() {
        [entry] => Ok(Json(Resource::of(entry, version)).into_response()),
        _ => Err(ApiError::invalid("the body has no file")),
    }
}

/// `GET files/{name}`, `GET files/{name}/content`
#[utoipa::path(get, path = "/files/{name}", operation_id = "getFile", tag = "files",
    summary = "Tell of a file", params(InSession, OfFile, InDirectory),
    responses((status = 200, description = "The file.", body = Resource), RefusedInSession))]
pub async fn get(caller: Caller, headers: HeaderMap, uri: Uri) -> Result<Response, ApiError> {
    match FileRequest::of(&uri)? {
        FileRequest::Content(names) => files::send_first(&caller, &headers, &names).await,
        FileRequest::Description(names) => {
            let entry = files::describe_first(&caller, &names).await?;
            Ok(Json(Resource::of(&entry, Version::of(&caller)?)).into_response())
        }
    }
}

/// `GET files/{name}/content`
///
/// # Errors
/// There is no such file, or the platform failed.
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

/// Whether the api-version knows sub-directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    WithDirectories,
    Earlier,
}

impl Version {
    fn of(caller: &Caller) -> Result<Self, ApiError> {
        Ok(if caller.query.is_since(contract::RECURSIVE)? {
            Self::WithDirectories
        } else {
            Self::Earlier
        })
    }
}

/// Where an entry is, relative to `/mnt/data`.
struct Place<'a> {
    directory: String,
    name: &'a str,
}

impl<'a> Place<'a> {
    /// Of a path relative to a directory.
    fn in_directory(directory: &DirectoryPath, path: &'a str) -> Self {
        let (below, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parts = [directory.as_str(), below];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Self {
            directory: parts.join("/"),
            name,
        }
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
    fn of(entry: &'a FileEntry, version: Version) -> Self {
        let place = Place::in_directory(&DirectoryPath::default(), &entry.path);
        Self::new(entry, place, version)
    }

    fn new(entry: &FileEntry, place: Place<'a>, version: Version) -> Self {
        let is_directory = entry.kind == FileKind::Directory;
        let content_type = if is_directory {
            mime_guess::mime::APPLICATION_OCTET_STREAM.to_string()
        } else {
            content_type(place.name)
        };
        Self {
            name: place.name,
            r#type: if is_directory {
                Kind::Directory
            } else {
                Kind::File
            },
            content_type,
            size_in_bytes: entry.size,
            last_modified_at: seven_digits(entry.modified_ns),
            directory: (version == Version::WithDirectories).then_some(place.directory),
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
        let earlier = Resource::of(&file, Version::Earlier);
        assert_eq!(serde_json::to_value(earlier).unwrap(), expected);
        expected["directory"] = json!("sub/dir");
        let latest = Resource::of(&file, Version::WithDirectories);
        assert_eq!(serde_json::to_value(latest).unwrap(), expected);
    }

    #[test]
    fn entries_of_a_listed_directory_know_where_they_are() {
        let directory: DirectoryPath = "sub".parse().unwrap();
        let place = Place::in_directory(&directory, "dir/x");
        assert_eq!((place.directory.as_str(), place.name), ("sub/dir", "x"));
        let place = Place::in_directory(&DirectoryPath::default(), "x");
        assert_eq!((place.directory.as_str(), place.name), ("", "x"));
    }

    #[test]
    fn a_directory_has_a_type_of_its_own() {
        let directory = entry("a.txt", FileKind::Directory);
        let told = Resource::of(&directory, Version::Earlier);
        assert_eq!(
            (told.r#type, told.content_type.as_str()),
            (Kind::Directory, "application/octet-stream")
        );
    }
}
