//! `POST executions`: runs a cell, or a command where the pool runs a shell.

use axum::{Extension, Json, body::Body, extract::State, response::IntoResponse};
use proto::{
    execution::{Language, Outcome},
    id::{Identifier, OperationId},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{
        body::Wishes,
        execution::{self, Ran},
        front::Caller,
        outcome, query,
        result::CellResult,
    },
    app::App,
    error::ApiError,
};

/// `POST executions`
pub async fn execute(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    if !caller.query.is_since(query::SHELL)? {
        caller.refuse_shell()?;
    }
    let Ran {
        identifier,
        outcome,
        wishes,
        headers,
    } = execution::run(&app, &caller, body).await?;
    let resource = match caller.language() {
        Language::Shell => Resource::of_command(&outcome, wishes),
        Language::Python | Language::Unknown => Resource::of_cell(&outcome, wishes),
    };
    let execution = Execution {
        id: &caller.operation,
        identifier: &identifier,
        execution_type: "Synchronous",
        resource,
    };
    Ok((headers, Json(execution).into_response()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Execution<'a> {
    id: &'a OperationId,
    identifier: &'a Identifier,
    execution_type: &'static str,
    #[serde(flatten)]
    resource: Resource,
}

/// How it ended and what it left.
#[derive(Serialize)]
struct Resource {
    status: String,
    result: Left,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    stdout: String,
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_result: Option<Shown>,
    execution_time_in_milliseconds: u64,
}

/// `executionResult`.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    One(CellResult),
    AllForms(Value),
}

impl Resource {
    fn of_cell(outcome: &Outcome, wishes: Wishes) -> Self {
        let status = if outcome.ending.succeeded() {
            "Succeeded"
        } else {
            "Failed"
        };
        let shown = if wishes.all_forms {
            Shown::AllForms(CellResult::all_forms(outcome))
        } else {
            Shown::One(CellResult::of(outcome))
        };
        Self {
            status: status.to_owned(),
            result: Left::new(outcome, outcome.ending.explanation(), Some(shown), wishes),
        }
    }

    /// A command's status is its exit status, as text.
    fn of_command(outcome: &Outcome, wishes: Wishes) -> Self {
        let explanation = outcome.ending.explanation_of_command();
        Self {
            status: outcome.ending.exit_status().to_string(),
            result: Left::new(outcome, explanation, None, wishes),
        }
    }
}

impl Left {
    fn new(
        outcome: &Outcome,
        explanation: Option<String>,
        execution_result: Option<Shown>,
        wishes: Wishes,
    ) -> Self {
        let mut stdout = outcome.stdout.clone();
        let mut stderr = outcome::stderr(outcome, explanation);
        if let Some(most) = wishes.stream_characters {
            cut_end(&mut stdout, most);
            // Why code failed stands at the end.
            if outcome.ending.succeeded() {
                cut_end(&mut stderr, most);
            } else {
                cut_start(&mut stderr, most);
            }
        }
        Self {
            stdout,
            stderr,
            execution_result,
            execution_time_in_milliseconds: outcome.duration_ms,
        }
    }
}

fn cut_end(text: &mut String, most: usize) {
    if let Some((at, _)) = text.char_indices().nth(most) {
        text.truncate(at);
    }
}

fn cut_start(text: &mut String, most: usize) {
    let excess = text.chars().count().saturating_sub(most);
    if let Some((at, _)) = text.char_indices().nth(excess) {
        text.drain(..at);
    } else {
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::execution::{Bundle, Durability, Ending};
    use serde_json::json;

    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        Outcome {
            ending,
            stdout: "out".into(),
            stderr: "err".into(),
            displays: vec![],
            result: Some(Bundle(vec![("text/plain".into(), "42".into())])),
            duration_ms: 8,
            durability: Durability::Durable,
            moved: None,
            incarnation: None,
        }
    }

    fn told(resource: Resource) -> Value {
        let execution = Execution {
            id: &"op-1".parse().unwrap(),
            identifier: &"user-1".parse().unwrap(),
            execution_type: "Synchronous",
            resource,
        };
        serde_json::to_value(execution).unwrap()
    }

    #[test]
    fn a_cell_is_answered_flat() {
        let ran = outcome(Ending::Succeeded);
        let expected = json!({
            "id": "op-1", "identifier": "user-1", "executionType": "Synchronous",
            "status": "Succeeded", "result": { "stdout": "out", "stderr": "err",
                "executionResult": 42, "executionTimeInMilliseconds": 8 } });
        assert_eq!(told(Resource::of_cell(&ran, Wishes::default())), expected);
        let forms = Wishes {
            all_forms: true,
            ..Wishes::default()
        };
        let told = told(Resource::of_cell(&ran, forms));
        assert_eq!(
            told["result"]["executionResult"],
            json!({ "text/plain": "42" })
        );
    }

    #[test]
    fn a_command_has_its_exit_status_as_text_and_no_result() {
        let ran = outcome(Ending::Exited { status: 3 });
        let told = told(Resource::of_command(&ran, Wishes::default()));
        let result = json!({ "stdout": "out", "stderr": "err", "executionTimeInMilliseconds": 8 });
        assert_eq!((&told["status"], &told["result"]), (&json!("3"), &result));
    }

    #[test]
    fn streams_are_as_long_as_wished_and_keep_why_code_failed() {
        let wishes = Wishes {
            stream_characters: Some(2),
            ..Wishes::default()
        };
        let of = |ending| Resource::of_cell(&outcome(ending), wishes).result;
        let left = of(Ending::Succeeded);
        assert_eq!((left.stdout.as_str(), left.stderr.as_str()), ("ou", "er"));
        assert_eq!(
            of(Ending::Raised {
                name: "E".into(),
                message: "m".into(),
                traceback: "E: m".into(),
            })
            .stderr,
            " m"
        );
    }

    proptest! {
        #[test]
        fn cut_texts_are_parts_of_the_whole(text in "\\PC{0,20}", most in 0..25_usize) {
            let (mut start, mut end) = (text.clone(), text.clone());
            cut_end(&mut start, most);
            cut_start(&mut end, most);
            let kept = text.chars().count().min(most);
            prop_assert!(text.starts_with(&start) && text.ends_with(&end));
            prop_assert_eq!((start.chars().count(), end.chars().count()), (kept, kept));
        }
    }
}
