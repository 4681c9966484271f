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

use super::{
    content, file_name, front, front::Caller, multipart, v2024_02 as old, v2024_10 as new,
};
use crate::{
    app::App,
    error::{ApiError, ErrorCode},
};

/// What a path below `files/` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileRequest {
    /// What is told of a file; the names that it may have, likeliest first.
    Description(Vec<String>),
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
        FileRequest::Description(names) => describe_first(&app, &caller, &names).await,
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
    // By no other name than its own: another file may have that.
    let name = decoded(below(&uri, "/files/"))?;
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

/// Sends the first file that there is under one of these names.
///
/// # Errors
/// There is no such file, or the platform failed.
pub async fn send_first(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    names: &[String],
) -> Result<Response, ApiError> {
    let mut search = Search::default();
    for name in names {
        let sent = content::send(app, caller, headers, name).await;
        if let Some(answer) = search.ended_by(sent) {
            return answer;
        }
    }
    Err(search.refusal())
}

/// Tells of the first file that there is under one of these names.
async fn describe_first(
    app: &App,
    caller: &Caller,
    names: &[String],
) -> Result<Response, ApiError> {
    let mut search = Search::default();
    for name in names {
        let described = if caller.speaks_new()? {
            new::files::stat(app, caller, name).await
        } else {
            old::stat(app, caller, name).await
        };
        if let Some(answer) = search.ended_by(described) {
            return answer;
        }
    }
    Err(search.refusal())
}

/// A search under several names. Where there is nothing under any of them, the likeliest name is told of.
#[derive(Debug, Default)]
struct Search(Option<ApiError>);

impl Search {
    /// The answer of a name, if it ends the search.
    fn ended_by(
        &mut self,
        answer: Result<Response, ApiError>,
    ) -> Option<Result<Response, ApiError>> {
        match answer {
            Err(error) if error.code.is_about_the_path() => {
                self.0.get_or_insert(error);
                None
            }
            answer => Some(answer),
        }
    }

    fn refusal(self) -> ApiError {
        let nameless = || ApiError::new(ErrorCode::FileNotFound, "the path names no file");
        self.0.unwrap_or_else(nameless)
    }
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
    Ok(match raw.as_slice() {
        [WORD, inner @ .., WORD] if !inner.is_empty() => {
            let (behind, before) = (raw.get(1..), raw.split_last());
            let readings = [behind, Some(inner), before.map(|(_, before)| before)];
            let readings: Vec<&[&str]> = readings.into_iter().flatten().collect();
            FileRequest::Content(names(&readings)?)
        }
        [WORD, name @ ..] if !name.is_empty() => FileRequest::Content(names(&[name])?),
        [name @ .., WORD] if !name.is_empty() => FileRequest::Content(names(&[name])?),
        whole => FileRequest::Description(names(&[whole])?),
    })
}

/// The names that raw paths may mean: all as they read, then all as senders may have spelled them.
fn names(raw: &[&[&str]]) -> Result<Vec<String>, ApiError> {
    let (mut exact, mut others) = (vec![], vec![]);
    for parts in raw {
        let raw = parts.join("/");
        let mut names = file_name::candidates(&decoded(&raw)?, &raw).into_iter();
        exact.extend(names.next());
        others.extend(names);
    }
    exact.append(&mut others);
    Ok(exact)
}

fn decoded(raw: &str) -> Result<String, ApiError> {
    let text = percent_decode_str(raw).decode_utf8();
    let text = text.map_err(|_| ApiError::invalid("the file name is not UTF-8 text"))?;
    Ok(text.into_owned())
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
        let described = |names: &[&str]| {
            FileRequest::Description(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let table = [
            ("a.txt", described(&["a.txt"])),
            ("content", described(&["content"])),
            ("upload", described(&["upload"])),
            ("sub/a.txt", described(&["sub/a.txt"])),
            (
                "sub%2Fcontent",
                described(&["sub/content", "sub%2Fcontent"]),
            ),
            ("content/a.txt", content(&["a.txt"])),
            ("content/sub/a.txt", content(&["sub/a.txt"])),
            (
                "content/sub%2Fa.txt",
                content(&["sub/a.txt", "sub%2Fa.txt"]),
            ),
            ("content/content", content(&["content"])),
            ("a.txt/content", content(&["a.txt"])),
            ("sub/a.txt/content", content(&["sub/a.txt"])),
            (
                "content/README.md/content",
                content(&["README.md/content", "README.md", "content/README.md"]),
            ),
            ("a%20b/content", content(&["a b", "a%20b"])),
            (
                "content/a%20b/content",
                content(&[
                    "a b/content",
                    "a b",
                    "content/a b",
                    "a%20b/content",
                    "a%20b",
                    "content/a%20b",
                ]),
            ),
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
