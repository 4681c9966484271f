//! Records of executions: what keeps code that was started from ever being started again. An
//! execution has one if its caller named it, by the `operation-id` header, or does not wait for it; it is
//! created before the code runs and kept for [`crate::limits::RECORD_LIFE`]. Every change is a compare-and-set, and whoever loses
//! it reports the winner's outcome, never its own.

use std::time::Duration;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use hmac::Mac;
use serde::{Deserialize, Serialize};

use crate::{
    blob::Staged,
    execution::{Durability, Ending, Language, Outcome},
    fault::{Fault, FaultCode},
    id::{
        ClusterKey, Epoch, IdError, Incarnation, OperationId, PoolId, SessionKey, WorkerId, text_id,
    },
    limits,
    message::{Answer, Carried, VERSION},
    wire,
};

text_id!(
    /// Internal name of an execution in its session: 26 characters of lower-case base32. A caller's
    /// operation id never becomes a key, and a key without the session would hand one caller's
    /// output to another.
    RecordKey,
    |text| {
        let digits = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        if text.len() == 26 && text.bytes().all(digits) { Ok(()) } else { Err(IdError::RecordKey) }
    }
);

text_id!(
    /// Keyed hash of what an execution was asked to do, 64 hexadecimal digits: tells a repetition
    /// from another request under the same operation id.
    BodyDigest,
    |text| {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digits) { Ok(()) } else { Err(IdError::BodyDigest) }
    }
);

impl RecordKey {
    /// base32 of the first 16 bytes of HMAC-SHA256(cluster key, pool ‖ 0 ‖ session ‖ 0 ‖ operation).
    #[must_use]
    pub fn derive(
        key: &ClusterKey,
        pool: &PoolId,
        session: &SessionKey,
        operation: &OperationId,
    ) -> Self {
        let mut mac = key.mac();
        for part in [
            pool.as_str(),
            "\0",
            session.as_str(),
            "\0",
            operation.as_str(),
        ] {
            mac.update(part.as_bytes());
        }
        let digest = mac.finalize().into_bytes();
        let (head, _) = digest.split_at(16);
        Self(BASE32_NOPAD.encode(head).to_ascii_lowercase().into())
    }
}

impl BodyDigest {
    /// HMAC-SHA256(cluster key, `body` ‖ 0 ‖ session ‖ 0 ‖ timeout in milliseconds ‖ 0 ‖ code).
    #[must_use]
    pub fn derive(key: &ClusterKey, session: &SessionKey, timeout: Duration, code: &[u8]) -> Self {
        let mut mac = key.mac();
        let timeout = timeout.as_millis().to_string();
        for part in ["body", "\0", session.as_str(), "\0", &timeout, "\0"] {
            mac.update(part.as_bytes());
        }
        mac.update(code);
        Self(HEXLOWER.encode(&mac.finalize().into_bytes()).into())
    }
}

/// Which record an execution has, as it is told to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRef {
    /// Its name.
    pub key: RecordKey,
    /// What is asked.
    pub digest: BodyDigest,
    /// Revision of the [`RecordState::Refused`] record that this job starts over, 0 for none. A job
    /// that was refused while it lay somewhere names an older revision or none and stays refused.
    pub seen: u64,
    /// What its record tells whoever asks for it later; older peers do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<Submission>,
}

impl RecordRef {
    /// Whether the execution lies in the queue of its pool: nobody waits for it.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        let submission = self.submission.as_ref();
        submission.is_some_and(|submission| submission.queued.is_some())
    }
}

/// How an execution was asked for: what is told of it that does not follow from how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Its id as its caller knows it.
    pub operation: OperationId,
    /// What its code is written in.
    #[serde(default, skip_serializing_if = "Language::is_python")]
    pub language: Language,
    /// Characters of each stream that its caller wishes to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_characters: Option<u64>,
    /// All forms of its result are wished instead of one.
    #[serde(default)]
    pub all_forms: bool,
    /// What is told beyond the contract is wished, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extended: bool,
    /// Its caller does not wait: it lies in the queue of its pool. Nothing for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Queued>,
}

/// An execution in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// How often it may still be started again because its worker was lost while it ran.
    pub retries: u8,
}

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// It waits for a session and belongs to nobody yet.
    Queued,
    /// A session has it: it runs or waits its turn there.
    Running,
    /// It ran to its end.
    Succeeded,
    /// It ran and failed by its own doing.
    Failed,
    /// It ran for longer than it may.
    TimedOut,
    /// Its caller cancelled it, before or while it ran, or ended its session.
    Cancelled,
    /// It did not run, and no job that was sent before this was written will run it. The same
    /// operation may be asked for anew.
    Refused,
    /// Its session was lost while it ran: it may have run, and will not run again.
    Lost,
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

impl RecordState {
    /// All that there are.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Refused,
        Self::Lost,
        Self::Unknown,
    ];

    /// The state that follows from how a cell ended.
    #[must_use]
    pub fn after(ending: &Ending) -> Self {
        match ending {
            Ending::Succeeded | Ending::Exited { status: 0 } => Self::Succeeded,
            Ending::Exited { .. }
            | Ending::Raised { .. }
            | Ending::OutOfMemory
            | Ending::KernelCrashed { .. } => Self::Failed,
            Ending::TimedOut { .. } => Self::TimedOut,
            Ending::Cancelled { .. } => Self::Cancelled,
            Ending::Unknown => Self::Unknown,
        }
    }
}

/// Who has an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run of a worker.
    pub worker: WorkerId,
    /// The ownership under which it acts.
    pub epoch: Epoch,
    /// The life of the session.
    pub incarnation: Incarnation,
}

/// What an execution left, or why it left nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredOutcome {
    /// An encoded [`Outcome`] of at most [`crate::limits::RECORD_OUTCOME_BYTES`].
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The store's object that holds the same, made by [`crate::subject::result_key`].
    Object(Staged),
    /// The platform's failure that ended it.
    Fault(Fault),
}

impl StoredOutcome {
    /// A failure as a record holds it: its text is cut after [`crate::limits::RECORD_FAULT_BYTES`].
    #[must_use]
    pub fn fault(mut fault: Fault) -> Self {
        let end = fault
            .message
            .floor_char_boundary(limits::RECORD_FAULT_BYTES);
        fault.message.truncate(end);
        Self::Fault(fault)
    }
}

/// The record of one execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionRecord {
    /// [`VERSION`] of whoever wrote it.
    pub v: u16,
    /// Where it stands.
    pub state: RecordState,
    /// What was asked.
    pub digest: BodyDigest,
    /// Who has or had it; nobody before a session took it.
    pub place: Option<Holder>,
    /// Different in every version of the record: tells a writer whose acknowledgement was lost that
    /// the record is its own.
    pub nonce: String,
    /// Milliseconds since 1970 at which it was created, by its writer's clock. For people only.
    pub created_ms: u64,
    /// Milliseconds since 1970 at which this version was written, by its writer's clock. For people only.
    pub written_ms: u64,
    /// What it left; nothing before its end.
    pub outcome: Option<StoredOutcome>,
    /// How it was asked for, if its writer was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<Submission>,
}

/// Who writes a version of a record, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// A text that no other version has.
    pub nonce: String,
    /// Milliseconds since 1970 by the writer's clock.
    pub now_ms: u64,
}

impl ExecutionRecord {
    /// The first version of a record.
    #[must_use]
    pub fn new(
        state: RecordState,
        digest: BodyDigest,
        place: Option<Holder>,
        stamp: Stamp,
    ) -> Self {
        Self {
            v: VERSION,
            state,
            digest,
            place,
            nonce: stamp.nonce,
            created_ms: stamp.now_ms,
            written_ms: stamp.now_ms,
            outcome: None,
            submission: None,
        }
    }

    /// The record with how the execution was asked for.
    #[must_use]
    pub fn submitted(self, submission: Option<Submission>) -> Self {
        Self { submission, ..self }
    }

    /// Whether it lies in the queue of its pool, or did.
    #[must_use]
    pub fn queued(&self) -> Option<Queued> {
        self.submission
            .as_ref()
            .and_then(|submission| submission.queued)
    }

    /// The next version: whoever had it was lost with its session. It is lost, or waits anew if its
    /// caller wished so and it was not started too often.
    #[must_use]
    pub fn after_owner_lost(&self, stamp: Stamp) -> Self {
        match (&self.submission, self.queued()) {
            (Some(submission), Some(Queued { retries: 1.. })) => {
                let mut submission = submission.clone();
                submission.queued = submission.queued.map(|queued| Queued {
                    retries: queued.retries.saturating_sub(1),
                });
                self.waiting(stamp).submitted(Some(submission))
            }
            _ => self.followed_by(RecordState::Lost, None, stamp),
        }
    }

    /// The next version: it waits for a session and nobody has it.
    #[must_use]
    pub fn waiting(&self, stamp: Stamp) -> Self {
        Self {
            place: None,
            ..self.followed_by(RecordState::Queued, None, stamp)
        }
    }

    /// The next version: it was cancelled before it began.
    ///
    /// # Errors
    /// Its outcome cannot be encoded.
    pub fn cancelled(&self, stamp: Stamp) -> Result<Self, wire::WireError> {
        let outcome = StoredOutcome::Inline(wire::encode(&cancelled())?);
        Ok(self.followed_by(RecordState::Cancelled, Some(outcome), stamp))
    }

    /// The next version: a session takes the execution.
    #[must_use]
    pub fn taken(&self, place: Holder, stamp: Stamp) -> Self {
        Self {
            place: Some(place),
            ..self.followed_by(RecordState::Running, None, stamp)
        }
    }

    /// The next version, in another state.
    #[must_use]
    pub fn followed_by(
        &self,
        state: RecordState,
        outcome: Option<StoredOutcome>,
        stamp: Stamp,
    ) -> Self {
        Self {
            v: VERSION,
            state,
            digest: self.digest.clone(),
            place: self.place.clone(),
            nonce: stamp.nonce,
            created_ms: self.created_ms,
            written_ms: stamp.now_ms,
            outcome,
            submission: self.submission.clone(),
        }
    }

    /// What everybody is told who asks for this execution; `None` before its end.
    #[must_use]
    pub fn answer(&self) -> Option<Result<Answer, Fault>> {
        let fault = |code, words: &str| Some(Err(Fault::new(code, words)));
        match (self.state, &self.outcome) {
            (RecordState::Queued | RecordState::Running, _) => None,
            (RecordState::Refused, _) => fault(FaultCode::Refused, "the execution was refused"),
            (_, Some(StoredOutcome::Fault(said))) => Some(Err(said.clone())),
            (RecordState::Lost, _) => Some(Err(lost())),
            (RecordState::Unknown, _) => {
                let words = "the execution ended in a way that this server does not know";
                fault(FaultCode::Internal, words)
            }
            (_, Some(StoredOutcome::Inline(encoded))) => Some(
                wire::decode::<Outcome>(encoded)
                    .map(|outcome| Answer::Executed(Carried::Inline(Box::new(outcome))))
                    .map_err(|_| Fault::new(FaultCode::Internal, UNREADABLE)),
            ),
            (_, Some(StoredOutcome::Object(object))) => {
                Some(Ok(Answer::Executed(Carried::Kept(object.clone()))))
            }
            (_, None) => fault(FaultCode::Internal, UNREADABLE),
        }
    }
}

const UNREADABLE: &str = "the execution ended, but its result cannot be read";

/// What is said of an execution whose session was lost.
#[must_use]
pub fn lost() -> Fault {
    let words = "the session's worker was lost; the code may have run and will not run again";
    Fault::new(FaultCode::ExecutionLost, words)
}

/// What an execution left that was cancelled before it began.
#[must_use]
pub fn cancelled() -> Outcome {
    Outcome {
        ending: Ending::Cancelled { restarted: false },
        stdout: String::new(),
        stderr: String::new(),
        displays: vec![],
        result: None,
        duration_ms: 0,
        durability: Durability::Durable,
        moved: None,
        incarnation: None,
        details: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> ClusterKey {
        "07".repeat(32).parse().unwrap()
    }

    fn pool() -> PoolId {
        "01JDE1KZ0000000000000000PY".parse().unwrap()
    }

    fn session(letter: &str) -> SessionKey {
        letter.repeat(26).parse().unwrap()
    }

    fn record(state: RecordState, outcome: Option<StoredOutcome>) -> ExecutionRecord {
        let stamp = || Stamp {
            nonce: "n".to_owned(),
            now_ms: 1,
        };
        let digest = "0a".repeat(32).parse().unwrap();
        ExecutionRecord::new(RecordState::Running, digest, None, stamp()).followed_by(
            state,
            outcome,
            stamp(),
        )
    }

    fn code_of(answer: Option<Result<Answer, Fault>>) -> FaultCode {
        answer.unwrap().unwrap_err().code
    }

    #[test]
    fn a_key_depends_on_cluster_pool_session_and_operation() {
        let derive = |key: &ClusterKey, pool: &PoolId, session: &SessionKey, operation: &str| {
            RecordKey::derive(key, pool, session, &operation.parse().unwrap())
        };
        let one = derive(&key(), &pool(), &session("a"), "op");
        assert_eq!(one, derive(&key(), &pool(), &session("a"), "op"));
        let other_key: ClusterKey = "08".repeat(32).parse().unwrap();
        let other_pool: PoolId = "01JDE1KZ0000000000000000PX".parse().unwrap();
        assert_ne!(one, derive(&other_key, &pool(), &session("a"), "op"));
        assert_ne!(one, derive(&key(), &other_pool, &session("a"), "op"));
        assert_ne!(one, derive(&key(), &pool(), &session("b"), "op"));
        assert_ne!(one, derive(&key(), &pool(), &session("a"), "Op"));
    }

    #[test]
    fn a_digest_depends_on_code_and_timeout() {
        let digest = |seconds, code: &str| {
            let timeout = Duration::from_secs(seconds);
            BodyDigest::derive(&key(), &session("a"), timeout, code.as_bytes())
        };
        let one = digest(220, "1+1");
        assert_eq!(one, digest(220, "1+1"));
        assert_ne!(one, digest(219, "1+1"));
        assert_ne!(one, digest(220, "1+2"));
        assert_eq!(one.as_str().parse::<BodyDigest>().as_ref(), Ok(&one));
    }

    #[test]
    fn every_state_has_its_answer() {
        use RecordState::{
            Cancelled, Failed, Lost, Queued, Refused, Running, Succeeded, TimedOut, Unknown,
        };
        let said = || {
            Some(StoredOutcome::Fault(Fault::new(
                FaultCode::Stopping,
                "stopped",
            )))
        };
        let table = [
            // (state, without an outcome, with a fault)
            (Queued, None, None),
            (Running, None, None),
            (
                Succeeded,
                Some(FaultCode::Internal),
                Some(FaultCode::Stopping),
            ),
            (Failed, Some(FaultCode::Internal), Some(FaultCode::Stopping)),
            (
                TimedOut,
                Some(FaultCode::Internal),
                Some(FaultCode::Stopping),
            ),
            (
                Cancelled,
                Some(FaultCode::Internal),
                Some(FaultCode::Stopping),
            ),
            (Refused, Some(FaultCode::Refused), Some(FaultCode::Refused)),
            (
                Lost,
                Some(FaultCode::ExecutionLost),
                Some(FaultCode::Stopping),
            ),
            (
                Unknown,
                Some(FaultCode::Internal),
                Some(FaultCode::Stopping),
            ),
        ];
        for (state, bare, faulty) in table {
            let bare_answer = record(state, None).answer();
            let fault_answer = record(state, said()).answer();
            match (bare, faulty) {
                (Some(bare), Some(faulty)) => {
                    assert_eq!(code_of(bare_answer), bare, "{state:?}");
                    assert_eq!(code_of(fault_answer), faulty, "{state:?}");
                }
                _ => assert_eq!((bare_answer, fault_answer), (None, None), "{state:?}"),
            }
        }
    }

    #[test]
    fn a_stored_result_is_answered_as_it_was() {
        let outcome = Outcome {
            ending: Ending::Succeeded,
            stdout: "out".into(),
            stderr: String::new(),
            displays: vec![],
            result: None,
            duration_ms: 7,
            durability: Durability::Durable,
            moved: None,
            incarnation: None,
            details: None,
        };
        let inline = StoredOutcome::Inline(wire::encode(&outcome).unwrap());
        let answer = record(RecordState::Succeeded, Some(inline)).answer();
        let expected = Answer::Executed(Carried::Inline(Box::new(outcome)));
        assert_eq!(answer, Some(Ok(expected)));
        let object = Staged {
            key: "results/p/s/k-n".into(),
            size: 1 << 20,
        };
        let stored = Some(StoredOutcome::Object(object.clone()));
        let answer = record(RecordState::Failed, stored).answer();
        assert_eq!(answer, Some(Ok(Answer::Executed(Carried::Kept(object)))));
        let damaged = Some(StoredOutcome::Inline(vec![0xc1]));
        let answer = record(RecordState::Succeeded, damaged).answer();
        assert_eq!(code_of(answer), FaultCode::Internal);
    }

    #[test]
    fn a_lost_worker_costs_a_try_only_where_that_was_wished() {
        let stamp = || Stamp {
            nonce: "m".to_owned(),
            now_ms: 2,
        };
        let of = |queued| {
            let submission = Submission {
                operation: "op-1".parse().unwrap(),
                language: Language::Python,
                stream_characters: None,
                all_forms: false,
                extended: false,
                queued,
            };
            record(RecordState::Running, None).submitted(Some(submission))
        };
        let retries = |retries| Some(Queued { retries });
        for lost in [record(RecordState::Running, None), of(None), of(retries(0))] {
            assert_eq!(lost.after_owner_lost(stamp()).state, RecordState::Lost);
        }
        let again = of(retries(2)).after_owner_lost(stamp());
        assert_eq!(
            (again.state, again.queued()),
            (RecordState::Queued, retries(1))
        );
        assert_eq!((again.answer(), again.place.clone()), (None, None));
        let last = again.after_owner_lost(stamp()).after_owner_lost(stamp());
        assert_eq!(last.state, RecordState::Lost);
    }

    proptest! {
        #[test]
        fn keys_are_subject_tokens(operation in "[ -~]{1,128}") {
            let operation = operation.parse().unwrap();
            let key = RecordKey::derive(&key(), &pool(), &session("a"), &operation);
            prop_assert!(key.as_str().parse::<RecordKey>().is_ok());
        }
    }
}
