//! Request bodies that are JSON.

use std::time::Duration;

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use futures_util::StreamExt;
use proto::{
    execution::{Extension, Language},
    limits,
};
use serde_json::{Map, Value};

use super::{coding, extension, surrogates};
use crate::{
    error::{ApiError, ErrorCode},
    service::Wishes,
};

/// Time within which a JSON body must arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// A body's JSON may be longer than the code in it, by its escapes.
const BODY_BYTES: usize = 2 * limits::CODE_BYTES;
/// What some editors and .NET put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A request to run code, in any of its spellings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteBody {
    /// Source text in the pool's language.
    pub code: String,
    /// Time for the code.
    pub timeout: Duration,
    /// The session, where the body names it.
    pub identifier: Option<String>,
    /// How the answer is wished.
    pub wishes: Wishes,
    /// Whether its caller waits.
    pub kind: Kind,
    /// What is wanted beyond the contract.
    pub extension: Option<Extension>,
}

/// `executionType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its caller waits for its end.
    Synchronous,
    /// It waits in the queue of its pool, and its caller asks for it later.
    Asynchronous {
        /// `retryOnWorkerLoss`: it may be started again if its worker is lost while it runs.
        retry: bool,
    },
}

impl ExecuteBody {
    /// Reads a body whatever its content type says.
    ///
    /// # Errors
    /// It is too long, too slow, broken off, no JSON, or a field is missing or of the wrong kind.
    pub async fn read(body: Body, language: Language) -> Result<Self, ApiError> {
        let bytes = tokio::time::timeout(ARRIVES_WITHIN, whole(body)).await;
        let late = |_| {
            let message = "the body did not arrive in time";
            ApiError::new(ErrorCode::RequestTimeout, message)
        };
        Self::parse(&bytes.map_err(late)??, language)
    }

    /// Reads the fields, with or without the `properties` around them.
    ///
    /// # Errors
    /// Not a JSON object, or a field is missing or of the wrong kind.
    pub fn parse(bytes: &[u8], language: Language) -> Result<Self, ApiError> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let body: Value = serde_json::from_slice(bytes).map_err(|error| not_json(bytes, &error))?;
        let Value::Object(body) = body else {
            return Err(ApiError::invalid("the body is not a JSON object"));
        };
        let fields = match body.get("properties") {
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(ApiError::invalid("`properties` is not an object")),
            None => &body,
        };
        let kind = kind(fields)?;
        let code = match language {
            Language::Python | Language::Unknown => cell(fields)?,
            Language::Shell => command(fields)?,
        };
        if code.len() > limits::CODE_BYTES {
            let message = format!("the code is longer than {} bytes", limits::CODE_BYTES);
            return Err(ApiError::new(ErrorCode::RequestTooLarge, message));
        }
        let identifier = text(fields, "identifier")?.map(str::to_owned);
        Ok(Self {
            code,
            timeout: timeout(fields, kind)?,
            kind,
            identifier,
            wishes: wishes(fields)?,
            extension: fields
                .get(extension::NAME)
                .or_else(|| body.get(extension::NAME))
                .map(extension::read)
                .transpose()?,
        })
    }
}

/// All of a body that is not too long.
async fn whole(body: Body) -> Result<BytesMut, ApiError> {
    let (mut chunks, mut whole) = (body.into_data_stream(), BytesMut::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| coding::unreadable(&error))?;
        if whole.len() + chunk.len() > BODY_BYTES {
            let message = format!("the body is longer than {BODY_BYTES} bytes");
            return Err(ApiError::new(ErrorCode::RequestTooLarge, message));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn not_json(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    let message = match surrogates::first_lone(bytes) {
        // It is what the parser met, nothing behind that.
        Some(lone) if (lone.line, lone.column) <= (error.line(), error.column()) => {
            lone.to_string()
        }
        _ => format!("the body is not JSON: {error}"),
    };
    ApiError::invalid(message)
}

/// What a Python pool runs.
fn cell(fields: &Map<String, Value>) -> Result<String, ApiError> {
    if let Some(code) = text(fields, "code")?.or(text(fields, "pythonCode")?) {
        return decode(fields, code);
    }
    let message = match has_command(fields) {
        true => "this pool runs Python: the body must have `code`, not a shell command",
        false => "the body has no `code`",
    };
    Err(ApiError::new(ErrorCode::SessionPropertiesMissing, message))
}

/// What a Shell pool runs.
fn command(fields: &Map<String, Value>) -> Result<String, ApiError> {
    let command = match (
        text(fields, "shellCommand")?,
        fields.get("execCommandAndArgs"),
    ) {
        (Some(command), None | Some(Value::Null)) => command.to_owned(),
        (None, Some(Value::Array(words))) => program(words)?,
        (None, None | Some(Value::Null)) => {
            let message = match fields.contains_key("code") {
                true => "this is a Shell pool: the body must have `shellCommand`, not `code`",
                false => "the body has no `shellCommand`",
            };
            return Err(ApiError::new(ErrorCode::SessionPropertiesMissing, message));
        }
        (None, Some(_)) => return Err(ApiError::invalid("`execCommandAndArgs` is not a list")),
        (Some(_), Some(_)) => {
            let message = "`shellCommand` and `execCommandAndArgs` exclude each other";
            return Err(ApiError::invalid(message));
        }
    };
    if command.contains('\0') {
        return Err(ApiError::invalid("a command cannot hold a null character"));
    }
    Ok(command)
}

/// A program and its arguments, as a command that makes the shell become the program.
fn program(words: &[Value]) -> Result<String, ApiError> {
    let texts: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
    let texts = texts.filter(|texts| texts.first().is_some_and(|program| !program.is_empty()));
    let Some(texts) = texts else {
        let message = "`execCommandAndArgs` must be strings, first the name of a program";
        return Err(ApiError::invalid(message));
    };
    let quoted: Vec<String> = texts.into_iter().map(quoted).collect();
    Ok(format!("exec -- {}", quoted.join(" ")))
}

/// One word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn has_command(fields: &Map<String, Value>) -> bool {
    ["shellCommand", "execCommandAndArgs"]
        .into_iter()
        .any(|name| fields.contains_key(name))
}

fn wishes(fields: &Map<String, Value>) -> Result<Wishes, ApiError> {
    // Accepted and without effect: in the service being re-implemented it chooses an interpreter that
    // starts faster because no libraries are loaded in advance. Here every interpreter starts at once,
    // and no library is in a session's names before its code imports it.
    flag(fields, "useEmptyKernel")?;
    let name = "outputStreamsMaxLength";
    let stream_characters = match fields.get(name) {
        None | Some(Value::Null) => None,
        Some(value) => {
            let told =
                || ApiError::invalid(format!("`{name}` is not a whole number of at least 0"));
            let length = value.as_i64().and_then(|length| u64::try_from(length).ok());
            Some(length.ok_or_else(told)?)
        }
    };
    Ok(Wishes {
        stream_characters,
        all_forms: flag(fields, "returnJupyterFormatExecutionResult")?,
    })
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(set)) => Ok(*set),
        Some(_) => Err(ApiError::invalid(format!("`{name}` is not true or false"))),
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::invalid(format!("`{name}` is not a string"))),
    }
}

fn kind(fields: &Map<String, Value>) -> Result<Kind, ApiError> {
    let retry = flag(fields, "retryOnWorkerLoss")?;
    let kind = match text(fields, "executionType")?
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None | Some("synchronous") if retry => {
            let message = "`retryOnWorkerLoss` is only for an `executionType` of `Asynchronous`";
            return Err(ApiError::invalid(message));
        }
        None | Some("synchronous") => Kind::Synchronous,
        Some("asynchronous") => Kind::Asynchronous { retry },
        Some(_) => {
            let message = "`executionType` must be `Synchronous` or `Asynchronous`";
            return Err(ApiError::invalid(message));
        }
    };
    match text(fields, "codeInputType")?
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None | Some("inline" | "inlinetext" | "inlinebase64") => Ok(kind),
        Some(_) => Err(ApiError::invalid(
            "`codeInputType` must be `inline`, `inlineText` or `inlineBase64`",
        )),
    }
}

fn decode(fields: &Map<String, Value>, code: &str) -> Result<String, ApiError> {
    let kind = text(fields, "codeInputType")?.unwrap_or_default();
    if !kind.eq_ignore_ascii_case("inlineBase64") {
        return Ok(code.to_owned());
    }
    let bytes = STANDARD
        .decode(code)
        .map_err(|_| ApiError::invalid("`code` is not base64"))?;
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    String::from_utf8(text.to_vec()).map_err(|_| ApiError::invalid("`code` is not UTF-8 text"))
}

/// More than the ceiling is the ceiling: that is what the service being re-implemented does. The pool's
/// own ceilings apply as well.
fn timeout(fields: &Map<String, Value>, kind: Kind) -> Result<Duration, ApiError> {
    let ceiling = u64::from(match kind {
        Kind::Synchronous => limits::EXECUTION_SECONDS,
        Kind::Asynchronous { .. } => limits::ASYNC_EXECUTION_SECONDS,
    });
    let seconds = match fields.get("timeoutInSeconds") {
        None | Some(Value::Null) => u64::from(limits::EXECUTION_SECONDS),
        Some(value) => value
            .as_i64()
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .ok_or_else(|| {
                ApiError::invalid("`timeoutInSeconds` is not a whole number of at least 1")
            })?,
    };
    Ok(Duration::from_secs(seconds.min(ceiling)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(body: &Value) -> Result<ExecuteBody, ApiError> {
        ExecuteBody::parse(body.to_string().as_bytes(), Language::Python)
    }

    fn command_of(body: &Value) -> Result<String, ApiError> {
        let body = ExecuteBody::parse(body.to_string().as_bytes(), Language::Shell);
        body.map(|body| body.code)
    }

    #[test]
    fn every_spelling_gives_the_same_request() {
        let bodies = [
            json!({ "properties": { "codeInputType": "inline", "executionType": "synchronous",
                                    "code": "1+1" } }),
            json!({ "properties": { "codeInputType": "Inline", "executionType": "Synchronous",
                                    "pythonCode": "1+1" } }),
            json!({ "code": "1+1" }),
            json!({ "codeInputType": "inlineBase64", "code": "MSsx" }),
        ];
        for body in bodies {
            let parsed = parse(&body).unwrap();
            assert_eq!(
                (parsed.code.as_str(), parsed.timeout.as_secs()),
                ("1+1", 220),
                "{body}"
            );
        }
    }

    #[test]
    fn a_missing_code_has_its_own_name() {
        for body in [
            json!({}),
            json!({ "properties": {} }),
            json!({ "shellCommand": "ls" }),
        ] {
            assert_eq!(
                parse(&body).unwrap_err().code,
                ErrorCode::SessionPropertiesMissing
            );
        }
    }

    #[test]
    fn wrong_kinds_are_refused_by_field() {
        let table = [
            (json!([]), "object"),
            (json!({ "properties": 1 }), "properties"),
            (json!({ "code": 1 }), "code"),
            (
                json!({ "code": "1", "timeoutInSeconds": "5" }),
                "timeoutInSeconds",
            ),
            (
                json!({ "code": "1", "timeoutInSeconds": 0 }),
                "timeoutInSeconds",
            ),
            (
                json!({ "code": "1", "timeoutInSeconds": -1 }),
                "timeoutInSeconds",
            ),
            (
                json!({ "code": "1", "timeoutInSeconds": 1.5 }),
                "timeoutInSeconds",
            ),
            (
                json!({ "code": "1", "codeInputType": "file" }),
                "codeInputType",
            ),
            (
                json!({ "code": "1", "executionType": "later" }),
                "executionType",
            ),
            (
                json!({ "code": "1", "retryOnWorkerLoss": true }),
                "retryOnWorkerLoss",
            ),
            (json!({ "code": "1", "identifier": 7 }), "identifier"),
            (
                json!({ "code": "1", "outputStreamsMaxLength": -1 }),
                "outputStreamsMaxLength",
            ),
            (
                json!({ "code": "1", "useEmptyKernel": "yes" }),
                "useEmptyKernel",
            ),
            (
                json!({ "code": "1", "returnJupyterFormatExecutionResult": 1 }),
                "returnJupyterFormatExecutionResult",
            ),
        ];
        for (body, field) in table {
            let error = parse(&body).unwrap_err();
            assert!(error.message.contains(field), "{body}: {error}");
        }
        assert!(ExecuteBody::parse(b"{\"code\":", Language::Python).is_err());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let marked = [BYTE_ORDER_MARK, b"{\"code\":\"1+1\"}"].concat();
        let body = ExecuteBody::parse(&marked, Language::Python).unwrap();
        assert_eq!(body.code, "1+1");
        let file = STANDARD.encode([BYTE_ORDER_MARK, b"1+1"].concat());
        let body = parse(&json!({ "codeInputType": "inlineBase64", "code": file })).unwrap();
        assert_eq!(body.code, "1+1");
        let twice = [BYTE_ORDER_MARK, &marked].concat();
        assert!(ExecuteBody::parse(&twice, Language::Python).is_err());
    }

    #[test]
    fn half_a_character_is_refused_by_name() {
        for body in [
            &b"{\"code\":\n \"print('\\ud83d')\"}"[..],
            b"{\"code\":\n \"12345678\\uDE00\"}",
            b"{\"code\":\n \"\xed\xa0\x80\"}",
            b"{\"code\":\n \"\\ud83d\\ud83d\\ude00\"}",
        ] {
            let refused = ExecuteBody::parse(body, Language::Python).unwrap_err();
            let message = refused.message.to_lowercase();
            assert!(message.contains("surrogate"), "{message}");
            assert!(message.contains("line 2"), "{message}");
        }
        let whole = parse(&json!({ "code": "'\u{1f600}'" })).unwrap();
        assert_eq!(whole.code, "'\u{1f600}'");
        let other = ExecuteBody::parse(b"{x, \"\\ud83d\"}", Language::Python).unwrap_err();
        assert!(other.message.contains("not JSON"), "{other}");
    }

    #[test]
    fn a_command_is_one_text_or_a_program_with_its_arguments() {
        let table = [
            (json!({ "shellCommand": "ls -l | wc" }), "ls -l | wc"),
            (
                json!({ "properties": { "shellCommand": "ls", "codeInputType": "inline",
                                        "executionType": "synchronous" } }),
                "ls",
            ),
            (
                json!({ "execCommandAndArgs": ["echo", "a b", "it's", ""] }),
                "exec -- 'echo' 'a b' 'it'\\''s' ''",
            ),
        ];
        for (body, command) in table {
            assert_eq!(command_of(&body).unwrap(), command, "{body}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused_by_name() {
        let missing = ErrorCode::SessionPropertiesMissing;
        let wrong = ErrorCode::SessionRequestValidationFailed;
        let table = [
            (json!({}), missing),
            (json!({ "code": "1" }), missing),
            (json!({ "shellCommand": 1 }), wrong),
            (json!({ "shellCommand": "a\u{0}b" }), wrong),
            (json!({ "execCommandAndArgs": "ls" }), wrong),
            (json!({ "execCommandAndArgs": [] }), wrong),
            (json!({ "execCommandAndArgs": [""] }), wrong),
            (json!({ "execCommandAndArgs": ["ls", 1] }), wrong),
            (
                json!({ "shellCommand": "ls", "execCommandAndArgs": ["ls"] }),
                wrong,
            ),
        ];
        for (body, code) in table {
            assert_eq!(command_of(&body).unwrap_err().code, code, "{body}");
        }
    }

    #[test]
    fn wishes_are_read() {
        let body = json!({ "code": "1", "outputStreamsMaxLength": 5, "useEmptyKernel": true,
                           "returnJupyterFormatExecutionResult": true });
        let wishes = Wishes {
            stream_characters: Some(5),
            all_forms: true,
        };
        assert_eq!(parse(&body).unwrap().wishes, wishes);
        assert_eq!(
            parse(&json!({ "code": "1" })).unwrap().wishes,
            Wishes::default()
        );
    }

    #[test]
    fn whoever_does_not_wait_may_have_more_time_and_another_try() {
        let of = |mut body: Value| {
            body["code"] = json!("1");
            body["executionType"] = json!("Asynchronous");
            let body = parse(&body).unwrap();
            (body.timeout.as_secs(), body.kind)
        };
        let kind = |retry| Kind::Asynchronous { retry };
        assert_eq!(of(json!({})), (220, kind(false)));
        let longer = json!({ "timeoutInSeconds": 300, "retryOnWorkerLoss": true });
        assert_eq!(of(longer), (300, kind(true)));
        let longest = json!({ "timeoutInSeconds": 99_999 });
        assert_eq!(of(longest), (43_200, kind(false)));
    }

    #[test]
    fn a_timeout_above_the_ceiling_is_the_ceiling() {
        let parsed = parse(&json!({ "code": "1", "timeoutInSeconds": 300 })).unwrap();
        assert_eq!(parsed.timeout.as_secs(), 220);
    }

    proptest! {
        #[test]
        fn a_shell_reads_the_words_that_were_quoted(word in "[^\\x00\\r]{0,40}") {
            let command = format!("printf %s {}", quoted(&word));
            let told = std::process::Command::new("bash").arg("-c").arg(command).output().unwrap();
            prop_assert_eq!(String::from_utf8(told.stdout).unwrap(), word);
        }

        #[test]
        fn any_bytes_are_a_request_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(ExecuteBody::parse(&bytes, Language::Python));
            drop(ExecuteBody::parse(&bytes, Language::Shell));
        }
    }
}
