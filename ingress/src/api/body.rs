//! Request bodies that are JSON.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use base64::{Engine, engine::general_purpose::STANDARD};
use proto::limits;
use serde_json::{Map, Value};

use crate::error::{ApiError, ErrorCode};

/// Time within which a JSON body must arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// A body's JSON may be longer than the code in it, by its escapes.
const BODY_BYTES: usize = 2 * limits::CODE_BYTES;

/// A request to run code, in any of its spellings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteBody {
    /// Source text.
    pub code: String,
    /// Time for the code.
    pub timeout: Duration,
    /// The session, where the body names it.
    pub identifier: Option<String>,
}

impl ExecuteBody {
    /// Reads a body whatever its content type says.
    ///
    /// # Errors
    /// It is too long, too slow, no JSON, or a field is missing or of the wrong kind.
    pub async fn read(body: Body) -> Result<Self, ApiError> {
        let bytes = match tokio::time::timeout(ARRIVES_WITHIN, to_bytes(body, BODY_BYTES)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => {
                let message = format!("the body is longer than {BODY_BYTES} bytes or was cut off");
                return Err(ApiError::new(ErrorCode::RequestTooLarge, message));
            }
            Err(_) => {
                let message = "the body did not arrive in time";
                return Err(ApiError::new(ErrorCode::RequestTimeout, message));
            }
        };
        Self::parse(&bytes)
    }

    /// Reads the fields, with or without the `properties` around them.
    ///
    /// # Errors
    /// Not a JSON object, or a field is missing or of the wrong kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let body: Value = serde_json::from_slice(bytes)
            .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
        let Value::Object(body) = body else {
            return Err(ApiError::invalid("the body is not a JSON object"));
        };
        let fields = match body.get("properties") {
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(ApiError::invalid("`properties` is not an object")),
            None => &body,
        };
        check_kind(fields)?;
        let code = match (text(fields, "code")?, text(fields, "pythonCode")?) {
            (Some(code), _) | (None, Some(code)) => decode(fields, code)?,
            (None, None) => {
                let message = "the body has no `code`";
                return Err(ApiError::new(ErrorCode::SessionPropertiesMissing, message));
            }
        };
        if code.len() > limits::CODE_BYTES {
            let message = format!("the code is longer than {} bytes", limits::CODE_BYTES);
            return Err(ApiError::new(ErrorCode::RequestTooLarge, message));
        }
        let identifier = text(fields, "identifier")?.map(str::to_owned);
        Ok(Self {
            code,
            timeout: timeout(fields)?,
            identifier,
        })
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::invalid(format!("`{name}` is not a string"))),
    }
}

/// The old contract runs code at once or not at all.
fn check_kind(fields: &Map<String, Value>) -> Result<(), ApiError> {
    if let Some(kind) = text(fields, "executionType")?
        && !kind.eq_ignore_ascii_case("synchronous")
    {
        let message = "`executionType` must be `synchronous`: others are not supported here";
        return Err(ApiError::new(
            ErrorCode::SessionRequestNotSupported,
            message,
        ));
    }
    match text(fields, "codeInputType")?
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None | Some("inline" | "inlinetext" | "inlinebase64") => Ok(()),
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
    String::from_utf8(bytes).map_err(|_| ApiError::invalid("`code` is not UTF-8 text"))
}

/// More than the ceiling is the ceiling: that is what the service being re-implemented does.
fn timeout(fields: &Map<String, Value>) -> Result<Duration, ApiError> {
    let ceiling = u64::from(limits::EXECUTION_SECONDS);
    let seconds = match fields.get("timeoutInSeconds") {
        None | Some(Value::Null) => ceiling,
        Some(value) => value
            .as_u64()
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
        ExecuteBody::parse(body.to_string().as_bytes())
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
                json!({ "code": "1", "executionType": "asynchronous" }),
                "executionType",
            ),
            (json!({ "code": "1", "identifier": 7 }), "identifier"),
        ];
        for (body, field) in table {
            let error = parse(&body).unwrap_err();
            assert!(error.message.contains(field), "{body}: {error}");
        }
        assert!(ExecuteBody::parse(b"{\"code\":").is_err());
    }

    #[test]
    fn a_timeout_above_the_ceiling_is_the_ceiling() {
        let parsed = parse(&json!({ "code": "1", "timeoutInSeconds": 300 })).unwrap();
        assert_eq!(parsed.timeout.as_secs(), 220);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(ExecuteBody::parse(&bytes));
        }
    }
}
