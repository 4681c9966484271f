//! What the bus does with records, as far as anybody relies on it. Each function is one behaviour and panics if
//! the bus behaves otherwise; the model and a real nats-server pass all of them. Anything in which the two
//! differ is a bug of the model.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's way to fail"
)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use proto::{ambient::Ids, id::PoolId, subject};
use records::cas::{Described, Listed, RecordBus, StreamSpec, Write, Written};
use tokio::time::{Instant, sleep};

/// How long anything may take that happens by itself.
const WITHIN: Duration = Duration::from_secs(20);
/// Pause between two looks at something that is to happen by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A short life. The servers count in whole seconds.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(3600);

/// A bus under test, and a stream on it that no other test uses.
#[derive(Clone, Debug)]
pub struct Bench {
    bus: Arc<dyn RecordBus>,
    stream: StreamSpec,
    /// What its subjects begin with.
    prefix: String,
}

/// A test that runs.
pub type Running = BoxFuture<'static, ()>;

macro_rules! behaviours {
    ($($name:ident,)*) => {
        /// All behaviours by their names.
        pub const ALL: &[(&str, fn(Bench) -> Running)] =
            &[$((stringify!($name), |bench| Box::pin($name(bench)))),*];

        #[cfg(test)]
        mod model {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    let bench = super::Bench::new(crate::Model::default().connect(1), &super::Ids::seeded(1));
                    super::$name(bench).await;
                }
            )*
        }
    };
}

behaviours! {
    a_record_is_created_only_where_there_is_none,
    a_record_is_changed_only_over_the_revision_that_is_there,
    without_an_expectation_whatever_is_there_is_replaced,
    of_many_that_create_one_record_one_does,
    revisions_are_sequences_of_the_whole_stream_and_none_is_given_twice,
    a_refused_write_takes_no_sequence,
    a_deleted_record_is_gone_and_its_subject_is_as_if_it_never_was,
    an_old_revision_is_neither_read_nor_deleted,
    a_record_keeps_its_payload_and_the_time_of_its_write,
    a_life_ends_and_nothing_is_left_of_the_record,
    a_new_version_has_a_life_of_its_own,
    a_life_of_less_than_a_second_is_refused,
    a_record_of_a_stream_without_lives_must_not_have_one,
    records_go_when_they_are_as_old_as_their_stream_lets_them_be,
    a_stream_with_a_cap_refuses_one_more_and_changes_what_is_there,
    a_conflict_is_told_before_a_full_stream_is,
    of_many_that_fill_a_stream_no_more_succeed_than_it_has_room,
    a_cap_goes_up_at_once_and_down_no_further_than_its_records,
    a_stream_with_a_bound_refuses_what_does_not_fit,
    what_a_record_takes_is_as_described,
    a_list_has_what_matches_and_where_it_is,
    a_list_of_nothing_is_empty,
    records_are_counted_from_a_place_on,
    a_stream_is_described_by_its_records,
    a_stream_that_is_not_there_is_told_from_one_that_is_empty,
    to_open_a_stream_again_changes_nothing_in_it,
}

impl Bench {
    /// A bus with the rights of a worker.
    #[must_use]
    pub fn new(bus: Arc<dyn RecordBus>, ids: &Ids) -> Self {
        let pool: PoolId = ids.next().to_string().parse().unwrap();
        let prefix = subject::lease_wildcard(&pool);
        let stream = StreamSpec {
            name: subject::leases_stream(&pool),
            subjects: subject::leases_bucket(&pool),
            most_records: None,
            most_bytes: None,
            max_age: None,
            lives: true,
            replicas: 1,
        };
        Self {
            bus,
            stream,
            prefix: prefix.trim_end_matches('*').to_owned(),
        }
    }

    async fn open(&self) {
        self.bus.open(&self.stream).await.unwrap();
    }

    async fn capped(&mut self, most: u32) {
        self.stream.most_records = Some(most);
        self.open().await;
    }

    fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn record(&self, key: &str, expected: impl Into<Option<u64>>) -> Write {
        Write {
            subject: self.subject(key),
            payload: Bytes::from_static(b"payload"),
            expected: expected.into(),
            life: None,
        }
    }

    async fn write(&self, write: Write) -> Written {
        self.bus.write(write).await.unwrap()
    }

    /// Writes and is sure of it.
    async fn put(&self, write: Write) -> u64 {
        match self.write(write).await {
            Written::At(revision) => revision,
            refused => panic!("{refused:?}"),
        }
    }

    async fn create(&self, key: &str) -> u64 {
        self.put(self.record(key, 0)).await
    }

    async fn revision(&self, key: &str) -> Option<u64> {
        let last = self.bus.last(&self.stream.name, &self.subject(key)).await;
        last.unwrap().map(|stored| stored.sequence)
    }

    async fn delete(&self, revision: u64) -> bool {
        let deleted = self.bus.delete(&self.stream.name, revision).await;
        deleted.unwrap()
    }

    async fn list(&self, filter: &str) -> Vec<Listed> {
        let listed = self
            .bus
            .list(&self.stream.name, &self.subject(filter))
            .await;
        listed.unwrap()
    }

    async fn count(&self, filter: &str, from: u64) -> (u64, Option<u64>) {
        let counted = self
            .bus
            .count(&self.stream.name, &self.subject(filter), from)
            .await
            .unwrap();
        (
            counted.records,
            counted.oldest.map(|oldest| oldest.sequence),
        )
    }

    async fn described(&self) -> Described {
        let described = self.bus.describe(&self.stream.name).await.unwrap();
        described.unwrap()
    }

    /// Waits until a record is gone, and says how long after `since` it still was there.
    async fn gone(&self, key: &str, since: Instant) -> Duration {
        let mut seen = Duration::ZERO;
        while self.revision(key).await.is_some() {
            seen = since.elapsed();
            assert!(seen < WITHIN, "{key} is still there");
            sleep(LOOK_AGAIN).await;
        }
        seen
    }
}

/// See the name.
pub async fn a_record_is_created_only_where_there_is_none(bench: Bench) {
    bench.open().await;
    assert_eq!(bench.revision("a").await, None);
    let revision = bench.create("a").await;
    assert_eq!(bench.write(bench.record("a", 0)).await, Written::Conflict);
    assert_eq!(bench.revision("a").await, Some(revision));
    assert_eq!(
        bench.write(bench.record("b", revision)).await,
        Written::Conflict
    );
    assert_eq!(bench.revision("b").await, None);
}

/// See the name.
pub async fn a_record_is_changed_only_over_the_revision_that_is_there(bench: Bench) {
    bench.open().await;
    let first = bench.create("a").await;
    let other = bench.create("b").await;
    assert_eq!(
        bench.write(bench.record("a", other)).await,
        Written::Conflict
    );
    let second = bench.put(bench.record("a", first)).await;
    assert_eq!(
        bench.write(bench.record("a", first)).await,
        Written::Conflict
    );
    assert_eq!(
        bench.write(bench.record("a", second + 1)).await,
        Written::Conflict
    );
    assert_eq!(bench.revision("a").await, Some(second));
    assert_eq!(bench.revision("b").await, Some(other));
}

/// See the name.
pub async fn without_an_expectation_whatever_is_there_is_replaced(bench: Bench) {
    bench.open().await;
    let first = bench.put(bench.record("a", None)).await;
    let second = bench.put(bench.record("a", None)).await;
    assert!(second > first);
    assert_eq!(bench.revision("a").await, Some(second));
    assert_eq!(bench.described().await.messages, 1);
}

/// See the name.
pub async fn of_many_that_create_one_record_one_does(bench: Bench) {
    bench.open().await;
    let written = join_all((0..16).map(|_| bench.write(bench.record("a", 0)))).await;
    let conflicts = written
        .iter()
        .filter(|written| **written == Written::Conflict);
    assert_eq!(conflicts.count(), 15);
    let revision = bench.revision("a").await.unwrap();
    assert!(written.contains(&Written::At(revision)));
}

/// See the name.
pub async fn revisions_are_sequences_of_the_whole_stream_and_none_is_given_twice(bench: Bench) {
    bench.open().await;
    assert_eq!(bench.create("a").await, 1);
    assert_eq!(bench.create("b").await, 2);
    assert_eq!(bench.put(bench.record("a", 1)).await, 3);
    assert!(bench.delete(3).await);
    assert!(bench.delete(2).await);
    assert_eq!(bench.create("a").await, 4);
    assert_eq!(bench.described().await.last_sequence, 4);
}

/// See the name.
pub async fn a_refused_write_takes_no_sequence(mut bench: Bench) {
    bench.capped(1).await;
    assert_eq!(bench.create("a").await, 1);
    assert_eq!(bench.write(bench.record("a", 0)).await, Written::Conflict);
    assert_eq!(bench.write(bench.record("b", 0)).await, Written::Full);
    assert!(bench.delete(1).await);
    assert_eq!(bench.create("b").await, 2);
}

/// See the name.
pub async fn a_deleted_record_is_gone_and_its_subject_is_as_if_it_never_was(bench: Bench) {
    bench.open().await;
    let first = bench.create("a").await;
    assert!(bench.delete(first).await);
    assert!(!bench.delete(first).await);
    assert_eq!(bench.revision("a").await, None);
    let stored = bench.bus.at(&bench.stream.name, first).await.unwrap();
    assert_eq!(stored, None);
    assert_eq!(
        bench.write(bench.record("a", first)).await,
        Written::Conflict
    );
    let second = bench.create("a").await;
    assert_eq!(bench.revision("a").await, Some(second));
}

/// See the name.
pub async fn an_old_revision_is_neither_read_nor_deleted(bench: Bench) {
    bench.open().await;
    let first = bench.create("a").await;
    let second = bench.put(bench.record("a", first)).await;
    let stored = bench.bus.at(&bench.stream.name, first).await.unwrap();
    assert_eq!(stored, None);
    assert!(!bench.delete(first).await);
    assert!(!bench.delete(second + 1).await);
    assert_eq!(bench.revision("a").await, Some(second));
}

/// See the name.
pub async fn a_record_keeps_its_payload_and_the_time_of_its_write(bench: Bench) {
    bench.open().await;
    let before = bench.described().await.now;
    let write = Write {
        payload: Bytes::from_static(b"\x00\xff of any kind"),
        ..bench.record("a", 0)
    };
    let revision = bench.put(write).await;
    let after = bench.described().await.now;
    let name = &bench.stream.name;
    let last = bench.bus.last(name, &bench.subject("a")).await.unwrap();
    let at = bench.bus.at(name, revision).await.unwrap();
    assert_eq!(last, at);
    let stored = last.unwrap();
    assert_eq!(stored.sequence, revision);
    assert_eq!(&*stored.payload, b"\x00\xff of any kind");
    assert!((before..=after).contains(&stored.time));
}

/// See the name.
pub async fn a_life_ends_and_nothing_is_left_of_the_record(bench: Bench) {
    bench.open().await;
    let since = Instant::now();
    let short = Write {
        life: Some(SHORT),
        ..bench.record("a", 0)
    };
    let revision = bench.put(short).await;
    let long = Write {
        life: Some(LONG),
        ..bench.record("b", 0)
    };
    bench.put(long).await;
    let seen = bench.gone("a", since).await;
    assert!(seen + LOOK_AGAIN * 4 > SHORT, "it went after {seen:?}");
    assert!(bench.revision("b").await.is_some());
    assert_eq!(bench.described().await.messages, 1);
    assert_eq!(bench.list("*").await.len(), 1);
    assert!(!bench.delete(revision).await);
    bench.create("a").await;
}

/// See the name.
pub async fn a_new_version_has_a_life_of_its_own(bench: Bench) {
    bench.open().await;
    let since = Instant::now();
    let of = |key: &str, expected, life| Write {
        life: Some(life),
        ..bench.record(key, expected)
    };
    let longer = bench.put(of("longer", 0, SHORT)).await;
    let longer = bench.put(of("longer", longer, LONG)).await;
    let shorter = bench.put(of("shorter", 0, LONG)).await;
    bench.put(of("shorter", shorter, SHORT)).await;
    bench.gone("shorter", since).await;
    assert_eq!(bench.revision("longer").await, Some(longer));
}

/// See the name.
pub async fn a_life_of_less_than_a_second_is_refused(bench: Bench) {
    bench.open().await;
    for life in [Duration::ZERO, Duration::from_millis(900)] {
        let write = Write {
            life: Some(life),
            ..bench.record("a", 0)
        };
        bench.bus.write(write).await.unwrap_err();
        assert_eq!(bench.revision("a").await, None);
    }
}

/// See the name.
pub async fn a_record_of_a_stream_without_lives_must_not_have_one(mut bench: Bench) {
    bench.stream.lives = false;
    bench.open().await;
    let write = Write {
        life: Some(LONG),
        ..bench.record("a", 0)
    };
    bench.bus.write(write).await.unwrap_err();
    assert_eq!(bench.revision("a").await, None);
}

/// See the name.
pub async fn records_go_when_they_are_as_old_as_their_stream_lets_them_be(mut bench: Bench) {
    bench.stream.max_age = Some(SHORT);
    bench.stream.lives = false;
    bench.open().await;
    let since = Instant::now();
    bench.create("a").await;
    let seen = bench.gone("a", since).await;
    assert!(seen + LOOK_AGAIN * 4 > SHORT, "it went after {seen:?}");
    bench.create("a").await;
}

/// See the name.
pub async fn a_stream_with_a_cap_refuses_one_more_and_changes_what_is_there(mut bench: Bench) {
    bench.capped(2).await;
    let first = bench.create("a").await;
    bench.create("b").await;
    assert_eq!(bench.write(bench.record("c", 0)).await, Written::Full);
    let second = bench.put(bench.record("a", first)).await;
    assert_eq!(bench.described().await.messages, 2);
    assert!(bench.delete(second).await);
    bench.create("c").await;
}

/// See the name.
pub async fn a_conflict_is_told_before_a_full_stream_is(mut bench: Bench) {
    bench.capped(1).await;
    bench.create("a").await;
    assert_eq!(bench.write(bench.record("a", 0)).await, Written::Conflict);
    assert_eq!(bench.write(bench.record("b", 7)).await, Written::Conflict);
}

/// See the name.
pub async fn of_many_that_fill_a_stream_no_more_succeed_than_it_has_room(mut bench: Bench) {
    bench.capped(5).await;
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let written = join_all(keys.map(|key| bench.write(bench.record(key, 0)))).await;
    let full = written.iter().filter(|written| **written == Written::Full);
    assert_eq!(full.count(), 4);
    assert_eq!(bench.list("*").await.len(), 5);
}

/// See the name.
pub async fn a_cap_goes_up_at_once_and_down_no_further_than_its_records(mut bench: Bench) {
    bench.capped(1).await;
    bench.create("a").await;
    bench.capped(3).await;
    let second = bench.create("b").await;
    bench.create("c").await;
    bench.capped(1).await;
    assert_eq!(bench.list("*").await.len(), 3);
    assert_eq!(bench.write(bench.record("d", 0)).await, Written::Full);
    assert!(bench.delete(second).await);
    // Three are allowed until the stream is opened anew.
    bench.create("d").await;
    assert_eq!(bench.write(bench.record("e", 0)).await, Written::Full);
}

/// See the name.
pub async fn a_stream_with_a_bound_refuses_what_does_not_fit(mut bench: Bench) {
    bench.stream.most_bytes = Some(2000);
    bench.open().await;
    let of = |key: &str, expected, length| Write {
        payload: Bytes::from(vec![b'x'; length]),
        ..bench.record(key, expected)
    };
    let first = bench.put(of("a", 0, 800)).await;
    assert_eq!(bench.described().await.most_bytes, 2000);
    let second = bench.put(of("b", 0, 600)).await;
    assert_eq!(bench.write(of("c", 0, 600)).await, Written::Full);
    // A longer version does not fit either, a shorter one does.
    assert_eq!(bench.write(of("a", first, 1300)).await, Written::Full);
    let first = bench.put(of("a", first, 700)).await;
    assert!(bench.delete(second).await);
    // The old version counts until the new one is there.
    assert_eq!(bench.write(of("a", first, 1300)).await, Written::Full);
    bench.put(of("a", first, 1000)).await;
}

/// See the name.
pub async fn what_a_record_takes_is_as_described(bench: Bench) {
    bench.open().await;
    let name_bytes = u64::try_from(bench.subject("a").len()).unwrap();
    bench.put(bench.record("a", None)).await;
    let plain = bench.described().await.bytes;
    assert_eq!(plain, 22 + name_bytes + 7 + 8);
    let write = Write {
        life: Some(LONG),
        ..bench.record("b", 0)
    };
    bench.put(write).await;
    let headers = "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\nNats-TTL: 3600\r\n\r\n";
    let headers = u64::try_from(headers.len()).unwrap();
    let both = bench.described().await.bytes;
    assert_eq!(both - plain, plain + 4 + headers);
}

/// See the name.
pub async fn a_list_has_what_matches_and_where_it_is(bench: Bench) {
    bench.open().await;
    let before = bench.described().await.now;
    let mut wanted = BTreeSet::new();
    for key in ["a", "b", "c"] {
        wanted.insert((bench.subject(key), bench.create(key).await));
    }
    let gone = bench.create("gone").await;
    assert!(bench.delete(gone).await);
    let after = bench.described().await.now;
    let listed = bench.list("*").await;
    assert!(
        listed
            .iter()
            .all(|listed| (before..=after).contains(&listed.time))
    );
    let listed = listed
        .into_iter()
        .map(|listed| (listed.subject, listed.sequence));
    assert_eq!(listed.collect::<BTreeSet<_>>(), wanted);
    assert_eq!(bench.list(">").await.len(), 3);
    assert_eq!(bench.list("b").await.len(), 1);
}

/// See the name.
pub async fn a_list_of_nothing_is_empty(bench: Bench) {
    bench.open().await;
    assert_eq!(bench.list("*").await, []);
    bench.create("a").await;
    assert_eq!(bench.list("b").await, []);
}

/// See the name.
pub async fn records_are_counted_from_a_place_on(bench: Bench) {
    bench.open().await;
    assert_eq!(bench.count("*", 1).await, (0, None));
    for key in ["a", "b", "c", "d"] {
        bench.create(key).await;
    }
    bench.put(bench.record("a", 1)).await;
    assert_eq!(bench.count("*", 1).await, (4, Some(2)));
    assert_eq!(bench.count("*", 4).await, (2, Some(4)));
    assert_eq!(bench.count("*", 5).await, (1, Some(5)));
    assert_eq!(bench.count("*", 6).await, (0, None));
    assert_eq!(bench.count("c", 1).await, (1, Some(3)));
}

/// See the name.
pub async fn a_stream_is_described_by_its_records(bench: Bench) {
    bench.open().await;
    let empty = bench.described().await;
    assert_eq!(
        (empty.messages, empty.bytes, empty.last_sequence),
        (0, 0, 0)
    );
    assert!(empty.most_bytes <= 0);
    bench.create("a").await;
    let second = bench.create("b").await;
    assert!(bench.delete(1).await);
    let one = bench.described().await;
    assert_eq!((one.messages, one.last_sequence), (1, 2));
    assert!(one.now >= empty.now);
    let stored = bench.bus.at(&bench.stream.name, second).await.unwrap();
    assert_eq!(Some(one.first_time), stored.map(|stored| stored.time));
}

/// See the name.
pub async fn a_stream_that_is_not_there_is_told_from_one_that_is_empty(bench: Bench) {
    let (name, key) = (&bench.stream.name, bench.subject("a"));
    assert_eq!(bench.bus.describe(name).await.unwrap(), None);
    bench.bus.last(name, &key).await.unwrap_err();
    bench.bus.at(name, 1).await.unwrap_err();
    bench.bus.list(name, &key).await.unwrap_err();
    bench.bus.count(name, &key, 1).await.unwrap_err();
    bench.bus.write(bench.record("a", 0)).await.unwrap_err();
    assert!(!bench.delete(1).await);
    bench.open().await;
    assert_eq!(bench.described().await.messages, 0);
    assert_eq!(bench.revision("a").await, None);
}

/// See the name.
pub async fn to_open_a_stream_again_changes_nothing_in_it(bench: Bench) {
    bench.open().await;
    let revision = bench.create("a").await;
    bench.open().await;
    assert_eq!(bench.revision("a").await, Some(revision));
    let opened = join_all((0..4).map(|_| bench.bus.open(&bench.stream))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    assert_eq!(bench.create("b").await, revision + 1);
}
