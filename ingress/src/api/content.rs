//! The bytes of a file, as every contract sends them.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proto::file::{FileEntry, FilePath};

use super::{front::Caller, range, timestamp::http_date};
use crate::{download::Content, error::ApiError, service::ServiceError};

/// Sends a file, or the part of it that the request asks for.
///
/// # Errors
/// There is no such file, or the platform failed.
pub async fn send(caller: &Caller, headers: &HeaderMap, name: &str) -> Result<Response, ApiError> {
    let session = caller.session()?;
    let path = caller.path(name)?;
    let download = caller.app.service.download(&session, path.clone()).await?;
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
