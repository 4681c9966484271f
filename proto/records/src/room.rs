//! Whether a pool has room for one more record, as far as this process knows. The bus is asked now and then;
//! what this process records between two looks, it counts itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    id::PoolId,
    subject::{self, EXECUTIONS_STREAM},
};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    cas::{BusError, Count, Described, Oldest, RecordBus},
    share::{Share, Usage, fits, room_in},
};

/// A look that found room is believed for this long.
const BELIEVED_FOR: Duration = Duration::from_secs(3);
/// A look that found room is believed for so many executions.
const BELIEVED_TIMES: u64 = 64;
/// Nearer to the end of a share than this, no look is believed: other processes may have taken the rest.
const NEAR: u64 = 1024;
/// One that found none is believed for this long: room comes back by the oldest record's end alone.
const FULL_BELIEVED_FOR: Duration = Duration::from_secs(10);
/// Looks that find out when a pool has room again that has more records than its share.
const SEARCHED: usize = 12;

/// Whether a pool has room for one more record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room<T = ()> {
    /// It has.
    Left(T),
    /// Its share is full.
    Full {
        /// When there will be room again, from now on.
        retry_after: Duration,
    },
}

/// The right to add one record. Dropped when that is done, or not to be done.
#[derive(Debug)]
#[must_use = "the record counts as written when this is dropped"]
pub struct Entry(Arc<Pool>);

impl Drop for Entry {
    fn drop(&mut self) {
        let mut known = lock(&self.0.known);
        known.under_way = known.under_way.saturating_sub(1);
    }
}

/// What this process knows of all pools' room. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    bus: Arc<dyn RecordBus>,
    pools: Arc<Mutex<HashMap<PoolId, Arc<Pool>>>>,
}

/// What is known of one pool.
#[derive(Debug, Default)]
struct Pool {
    known: Mutex<Known>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
    /// Looks that failed: whoever waited for one does not wait for the next.
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    /// Records that this process was allowed to add, ever.
    admitted: u64,
    /// Those of them that may not be written yet.
    under_way: u64,
    look: Option<Look>,
}

/// One look at the bus.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// Of [`Known::admitted`], what was written for certain when it began.
    admitted_before: u64,
    /// The pool has at most so many records,
    records: u64,
    /// as long as nothing is written after this place of the stream.
    last_sequence: u64,
    /// Without room: when there will be some, counted from `at`.
    room_in: Option<Duration>,
}

/// The search for the record whose end makes room, where a pool may record less than it did: all that are older
/// go before it. Each look halves the part of the stream where it may lie.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// The pool may have so many records.
    most: u64,
    /// It is this record, or a newer one.
    from: Oldest,
    /// It lies before this place.
    before: u64,
}

impl Search {
    /// The place from which on to count next.
    fn next(&self) -> Option<u64> {
        let part = self.before.saturating_sub(self.from.sequence);
        (part > 1).then(|| self.from.sequence + part / 2)
    }

    /// So many lie from there on.
    fn found(&mut self, place: u64, count: Count) {
        match count.oldest {
            Some(oldest) if count.records >= self.most => self.from = oldest,
            _ => self.before = place,
        }
    }
}

impl Rooms {
    pub(crate) fn new(bus: Arc<dyn RecordBus>) -> Self {
        Self {
            bus,
            pools: Arc::default(),
        }
    }

    /// Whether one more record may be added; if so, it counts as added.
    ///
    /// # Errors
    /// The bus did not answer.
    pub(crate) async fn admit(&self, share: &Share) -> Result<Room<Entry>, BusError> {
        Ok(match self.ask(share, Known::admit).await? {
            Room::Left(()) => Room::Left(Entry(self.pool(&share.pool))),
            Room::Full { retry_after } => Room::Full { retry_after },
        })
    }

    /// Whether an execution would be admitted; adds none.
    ///
    /// # Errors
    /// The bus did not answer.
    pub(crate) async fn standing(&self, share: &Share) -> Result<Room, BusError> {
        self.ask(share, |known, most, age| known.standing(most, age))
            .await
    }

    async fn ask(
        &self,
        share: &Share,
        known: impl Fn(&mut Known, u64, Age) -> Option<Room>,
    ) -> Result<Room, BusError> {
        let pool = self.pool(&share.pool);
        let most = u64::from(share.most);
        let answer = |age| known(&mut lock(&pool.known), most, age);
        if let Some(room) = answer(Age::Any) {
            return Ok(room);
        }
        let failed = pool.failed.load(Ordering::Relaxed);
        let looking = pool.looking.lock().await;
        if let Some(room) = answer(Age::Any) {
            return Ok(room);
        }
        if pool.failed.load(Ordering::Relaxed) != failed {
            return Err(BusError::new("failed to count records", "no answer"));
        }
        let look = self.look(share, &pool).await.inspect_err(|_| {
            pool.failed.fetch_add(1, Ordering::Relaxed);
        })?;
        lock(&pool.known).look = Some(look);
        let room = answer(Age::New);
        drop(looking);
        // Those that are under way took the rest.
        Ok(room.unwrap_or(Room::Full {
            retry_after: BELIEVED_FOR,
        }))
    }

    /// Whether one more record may be added, by a look at the bus.
    ///
    /// # Errors
    /// The bus did not answer.
    pub(crate) async fn look_anew(&self, share: &Share) -> Result<Room, BusError> {
        let pool = self.pool(&share.pool);
        let looking = pool.looking.lock().await;
        let look = self.look(share, &pool).await?;
        lock(&pool.known).look = Some(look);
        drop(looking);
        Ok(look.room())
    }

    fn pool(&self, id: &PoolId) -> Arc<Pool> {
        let mut pools = lock(&self.pools);
        Arc::clone(pools.entry(id.clone()).or_default())
    }

    async fn look(&self, share: &Share, pool: &Pool) -> Result<Look, BusError> {
        let (admitted_before, last) = {
            let known = lock(&pool.known);
            (known.admitted.saturating_sub(known.under_way), known.look)
        };
        let Some(stream) = self.bus.describe(EXECUTIONS_STREAM).await? else {
            return Err(BusError::new("failed to count records", "no stream"));
        };
        let found = Look {
            at: Instant::now(),
            admitted_before,
            records: 0,
            last_sequence: stream.last_sequence,
            room_in: None,
        };
        if !fits(stream.bytes, stream.most_bytes) {
            return Ok(Look {
                records: u64::MAX,
                room_in: Some(room_in(Some(stream.first_time), stream.now)),
                ..found
            });
        }
        // Counting takes the server some time, so it is done only where it may matter.
        if let Some(records) = last.and_then(|last| last.at_most(stream.last_sequence))
            && records < u64::from(share.most)
        {
            return Ok(Look { records, ..found });
        }
        let count = self.count(&share.pool).await?;
        let room_in = match count.oldest {
            Some(oldest) if count.records >= u64::from(share.most) => {
                let goes = self.makes_room(share, (count.records, oldest), &stream);
                Some(room_in(Some(goes.await?), stream.now))
            }
            _ => None,
        };
        Ok(Look {
            records: count.records,
            room_in,
            ..found
        })
    }

    /// When the record was written whose end makes room, or one that goes a little earlier.
    async fn makes_room(
        &self,
        share: &Share,
        (records, oldest): (u64, Oldest),
        stream: &Described,
    ) -> Result<OffsetDateTime, BusError> {
        let mut search = Search {
            most: share.most.into(),
            from: oldest,
            before: stream.last_sequence.saturating_add(1),
        };
        if records > search.most {
            for _ in 0..SEARCHED {
                let Some(place) = search.next() else { break };
                search.found(place, self.count_from(&share.pool, place).await?);
            }
        }
        Ok(search.from.written)
    }

    /// What is in the stream, or nothing if there is none.
    ///
    /// # Errors
    /// The bus did not answer.
    pub(crate) async fn usage(&self, shares: &[Share]) -> Result<Option<Usage>, BusError> {
        let Some(stream) = self.bus.describe(EXECUTIONS_STREAM).await? else {
            return Ok(None);
        };
        let mut records = vec![];
        for share in shares {
            records.push(self.count(&share.pool).await?.records);
        }
        Ok(Some(Usage {
            bytes: stream.bytes,
            messages: stream.messages,
            records,
        }))
    }

    /// Counts the records of a pool.
    async fn count(&self, pool: &PoolId) -> Result<Count, BusError> {
        self.count_from(pool, 1).await
    }

    /// Counts the records of a pool from this place of the stream on.
    async fn count_from(&self, pool: &PoolId, place: u64) -> Result<Count, BusError> {
        let records = subject::executions_of_pool(pool);
        self.bus.count(EXECUTIONS_STREAM, &records, place).await
    }
}

/// Which looks answer a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// One that is believed still.
    Any,
    /// The one that was made for it.
    New,
}

impl Known {
    fn admit(&mut self, most: u64, age: Age) -> Option<Room> {
        let room = self.standing(most, age)?;
        if room == Room::Left(()) {
            self.admitted += 1;
            self.under_way += 1;
        }
        Some(room)
    }

    fn standing(&self, most: u64, age: Age) -> Option<Room> {
        let look = self.look?;
        let passed = look.at.elapsed();
        if let Some(room_in) = look.room_in {
            let believed = age == Age::New || passed < FULL_BELIEVED_FOR.min(room_in);
            return believed.then(|| Room::Full {
                retry_after: room_in.saturating_sub(passed),
            });
        }
        let since = self.admitted.saturating_sub(look.admitted_before);
        let records = look.records.saturating_add(since);
        let believed =
            passed < BELIEVED_FOR && since < BELIEVED_TIMES && records.saturating_add(NEAR) < most;
        let left = records < most;
        (left && (believed || age == Age::New)).then_some(Room::Left(()))
    }
}

impl Look {
    /// What it found.
    fn room(&self) -> Room {
        match self.room_in {
            Some(retry_after) => Room::Full { retry_after },
            None => Room::Left(()),
        }
    }

    /// The most records that there can be when the stream has got to this place: each needs a write.
    fn at_most(&self, last_sequence: u64) -> Option<u64> {
        let written = last_sequence.checked_sub(self.last_sequence)?;
        self.records.checked_add(written)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(records: u64, room_in: Option<Duration>) -> Known {
        Known {
            admitted: 5,
            under_way: 0,
            look: Some(Look {
                at: Instant::now(),
                admitted_before: 5,
                records,
                last_sequence: 100,
                room_in,
            }),
        }
    }

    /// How many are let in by one look.
    fn admitted(known: &mut Known, most: u64, age: Age) -> usize {
        let times = 0..200;
        times
            .filter_map(|_| known.admit(most, age))
            .filter(|room| *room == Room::Left(()))
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_believed_for_a_while_and_so_many_times() {
        assert_eq!(admitted(&mut known(0, None), 10_000, Age::Any), 64);
        let mut stale = known(0, None);
        tokio::time::advance(BELIEVED_FOR).await;
        assert_eq!(stale.admit(10_000, Age::Any), None);
        assert_eq!(stale.admit(10_000, Age::New), Some(Room::Left(())));
        assert_eq!(Known::default().admit(10_000, Age::Any), None);
    }

    #[tokio::test(start_paused = true)]
    async fn near_its_end_a_share_is_looked_at_for_every_record() {
        let near = 10_000 - NEAR;
        assert_eq!(admitted(&mut known(near - 5, None), 10_000, Age::Any), 5);
        assert_eq!(admitted(&mut known(0, None), NEAR, Age::Any), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_counts_though_a_look_did_not_see_it() {
        let mut known = known(90, None);
        assert_eq!(admitted(&mut known, 100, Age::New), 10);
        let counted = Look {
            admitted_before: known.admitted - known.under_way,
            ..known.look.unwrap()
        };
        known.look = Some(counted);
        assert_eq!(known.admit(100, Age::New), None);
        // Now all ten are written, and were not seen: the count is older than they are.
        known.under_way = 0;
        assert_eq!(known.admit(100, Age::New), None);
        assert_eq!(known.admit(101, Age::New), Some(Room::Left(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_share_says_when_it_has_room() {
        let hour = Duration::from_secs(3600);
        let mut full = known(100, Some(hour));
        let after = |passed| {
            Some(Room::Full {
                retry_after: hour - passed,
            })
        };
        assert_eq!(full.admit(100, Age::Any), after(Duration::ZERO));
        let passed = Duration::from_secs(9);
        tokio::time::advance(passed).await;
        assert_eq!(full.admit(100, Age::Any), after(passed));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(full.admit(100, Age::Any), None);
    }

    #[test]
    fn records_are_not_counted_again_where_too_few_were_written() {
        let look = Look {
            at: Instant::now(),
            admitted_before: 0,
            records: 10,
            last_sequence: 100,
            room_in: None,
        };
        assert_eq!(look.at_most(100), Some(10));
        assert_eq!(look.at_most(130), Some(40));
        // Another stream.
        assert_eq!(look.at_most(99), None);
        let full = Look {
            records: u64::MAX,
            ..look
        };
        assert_eq!(full.at_most(130), None);
    }

    #[test]
    fn the_record_is_found_whose_end_makes_room() {
        // Every third message is one of the pool's, written in its second.
        let places: Vec<u64> = (0..5000).map(|number| 3 * number + 7).collect();
        let time = |place: u64| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(place);
        let count_from = |from: u64| {
            let mut rest = places.iter().filter(|place| **place >= from);
            let oldest = rest.next().map(|place| Oldest {
                sequence: *place,
                written: time(*place),
            });
            let records = u64::try_from(rest.count()).unwrap() + u64::from(oldest.is_some());
            Count { records, oldest }
        };
        for most in [1, 2, 10, 1000, 4998, 4999] {
            let mut search = Search {
                most,
                from: count_from(1).oldest.unwrap(),
                before: 15_010,
            };
            let mut looks = 0;
            while let Some(place) = search.next() {
                search.found(place, count_from(place));
                looks += 1;
                // However early it is cut off, what it says is not too late.
                assert!(count_from(search.from.sequence).records >= most);
            }
            assert_eq!(count_from(search.from.sequence).records, most);
            assert!(looks < 16, "{most}: {looks}");
        }
    }
}
