//! Generated histories: clean ones of a correct system, and the same with something planted.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{
    super::Slots,
    system::{history, moves},
    *,
};
use crate::chaos::history::{Effect, LOG};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No false alarm, whatever was lost, repeated, taken over or seen before it was durable.
    #[test]
    fn a_correct_system_is_never_accused(moves in moves()) {
        let found = check(&history(&moves));
        let told: String = found.iter().map(|violation| format!("{violation}\n")).collect();
        prop_assert!(found.is_empty(), "{}", told);
    }

    /// Whatever is planted into a clean history is found.
    #[test]
    fn what_is_planted_is_found(moves in moves(), choice in any::<usize>()) {
        let clean = history(&moves);
        for (kind, plant) in PLANTS {
            let mut planted = clean.clone();
            if plant(&mut planted, choice).is_some() {
                prop_assert!(kinds(&planted).contains(kind), "{:?} is not found", kind);
            }
        }
    }
}

/// Changes a history so that it proves a violation, if there is a place for it.
type Plant = fn(&mut Evidence, usize) -> Option<()>;

const PLANTS: &[(Kind, Plant)] = &[
    (Kind::RanTwice, started_again),
    (Kind::RanTwice, appended_again),
    (Kind::RefusedButDone, refused_after_all),
    (Kind::SucceededUnstarted, not_noted),
    (Kind::LostBytes, line_lost),
    (Kind::LostBytes, file_lost),
    (Kind::ForeignBytes, line_from_elsewhere),
    (Kind::TwoOwners, another_owner),
    (Kind::TooManySlots, one_slot_more),
    (Kind::WrongVariables, number_forgotten),
    (Kind::NotRecovered, never_answered),
];

/// One of these.
fn pick<T>(things: Vec<T>, choice: usize) -> Option<T> {
    let place = choice.checked_rem(things.len())?;
    things.into_iter().nth(place)
}

/// Places of the calls that are as wanted.
fn calls(evidence: &Evidence, wanted: impl Fn(&Call) -> bool) -> Vec<usize> {
    let calls = evidence.calls.iter().enumerate();
    calls
        .filter(|(_, call)| wanted(call))
        .map(|(place, _)| place)
        .collect()
}

fn succeeded(call: &Call) -> bool {
    matches!(call.action, Action::Append(_)) && call.effect() == Effect::Yes
}

/// The log as it was downloaded in the end.
fn last_log(evidence: &mut Evidence) -> Option<&mut Vec<u32>> {
    let calls = evidence.calls.iter_mut().filter(|call| call.last);
    calls
        .filter_map(|call| match &mut call.reply.as_mut()?.answer {
            Answer::Lines(log) => Some(log),
            _ => None,
        })
        .last()
}

fn started_again(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let mut again = pick(evidence.starts.clone(), choice)?;
    again.worker = "w-9-run".parse().ok()?;
    again.epoch = again.epoch.next();
    evidence.starts.push(again);
    Some(())
}

fn appended_again(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let log = last_log(evidence)?;
    let again = pick(log.clone(), choice)?;
    log.push(again);
    Some(())
}

fn refused_after_all(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let place = pick(calls(evidence, succeeded), choice)?;
    let operation = evidence.calls[place].operation;
    for call in evidence
        .calls
        .iter_mut()
        .filter(|call| call.operation == operation)
    {
        call.reply
            .get_or_insert_with(|| Reply {
                at_us: u64::MAX,
                answer: lost(),
                id: None,
            })
            .answer = refused();
    }
    Some(())
}

fn not_noted(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let place = pick(calls(evidence, succeeded), choice)?;
    let id = evidence.calls[place].id()?.to_owned();
    evidence
        .starts
        .retain(|start| start.operation.as_str() != id);
    Some(())
}

fn line_lost(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let place = pick(calls(evidence, succeeded), choice)?;
    let Action::Append(number) = evidence.calls[place].action else {
        return None;
    };
    last_log(evidence)?.retain(|line| *line != number);
    Some(())
}

/// A file that was stored, and that nobody ever asked to remove, is missing in the end.
fn file_lost(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let stored = calls(
        evidence,
        |call| matches!(&call.action, Action::Upload(path, _) if call.effect() == Effect::Yes && !removed(evidence, path)),
    );
    let Action::Upload(path, _) = evidence.calls[pick(stored, choice)?].action.clone() else {
        return None;
    };
    let last = evidence
        .calls
        .iter_mut()
        .rfind(|call| call.action == Action::Download(path.clone()))?;
    last.reply.as_mut()?.answer = Answer::Missing;
    Some(())
}

fn removed(evidence: &Evidence, path: &str) -> bool {
    evidence
        .calls
        .iter()
        .any(|call| call.action == Action::Delete(path.to_owned()))
}

fn line_from_elsewhere(evidence: &mut Evidence, _: usize) -> Option<()> {
    last_log(evidence)?.push(1_000_000);
    Some(())
}

fn another_owner(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let mut owner = pick(evidence.owners.clone(), choice)?;
    owner.worker = "w-9-run".parse().ok()?;
    evidence.owners.push(owner);
    Some(())
}

fn one_slot_more(evidence: &mut Evidence, _: usize) -> Option<()> {
    evidence.slots.push(Slots {
        pool: "python".to_owned(),
        live: 2,
        max: 1,
        at_us: 1,
    });
    Some(())
}

/// A number between others vanishes from the variable although it succeeded.
fn number_forgotten(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let known: BTreeSet<u32> = evidence
        .calls
        .iter()
        .filter_map(|call| match call.action {
            Action::Append(number) if succeeded(call) => Some(number),
            _ => None,
        })
        .collect();
    let trails =
        evidence
            .calls
            .iter_mut()
            .filter_map(|call| match &mut call.reply.as_mut()?.answer {
                Answer::Shown { trail, .. } if trail.len() > 2 && known.contains(&trail[1]) => {
                    Some(trail)
                }
                _ => None,
            });
    pick(trails.collect(), choice)?.remove(1);
    Some(())
}

fn never_answered(evidence: &mut Evidence, choice: usize) -> Option<()> {
    let place = pick(calls(evidence, |call| call.last), choice)?;
    evidence.calls[place].reply = None;
    Some(())
}

/// The generated histories are rich enough for everything that is planted into them.
#[test]
fn every_plant_finds_a_place() {
    let mut runner = TestRunner::deterministic();
    let histories: Vec<Evidence> = (0..400)
        .map(|_| history(&moves().new_tree(&mut runner).unwrap().current()))
        .collect();
    for (kind, plant) in PLANTS {
        let places = histories
            .iter()
            .cloned()
            .filter_map(|mut clean| plant(&mut clean, 7));
        assert!(places.count() > 10, "{kind:?}");
    }
}

/// The log is downloaded as any other file.
#[test]
fn the_last_questions_ask_for_the_log() {
    let evidence = history(&[]);
    assert!(
        evidence
            .calls
            .iter()
            .any(|call| call.action == Action::Download(LOG.to_owned()))
    );
}
