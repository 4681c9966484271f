//! How much room the records of executions may take. Each pool has a share of its own, counted in records, and
//! the bus reserves the most that a record can take for each of them: so no pool can take another's room, and
//! the end of an execution finds room whenever its beginning did. Pure.

use std::time::Duration;

use proto::{
    id::{PoolId, PoolName},
    limits,
    pool::{Pool, Pools},
};
use time::OffsetDateTime;

/// Room beside all shares, in bytes: several processes may each record the last execution of a share, and a
/// server counts the new version of a record before it drops the old one.
const RACES_BYTES: u64 = 8 << 20;
/// A share that is full is not worth a look before this time has passed.
const SOONEST: Duration = Duration::from_secs(10);

/// The records that one pool may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The pool.
    pub pool: PoolId,
    /// Its name, for operators.
    pub name: PoolName,
    /// Most records of the last [`limits::RECORD_LIFE`].
    pub most: u32,
}

/// What is in the stream of all pools' records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all records, those of pools that are unknown here among them.
    pub bytes: u64,
    /// Records of each known pool, in the order of their shares.
    pub records: Vec<u64>,
}

impl From<&Pool> for Share {
    fn from(pool: &Pool) -> Self {
        Self {
            pool: pool.id.clone(),
            name: pool.name.clone(),
            most: pool.recorded_executions,
        }
    }
}

/// The shares of all pools, in file order.
#[must_use]
pub fn of(pools: &Pools) -> Vec<Share> {
    pools.pool.iter().map(Share::from).collect()
}

/// The bytes that the stream may hold: all shares, and some for races. What lies there already stays, whoever
/// wrote it: records of pools that are no more, and those of version 88dda0e, which were longer, leave the
/// shares of the others whole.
#[must_use]
pub fn bound(shares: &[Share], usage: Option<&Usage>) -> u64 {
    let room = |records: u64| records.saturating_mul(limits::RECORD_BYTES);
    let all = room(shares.iter().map(|share| u64::from(share.most)).sum());
    let races = all / 8 + RACES_BYTES;
    let needed = usage.map_or(0, |usage| {
        let free = shares.iter().zip(&usage.records);
        let free = free.map(|(share, records)| u64::from(share.most).saturating_sub(*records));
        usage.bytes.saturating_add(room(free.sum()))
    });
    all.max(needed).saturating_add(races)
}

/// Whether the stream as a whole has room for more: a part is kept for the ends of what runs. Shares that are
/// full leave it, so this only fails where they do not hold: while older workers serve pools, too.
#[must_use]
pub(crate) fn fits(bytes: u64, most: i64) -> bool {
    match u64::try_from(most) {
        Ok(most) if most > 0 => bytes < most - most / 16,
        // Not bounded.
        Ok(_) | Err(_) => true,
    }
}

/// The time after which there is room again: when the oldest record goes. Both times are the bus's.
#[must_use]
pub(crate) fn room_in(oldest: Option<OffsetDateTime>, now: OffsetDateTime) -> Duration {
    let goes = oldest.map_or(now, |written| written + limits::RECORD_LIFE);
    let left = Duration::try_from(goes - now).unwrap_or_default();
    left.clamp(SOONEST, limits::RECORD_LIFE)
}

/// A time for people.
#[must_use]
pub fn words(wait: Duration) -> String {
    let seconds = wait.as_secs();
    match (seconds / 3600, seconds % 3600 / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn share(most: u32) -> Share {
        Share {
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            name: "python".parse().unwrap(),
            most,
        }
    }

    fn usage(bytes: u64, records: &[u64]) -> Usage {
        Usage {
            bytes,
            records: records.to_vec(),
        }
    }

    #[test]
    fn every_share_is_reserved_whole() {
        let shares = [share(1_000_000), share(1000)];
        let all = 1_001_000 * 3 * KIB;
        assert!(bound(&shares, None) > all + all / 8);
        // What records usually take does not change it.
        for used in [
            usage(0, &[0, 0]),
            usage(1_001_000 * KIB, &[1_000_000, 1000]),
            usage(all, &[1_000_000, 1000]),
        ] {
            assert_eq!(bound(&shares, Some(&used)), bound(&shares, None));
        }
    }

    #[test]
    fn what_others_left_takes_nothing_of_a_share() {
        let shares = [share(1000), share(1000)];
        let share = 1000 * 3 * KIB;
        let gone = 50 << 20;
        let used = usage(gone, &[0, 0]);
        assert!(bound(&shares, Some(&used)) > gone + 2 * share);
        // Long records of an older version count for their pool.
        let used = usage(gone, &[1000, 0]);
        assert!(bound(&shares, Some(&used)) > gone + share);
        assert!(bound(&shares, Some(&used)) < gone + 2 * share + RACES_BYTES);
    }

    #[test]
    fn full_shares_leave_room_in_the_stream_for_ends() {
        for most in [1, 20, 1000, 100_000, 10_000_000] {
            let shares = [share(most), share(most)];
            let bound = bound(&shares, None);
            let full = u64::from(most) * 2 * 3 * KIB;
            assert!(fits(full, i64::try_from(bound).unwrap()), "{most}");
            assert!(!fits(bound, i64::try_from(bound).unwrap()), "{most}");
        }
        assert!(fits(u64::MAX, -1) && fits(u64::MAX, 0));
    }

    #[test]
    fn there_is_room_when_the_oldest_record_goes() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(200_000);
        let of = |age: u64| room_in(Some(now - Duration::from_secs(age)), now).as_secs();
        assert_eq!(of(0), 86_400);
        assert_eq!(of(3600), 82_800);
        assert_eq!(of(86_395), 10);
        assert_eq!(of(100_000), 10);
        assert_eq!(room_in(None, now), SOONEST);
        // Another server of the bus may be a little ahead.
        assert_eq!(room_in(Some(now + SOONEST), now), limits::RECORD_LIFE);
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        for (seconds, said) in [(10, "10 s"), (600, "10 min"), (82_800, "23 h 0 min")] {
            assert_eq!(words(Duration::from_secs(seconds)), said);
        }
    }
}
