//! A request to run code: what it may say, once, as it is read and as it is described. It is read liberally: in
//! every contract all of it, in any case of its words, with or without `properties` around it, with unknown
//! fields. What is described is what to write, a part of it for each contract ([`part`]).

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::{execution::Language, limits};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{AllOfBuilder, ObjectBuilder, RefOr, Schema},
};

use super::{
    body::BYTE_ORDER_MARK,
    extension::{self, HearthRequest},
    sent::Sent,
};
use crate::{
    error::{ApiError, ErrorCode},
    service::{Code, Wishes},
};

/// A request that was read.
#[derive(Debug)]
pub struct Request {
    /// The session, where the body names it.
    pub identifier: Option<String>,
    /// What runs.
    pub code: Code,
    /// Whether its caller waits.
    pub kind: Kind,
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

/// What a request may say.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fields {
    /// The code.
    #[schema(value_type = String)]
    #[serde(default)]
    code: Sent<String>,
    /// The code.
    #[schema(value_type = String)]
    #[serde(default)]
    python_code: Sent<String>,
    /// The command.
    #[schema(value_type = String)]
    #[serde(default)]
    shell_command: Sent<String>,
    /// First the name of the program.
    #[schema(value_type = Vec<String>, min_items = 1)]
    #[serde(default)]
    exec_command_and_args: Sent<Vec<Value>>,
    /// How it is written.
    #[schema(value_type = Option<CodeInputType>)]
    #[serde(default)]
    code_input_type: Sent<String>,
    /// Whether the caller waits for the end.
    #[schema(value_type = Option<ExecutionType>)]
    #[serde(default)]
    execution_type: Sent<String>,
    /// Seconds that the code may run; more than the service allows is as much as it allows.
    #[schema(value_type = Option<i64>, minimum = 1)]
    #[serde(default)]
    timeout_in_seconds: Sent<i64>,
    /// Characters that are kept of each of stdout and stderr.
    #[schema(value_type = Option<i64>, minimum = 0)]
    #[serde(default)]
    output_streams_max_length: Sent<i64>,
    /// Whether an asynchronous execution may be started again if its worker is lost.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    retry_on_worker_loss: Sent<bool>,
    /// All forms of the result by their mime types, instead of one.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    return_jupyter_format_execution_result: Sent<bool>,
    // In the service being re-implemented it chooses an interpreter that starts faster because no libraries are
    // loaded in advance. Here every interpreter starts at once, and no library is in a session's names before
    // its code imports it.
    /// Without effect.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    use_empty_kernel: Sent<bool>,
    /// Names the session, unless the query does.
    #[schema(
        value_type = Option<String>,
        nullable = false,
        min_length = 4,
        max_length = 128,
        pattern = "^[!-~]{4,128}$"
    )]
    #[serde(default)]
    identifier: Sent<String>,
    /// Asks for what is beyond the contract.
    #[schema(value_type = Option<HearthRequest>, nullable = false)]
    #[serde(default)]
    hearth: Sent<Map<String, Value>>,
}

/// How code is written.
#[derive(Debug, ToSchema)]
pub enum CodeInputType {
    /// As it is.
    Inline,
    /// As it is.
    InlineText,
    /// As base64 of its UTF-8 text.
    InlineBase64,
}

/// Whether somebody waits for it.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub enum ExecutionType {
    /// Its caller.
    Synchronous,
    /// Nobody.
    Asynchronous,
}

impl Fields {
    /// The fields of a body, with or without the `properties` around them.
    ///
    /// # Errors
    /// It is no object.
    pub fn of(body: Value) -> Result<Self, ApiError> {
        let Value::Object(mut body) = body else {
            return Err(ApiError::invalid("the body is not a JSON object"));
        };
        let fields = match body.remove("properties") {
            Some(Value::Object(mut properties)) => {
                if let Some(hearth) = body.remove(extension::NAME) {
                    properties.entry(extension::NAME).or_insert(hearth);
                }
                properties
            }
            Some(_) => return Err(ApiError::invalid("`properties` is not an object")),
            None => body,
        };
        // Nothing in it fails: see [`Sent`].
        Self::deserialize(fields).map_err(|error| ApiError::invalid(error.to_string()))
    }

    /// Reads them for a pool of this language.
    ///
    /// # Errors
    /// One is missing or of the wrong kind.
    pub fn read(self, language: Language) -> Result<Request, ApiError> {
        let kind = kind(self.retry_on_worker_loss, self.execution_type)?;
        let is_base64 = is_base64(self.code_input_type)?;
        let has_code = self.code.is_there();
        let has_command = self.shell_command.is_there() || self.exec_command_and_args.is_there();
        let text = match language {
            Language::Python | Language::Unknown => {
                let other = self.python_code.text("pythonCode");
                let code = self.code.text("code")?.or(other?);
                cell(code.ok_or_else(|| no_code(has_command))?, is_base64)?
            }
            Language::Shell => {
                let line = self.shell_command.text("shellCommand")?;
                command(line, self.exec_command_and_args, has_code)?
            }
        };
        if text.len() > limits::CODE_BYTES {
            let message = format!("the code is longer than {} bytes", limits::CODE_BYTES);
            return Err(ApiError::new(ErrorCode::RequestTooLarge, message));
        }
        let identifier = self.identifier.text("identifier")?;
        let timeout = timeout(self.timeout_in_seconds, kind)?;
        self.use_empty_kernel.flag("useEmptyKernel")?;
        let length = self.output_streams_max_length;
        let stream_characters = length.at_least(0, "outputStreamsMaxLength")?;
        let all_forms = self.return_jupyter_format_execution_result;
        let all_forms = all_forms.flag("returnJupyterFormatExecutionResult")?;
        let extension = extension::read(self.hearth)?;
        let wishes = Wishes {
            stream_characters,
            all_forms,
            extended: extension.is_some(),
        };
        let code = Code {
            language,
            text,
            timeout,
            wishes,
            extension,
        };
        Ok(Request {
            identifier,
            code,
            kind,
        })
    }
}

fn kind(retry: Sent<bool>, execution_type: Sent<String>) -> Result<Kind, ApiError> {
    let retry = retry.flag("retryOnWorkerLoss")?;
    let kind = execution_type.text("executionType")?;
    match kind.map(|kind| kind.to_ascii_lowercase()).as_deref() {
        None | Some("synchronous") if retry => {
            let message = "`retryOnWorkerLoss` is only for an `executionType` of `Asynchronous`";
            Err(ApiError::invalid(message))
        }
        None | Some("synchronous") => Ok(Kind::Synchronous),
        Some("asynchronous") => Ok(Kind::Asynchronous { retry }),
        Some(_) => {
            let message = "`executionType` must be `Synchronous` or `Asynchronous`";
            Err(ApiError::invalid(message))
        }
    }
}

fn is_base64(input_type: Sent<String>) -> Result<bool, ApiError> {
    let kind = input_type.text("codeInputType")?;
    match kind.map(|kind| kind.to_ascii_lowercase()).as_deref() {
        None | Some("inline" | "inlinetext") => Ok(false),
        Some("inlinebase64") => Ok(true),
        Some(_) => Err(ApiError::invalid(
            "`codeInputType` must be `inline`, `inlineText` or `inlineBase64`",
        )),
    }
}

/// What a Python pool runs.
fn cell(code: String, is_base64: bool) -> Result<String, ApiError> {
    if !is_base64 {
        return Ok(code);
    }
    let bytes = STANDARD
        .decode(code)
        .map_err(|_| ApiError::invalid("`code` is not base64"))?;
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    String::from_utf8(text.to_vec()).map_err(|_| ApiError::invalid("`code` is not UTF-8 text"))
}

fn no_code(has_command: bool) -> ApiError {
    let message = match has_command {
        true => "this pool runs Python: the body must have `code`, not a shell command",
        false => "the body has no `code`",
    };
    ApiError::new(ErrorCode::SessionPropertiesMissing, message)
}

/// What a Shell pool runs.
fn command(
    line: Option<String>,
    words: Sent<Vec<Value>>,
    has_code: bool,
) -> Result<String, ApiError> {
    let command = match (line, words) {
        (Some(line), Sent::Nothing | Sent::Null) => line,
        (None, Sent::Value(words)) => program(&words)?,
        (None, Sent::Nothing | Sent::Null) => {
            let message = match has_code {
                true => "this is a Shell pool: the body must have `shellCommand`, not `code`",
                false => "the body has no `shellCommand`",
            };
            return Err(ApiError::new(ErrorCode::SessionPropertiesMissing, message));
        }
        (None, Sent::Wrong) => return Err(ApiError::invalid("`execCommandAndArgs` is not a list")),
        (Some(_), Sent::Value(_) | Sent::Wrong) => {
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

/// More than the ceiling is the ceiling: that is what the service being re-implemented does. The pool's
/// own ceilings apply as well.
fn timeout(seconds: Sent<i64>, kind: Kind) -> Result<Duration, ApiError> {
    let ceiling = match kind {
        Kind::Synchronous => limits::EXECUTION_SECONDS,
        Kind::Asynchronous { .. } => limits::ASYNC_EXECUTION_SECONDS,
    };
    let seconds = seconds.at_least(1, "timeoutInSeconds")?;
    let seconds = seconds.unwrap_or_else(|| limits::EXECUTION_SECONDS.into());
    Ok(Duration::from_secs(seconds.min(ceiling.into())))
}

/// A schema of some of the fields: those that every request of a contract may have, the one that a request of its
/// kind is known by, and others of that kind. A contract that writes words of its own has them in `words`.
#[must_use]
pub fn part(
    description: &str,
    example: Option<Value>,
    (common, required, own): (&[&str], &str, &[&str]),
    words: Option<RefOr<Schema>>,
) -> RefOr<Schema> {
    let properties = |schema| match schema {
        RefOr::T(Schema::Object(object)) => object.properties,
        _ => Default::default(),
    };
    let mut fields = properties(Fields::schema());
    fields.extend(words.into_iter().flat_map(properties));
    let part = |names: &[&str]| {
        let described = names.iter().filter_map(|&name| fields.get_key_value(name));
        described.fold(ObjectBuilder::new(), |part, (name, schema)| {
            part.property(name, schema.clone())
        })
    };
    let mut all = AllOfBuilder::new()
        .item(part(common))
        .item(part(own).required(required))
        .description(Some(description))
        .build();
    all.example = example;
    Schema::AllOf(all).into()
}

/// Describes parts of [`Fields`] as schemas.
macro_rules! parts {
    ($(
        $(#[doc = $doc:literal])+
        $part:ident as $name:literal: $common:ident, $required:literal $(, $own:literal)* $(; like $example:expr)?
            $(; in the words of $words:ty)?;
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub struct $part;

            impl utoipa::PartialSchema for $part {
                fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    let example = None $(.or(Some($example)))?;
                    let words = None $(.or(Some(<$words as utoipa::PartialSchema>::schema())))?;
                    let fields: (&[&str], &str, &[&str]) = (&$common, $required, &[$required $(, $own)*]);
                    $crate::api::request::part(concat!($($doc),+).trim(), example, fields, words)
                }
            }

            impl utoipa::ToSchema for $part {
                fn name() -> std::borrow::Cow<'static, str> {
                    $name.into()
                }

                fn schemas(all: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
                    <$crate::api::request::Fields as utoipa::ToSchema>::schemas(all);
                    $(<$words as utoipa::ToSchema>::schemas(all);)?
                }
            }
        )+
    };
}
pub(super) use parts;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::body;

    fn read(bytes: &[u8], language: Language) -> Result<Request, ApiError> {
        Fields::of(body::parse(bytes)?)?.read(language)
    }

    fn parse(body: &Value) -> Result<Request, ApiError> {
        read(body.to_string().as_bytes(), Language::Python)
    }

    fn command_of(body: &Value) -> Result<String, ApiError> {
        let request = read(body.to_string().as_bytes(), Language::Shell);
        request.map(|request| request.code.text)
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
                (parsed.code.text.as_str(), parsed.code.timeout.as_secs()),
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
        assert!(read(b"{\"code\":", Language::Python).is_err());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let marked = [BYTE_ORDER_MARK, b"{\"code\":\"1+1\"}"].concat();
        let body = read(&marked, Language::Python).unwrap();
        assert_eq!(body.code.text, "1+1");
        let file = STANDARD.encode([BYTE_ORDER_MARK, b"1+1"].concat());
        let body = parse(&json!({ "codeInputType": "inlineBase64", "code": file })).unwrap();
        assert_eq!(body.code.text, "1+1");
        let twice = [BYTE_ORDER_MARK, &marked].concat();
        assert!(read(&twice, Language::Python).is_err());
    }

    #[test]
    fn half_a_character_is_refused_by_name() {
        for body in [
            &b"{\"code\":\n \"print('\\ud83d')\"}"[..],
            b"{\"code\":\n \"12345678\\uDE00\"}",
            b"{\"code\":\n \"\xed\xa0\x80\"}",
            b"{\"code\":\n \"\\ud83d\\ud83d\\ude00\"}",
        ] {
            let refused = read(body, Language::Python).unwrap_err();
            let message = refused.message.to_lowercase();
            assert!(message.contains("surrogate"), "{message}");
            assert!(message.contains("line 2"), "{message}");
        }
        let whole = parse(&json!({ "code": "'\u{1f600}'" })).unwrap();
        assert_eq!(whole.code.text, "'\u{1f600}'");
        let other = read(b"{x, \"\\ud83d\"}", Language::Python).unwrap_err();
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
            extended: false,
        };
        assert_eq!(parse(&body).unwrap().code.wishes, wishes);
        assert_eq!(
            parse(&json!({ "code": "1" })).unwrap().code.wishes,
            Wishes::default()
        );
    }

    #[test]
    fn whoever_does_not_wait_may_have_more_time_and_another_try() {
        let of = |mut body: Value| {
            body["code"] = json!("1");
            body["executionType"] = json!("Asynchronous");
            let body = parse(&body).unwrap();
            (body.code.timeout.as_secs(), body.kind)
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
        assert_eq!(parsed.code.timeout.as_secs(), 220);
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
            drop(read(&bytes, Language::Python));
            drop(read(&bytes, Language::Shell));
        }
    }
}
