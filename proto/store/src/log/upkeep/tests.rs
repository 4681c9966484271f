use super::*;
use crate::{
    log::commit::{Change, Node},
    tests::generate::{epoch, file, path},
};

const OWN: u64 = 5;

/// A tree that needs the pack of commit 1 and the blob `4-live`.
fn manifest() -> Manifest {
    let mut manifest = Manifest::default();
    let blob = Source::Blob("4-live".into());
    let changes = [
        Change::Put(path("a"), Node::File(file(b"a", Source::Pack(Seq(1)), 0))),
        Change::Put(path("b"), Node::File(file(b"b", blob, 0))),
    ];
    manifest.apply(Seq(9), &changes);
    manifest
}

fn dead(source: Source, since_ms: Option<u64>) -> Dead {
    Dead { source, since_ms }
}

fn blob(name: &str) -> Source {
    Source::Blob(name.to_owned())
}

fn condemned(base: &Base, released: &[&str], listed: &[(&str, u64)]) -> Vec<Dead> {
    let listed: Vec<Listed> = listed
        .iter()
        .map(|(name, written_ms)| Listed {
            name: (*name).to_owned(),
            written_ms: *written_ms,
        })
        .collect();
    Condemning {
        epoch: epoch(OWN),
        manifest: &manifest(),
        base,
        released: &released.iter().map(|name| blob(name)).collect(),
        spared: Some("4-variables"),
    }
    .dead(&listed)
}

#[test]
fn what_is_needed_or_may_be_is_not_dead() {
    let base = Base {
        packs: vec![Seq(1)],
        ..Base::default()
    };
    let hour = 3_600_000;
    let listed = [
        ("4-live", 0),
        ("4-variables", 0),
        // Not used yet, by this writer or by one that comes after it.
        ("5-fresh", hour),
        ("5-slow", 1),
        ("6-of-an-owner-to-come", 0),
        ("foreign", 0),
    ];
    assert_eq!(condemned(&base, &[], &listed), []);
}

#[test]
fn what_no_commit_can_point_to_any_more_is_dead() {
    let base = Base {
        packs: vec![Seq(1), Seq(2)],
        ..Base::default()
    };
    let hour = 3_600_000;
    let listed = [
        ("4-live", 0),
        ("4-left-by-a-crash", 0),
        ("5-released", hour),
        ("5-of-a-failed-commit", 0),
        ("5-fresh", hour),
    ];
    assert_eq!(
        condemned(&base, &["5-released"], &listed),
        [
            dead(Source::Pack(Seq(2)), None),
            dead(blob("4-left-by-a-crash"), None),
            dead(blob("5-released"), None),
            dead(blob("5-of-a-failed-commit"), None),
        ]
    );
}

#[test]
fn the_dead_keep_the_time_of_the_checkpoint_that_said_so_first() {
    let base = Base {
        packs: vec![Seq(2), Seq(3)],
        dead: vec![
            dead(Source::Pack(Seq(2)), None),
            dead(Source::Pack(Seq(3)), Some(100)),
            dead(blob("5-dead"), None),
            dead(blob("4-deleted"), Some(100)),
        ],
        written_ms: Some(7000),
        seq: Seq(64),
    };
    assert_eq!(
        condemned(&base, &[], &[("5-dead", 10)]),
        [
            dead(Source::Pack(Seq(2)), Some(7000)),
            dead(Source::Pack(Seq(3)), Some(100)),
            dead(blob("5-dead"), Some(7000)),
        ]
    );
}

#[test]
fn the_dead_are_kept_for_the_grace_after_they_were_declared() {
    let grace = u64::try_from(limits::DEAD_GRACE.as_millis()).unwrap();
    let list = [
        dead(blob("1-undeclared"), None),
        dead(blob("1-early"), Some(1001)),
        dead(blob("1-due"), Some(1000)),
        // The store's clock was set back.
        dead(blob("1-odd"), Some(grace * 5)),
    ];
    let all: Vec<&Source> = due(&list, grace + 1000).collect();
    assert_eq!(all, [&blob("1-due")]);
}

#[test]
fn a_checkpoint_goes_when_its_successor_is_old_enough_and_the_newest_never() {
    let grace = u64::try_from(limits::DEAD_GRACE.as_millis()).unwrap();
    let old: Vec<Seq> = outdated(
        &[(Seq(1), 0), (Seq(2), 10), (Seq(3), 11), (Seq(4), 12)],
        grace + 11,
    )
    .collect();
    assert_eq!(old, [Seq(1), Seq(2)]);
    assert_eq!(outdated(&[(Seq(1), 0)], u64::MAX).count(), 0);
}
