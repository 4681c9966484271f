//! Bodies of requests as they are described. They are read liberally (`api/body.rs`): in any case of their
//! words, with or without `properties` around them, with unknown fields. This is what to write; a test
//! holds every field against the reader.

use std::collections::BTreeMap;

use proto::limits;
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Schema, Type},
};

use crate::api::v2024_10::resource::ExecutionType;

/// What `POST executions` runs.
#[derive(Debug, ToSchema)]
#[schema(as = ExecutionRequest)]
#[serde(untagged)]
pub enum Execution {
    /// In a Python pool.
    Cell(Cell),
    /// In a Shell pool.
    Command(Command),
    /// In a Shell pool, without a shell's reading of it.
    Program(Program),
}

/// Python for the session's interpreter.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({ "code": "print('hello')\n6 * 7" }))]
pub struct Cell {
    /// The code.
    pub code: String,
    /// How it is written.
    pub code_input_type: Option<CodeInputType>,
    #[schema(inline)]
    #[serde(flatten)]
    pub options: Options,
    /// All forms of the result by their mime types, instead of one.
    pub return_jupyter_format_execution_result: Option<bool>,
    /// Without effect.
    pub use_empty_kernel: Option<bool>,
}

/// A command of bash.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({ "shellCommand": "ls; exit 3" }))]
pub struct Command {
    /// The command.
    pub shell_command: String,
    #[schema(inline)]
    #[serde(flatten)]
    pub options: Options,
}

/// A program with its arguments.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase", example = json!({ "execCommandAndArgs": ["echo", "a b"] }))]
pub struct Program {
    /// First the name of the program.
    #[schema(min_items = 1)]
    pub exec_command_and_args: Vec<String>,
    #[schema(inline)]
    #[serde(flatten)]
    pub options: Options,
}

/// What all of them may say.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Options {
    /// Whether the caller waits for the end.
    pub execution_type: Option<ExecutionType>,
    /// Seconds that the code may run; more than the service allows is as much as it allows.
    #[schema(minimum = 1)]
    pub timeout_in_seconds: Option<i64>,
    /// Characters that are kept of each of stdout and stderr.
    #[schema(minimum = 0)]
    pub output_streams_max_length: Option<i64>,
    /// Whether an asynchronous execution may be started again if its worker is lost.
    pub retry_on_worker_loss: Option<bool>,
    /// Asks for what is beyond the contract.
    #[schema(nullable = false)]
    pub hearth: Option<HearthRequest>,
}

/// What is beyond the contract; an answer has its `hearth` only if the request has one.
#[derive(Debug, ToSchema)]
#[schema(as = HearthRequest)]
#[serde(deny_unknown_fields)]
pub struct HearthRequest {
    /// Environment variables of this execution alone.
    #[schema(schema_with = environment)]
    pub environment: Option<BTreeMap<String, String>>,
}

fn environment() -> Schema {
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

/// A request to run code in the old contract.
#[derive(Debug, ToSchema)]
#[schema(as = CodeExecuteRequest,
         example = json!({ "properties": { "codeInputType": "inline", "executionType": "synchronous",
                                           "code": "print('hello')\n6 * 7" } }))]
pub struct Wrapped {
    /// What it says.
    pub properties: OldCell,
}

/// Code in the old contract.
#[derive(Debug, ToSchema)]
#[schema(as = CodeExecuteProperties, rename_all = "camelCase")]
pub struct OldCell {
    /// The code.
    pub code: String,
    #[schema(inline)]
    #[serde(flatten)]
    pub options: OldOptions,
}

/// A request to run code in the oldest contract.
#[derive(Debug, ToSchema)]
#[schema(as = PythonExecuteRequest,
         example = json!({ "properties": { "identifier": "user-1", "pythonCode": "print('hello')" } }))]
pub struct OldestWrapped {
    /// What it says.
    pub properties: OldestCell,
}

/// Code in the oldest contract.
#[derive(Debug, ToSchema)]
#[schema(as = PythonExecuteProperties, rename_all = "camelCase")]
pub struct OldestCell {
    /// The code.
    pub python_code: String,
    /// Names the session, unless the query does.
    #[schema(
        nullable = false,
        min_length = 4,
        max_length = 128,
        pattern = "^[!-~]{4,128}$"
    )]
    pub identifier: Option<String>,
    #[schema(inline)]
    #[serde(flatten)]
    pub options: OldOptions,
}

/// What both may say.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct OldOptions {
    /// How the code is written.
    pub code_input_type: Option<OldCodeInputType>,
    /// Whether the caller waits.
    pub execution_type: Option<OldExecutionType>,
    /// Seconds that the code may run; more than the service allows is as much as it allows.
    #[schema(minimum = 1)]
    pub timeout_in_seconds: Option<i64>,
    /// Asks for what is beyond the contract.
    #[schema(nullable = false)]
    pub hearth: Option<HearthRequest>,
}

/// How code is written.
#[derive(Debug, ToSchema)]
#[schema(as = CodeInputType, rename_all = "camelCase")]
pub enum OldCodeInputType {
    /// As it is.
    Inline,
    /// As it is.
    InlineText,
    /// As base64 of its UTF-8 text.
    InlineBase64,
}

/// Whether the caller waits.
#[derive(Debug, ToSchema)]
#[schema(as = ExecutionType, rename_all = "camelCase")]
pub enum OldExecutionType {
    /// For the end.
    Synchronous,
}

/// A form with one file.
#[derive(Debug, ToSchema)]
#[schema(as = Upload)]
pub struct File {
    /// The file. Its `filename` is its path below the directory.
    #[schema(value_type = String, format = Binary)]
    pub file: Vec<u8>,
}

/// A form with files, at most 64 of them, all in parts called `file`.
#[derive(Debug, ToSchema)]
#[schema(as = Uploads)]
pub struct Files {
    /// The files. Their `filename`s are their paths below the directory.
    #[schema(value_type = Vec<String>, format = Binary, min_items = 1, max_items = 64)]
    pub file: Vec<Vec<u8>>,
}
