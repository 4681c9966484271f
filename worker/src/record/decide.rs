//! What a session does with an execution that has a record already: a pure choice.

use proto::record::{ExecutionRecord, Holder, RecordRef, RecordState};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Refuse: the operation id was used for another request.
    Conflict,
    /// Take it, over exactly this revision of the record, and run it.
    Take,
    /// This very ownership has it: wait for its end together with whoever asked before.
    Attach,
    /// Whoever had it lost the session to this ownership: say so in the record, once this ownership is
    /// made sure of.
    Lose,
    /// A later ownership has it, so this one is over.
    NotOwner,
    /// Refuse: it was refused, and this job is not one that starts it over.
    Refused,
    /// It has ended: answer what the record says.
    Tell,
}

/// Chooses for the ownership `ours` what to do about `asked` when the record is `record`, at `revision`.
#[must_use]
pub fn decide(
    record: &ExecutionRecord,
    revision: u64,
    asked: &RecordRef,
    ours: &Holder,
) -> Decision {
    if record.digest != asked.digest {
        return Decision::Conflict;
    }
    match record.state {
        RecordState::Queued => Decision::Take,
        RecordState::Running => running(record.place.as_ref(), ours),
        RecordState::Refused if asked.seen == revision => Decision::Take,
        RecordState::Refused => Decision::Refused,
        RecordState::Succeeded
        | RecordState::Failed
        | RecordState::TimedOut
        | RecordState::Cancelled
        | RecordState::Lost
        | RecordState::Unknown => Decision::Tell,
    }
}

fn running(theirs: Option<&Holder>, ours: &Holder) -> Decision {
    let Some(theirs) = theirs else {
        return Decision::Lose;
    };
    if theirs == ours {
        return Decision::Attach;
    }
    // Epochs order the owners of one life of a session only. Of two lives this ownership's is the
    // later one if it still is an ownership, which is made sure of before anything is written.
    if theirs.incarnation == ours.incarnation && theirs.epoch >= ours.epoch {
        return Decision::NotOwner;
    }
    Decision::Lose
}

#[cfg(test)]
mod tests {
    use proto::{
        id::{Epoch, Incarnation},
        record::Stamp,
    };
    use ulid::Ulid;

    use super::*;

    fn place(worker: &str, epoch: u32, incarnation: u128) -> Holder {
        Holder {
            worker: worker.parse().unwrap(),
            epoch: (0..epoch).fold(Epoch::default(), |epoch, _| epoch.next()),
            incarnation: Incarnation::from_ulid(Ulid(incarnation)),
        }
    }

    fn asked(digit: &str, seen: u64) -> RecordRef {
        RecordRef {
            key: "a".repeat(26).parse().unwrap(),
            digest: digit.repeat(64).parse().unwrap(),
            seen,
            submission: None,
        }
    }

    fn record(state: RecordState, place: Option<Holder>) -> ExecutionRecord {
        let stamp = Stamp {
            nonce: "n".into(),
            now_ms: 0,
        };
        ExecutionRecord::new(state, asked("0", 0).digest, place, stamp)
    }

    #[test]
    fn every_state_has_its_decision() {
        let (ours, revision) = (place("w-1", 2, 7), 9);
        for state in RecordState::ALL {
            for seen in [0, 8, 9] {
                for theirs in [None, Some(ours.clone())] {
                    let has_place = theirs.is_some();
                    let record = record(state, theirs);
                    let expected = match state {
                        RecordState::Queued => Decision::Take,
                        RecordState::Running if has_place => Decision::Attach,
                        RecordState::Running => Decision::Lose,
                        RecordState::Refused if seen == 9 => Decision::Take,
                        RecordState::Refused => Decision::Refused,
                        _ => Decision::Tell,
                    };
                    let decision = decide(&record, revision, &asked("0", seen), &ours);
                    assert_eq!(decision, expected, "{state:?} {seen} {has_place}");
                }
            }
        }
    }

    #[test]
    fn another_request_under_the_same_id_is_a_conflict_in_every_state() {
        let ours = place("w-1", 2, 7);
        for state in RecordState::ALL {
            let record = record(state, Some(ours.clone()));
            let decision = decide(&record, 9, &asked("1", 9), &ours);
            assert_eq!(decision, Decision::Conflict, "{state:?}");
        }
    }

    #[test]
    fn what_runs_elsewhere_is_lost_unless_its_owner_is_the_later_one() {
        let ours = place("w-1", 2, 7);
        let table = [
            // (worker, epoch, incarnation) of whoever has it
            (place("w-1", 2, 7), Decision::Attach),
            (place("w-0", 1, 7), Decision::Lose),
            (place("w-1", 1, 7), Decision::Lose),
            (place("w-0", 3, 7), Decision::NotOwner),
            (place("w-1", 3, 7), Decision::NotOwner),
            // Two owners in one epoch cannot be; if they are, this one stands back.
            (place("w-0", 2, 7), Decision::NotOwner),
            // Another life of the session.
            (place("w-0", 1, 6), Decision::Lose),
            (place("w-0", 9, 6), Decision::Lose),
            (place("w-1", 2, 8), Decision::Lose),
        ];
        for (theirs, expected) in table {
            let record = record(RecordState::Running, Some(theirs.clone()));
            let decision = decide(&record, 9, &asked("0", 0), &ours);
            assert_eq!(decision, expected, "{theirs:?}");
        }
    }
}
