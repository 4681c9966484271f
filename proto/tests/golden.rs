//! The messages of the bus against committed bytes: an ingress and a worker of different versions
//! talk to each other during every upgrade. A message of an older version stays here for as long as
//! that version may run.
#![cfg(test)]

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use proto::{
    about::{About, Kernel, Software},
    blob::{Blob, Logged, Staged},
    execution::{
        Bundle, ChangedFiles, Details, Durability, Ending, Extension, Language, Moved, Outcome,
        Output, Resources, Truncated,
    },
    fault::{Fault, FaultCode},
    file::{FileEntry, FileKind},
    id::{Epoch, Identifier, Incarnation},
    inspection::{Inspection, RunningExecution, Usage},
    lease::{Lease, LeaseState, Slot, WorkerBeat},
    message::{Answer, Carried, Frame, FrameBody, Job, Placement, Recalled, Request, SessionInfo},
    record::{
        ExecutionRecord, Holder, Queued, RecordRef, RecordState, Stamp, StoredOutcome, Submission,
    },
    recovery::SealedIdentifier,
    wire,
};
use serde::{Serialize, de::DeserializeOwned};

/// Of the W3C recommendation.
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const GOLDEN: &str = include_str!("golden.json");

/// Encodings by name; each value must also come back from its own encoding.
#[derive(Default)]
struct Encoded(BTreeMap<String, String>);

impl Encoded {
    fn add<T>(&mut self, name: &str, value: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let bytes = wire::encode(value).unwrap();
        assert_eq!(&wire::decode::<T>(&bytes).unwrap(), value, "{name}");
        self.0.insert(name.to_owned(), HEXLOWER.encode(&bytes));
    }

    /// Bytes that an older peer sends: they mean `value` for as long as such a peer may run.
    fn older<T>(&mut self, name: &str, golden: &BTreeMap<String, String>, value: &T)
    where
        T: DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let text = &golden[name];
        let bytes = HEXLOWER.decode(text.as_bytes()).unwrap();
        assert_eq!(&wire::decode::<T>(&bytes).unwrap(), value, "{name}");
        self.0.insert(name.to_owned(), text.clone());
    }
}

fn job(request: Request) -> Job {
    Job {
        v: request.version(),
        operation: "operation-1".parse().unwrap(),
        pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
        session: "a".repeat(26).parse().unwrap(),
        identifier: identifier(),
        sealed: None,
        trace: None,
        budget_ms: 230_000,
        request,
    }
}

fn identifier() -> Identifier {
    "user|1".repeat(2).parse().unwrap()
}

fn execute(record: Option<RecordRef>) -> Request {
    Request::Execute {
        code: Blob::Inline(b"1+1".to_vec()),
        timeout_ms: 220_000,
        record,
        language: Language::Python,
        extension: None,
        stream: false,
    }
}

fn command() -> Request {
    Request::Execute {
        code: Blob::Inline(b"ls".to_vec()),
        timeout_ms: 220_000,
        record: None,
        language: Language::Shell,
        extension: None,
        stream: false,
    }
}

fn extended(environment: &[(&str, &str)], stream: bool) -> Request {
    let environment = environment.iter();
    let environment = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Request::Execute {
        code: Blob::Inline(b"1+1".to_vec()),
        timeout_ms: 220_000,
        record: None,
        language: Language::Python,
        extension: Some(Extension {
            environment: environment.collect(),
        }),
        stream,
    }
}

fn executions() -> Vec<(&'static str, Request)> {
    let record = |seen, submission| RecordRef {
        key: "b".repeat(26).parse().unwrap(),
        digest: digest(),
        seen,
        submission,
    };
    vec![
        ("execute", execute(None)),
        ("execute recorded", execute(Some(record(42, None)))),
        (
            "execute queued",
            execute(Some(record(0, Some(submission())))),
        ),
        ("execute command", command()),
        ("execute extended", extended(&[("A", "ž")], true)),
        ("execute with details", extended(&[], false)),
    ]
}

fn requests() -> Vec<(&'static str, Request)> {
    let path = || "dir/a b.txt".parse().unwrap();
    let staged = Staged {
        key: "staging/p/s/op-upload-n".into(),
        size: 1 << 20,
    };
    vec![
        ("interrupt", Request::Interrupt),
        (
            "recall",
            Request::Recall {
                target: "operation-0".parse().unwrap(),
            },
        ),
        (
            "credit",
            Request::Credit {
                target: "operation-0".parse().unwrap(),
                frames: 8,
                bytes: 1 << 17,
            },
        ),
        (
            "cancel",
            Request::Cancel {
                target: "operation-0".parse().unwrap(),
            },
        ),
        (
            "upload",
            Request::Upload {
                path: path(),
                content: Blob::Staged(staged),
            },
        ),
        (
            "list",
            Request::List {
                directory: "dir".parse().unwrap(),
                recursive: true,
            },
        ),
        ("stat", Request::Stat { path: path() }),
        ("download", Request::Download { path: path() }),
        ("delete", Request::Delete { path: path() }),
        ("describe", Request::Describe),
        ("inspect", Request::Inspect),
        ("stop", Request::Stop),
    ]
}

fn inspection(session: &SessionInfo) -> Inspection {
    Inspection {
        session: session.clone(),
        state: "running".into(),
        running: Some(RunningExecution {
            operation: "operation-1".parse().unwrap(),
            since_ms: 7,
            is_saving: false,
        }),
        waiting: 1,
        file_operations: 2,
        lease_renewed_ms: 3000,
        committed_ms: Some(50),
        is_unsaved: false,
        usage: Some(Usage {
            memory_bytes: 64 << 20,
            cpu_ms: 1234,
            processes: 3,
        }),
    }
}

fn outcome() -> Outcome {
    let plain = vec![("text/plain".to_owned(), "2".to_owned())];
    Outcome {
        ending: Ending::Succeeded,
        stdout: "out\n".into(),
        stderr: String::new(),
        result: Some(Bundle(plain)),
        displays: vec![Bundle(vec![("image/png".into(), "iVBORw0KGgo=".into())])],
        duration_ms: 7,
        durability: Durability::WriteBehind,
        moved: Some(Moved {
            variables: true,
            lost: vec!["f".into()],
        }),
        incarnation: None,
        details: None,
    }
}

fn outcome_of_command() -> Outcome {
    Outcome {
        ending: Ending::Exited { status: 3 },
        result: None,
        displays: vec![],
        incarnation: Some(incarnation()),
        ..outcome()
    }
}

fn outcome_with_details() -> Outcome {
    let files = ChangedFiles {
        written: vec![("dir/a b.txt".into(), 3)],
        deleted: vec!["old".into()],
        more: false,
    };
    Outcome {
        details: Some(Box::new(Details {
            files: Some(files),
            resources: Some(Resources {
                cpu_ms: Some(5),
                peak_memory_bytes: Some(1 << 20),
                peak_of_session: false,
                bytes_written: None,
            }),
            truncated: truncated(),
        })),
        ..outcome()
    }
}

fn truncated() -> Truncated {
    Truncated {
        stdout: 1,
        stderr: 0,
        displays: 2,
    }
}

fn about() -> About {
    let software = |name: &str| Software {
        name: name.into(),
        version: "1.2".into(),
    };
    About {
        runtimes: vec![software("Python")],
        packages: vec![software("numpy"), software("pandas")],
        kernel: Some(Kernel {
            name: "ipython".into(),
            version: "9.1".into(),
            project_url: "https://example.org".into(),
            description: "runs cells".into(),
        }),
    }
}

/// The same as a peer says it that knows nothing of durability and moves.
fn older_outcome() -> Outcome {
    Outcome {
        durability: Durability::Durable,
        moved: None,
        ..outcome()
    }
}

fn frames_of_extensions() -> Vec<(&'static str, FrameBody)> {
    vec![
        ("recalled nothing", FrameBody::Done(Answer::Recalled(None))),
        (
            "recalled running",
            FrameBody::Done(Answer::Recalled(Some(Recalled::Runs))),
        ),
        (
            "recalled",
            FrameBody::Done(Answer::Recalled(Some(Recalled::Ended(
                outcome_with_details().into(),
            )))),
        ),
        (
            "executed with details",
            FrameBody::Done(Answer::Executed(Carried::Inline(
                outcome_with_details().into(),
            ))),
        ),
        (
            "output stdout",
            FrameBody::Output(Output::Stdout("ž".into())),
        ),
        (
            "output stderr",
            FrameBody::Output(Output::Stderr("e".into())),
        ),
        (
            "output display",
            FrameBody::Output(Output::Display {
                part: vec![1, 2],
                last: true,
                name: None,
                update: false,
            }),
        ),
        (
            "output update",
            FrameBody::Output(Output::Display {
                part: vec![1, 2],
                last: true,
                name: Some(7),
                update: true,
            }),
        ),
        ("output cleared", FrameBody::Output(Output::Cleared)),
        (
            "output dropped",
            FrameBody::Output(Output::Dropped(truncated())),
        ),
        ("interrupted", FrameBody::Done(Answer::Interrupted(true))),
    ]
}

fn frames() -> Vec<(&'static str, FrameBody)> {
    let entry = FileEntry {
        path: "dir/a b.txt".into(),
        kind: FileKind::File,
        size: 3,
        modified_ns: 1_767_225_600_123_456_789,
    };
    let (content, logged) = (Blob::Inline(b"abc".to_vec()), entry.clone());
    let fault = Fault::new(FaultCode::SessionPoolFull, "the pool is full");
    let session = SessionInfo {
        identifier: identifier(),
        incarnation: incarnation(),
        idle_ms: 5,
        remaining_ms: 299_995,
    };
    vec![
        ("accepted", FrameBody::Accepted),
        ("heartbeat", FrameBody::Heartbeat),
        (
            "executed with files",
            FrameBody::Done(Answer::Executed(Carried::Inline(outcome().into()))),
        ),
        (
            "executed kept",
            FrameBody::Done(Answer::Executed(Carried::Kept(Staged {
                key: "results/p/s/k-n".into(),
                size: 1 << 20,
            }))),
        ),
        (
            "executed command",
            FrameBody::Done(Answer::Executed(Carried::Inline(
                outcome_of_command().into(),
            ))),
        ),
        ("about", FrameBody::Done(Answer::About(about()))),
        ("file", FrameBody::Done(Answer::File(entry.clone()))),
        (
            "many files",
            FrameBody::Done(Answer::ManyFiles(Staged {
                key: "staging/p/s/op-list-n".into(),
                size: 1 << 20,
            })),
        ),
        ("files", FrameBody::Done(Answer::Files(vec![entry.clone()]))),
        (
            "content",
            FrameBody::Done(Answer::Content { entry, content }),
        ),
        (
            "logged",
            FrameBody::Done(Answer::Logged {
                entry: logged,
                content: Logged {
                    incarnation: incarnation(),
                    file: b"file".to_vec(),
                },
            }),
        ),
        ("gone", FrameBody::Done(Answer::Gone)),
        (
            "inspection",
            FrameBody::Done(Answer::Inspection(Box::new(inspection(&session)))),
        ),
        ("session", FrameBody::Done(Answer::Session(session))),
        ("failed", FrameBody::Failed(fault)),
    ]
}

fn submission() -> Submission {
    Submission {
        operation: "operation-1".parse().unwrap(),
        language: Language::Shell,
        stream_characters: Some(4096),
        all_forms: true,
        extended: true,
        queued: Some(Queued { retries: 2 }),
    }
}

fn digest() -> proto::record::BodyDigest {
    "0a".repeat(32).parse().unwrap()
}

fn records() -> Vec<(&'static str, ExecutionRecord)> {
    let stamp = |nonce: &str, now_ms| Stamp {
        nonce: nonce.into(),
        now_ms,
    };
    let place = Holder {
        worker: "worker-1".parse().unwrap(),
        epoch: Epoch::default().next(),
        incarnation: incarnation(),
    };
    let refused = ExecutionRecord::new(RecordState::Refused, digest(), None, stamp("n-0", 7));
    let running = refused.taken(place, stamp("n-1", 8));
    let ended = |state, outcome| running.followed_by(state, Some(outcome), stamp("n-2", 9));
    let inline = StoredOutcome::Inline(wire::encode(&outcome()).unwrap());
    let object = StoredOutcome::Object(Staged {
        key: "results/p/s/k-n".into(),
        size: 1 << 20,
    });
    let fault = StoredOutcome::Fault(Fault::new(FaultCode::Stopping, "the session was stopped"));
    vec![
        ("succeeded", ended(RecordState::Succeeded, inline)),
        ("failed", ended(RecordState::Failed, object)),
        ("cancelled", ended(RecordState::Cancelled, fault)),
        ("running", running),
        ("refused", refused),
    ]
}

/// The same as a peer wrote it that knows nothing of the queue.
fn older_records() -> impl Iterator<Item = (&'static str, ExecutionRecord)> {
    let older = |(name, record)| (name, ExecutionRecord { v: 2, ..record });
    records().into_iter().map(older)
}

fn queued_record() -> ExecutionRecord {
    let stamp = Stamp {
        nonce: "n-0".into(),
        now_ms: 7,
    };
    ExecutionRecord::new(RecordState::Queued, digest(), None, stamp).submitted(Some(submission()))
}

fn incarnation() -> Incarnation {
    Incarnation::from_ulid("01JDE1KZ0000000000000000PX".parse().unwrap())
}

/// Slots, leases and beats; returns the lease.
fn what_workers_write(encoded: &mut Encoded) -> Lease {
    let worker = || "worker-1".parse().unwrap();
    encoded.add(
        "slot",
        &Slot {
            worker: worker(),
            nonce: "n".into(),
        },
    );
    let lease = Lease {
        identifier: identifier(),
        owner: worker(),
        epoch: Epoch::default().next(),
        incarnation: incarnation(),
        slot: 9,
        state: LeaseState::Vacant,
        idle_ms: 5,
    };
    encoded.add("lease with idle time", &lease);
    let beat = WorkerBeat {
        capacity: 600,
        sessions: 3,
        draining: false,
        versions: (1, 1),
        pools: None,
        accepting: None,
    };
    encoded.add("beat", &beat);
    let pools = [(job(execute(None)).pool, "0".repeat(16).parse().unwrap())];
    let telling = WorkerBeat {
        pools: Some(pools.into()),
        ..beat
    };
    encoded.add("beat with pools", &telling);
    let refusing = WorkerBeat {
        accepting: Some(false),
        ..telling
    };
    encoded.add("beat that refuses", &refusing);
    lease
}

#[test]
fn messages_are_encoded_as_ever() {
    let golden: BTreeMap<String, String> = serde_json::from_str(GOLDEN).unwrap();
    let mut encoded = Encoded::default();
    for (name, request) in executions().into_iter().chain(requests()) {
        encoded.add(&format!("job {name}"), &job(request));
    }
    for (name, body) in frames().into_iter().chain(frames_of_extensions()) {
        let frame = Frame {
            epoch: Epoch::default().next(),
            n: 2,
            body,
        };
        encoded.add(&format!("frame {name}"), &frame);
    }
    encoded.add(
        "placement",
        &Placement {
            job: job(Request::Describe),
            seen: 42,
            pool_digest: None,
        },
    );
    encoded.add(
        "placement with digest",
        &Placement {
            job: job(Request::Describe),
            seen: 42,
            pool_digest: Some("0".repeat(16).parse().unwrap()),
        },
    );
    let lease = what_workers_write(&mut encoded);
    let sealed = Job {
        sealed: Some(SealedIdentifier::new(vec![1, 2, 3])),
        ..job(execute(None))
    };
    encoded.add("job with sealed identifier", &sealed);
    let traced = Job {
        trace: Some(TRACEPARENT.parse().unwrap()),
        ..job(execute(None))
    };
    encoded.add("job with trace", &traced);
    encoded.add("record queued", &queued_record());
    for (name, record) in older_records() {
        encoded.older(&format!("record {name}"), &golden, &record);
    }
    for (name, record) in records() {
        encoded.add(&format!("record {name} of version 3"), &record);
    }
    let older_lease = Lease {
        state: LeaseState::Active,
        idle_ms: 0,
        ..lease
    };
    encoded.older("lease", &golden, &older_lease);
    let executed = Frame {
        epoch: Epoch::default().next(),
        n: 2,
        body: FrameBody::Done(Answer::Executed(Carried::Inline(older_outcome().into()))),
    };
    encoded.older("frame executed", &golden, &executed);
    let now = serde_json::to_string_pretty(&encoded.0).unwrap();
    assert_eq!(encoded.0, golden, "{now}");
}

/// Messages that an ingress or worker of 88dda0e sends, frozen.
#[test]
fn every_message_of_88dda0e_is_read() {
    let text = include_str!("../../loadtest/tests/fixtures/88dda0e/messages.json");
    let messages: BTreeMap<String, String> = serde_json::from_str(text).unwrap();
    assert!(messages.len() > 50, "{}", messages.len());
    for (name, message) in &messages {
        let bytes = HEXLOWER.decode(message.as_bytes()).unwrap();
        let (kind, _) = name.split_once(' ').unwrap_or((name, ""));
        let read = match kind {
            "job" => wire::decode::<Job>(&bytes).map(drop),
            "frame" => wire::decode::<Frame>(&bytes).map(drop),
            "placement" => wire::decode::<Placement>(&bytes).map(drop),
            "slot" => wire::decode::<Slot>(&bytes).map(drop),
            "lease" => wire::decode::<Lease>(&bytes).map(drop),
            "beat" => wire::decode::<WorkerBeat>(&bytes).map(drop),
            "record" => wire::decode::<ExecutionRecord>(&bytes).map(drop),
            other => panic!("a message of an unknown kind: {other}"),
        };
        assert!(read.is_ok(), "{name}: {read:?}");
    }
}

#[test]
fn an_older_worker_refuses_what_it_would_run_again() {
    let versions: BTreeMap<_, _> = executions()
        .into_iter()
        .chain(requests())
        .map(|(name, request)| (name, job(request).v))
        .filter(|(_, v)| *v > 1)
        .collect();
    let expected = [
        ("execute recorded", 2),
        ("execute queued", 3),
        ("execute extended", 3),
        ("interrupt", 3),
        ("recall", 3),
        ("credit", 3),
    ];
    assert_eq!(versions, BTreeMap::from(expected));
}

#[test]
fn what_a_newer_peer_adds_is_passed_over_and_what_it_asks_is_unknown() {
    #[derive(Serialize)]
    struct NewerBeat {
        capacity: u32,
        sessions: u32,
        draining: bool,
        versions: (u16, u16),
        added: &'static str,
    }
    let newer = NewerBeat {
        capacity: 1,
        sessions: 0,
        draining: true,
        versions: (1, 2),
        added: "later",
    };
    let read: WorkerBeat = wire::decode(&wire::encode(&newer).unwrap()).unwrap();
    assert!(read.draining);

    #[derive(Serialize)]
    #[serde(tag = "op", rename_all = "snake_case")]
    enum NewerRequest {
        Snapshot,
    }
    let bytes = wire::encode(&NewerRequest::Snapshot).unwrap();
    assert_eq!(wire::decode::<Request>(&bytes).unwrap(), Request::Unknown);

    let bytes = wire::encode(&"postponed").unwrap();
    let state = wire::decode::<RecordState>(&bytes).unwrap();
    assert_eq!(state, RecordState::Unknown);
}

/// What a hostile or broken peer sends is a message or an error, nothing else.
fn read_as_everything(bytes: &[u8]) {
    drop(wire::decode::<Job>(bytes));
    drop(wire::decode::<Placement>(bytes));
    drop(wire::decode::<Frame>(bytes));
    drop(wire::decode::<Outcome>(bytes));
    drop(wire::decode::<Lease>(bytes));
    drop(wire::decode::<Slot>(bytes));
    drop(wire::decode::<WorkerBeat>(bytes));
    drop(wire::decode::<ExecutionRecord>(bytes).map(|record| record.answer()));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(which in any::<usize>(), at in any::<usize>(), byte in any::<u8>()) {
        let golden: BTreeMap<String, String> = serde_json::from_str(GOLDEN).unwrap();
        let text = golden.values().nth(which % golden.len()).unwrap();
        let mut bytes = HEXLOWER.decode(text.as_bytes()).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        read_as_everything(&bytes);
        read_as_everything(&bytes[..at]);
    }
}
