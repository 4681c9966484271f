//! Violations written by hand, each beside the nearest history that is none.

use proto::limits;

use super::{
    super::{Kernel, Owner, Slots},
    *,
};
use crate::chaos::{content, history::LOG};

/// What is found is exactly this.
fn finds(story: &Story, kind: Kind) {
    let found = check(&story.evidence);
    let kinds: BTreeSet<_> = found.iter().map(|violation| violation.kind).collect();
    let told = found.iter().map(|violation| format!("{violation}\n"));
    assert_eq!(
        kinds,
        BTreeSet::from([kind]),
        "{}",
        told.collect::<String>()
    );
    for violation in &found {
        assert!(!violation.evidence.is_empty(), "{violation}");
    }
}

fn finds_nothing(story: &Story) {
    let found = check(&story.evidence);
    assert!(found.is_empty(), "{found:?}");
}

fn download_log(story: &mut Story, times: (u64, u64), log: &[u32]) {
    let answer = Answer::Lines(log.to_vec());
    story.file(Action::Download(LOG.to_owned()), times, answer);
}

#[test]
fn a_plain_history_is_clean() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    story.append(2, (2, 3), &[1, 2], &[1, 2]);
    story.file(upload(9), (4, 5), Answer::Done);
    story.file(download(), (6, 7), Answer::Content(9));
    let sizes = [("a.bin".to_owned(), content::size(9)), (LOG.to_owned(), 4)];
    story.file(Action::List, (8, 9), Answer::Files(sizes.into()));
    download_log(&mut story, (10, 11), &[1, 2]);
    finds_nothing(&story);
}

#[test]
fn an_execution_that_started_on_two_workers_is_found() {
    let mut story = Story::new();
    story.append(1, (0, 10), &[1], &[1]);
    story.start("w-2-run", 2, 5);
    assert!(kinds(&story.evidence).contains(&Kind::RanTwice));

    let mut story = Story::new();
    story.call(Action::Append(1), (0, 10), lost());
    story.start("w-1-run", 1, 1);
    finds_nothing(&story);
    story.start("w-2-run", 2, 5);
    finds(&story, Kind::RanTwice);
}

/// Its answer is kept with its record: lines that came in between are not in it, and not lost.
#[test]
fn a_repetition_is_told_what_its_execution_saw() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    let first = story.evidence.calls[0].clone();
    story.append(2, (2, 3), &[1, 2], &[1, 2]);
    let again = story.call(Action::Append(1), (4, 5), shown(&[1], &[1]));
    (again.operation, again.sent_id) = (first.operation, first.sent_id.clone());
    again.reply.as_mut().unwrap().id = first.sent_id;
    finds_nothing(&story);

    download_log(&mut story, (6, 7), &[1]);
    finds(&story, Kind::LostBytes);
}

#[test]
fn a_line_that_stands_twice_is_found() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    download_log(&mut story, (2, 3), &[1, 1]);
    assert!(kinds(&story.evidence).contains(&Kind::RanTwice));
}

#[test]
fn a_number_twice_in_the_variable_is_found() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1, 1]);
    finds(&story, Kind::RanTwice);
}

#[test]
fn a_refused_execution_that_started_is_found() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 10), refused());
    finds_nothing(&story);
    story.start("w-1-run", 1, 5);
    finds(&story, Kind::RefusedButDone);
}

#[test]
fn refusals_after_a_doubtful_attempt_prove_nothing() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 10), lost());
    story.start("w-1-run", 1, 5);
    let mut again = story.evidence.calls[0].clone();
    (again.number, again.sent_us) = (1, 20_000);
    again.reply.as_mut().unwrap().answer = refused();
    again.reply.as_mut().unwrap().at_us = 21_000;
    story.evidence.calls.push(again);
    download_log(&mut story, (30, 31), &[1]);
    finds_nothing(&story);
}

#[test]
fn a_refused_line_or_file_that_is_there_is_found() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 10), refused());
    download_log(&mut story, (20, 21), &[1]);
    finds(&story, Kind::RefusedButDone);

    let mut story = Story::new();
    story.file(upload(9), (0, 1), refused());
    story.file(download(), (2, 3), Answer::Content(9));
    finds(&story, Kind::RefusedButDone);
}

#[test]
fn a_success_that_no_worker_noted_is_found() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 1), shown(&[1], &[1]));
    finds(&story, Kind::SucceededUnstarted);
}

#[test]
fn an_acknowledged_line_that_is_gone_is_found() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    download_log(&mut story, (2, 3), &[]);
    finds(&story, Kind::LostBytes);
}

#[test]
fn an_unacknowledged_line_may_be_seen_and_be_gone() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    story.call(Action::Append(2), (2, 90), lost());
    story.start("w-1-run", 1, 3);
    download_log(&mut story, (4, 5), &[1, 2]);
    download_log(&mut story, (6, 7), &[1]);
    finds_nothing(&story);
}

#[test]
fn a_line_that_an_acknowledged_execution_showed_is_acknowledged() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 90), lost());
    story.start("w-1-run", 1, 1);
    story.append(2, (2, 3), &[1, 2], &[1, 2]);
    download_log(&mut story, (4, 5), &[]);
    let found = check(&story.evidence);
    assert_eq!(found.len(), 2, "{found:?}");
    finds(&story, Kind::LostBytes);
}

#[test]
fn a_line_before_which_an_acknowledged_one_is_missing_is_found() {
    let mut story = Story::new();
    story.append(1, (10, 11), &[1], &[1]);
    // Sent after the acknowledgement, seen by a download that began before it.
    story.call(Action::Append(2), (20, 90), lost());
    story.start("w-1-run", 1, 21);
    download_log(&mut story, (5, 95), &[2]);
    finds(&story, Kind::LostBytes);
}

#[test]
fn a_file_that_is_gone_or_old_is_found() {
    for left in [Answer::Missing, Answer::Content(8)] {
        let mut story = Story::new();
        story.file(upload(8), (0, 1), Answer::Done);
        story.file(upload(9), (2, 3), Answer::Done);
        story.file(download(), (4, 5), left);
        finds(&story, Kind::LostBytes);
    }
}

#[test]
fn a_list_without_an_acknowledged_file_is_found() {
    let mut story = Story::new();
    story.file(upload(9), (0, 1), Answer::Done);
    story.file(Action::List, (2, 3), Answer::Files([].into()));
    finds(&story, Kind::LostBytes);
}

#[test]
fn a_deleted_file_that_comes_back_is_found() {
    let mut story = Story::new();
    story.file(upload(9), (0, 1), Answer::Done);
    story.file(Action::Delete("a.bin".to_owned()), (2, 3), Answer::Done);
    story.file(download(), (4, 5), Answer::Missing);
    finds_nothing(&story);
    story.file(download(), (6, 7), Answer::Content(9));
    finds(&story, Kind::LostBytes);
}

#[test]
fn bytes_that_nobody_wrote_are_found() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    download_log(&mut story, (2, 3), &[1, 7]);
    finds(&story, Kind::ForeignBytes);

    let mut story = Story::new();
    story.file(download(), (0, 1), Answer::Alien("half a file".to_owned()));
    finds(&story, Kind::ForeignBytes);

    let mut story = Story::new();
    story.file(Action::Upload("b.bin".to_owned(), 9), (0, 1), Answer::Done);
    story.file(download(), (2, 3), Answer::Content(9));
    finds(&story, Kind::ForeignBytes);

    let mut story = Story::new();
    story.file(upload(9), (0, 1), Answer::Done);
    let half = content::size(9) / 2;
    story.file(
        Action::List,
        (2, 3),
        Answer::Files([("a.bin".to_owned(), half)].into()),
    );
    finds(&story, Kind::ForeignBytes);
}

#[test]
fn a_line_that_is_read_before_it_was_sent_is_found() {
    let mut story = Story::new();
    download_log(&mut story, (0, 1), &[1]);
    story.append(1, (5, 6), &[1], &[1]);
    finds(&story, Kind::ForeignBytes);
}

#[test]
fn a_log_whose_past_changes_is_found() {
    let mut story = Story::new();
    for number in [1, 2] {
        story.call(Action::Append(number), (0, 90), lost());
        story.start("w-1-run", 1, 1);
    }
    download_log(&mut story, (2, 3), &[1, 2]);
    finds_nothing(&story);
    download_log(&mut story, (4, 5), &[2, 1]);
    finds(&story, Kind::Rewritten);
}

#[test]
fn an_execution_whose_own_line_is_not_last_is_found() {
    let mut story = Story::new();
    story.call(Action::Append(2), (0, 90), lost());
    story.start("w-1-run", 1, 1);
    story.append(1, (0, 5), &[1, 2], &[1]);
    finds(&story, Kind::Rewritten);
}

#[test]
fn two_owners_of_an_epoch_are_found() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    story.call(Action::Append(2), (2, 9), lost());
    story.start("w-2-run", 1, 3);
    finds(&story, Kind::TwoOwners);
}

#[test]
fn a_lease_beside_another_owners_start_is_found() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    let owner = |worker: &str, number| Owner {
        session: key(),
        incarnation: life(),
        epoch: epoch(number),
        worker: worker.parse().unwrap(),
        at_us: 1,
    };
    story.evidence.owners = vec![owner("w-1-run", 1), owner("w-2-run", 2)];
    finds_nothing(&story);
    story.evidence.owners.push(owner("w-2-run", 1));
    finds(&story, Kind::TwoOwners);
}

#[test]
fn a_falling_epoch_of_a_worker_is_found() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 9), lost());
    story.start("w-1-run", 2, 3);
    story.call(Action::Append(2), (0, 9), lost());
    story.start("w-1-run", 1, 4);
    finds(&story, Kind::EpochFell);
}

#[test]
fn a_line_of_a_fallen_epoch_is_found() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 9), lost());
    story.start("w-1-run", 2, 3);
    story.call(Action::Append(2), (0, 9), lost());
    story.start("w-2-run", 1, 2);
    finds_nothing(&story);
    download_log(&mut story, (20, 21), &[1, 2]);
    finds(&story, Kind::EpochFell);
}

#[test]
fn a_success_of_an_execution_that_began_behind_the_fence_is_found() {
    let mut story = Story::new();
    story.call(Action::Append(1), (0, 9), lost());
    story.start("w-2-run", 2, 5);
    story.call(Action::Peek, (6, 8), shown(&[], &[]));
    story.start("w-1-run", 1, 7);
    finds(&story, Kind::FencedSuccess);
}

#[test]
fn a_success_that_the_next_owner_does_not_find_is_found() {
    let mut story = Story::new();
    // Its success is told late, when the next owner has run already.
    story.append(1, (0, 90), &[1], &[1]);
    story.call(Action::Append(2), (10, 20), shown(&[2], &[2]));
    story.start("w-2-run", 2, 15);
    finds(&story, Kind::FencedSuccess);
}

#[test]
fn a_success_that_is_told_late_is_no_violation() {
    let mut story = Story::new();
    story.append(1, (0, 90), &[1], &[1]);
    story.call(Action::Append(2), (10, 20), shown(&[1, 2], &[2]));
    story.start("w-2-run", 2, 15);
    finds_nothing(&story);
}

/// Milliseconds for which a fenced owner's code may run on.
fn grace() -> u64 {
    u64::try_from(limits::WORKER_TTL.as_millis()).unwrap()
}

#[test]
fn code_that_starts_long_after_a_takeover_is_found() {
    for (after, found) in [(grace() - 1, false), (grace() + 1, true)] {
        let mut story = Story::new();
        story.call(Action::Append(1), (0, 50_000), lost());
        story.start("w-2-run", 2, 5);
        story.call(Action::Append(2), (0, 50_000), lost());
        story.start("w-1-run", 1, 5 + after);
        match found {
            true => finds(&story, Kind::FencedCode),
            false => finds_nothing(&story),
        }
    }
}

#[test]
fn a_kernel_that_lives_long_after_a_takeover_is_found() {
    let kernel = |worker: &str, at| Kernel {
        session: SESSION.to_owned(),
        worker: worker.to_owned(),
        pid: 7,
        at_us: at * 1000,
    };
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    story.call(Action::Append(2), (10, 20), shown(&[1, 2], &[2]));
    story.start("w-2-run", 2, 15);
    let late = 16 + grace();
    story.evidence.kernels = vec![kernel("w-1", 15 + grace()), kernel("w-2", late)];
    finds_nothing(&story);
    story.evidence.kernels.push(kernel("w-1", late));
    finds(&story, Kind::FencedCode);
    // It has the session back.
    story.call(Action::Append(3), (30, 40), shown(&[1, 2, 3], &[3]));
    story.start("w-1-run2", 3, 35);
    finds_nothing(&story);
}

#[test]
fn more_slots_than_the_maximum_are_found() {
    let mut story = Story::new();
    let slots = |live| Slots {
        pool: "python".to_owned(),
        live,
        max: 4,
        at_us: 1,
    };
    story.evidence.slots = vec![slots(4)];
    finds_nothing(&story);
    story.evidence.slots.push(slots(5));
    finds(&story, Kind::TooManySlots);
}

#[test]
fn variables_of_another_state_than_the_files_are_found() {
    // Older: 2 succeeded since.
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    story.append(2, (2, 3), &[1, 2], &[1, 2]);
    story.append(3, (4, 5), &[1, 2, 3], &[1, 3]);
    finds(&story, Kind::WrongVariables);
    // Newer: the line of 2 was taken back.
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    story.call(Action::Append(2), (2, 3), lost());
    story.start("w-1-run", 1, 2);
    story.append(3, (4, 5), &[1, 3], &[1, 2, 3]);
    finds(&story, Kind::WrongVariables);
    // Lost altogether, or with one that was cut off between file and variable.
    for trail in [&[3][..], &[1, 3]] {
        let mut story = Story::new();
        story.append(1, (0, 1), &[1], &[1]);
        story.call(
            Action::Append(2),
            (2, 3),
            Answer::Failed("interrupted".to_owned()),
        );
        story.start("w-1-run", 1, 2);
        story.append(3, (4, 5), &[1, 2, 3], trail);
        finds_nothing(&story);
    }
}

#[test]
fn two_answers_of_one_operation_are_found() {
    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    let mut again = story.evidence.calls[0].clone();
    again.number = 1;
    (again.sent_us, again.reply.as_mut().unwrap().at_us) = (5_000, 6_000);
    story.evidence.calls.push(again);
    finds_nothing(&story);
    story.evidence.calls[1].reply.as_mut().unwrap().answer = shown(&[1], &[]);
    assert!(kinds(&story.evidence).contains(&Kind::OtherAnswer));

    let mut story = Story::new();
    story.append(1, (0, 1), &[1], &[1]);
    story.evidence.starts[0].operation = "other".parse().unwrap();
    story.evidence.calls[0].reply.as_mut().unwrap().id = Some("other".to_owned());
    finds(&story, Kind::OtherAnswer);
}

#[test]
fn a_last_question_without_an_answer_is_found() {
    let mut story = Story::new();
    for answer in [lost(), Answer::Missing] {
        let call = story.call(download(), (0, 1), answer);
        (call.last, call.operation) = (true, 1);
    }
    finds_nothing(&story);
    story.evidence.calls.pop();
    finds(&story, Kind::NotRecovered);
}
