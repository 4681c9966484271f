//! An execution in the words of the new contract: what runs, what ran, and what it left.

use proto::{
    execution::{Ending, Language, Outcome},
    fault::Fault,
    id::{Identifier, OperationId},
    record::{RecordState, Submission},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{extension::HearthAnswer, outcome, ran::Ran, request::ExecutionType, result::CellResult},
    error::{ApiError, Failure},
    executions::Execution,
    service::{Session, Wishes},
};

/// An execution.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Execution)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// Its `operation-id`.
    #[schema(value_type = String)]
    id: OperationId,
    /// Its session.
    #[schema(value_type = String)]
    identifier: Identifier,
    execution_type: ExecutionType,
    #[serde(flatten)]
    #[schema(inline)]
    resource: Resource,
    /// If the request had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hearth: Option<HearthAnswer>,
}

/// How an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ExecutionStatus)]
pub enum Status {
    /// It waits.
    NotStarted,
    /// It runs.
    Running,
    /// It ran, and did what it was asked to.
    Succeeded,
    /// It failed, or the platform did.
    Failed,
    /// It was cancelled.
    Canceled,
}

/// How it ended and what it left.
#[derive(Debug, Serialize, ToSchema)]
struct Resource {
    status: StatusOrExit,
    /// What it left, if it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    result: Option<ExecutionResult>,
    /// What the platform failed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<Failure>,
}

/// `status`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum StatusOrExit {
    Status(Status),
    Exit(ExitStatus),
}

/// The exit status of a command that ended, as text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(pattern = "^[0-9]{1,3}$")]
struct ExitStatus(String);

/// What an execution left.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExecutionResult)]
#[serde(rename_all = "camelCase")]
struct ExecutionResult {
    stdout: String,
    stderr: String,
    /// Not of a command. All forms by mime type, or null, if the request asked for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    execution_result: Option<CellResult>,
    execution_time_in_milliseconds: u64,
}

/// What was run while its caller waits.
impl From<Ran> for Answered {
    fn from(ran: Ran) -> Self {
        let (resource, hearth) = Resource::of(ran.session.language(), &ran.outcome, ran.wishes);
        Self {
            id: ran.session.operation,
            identifier: ran.session.identifier,
            execution_type: ExecutionType::Synchronous,
            resource,
            hearth,
        }
    }
}

impl Answered {
    /// What is known of it.
    #[must_use]
    pub fn as_recorded(session: Session, execution: Execution) -> Self {
        let state = execution.state;
        let submission = execution.submission.as_ref();
        let (resource, hearth) = match execution.end {
            Some(Ok(outcome)) => {
                let language = submission.map_or_else(Language::default, |one| one.language);
                let wishes = submission.map(Wishes::from).unwrap_or_default();
                Resource::of(language, &outcome, wishes)
            }
            Some(Err(fault)) => (Resource::of_failure(state, fault), None),
            None => (Resource::under_way(state), None),
        };
        Self {
            id: session.operation,
            identifier: session.identifier,
            execution_type: execution_type(submission),
            resource,
            hearth,
        }
    }
}

/// `executionType` of an execution that was asked for so.
#[must_use]
pub fn execution_type(submission: Option<&Submission>) -> ExecutionType {
    match submission.and_then(|submission| submission.queued) {
        Some(_) => ExecutionType::Asynchronous,
        None => ExecutionType::Synchronous,
    }
}

/// `status` in words.
#[must_use]
pub fn status(state: RecordState) -> Status {
    match state {
        RecordState::Queued => Status::NotStarted,
        RecordState::Running => Status::Running,
        RecordState::Succeeded => Status::Succeeded,
        RecordState::Cancelled => Status::Canceled,
        RecordState::Failed
        | RecordState::TimedOut
        | RecordState::Refused
        | RecordState::Lost
        | RecordState::Unknown => Status::Failed,
    }
}

/// A failure of the platform's that ended an execution, with whether its code may have run.
fn failure(state: RecordState, fault: Fault) -> Failure {
    let error = ApiError {
        may_have_executed: Some(state != RecordState::Refused),
        ..fault.into()
    };
    error.into_failure(None)
}

impl Resource {
    /// What code left, with what is beyond the contract if its caller wishes it.
    fn of(language: Language, outcome: &Outcome, wishes: Wishes) -> (Self, Option<HearthAnswer>) {
        let ending = &outcome.ending;
        let (status, explanation, execution_result) = match language {
            Language::Shell => (
                StatusOrExit::Exit(ExitStatus(ending.exit_status().to_string())),
                ending.explanation_of_command(),
                None,
            ),
            Language::Python | Language::Unknown => {
                let status = match ending {
                    Ending::Cancelled { .. } => Status::Canceled,
                    ending if ending.succeeded() => Status::Succeeded,
                    _ => Status::Failed,
                };
                let result = if wishes.all_forms {
                    CellResult::all_forms(outcome)
                } else {
                    CellResult::of(outcome)
                };
                let status = StatusOrExit::Status(status);
                (status, ending.explanation(), Some(result))
            }
        };
        let mut stdout = CellResult::stdout(outcome);
        let mut stderr = outcome::stderr(outcome, explanation);
        let whole = (stdout.len(), stderr.len());
        if let Some(most) = wishes.stream_characters {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            cut_end(&mut stdout, most);
            // Why code failed stands at the end.
            if ending.succeeded() {
                cut_end(&mut stderr, most);
            } else {
                cut_start(&mut stderr, most);
            }
        }
        let cut = (stdout.len() < whole.0, stderr.len() < whole.1);
        let hearth = wishes.extended.then(|| HearthAnswer::new(outcome, cut));
        let result = ExecutionResult {
            stdout,
            stderr,
            execution_result,
            execution_time_in_milliseconds: outcome.duration_ms,
        };
        let resource = Self {
            status,
            result: Some(result),
            error: None,
        };
        (resource, hearth)
    }

    /// It has no end yet.
    fn under_way(state: RecordState) -> Self {
        Self {
            status: StatusOrExit::Status(status(state)),
            result: None,
            error: None,
        }
    }

    /// The platform ended it.
    fn of_failure(state: RecordState, fault: Fault) -> Self {
        Self {
            error: Some(failure(state, fault)),
            ..Self::under_way(state)
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
    use proto::{execution::Bundle, fault::FaultCode};
    use serde_json::{Value, json};

    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        let result = Bundle(vec![("text/plain".into(), "42".into())]);
        Outcome {
            result: Some(result),
            ..outcome::tests::outcome(ending)
        }
    }

    fn cell(outcome: &Outcome, wishes: Wishes) -> Resource {
        Resource::of(Language::Python, outcome, wishes).0
    }

    fn as_json(resource: Resource) -> Value {
        let execution = Answered {
            id: "op-1".parse().unwrap(),
            identifier: "user-1".parse().unwrap(),
            execution_type: ExecutionType::Synchronous,
            resource,
            hearth: None,
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
        assert_eq!(as_json(cell(&ran, Wishes::default())), expected);
        let forms = Wishes {
            all_forms: true,
            ..Wishes::default()
        };
        let told = as_json(cell(&ran, forms));
        assert_eq!(
            told["result"]["executionResult"],
            json!({ "text/plain": "42" })
        );
    }

    #[test]
    fn what_the_platform_ended_says_whether_it_may_have_run() {
        let of = |state, fault| as_json(Resource::of_failure(state, fault));
        let lost = of(RecordState::Lost, proto::record::lost());
        let error = (&lost["status"], &lost["error"]["code"]);
        assert_eq!(error, (&json!("Failed"), &json!("ExecutionLost")));
        let may = json!({ "mayHaveExecuted": true });
        assert_eq!(lost["error"]["innererror"], may);
        let words = Fault::new(FaultCode::Refused, "refused");
        let refused = of(RecordState::Refused, words);
        let may = json!({ "mayHaveExecuted": false });
        assert_eq!(refused["error"]["innererror"], may);
        assert_eq!(refused.get("result"), None);
    }

    #[test]
    fn what_has_no_end_has_no_result() {
        for (state, expected) in [
            (RecordState::Queued, "NotStarted"),
            (RecordState::Running, "Running"),
        ] {
            let told = as_json(Resource::under_way(state));
            assert_eq!(told["status"], expected);
            assert_eq!((told.get("result"), told.get("error")), (None, None));
        }
    }

    #[test]
    fn a_command_has_its_exit_status_as_text_and_no_result() {
        let ran = outcome(Ending::Exited { status: 3 });
        let (resource, _) = Resource::of(Language::Shell, &ran, Wishes::default());
        let told = as_json(resource);
        let result = json!({ "stdout": "out", "stderr": "err", "executionTimeInMilliseconds": 8 });
        assert_eq!((&told["status"], &told["result"]), (&json!("3"), &result));
    }

    #[test]
    fn streams_are_as_long_as_wished_and_keep_why_code_failed() {
        let wishes = Wishes {
            stream_characters: Some(2),
            ..Wishes::default()
        };
        let of = |ending| cell(&outcome(ending), wishes).result.unwrap();
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
