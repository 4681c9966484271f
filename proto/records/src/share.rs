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

/// Room beside all shares, in bytes and as a part of them: several processes may each record the last execution
/// of a share, and a server counts the new version of a record before it drops the old one.
const RACES_BYTES: u64 = 7 << 20;
/// See [`RACES_BYTES`].
const RACES_PART: u64 = 20;
/// The part of the stream that is kept for the ends of what runs.
const KEPT_PART: u64 = 16;
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
    /// Number of all records, those of unknown pools among them.
    pub messages: u64,
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

/// The bytes that the stream may hold: what may come to lie there, some for races, and so much more that
/// [`fits`] lets all of it in. What lies there already stays, whoever wrote it: records of pools that are no
/// more, of pools that may record less now, and those of version 88dda0e, which were longer, leave the shares of
/// the others whole. A pool that goes or gets a smaller share never makes it more.
#[must_use]
pub fn bound(shares: &[Share], usage: Option<&Usage>) -> u64 {
    let all = room(shares.iter().map(|share| u64::from(share.most)).sum());
    let races = all / RACES_PART + RACES_BYTES;
    let used = usage.map_or(all, |usage| used(shares, usage));
    let used = used.saturating_add(races);
    used.saturating_add(used / (KEPT_PART - 1) + 1)
}

/// The most that records take.
fn room(records: u64) -> u64 {
    records.saturating_mul(limits::RECORD_BYTES)
}

/// The most that may come to lie in the stream, in bytes: the shares, whose records grow by their ends, and what
/// others left. The bus tells bytes of the whole stream alone, so that the others have at most all of them, and no
/// more than as many records take.
fn used(shares: &[Share], usage: &Usage) -> u64 {
    let pools = || shares.iter().zip(&usage.records);
    let own = pools().map(|(share, records)| u64::from(share.most).max(*records));
    let found = pools().map(|(_, records)| *records).sum();
    let others = room(usage.messages.saturating_sub(found));
    // Longer records of an older version show only where all together are too long.
    let too_long = usage.bytes.saturating_sub(room(found));
    room(own.sum()).saturating_add(others.max(too_long).min(usage.bytes))
}

/// Whether the stream as a whole has room for more: a part is kept for the ends of what runs. Shares that are
/// full leave it ([`bound`]), so this only fails where they do not hold: while older workers serve pools, too.
#[must_use]
pub(crate) fn fits(bytes: u64, most: i64) -> bool {
    match u64::try_from(most) {
        Ok(most) if most > 0 => bytes < most - most / KEPT_PART,
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
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;

    fn share(most: u32) -> Share {
        Share {
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            name: "python".parse().unwrap(),
            most,
        }
    }

    fn usage(bytes: u64, messages: u64, records: &[u64]) -> Usage {
        Usage {
            bytes,
            messages,
            records: records.to_vec(),
        }
    }

    /// Whether a pool may record one more when so much lies in a stream of this bound.
    fn lets_in(bytes: u64, bound: u64) -> bool {
        fits(bytes, i64::try_from(bound).unwrap())
    }

    #[test]
    fn every_share_is_reserved_whole() {
        let shares = [share(1_000_000), share(1000)];
        let all = 1_001_000 * 3 * KIB;
        assert!(bound(&shares, None) > all + all / 10);
        // What records usually take does not change it.
        for used in [
            usage(0, 0, &[0, 0]),
            usage(1_001_000 * KIB, 1_001_000, &[1_000_000, 1000]),
            usage(all, 1_001_000, &[1_000_000, 1000]),
        ] {
            assert_eq!(bound(&shares, Some(&used)), bound(&shares, None));
        }
    }

    #[test]
    fn a_fleet_reserves_what_its_documents_say() {
        for (most, said) in [(10_000, 42), (100_000, 337), (1_000_000, 3370)] {
            // 3.4 KiB for each, and 8 MiB.
            let documented = most * 34 * KIB / 10 + (8 << 20);
            let bound = bound(&[share(u32::try_from(most).unwrap())], None);
            assert!(bound <= documented, "{most}: {bound}");
            assert!(bound >> 20 <= said, "{most}: {} MiB", bound >> 20);
        }
    }

    #[test]
    fn what_others_left_takes_nothing_of_a_share() {
        let shares = [share(1000), share(1000)];
        let share = 1000 * 3 * KIB;
        let gone = 50 << 20;
        let used = usage(gone, 50 << 10, &[0, 0]);
        assert!(bound(&shares, Some(&used)) > gone + 2 * share);
        // They take what they take, not what they might have taken.
        assert!(bound(&shares, Some(&used)) < 70 << 20);
        // Long records of an older version count for their pool.
        let used = usage(gone, 1000, &[1000, 0]);
        assert!(bound(&shares, Some(&used)) > gone + share);
        assert!(bound(&shares, Some(&used)) < 70 << 20);
    }

    #[test]
    fn much_that_others_left_keeps_no_pool_from_recording() {
        // Two pools of a million short records were removed.
        let left = 2_000_000;
        let shares = [share(1000), share(1000)];
        let used = usage(left * KIB, left, &[0, 0]);
        let full = left * KIB + 2000 * 3 * KIB;
        assert!(lets_in(full, bound(&shares, Some(&used))));
    }

    /// Pools before a change of the pool file, what lies on the bus then, and how many of them are left.
    fn changes() -> impl Strategy<Value = (Vec<Share>, Usage, Vec<Share>)> {
        let pool = (1..2000u32, 0..=2000u32, 1..2000u32, any::<bool>());
        let bytes = 300..=limits::RECORD_BYTES;
        (prop::collection::vec(pool, 0..5), bytes).prop_map(|(pools, each)| {
            let found = |(most, records, ..): &(u32, u32, u32, bool)| u64::from(*records.min(most));
            let stay = || pools.iter().filter(|(.., stays)| *stays);
            let messages = pools.iter().map(found).sum::<u64>();
            let usage = usage(
                messages * each,
                messages,
                &stay().map(found).collect::<Vec<_>>(),
            );
            let before = pools.iter().map(|(most, ..)| share(*most)).collect();
            let after = stay().map(|(most, _, new, _)| share(*new.min(most)));
            (before, usage, after.collect())
        })
    }

    proptest! {
        #[test]
        fn pools_that_go_or_may_record_less_need_no_more_room((before, usage, after) in changes()) {
            prop_assert!(bound(&after, Some(&usage)) <= bound(&before, None));
        }

        #[test]
        fn whatever_the_shares_allow_is_let_in_and_ends((_, usage, shares) in changes(), grown in 0..=10u32) {
            let bound = bound(&shares, Some(&usage));
            // What other pools left stays as long as it is; each record of the own pools gets its end, which may be
            // the longest, and their shares are used up.
            let own = usage.records.iter().sum::<u64>();
            let each = usage.bytes.checked_div(usage.messages).unwrap_or(0);
            let longest = each + (limits::RECORD_BYTES - each) * u64::from(grown) / 10;
            let full = shares.iter().zip(&usage.records).map(|(share, records)| u64::from(share.most).max(*records));
            let bytes = (usage.messages - own) * each + full.sum::<u64>() * longest;
            prop_assert!(lets_in(bytes, bound));
            // So does what races added, and the ends of all that.
            prop_assert!(lets_in(bytes + RACES_BYTES, bound));
            prop_assert!(bound - bytes > bound / KEPT_PART);
        }

        #[test]
        fn what_is_found_is_never_too_much(
            mosts in prop::collection::vec(1..u32::MAX, 0..4),
            bytes in 0..u64::MAX / 4,
            messages in 0..u64::MAX / 4,
            records in prop::collection::vec(0..u64::from(u32::MAX), 4),
        ) {
            let shares: Vec<_> = mosts.into_iter().map(share).collect();
            let records = records[..shares.len()].to_vec();
            let bound = bound(&shares, Some(&Usage { bytes, messages, records }));
            prop_assert!(bound > bytes);
            prop_assert!(lets_in(bytes, bound));
        }
    }

    #[test]
    fn full_shares_leave_room_in_the_stream_for_ends() {
        for most in [1, 20, 1000, 100_000, 10_000_000] {
            let shares = [share(most), share(most)];
            let bound = bound(&shares, None);
            assert!(lets_in(u64::from(most) * 2 * 3 * KIB, bound), "{most}");
            assert!(!lets_in(bound, bound), "{most}");
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
