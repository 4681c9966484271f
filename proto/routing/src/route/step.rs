//! What to do about an execution with a record when an attempt brought no answer: a pure choice. Three
//! things hold whatever is chosen: "it did not run" is said only when nothing that was sent can run any
//! more, "it is lost" only after the record says so, and neither against the record.

use proto::record::{BodyDigest, ExecutionRecord, RecordState};

/// Why there is no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// Nobody was asked so far.
    Start,
    /// Whoever was asked refused, for a reason that is the caller's to hear.
    Refused,
    /// A worker found that the record says `refused`.
    FoundRefused,
    /// The owner fell silent, or is not the owner any more.
    Silence,
    /// The same for longer than [`proto::limits::REATTACH_BUDGET`].
    LongSilence,
    /// Whoever has the execution lost its session for good.
    ExecutorGone,
    /// The caller waits no longer.
    TimeOver,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the job to wherever its session is or will be; it starts over the refused record at `seen`,
    /// 0 for none.
    Ask {
        /// Revision of that record.
        seen: u64,
    },
    /// Wait together with whoever asked before.
    Attach,
    /// Answer what the record says.
    Tell,
    /// The operation id was used for another request.
    Conflict,
    /// Write `refused` over this revision; then report why.
    Refuse {
        /// 0 for none.
        expected: u64,
    },
    /// Write `lost` over this revision; then say so.
    Lose {
        /// Revision of the running record.
        expected: u64,
    },
    /// Report why it was refused.
    Report,
    /// Report why it was refused this time; it stays in the queue and is tried again.
    Postpone,
    /// Say that its end is not known yet and can be asked for.
    Pend,
}

/// Chooses. `found` is the record and its revision; `stray` says whether some copy of the job was sent
/// that nobody answered, so that it may still be taken up.
#[must_use]
pub fn step(
    found: Option<(&ExecutionRecord, u64)>,
    digest: &BodyDigest,
    why: RetryReason,
    stray: bool,
) -> Step {
    let Some((record, revision)) = found else {
        return unclaimed(0, why, stray);
    };
    if record.digest != *digest {
        return Step::Conflict;
    }
    match record.state {
        RecordState::Refused => unclaimed(revision, why, stray),
        RecordState::Queued => match why {
            RetryReason::LongSilence | RetryReason::TimeOver => Step::Pend,
            RetryReason::Refused => Step::Postpone,
            // Whoever is asked takes it over exactly this record, or not at all.
            RetryReason::Start
            | RetryReason::FoundRefused
            | RetryReason::Silence
            | RetryReason::ExecutorGone => Step::Ask { seen: revision },
        },
        RecordState::Running => match why {
            RetryReason::ExecutorGone | RetryReason::LongSilence => {
                Step::Lose { expected: revision }
            }
            RetryReason::TimeOver => Step::Pend,
            RetryReason::Start
            | RetryReason::Refused
            | RetryReason::FoundRefused
            | RetryReason::Silence => Step::Attach,
        },
        RecordState::Succeeded
        | RecordState::Failed
        | RecordState::TimedOut
        | RecordState::Cancelled
        | RecordState::Lost
        | RecordState::Unknown => Step::Tell,
    }
}

/// Nobody has the execution: there is no record, or one that says `refused`.
fn unclaimed(revision: u64, why: RetryReason, stray: bool) -> Step {
    match why {
        RetryReason::Start
        | RetryReason::FoundRefused
        | RetryReason::Silence
        | RetryReason::ExecutorGone => Step::Ask { seen: revision },
        // A stray copy may name the very revision that is there: it is written anew.
        RetryReason::Refused | RetryReason::LongSilence | RetryReason::TimeOver if stray => {
            Step::Refuse { expected: revision }
        }
        RetryReason::Refused | RetryReason::LongSilence | RetryReason::TimeOver => Step::Report,
    }
}

#[cfg(test)]
mod tests {
    use proto::record::Stamp;

    use super::*;

    const WHYS: [RetryReason; 7] = [
        RetryReason::Start,
        RetryReason::Refused,
        RetryReason::FoundRefused,
        RetryReason::Silence,
        RetryReason::LongSilence,
        RetryReason::ExecutorGone,
        RetryReason::TimeOver,
    ];
    fn digest(digit: &str) -> BodyDigest {
        digit.repeat(64).parse().unwrap()
    }

    fn record(state: RecordState) -> ExecutionRecord {
        let stamp = Stamp {
            nonce: "n".into(),
            now_ms: 0,
        };
        ExecutionRecord::new(state, digest("0"), None, stamp)
    }

    fn choose(state: Option<RecordState>, why: RetryReason, stray: bool) -> Step {
        let record = state.map(record);
        step(
            record.as_ref().map(|record| (record, 9)),
            &digest("0"),
            why,
            stray,
        )
    }

    fn everything() -> impl Iterator<Item = (Option<RecordState>, RetryReason, bool)> {
        let states = RecordState::ALL.into_iter().map(Some).chain([None]);
        states.flat_map(|state| {
            WHYS.into_iter()
                .flat_map(move |why| [(state, why, false), (state, why, true)])
        })
    }

    fn has_ended(state: RecordState) -> bool {
        !matches!(
            state,
            RecordState::Queued | RecordState::Running | RecordState::Refused
        )
    }

    #[test]
    fn what_has_ended_is_told_whatever_happened() {
        for (state, why, stray) in everything() {
            let ended = state.is_some_and(has_ended);
            let tells = choose(state, why, stray) == Step::Tell;
            assert_eq!(tells, ended, "{state:?} {why:?} {stray}");
        }
    }

    #[test]
    fn nothing_that_may_run_is_reported_as_refused() {
        for (state, why, stray) in everything() {
            if choose(state, why, stray) == Step::Report {
                assert!(!stray, "{state:?} {why:?}");
                assert!(
                    matches!(state, None | Some(RecordState::Refused)),
                    "{why:?}"
                );
            }
        }
    }

    #[test]
    fn a_record_is_changed_only_from_what_was_seen() {
        for (state, why, stray) in everything() {
            match choose(state, why, stray) {
                Step::Refuse { expected } => {
                    let seen = match state {
                        None => 0,
                        Some(RecordState::Refused) => 9,
                        other => panic!("{other:?} is refused"),
                    };
                    assert_eq!(expected, seen);
                }
                Step::Lose { expected } => {
                    assert_eq!((state, expected), (Some(RecordState::Running), 9));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_waits_in_the_queue_is_never_refused_for_good() {
        for (why, stray) in WHYS.into_iter().flat_map(|why| [(why, false), (why, true)]) {
            let step = choose(Some(RecordState::Queued), why, stray);
            let goes_on = matches!(step, Step::Ask { seen: 9 } | Step::Postpone | Step::Pend);
            assert!(goes_on, "{why:?} {stray}: {step:?}");
        }
    }

    #[test]
    fn what_runs_is_never_sent_to_be_started() {
        for (state, why, stray) in everything() {
            if let Step::Ask { seen } = choose(state, why, stray) {
                let expected = match state {
                    None => 0,
                    Some(RecordState::Refused | RecordState::Queued) => 9,
                    other => panic!("{other:?} is asked for anew"),
                };
                assert_eq!(seen, expected);
            }
        }
    }

    #[test]
    fn whoever_waits_no_longer_gets_an_end() {
        for (state, _, stray) in everything() {
            for why in [RetryReason::TimeOver, RetryReason::LongSilence] {
                let step = choose(state, why, stray);
                let ends = !matches!(step, Step::Ask { .. } | Step::Attach);
                assert!(ends, "{state:?} {why:?} {stray}: {step:?}");
            }
        }
    }

    #[test]
    fn another_request_is_a_conflict_whatever_happened() {
        for (state, why, stray) in everything() {
            let Some(record) = state.map(record) else {
                continue;
            };
            let step = step(Some((&record, 9)), &digest("1"), why, stray);
            assert_eq!(step, Step::Conflict);
        }
    }

    #[test]
    fn a_running_execution_is_lost_only_with_its_executor_or_after_long_silence() {
        for why in WHYS {
            let lost = choose(Some(RecordState::Running), why, true) == Step::Lose { expected: 9 };
            let may = matches!(why, RetryReason::ExecutorGone | RetryReason::LongSilence);
            assert_eq!(lost, may, "{why:?}");
        }
    }
}
