//! `hearth`: what requests and answers hold beyond the contracts, in the same form in all of them. An
//! answer has it only if its request has it: some clients hand whatever they get to a language model.

use std::collections::BTreeMap;

use proto::{
    execution::{Bundle, ChangedFiles, Details, Durability, Extension, Moved, Outcome, Resources},
    limits,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Schema, Type},
};

use super::{result::forms, sent::Sent};
use crate::error::ApiError;

/// Name of the object in bodies of requests and answers.
pub const NAME: &str = "hearth";

/// What is beyond the contract; an answer has its `hearth` only if the request has one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HearthRequest {
    /// Environment variables of this execution alone.
    #[schema(schema_with = described_environment)]
    #[serde(default)]
    environment: Sent<Map<String, Value>>,
}

fn described_environment() -> Schema {
    let name = format!(
        "^[A-Za-z_][A-Za-z0-9_]{{0,{}}}$",
        limits::ENVIRONMENT_NAME_BYTES - 1
    );
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(name));
    let value = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[^\\x00]*$"));
    let words = format!(
        "Environment variables of this execution alone: at most {} and {} KiB together.",
        limits::ENVIRONMENT_VARIABLES,
        limits::ENVIRONMENT_BYTES / 1024
    );
    let variables = ObjectBuilder::new()
        .max_properties(Some(limits::ENVIRONMENT_VARIABLES))
        .property_names(Some(name))
        .additional_properties(Some(value))
        .description(Some(words));
    variables.into()
}

/// Reads the object of a request, if it has one.
///
/// # Errors
/// It holds something that is not known, or an environment that cannot be one.
pub fn read(sent: Sent<Map<String, Value>>) -> Result<Option<Extension>, ApiError> {
    let fields = match sent {
        Sent::Nothing => return Ok(None),
        Sent::Value(fields) => fields,
        Sent::Null | Sent::Wrong => {
            return Err(ApiError::invalid(format!("`{NAME}` is not an object")));
        }
    };
    let unknown = |_| {
        let message = format!("`{NAME}` knows no such field; it knows `environment`");
        ApiError::invalid(message)
    };
    let environment = match HearthRequest::deserialize(fields)
        .map_err(unknown)?
        .environment
    {
        Sent::Nothing => BTreeMap::new(),
        Sent::Value(variables) => environment(variables)?,
        Sent::Null | Sent::Wrong => {
            let message = format!("`{NAME}.environment` is not an object of strings");
            return Err(ApiError::invalid(message));
        }
    };
    Ok(Some(Extension { environment }))
}

fn environment(variables: Map<String, Value>) -> Result<BTreeMap<String, String>, ApiError> {
    let invalid = |what: String| ApiError::invalid(format!("`{NAME}.environment`: {what}"));
    if variables.len() > limits::ENVIRONMENT_VARIABLES {
        let most = limits::ENVIRONMENT_VARIABLES;
        return Err(invalid(format!("more than {most} variables")));
    }
    let mut environment = BTreeMap::new();
    let mut bytes = 0;
    for (name, value) in variables {
        if !is_name(&name) {
            let most = limits::ENVIRONMENT_NAME_BYTES;
            return Err(invalid(format!(
                "names are 1 to {most} ASCII letters, digits and `_`, no digit first"
            )));
        }
        match value {
            Value::String(value) if !value.contains('\0') => {
                bytes += name.len() + value.len();
                environment.insert(name, value);
            }
            _ => return Err(invalid("values are strings without null characters".into())),
        }
    }
    if bytes > limits::ENVIRONMENT_BYTES {
        let most = limits::ENVIRONMENT_BYTES;
        return Err(invalid(format!("longer than {most} bytes together")));
    }
    Ok(environment)
}

fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    starts && name.len() <= limits::ENVIRONMENT_NAME_BYTES && name.bytes().all(rest)
}

/// The object of an answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hearth)]
#[serde(rename_all = "camelCase")]
pub struct HearthAnswer {
    /// Everything that was shown, in order, the result last.
    outputs: Vec<ShownOutput>,
    /// What changed in `/mnt/data`. Null when it is not known by the time of the answer.
    #[schema(required)]
    files: Option<Vec<Changed>>,
    /// Null when they could not be read.
    #[schema(required)]
    resources: Option<Used>,
    durability: Saved,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    moved: Option<CameAlong>,
    truncated: Cut,
}

/// One thing that was shown, in all its forms.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Output)]
pub struct ShownOutput {
    r#type: Kind,
    /// By mime type: images as base64, JSON as JSON.
    #[schema(value_type = HashMap<String, Value>)]
    data: Value,
}

/// How something came to be shown.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = OutputType)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// By code.
    Display,
    /// As the value of the last expression.
    Result,
}

/// A change in `/mnt/data`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedFile)]
#[serde(untagged)]
enum Changed {
    /// A file that was written.
    Written { name: String, size: u64 },
    /// A file or directory that is not there any more; a directory for all in it.
    Deleted { name: String, deleted: bool },
}

/// Whether files are in the object store by the time of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Durability)]
#[serde(rename_all = "kebab-case")]
enum Saved {
    /// They are.
    Durable,
    /// They will be.
    WriteBehind,
}

/// The session moved to another worker since its last execution. Its files came along.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Moved)]
#[serde(rename_all = "camelCase")]
struct CameAlong {
    /// Variables came along too, except for those that are named.
    variables: bool,
    /// Variables that did not, as far as they are known.
    lost_variables: Vec<String>,
}

/// What the execution used. Null is what could not be read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resources)]
#[serde(rename_all = "camelCase")]
struct Used {
    #[schema(required)]
    cpu_milliseconds: Option<u64>,
    #[schema(required)]
    peak_memory_bytes: Option<u64>,
    peak_memory_of: PeakOf,
    #[schema(required)]
    bytes_written: Option<u64>,
}

/// Whose peak of memory is told.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum PeakOf {
    /// That of the execution.
    Execution,
    /// That of the session's whole life, on kernels that cannot begin anew.
    Session,
}

/// What is not complete.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Truncated)]
struct Cut {
    stdout: bool,
    stderr: bool,
    outputs: bool,
    files: bool,
}

impl HearthAnswer {
    /// Of what an execution left. `cut` says which streams the contract's part of the answer cut.
    #[must_use]
    pub fn new(outcome: &Outcome, cut: (bool, bool)) -> Self {
        let none = Details::default();
        let details = outcome.details.as_deref().unwrap_or(&none);
        let displays = outcome
            .displays
            .iter()
            .map(|one| ShownOutput::new(Kind::Display, one));
        let result = outcome
            .result
            .iter()
            .map(|one| ShownOutput::new(Kind::Result, one));
        let lost = details.truncated;
        Self {
            outputs: displays.chain(result).collect(),
            files: details.files.as_ref().map(files),
            resources: details.resources.map(Used::from),
            durability: match outcome.durability {
                Durability::Durable => Saved::Durable,
                Durability::WriteBehind | Durability::Unknown => Saved::WriteBehind,
            },
            moved: outcome.moved.as_ref().map(CameAlong::from),
            truncated: Cut {
                stdout: lost.stdout > 0 || cut.0,
                stderr: lost.stderr > 0 || cut.1,
                outputs: lost.displays > 0,
                files: details.files.as_ref().is_some_and(|files| files.more),
            },
        }
    }
}

impl From<Resources> for Used {
    fn from(used: Resources) -> Self {
        Self {
            cpu_milliseconds: used.cpu_ms,
            peak_memory_bytes: used.peak_memory_bytes,
            peak_memory_of: if used.peak_of_session {
                PeakOf::Session
            } else {
                PeakOf::Execution
            },
            bytes_written: used.bytes_written,
        }
    }
}

impl From<&Moved> for CameAlong {
    fn from(Moved { variables, lost }: &Moved) -> Self {
        Self {
            variables: *variables,
            lost_variables: lost.clone(),
        }
    }
}

impl ShownOutput {
    /// All forms of one output.
    #[must_use]
    pub fn new(kind: Kind, bundle: &Bundle) -> Self {
        Self {
            r#type: kind,
            data: forms(bundle),
        }
    }
}

fn files(files: &ChangedFiles) -> Vec<Changed> {
    let written = files.written.iter().map(|(name, size)| Changed::Written {
        name: name.clone(),
        size: *size,
    });
    let deleted = files.deleted.iter().map(|name| Changed::Deleted {
        name: name.clone(),
        deleted: true,
    });
    written.chain(deleted).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_environment_is_bounded_and_has_names_that_shells_can_name() {
        let read = |body: Value| super::read(serde_json::from_value(body).unwrap());
        let of = |variables: Value| read(json!({ "environment": variables }));
        let extension = of(json!({ "A": "1", "_b2": "ž" })).unwrap().unwrap();
        assert_eq!(extension.environment.len(), 2);
        let many: Map<String, Value> = (0..=limits::ENVIRONMENT_VARIABLES)
            .map(|number| (format!("V{number}"), json!("")))
            .collect();
        for wrong in [
            json!({ "": "1" }),
            json!({ "1A": "1" }),
            json!({ "A=B": "1" }),
            json!({ "ž": "1" }),
            json!({ "A": 1 }),
            json!({ "A": "a\u{0}b" }),
            json!({ "A": "x".repeat(limits::ENVIRONMENT_BYTES) }),
            json!({ "A".repeat(limits::ENVIRONMENT_NAME_BYTES + 1): "" }),
            json!([]),
            Value::Object(many),
        ] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(read(json!({ "enviroment": {} })).is_err());
        assert!(read(json!([])).is_err());
        assert!(read(Value::Null).is_err());
        assert_eq!(read(json!({})).unwrap(), Some(Extension::default()));
    }
}
