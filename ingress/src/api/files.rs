//! Paths below `files` that both contracts have. What is asked for stands in the path, in which shape
//! it is answered in the api-version.

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use proto::file::FileEntry;

use super::{content, front, front::Caller, multipart, v2024_02 as old, v2024_10 as new};
use crate::{
    app::App,
    error::{ApiError, ErrorCode},
};

/// What a path below `files/` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileRequest {
    /// What is told of a file.
    Description(String),
    /// A file's bytes; the names that may be meant, likeliest first.
    Content(Vec<String>),
}

/// `GET files`
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    if caller.speaks_new()? {
        new::files::list(&app, &caller).await
    } else {
        old::list(&app, &caller).await
    }
}

/// `POST files`
pub async fn upload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    if caller.speaks_new()? {
        new::files::upload(&app, &caller, request).await
    } else {
        let uploaded = old::upload(State(app), Extension(caller), request).await;
        uploaded.map(IntoResponse::into_response)
    }
}

/// `POST files/upload`, which is of the old contract only.
pub async fn upload_below(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    if !matches!(request.uri().path(), "/files/upload" | "/files/uploadFile") {
        return Err(front::unknown_operation().await);
    }
    let uploaded = old::upload(State(app), Extension(caller), request).await;
    uploaded.map(IntoResponse::into_response)
}

/// `GET files/{name}`, `GET files/{name}/content`, `GET files/content/{name}`
pub async fn get(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    match classify_path(below(&uri, "/files/"))? {
        FileRequest::Content(names) => send_first(&app, &caller, &headers, &names).await,
        FileRequest::Description(name) if caller.speaks_new()? => {
            new::files::stat(&app, &caller, &name).await
        }
        FileRequest::Description(name) => old::stat(&app, &caller, &name).await,
    }
}

/// `GET file/content/{name}`
pub async fn get_by_alias(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    match classify_path(below(&uri, "/file/"))? {
        FileRequest::Content(names) => send_first(&app, &caller, &headers, &names).await,
        FileRequest::Description(_) => Err(front::unknown_operation().await),
    }
}

/// `DELETE files/{name}`
pub async fn remove(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let name = joined(&parts(below(&uri, "/files/"))?);
    if caller.speaks_new()? {
        new::files::delete(&app, &caller, &name).await
    } else {
        old::delete_file(&app, &caller, &name).await
    }
}

/// Stores what a multipart body brings, at most `most` files.
///
/// # Errors
/// The body is wrong, or the platform failed.
pub async fn store(
    app: &App,
    caller: &Caller,
    request: Request,
    most: usize,
) -> Result<Vec<FileEntry>, ApiError> {
    let session = caller.session(app)?;
    let directory = caller.directory()?;
    let (head, body) = request.into_parts();
    let place = (&app.service, &session);
    let received = multipart::receive(&head.headers, body, &directory, place).await?;
    let mut received = received.into_iter();
    let mut stored = vec![];
    let mut failed = (received.len() > most)
        .then(|| ApiError::invalid(format!("the body has more files than {most}")));
    for (path, content) in received.by_ref() {
        if failed.is_some() {
            app.service.discard(&content).await;
            continue;
        }
        match app.service.upload(&session, path, content).await {
            Ok(entry) => stored.push(entry),
            Err(error) => failed = Some(error.into()),
        }
    }
    failed.map_or(Ok(stored), Err)
}

/// What is told of a file.
///
/// # Errors
/// There is none, or the platform failed.
pub async fn describe(app: &App, caller: &Caller, name: &str) -> Result<FileEntry, ApiError> {
    let session = caller.session(app)?;
    Ok(app.service.stat(&session, caller.path(name)?).await?)
}

/// Removes a file.
///
/// # Errors
/// There is none, or the platform failed.
pub async fn delete(app: &App, caller: &Caller, name: &str) -> Result<(), ApiError> {
    let session = caller.session(app)?;
    Ok(app.service.delete(&session, caller.path(name)?).await?)
}

async fn send_first(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    names: &[String],
) -> Result<Response, ApiError> {
    let mut last = ApiError::new(ErrorCode::FileNotFound, "the path names no file");
    for name in names {
        match content::send(app, caller, headers, name).await {
            Err(error) if error.code.is_about_the_path() => last = error,
            answer => return answer,
        }
    }
    Err(last)
}

fn below<'a>(uri: &'a Uri, prefix: &str) -> &'a str {
    uri.path().strip_prefix(prefix).unwrap_or_default()
}

/// Takes the raw rest of a path apart. The old contract has the word `content` in front, the new one
/// behind, and documentation of the old one at both ends; a file may be called so too. With the word at
/// one end a path always means bytes: what is told of a file `content` in a sub-directory is found with
/// `?path=` or an encoded slash.
fn classify_path(rest: &str) -> Result<FileRequest, ApiError> {
    const WORD: &str = "content";
    let raw: Vec<&str> = rest.split('/').collect();
    let parts = parts(rest)?;
    Ok(match (raw.as_slice(), parts.as_slice()) {
        ([WORD, .., WORD], [_, inner @ .., _]) if !inner.is_empty() => {
            let (behind, before) = (parts.get(1..), parts.split_last());
            let names = [behind, Some(inner), before.map(|(_, before)| before)];
            FileRequest::Content(names.into_iter().flatten().map(joined).collect())
        }
        ([WORD, _, ..], [_, name @ ..]) => FileRequest::Content(vec![joined(name)]),
        ([_, .., WORD], [name @ .., _]) => FileRequest::Content(vec![joined(name)]),
        _ => FileRequest::Description(joined(&parts)),
    })
}

fn parts(rest: &str) -> Result<Vec<String>, ApiError> {
    let decoded = rest.split('/').map(|part| {
        let text = percent_decode_str(part).decode_utf8();
        text.map(std::borrow::Cow::into_owned)
    });
    let decoded: Result<_, _> = decoded.collect();
    decoded.map_err(|_| ApiError::invalid("the file name is not UTF-8 text"))
}

fn joined(parts: &[String]) -> String {
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_word_content_tells_bytes_from_descriptions() {
        let content = |names: &[&str]| {
            FileRequest::Content(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let described = |name: &str| FileRequest::Description(name.to_owned());
        let table = [
            ("a.txt", described("a.txt")),
            ("content", described("content")),
            ("upload", described("upload")),
            ("sub/a.txt", described("sub/a.txt")),
            ("sub%2Fcontent", described("sub/content")),
            ("content/a.txt", content(&["a.txt"])),
            ("content/sub/a.txt", content(&["sub/a.txt"])),
            ("content/sub%2Fa.txt", content(&["sub/a.txt"])),
            ("content/content", content(&["content"])),
            ("a.txt/content", content(&["a.txt"])),
            ("sub/a.txt/content", content(&["sub/a.txt"])),
            (
                "content/README.md/content",
                content(&["README.md/content", "README.md", "content/README.md"]),
            ),
            ("a%20b/content", content(&["a b"])),
        ];
        for (rest, expected) in table {
            assert_eq!(classify_path(rest).unwrap(), expected, "{rest}");
        }
        assert!(classify_path("%ff").is_err());
    }

    proptest! {
        #[test]
        fn any_path_asks_for_something_or_is_refused(rest in "[a-z%/2F]{0,40}") {
            if let Ok(FileRequest::Content(names)) = classify_path(&rest) {
                prop_assert!(!names.is_empty());
            }
        }
    }
}
