//! Files, as both contracts have them: what a path below `files` asks for, and what becomes of it.

use axum::{
    extract::Request,
    http::{HeaderMap, Uri},
    response::Response,
};
use percent_encoding::percent_decode_str;
use proto::file::FileEntry;

use super::{content, file_name, front::Caller, multipart};
use crate::error::{ApiError, ErrorCode};

/// What was found at a path below `files`.
#[derive(Debug)]
pub enum Found {
    /// A file's bytes, on their way.
    Content(Response),
    /// What is told of a file.
    Description(FileEntry),
}

/// What a path below `files` asks for: the names that may be meant, likeliest first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileRequest {
    Description(Vec<String>),
    Content(Vec<String>),
}

/// Finds what a path below `files` asks for or, as the oldest documentation has it, `file`.
///
/// # Errors
/// The path holds bytes that are no text, there is no such file, or the platform failed.
pub async fn find(caller: &Caller, headers: &HeaderMap, uri: &Uri) -> Result<Found, ApiError> {
    let below = uri.path().strip_prefix("/file/");
    match classify_path(below.unwrap_or_else(|| below_files(uri)))? {
        FileRequest::Content(names) => send(caller, headers, &names).await.map(Found::Content),
        FileRequest::Description(names) => {
            let described = first(names.iter().map(|name| describe(caller, name)));
            described.await.map(Found::Description)
        }
    }
}

/// Sends the first file that there is under one of these names.
///
/// # Errors
/// There is no such file, or the platform failed.
pub async fn send(
    caller: &Caller,
    headers: &HeaderMap,
    names: &[String],
) -> Result<Response, ApiError> {
    let names = names.iter();
    first(names.map(|name| content::send(caller, headers, name))).await
}

async fn describe(caller: &Caller, name: &str) -> Result<FileEntry, ApiError> {
    let (session, path) = (caller.session()?, caller.path(name)?);
    Ok(caller.app.service.stat(&session, path).await?)
}

/// What there is under the first of several names that has something. Where none has, the likeliest is told of.
async fn first<T, L>(looks: impl Iterator<Item = L>) -> Result<T, ApiError>
where
    L: Future<Output = Result<T, ApiError>>,
{
    let mut likeliest = None;
    for look in looks {
        match look.await {
            Err(error) if error.code.is_about_the_path() => {
                likeliest.get_or_insert(error);
            }
            answer => return answer,
        }
    }
    let nameless = || ApiError::new(ErrorCode::FileNotFound, "the path names no file");
    Err(likeliest.unwrap_or_else(nameless))
}

/// Stores what a multipart body brings, at most `most` files. After a failure nothing is left that was staged; what
/// a caller staged who hangs up is left to the sweep.
///
/// # Errors
/// The body is wrong, or the platform failed.
pub async fn store(
    caller: &Caller,
    request: Request,
    most: usize,
) -> Result<Vec<FileEntry>, ApiError> {
    let session = caller.session()?;
    let directory = caller.directory()?;
    let (head, body) = request.into_parts();
    let service = &caller.app.service;
    let (mut received, mut stored) = (vec![], vec![]);
    let place = (service, &session);
    let mut result =
        multipart::receive(&head.headers, body, &directory, place, &mut received).await;
    if result.is_ok() && received.len() > most {
        let message = format!("the body has more files than {most}");
        result = Err(ApiError::invalid(message));
    }
    for (path, content) in received {
        if result.is_err() {
            service.discard(&content).await;
            continue;
        }
        match service.upload(&session, path, content).await {
            Ok(entry) => stored.push(entry),
            Err(error) => result = Err(error.into()),
        }
    }
    result.map(|()| stored)
}

/// Removes the file of a path, by no other name than its own: another file may have that.
///
/// # Errors
/// There is none, or the platform failed.
pub async fn delete(caller: &Caller, uri: &Uri) -> Result<(), ApiError> {
    let name = decoded(below_files(uri))?;
    let session = caller.session()?;
    let path = caller.path(&name)?;
    Ok(caller.app.service.delete(&session, path).await?)
}

fn below_files(uri: &Uri) -> &str {
    uri.path().strip_prefix("/files/").unwrap_or_default()
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
