//! Logs whose sessions are over.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use proto::{
    id::{Epoch, Incarnation, PoolId},
    limits,
};

use super::{
    commit::{Body, Commit, CommitError, Packed, Seq, encode},
    entry::{self, Claim, EntryError},
    key::LogKey,
};
use crate::{Store, StoreError};

/// No fence is longer.
const FENCE_BYTES: u64 = 128;

/// Short commits that are looked at at once.
const AT_ONCE: usize = 16;
/// Commits that somebody else may write at the moment when a log is fenced for good.
const COLLISIONS: usize = 100;

/// Why a log was not retired.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The fence cannot be written.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The fence cannot be encoded.
    #[error("failed to encode the fence")]
    Commit(#[from] CommitError),
    /// Others wrote all the time.
    #[error("failed to reach the log's end")]
    Contended,
}

/// A log that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub place: LogKey,
    /// When its newest object was written, by the store's clock.
    pub newest: SystemTime,
}

/// Deletes all that there is of an incarnation. Its session must be over: the fence goes too.
///
/// # Errors
/// The store failed; some of it may be left.
pub async fn delete(store: &Store, place: &LogKey) -> Result<(), StoreError> {
    let prefix = place.prefix();
    let listed = store.list(&prefix, None).await?;
    let keys = listed.into_iter().map(|object| object.location).collect();
    store.delete_all(keys).await?;
    store.remove_directory(&prefix).await
}

/// Fences a log for good and deletes all that there is of it but its fences: an owner that was replaced and
/// does not know it must still collide with one. They hold nothing of the session's, and go with [`delete`]
/// when they are old. Its session must be over.
///
/// # Errors
/// The store failed, and some of it may be left; or whoever was replaced writes without a pause.
pub async fn retire(store: &Store, place: &LogKey) -> Result<(), RetireError> {
    let listed = store.list(&place.prefix(), None).await?;
    let commits = place.commits();
    let commit_of = |key: &Path| {
        let is_commit = key.prefix_matches(&commits);
        is_commit.then(|| Seq::of_key(key)).flatten()
    };
    let seqs = listed.iter().map(|object| commit_of(&object.location));
    let head = seqs.flatten().max();
    fence(store, place, head.unwrap_or_default()).await?;
    let short = listed.iter().filter(|object| object.size <= FENCE_BYTES);
    let short: Vec<Seq> = short
        .filter_map(|object| commit_of(&object.location))
        .collect();
    let fences: HashSet<Seq> = stream::iter(short)
        .map(|seq| async move { Ok::<_, StoreError>((seq, is_fence(store, place, seq).await?)) })
        .buffer_unordered(AT_ONCE)
        .try_filter_map(async |(seq, is_fence)| Ok(is_fence.then_some(seq)))
        .try_collect()
        .await?;
    let keys = listed.into_iter().map(|object| object.location);
    let gone = keys.filter(|key| commit_of(key).is_none_or(|seq| !fences.contains(&seq)));
    Ok(store.delete_all(gone.collect()).await?)
}

/// Writes the fence of nobody, whom nobody follows.
async fn fence(store: &Store, place: &LogKey, head: Seq) -> Result<(), RetireError> {
    let commit = Commit::new(store.ids(), Epoch::LAST, Body::Fence);
    let nonce = commit.nonce.clone();
    let bytes = encode(&Packed {
        commit,
        pack: vec![],
    })?
    .into();
    let mut seq = head.next();
    for _ in 0..COLLISIONS {
        match entry::claim(store, place, seq, &bytes, &nonce).await? {
            Claim::Ours => return Ok(()),
            Claim::Taken(_) => seq = seq.next(),
        }
    }
    Err(RetireError::Contended)
}

/// What cannot be read may be one.
async fn is_fence(store: &Store, place: &LogKey, seq: Seq) -> Result<bool, StoreError> {
    match entry::read(store, place, seq).await {
        Ok(entry) => Ok(entry.is_some_and(|entry| entry.commit.body == Body::Fence)),
        Err(EntryError::Store(error)) => Err(error),
        Err(EntryError::Commit(..) | EntryError::Undecided(_)) => Ok(true),
    }
}

/// Whether a log is of a session that a lost bus knew, and is kept for a while: `accepted` is when the bus
/// got its present generation, by the store's clock.
#[must_use]
pub fn is_of_lost_bus(found: &Found, accepted: SystemTime, now: SystemTime) -> bool {
    // A clock that is behind keeps it longer.
    let old = now
        .duration_since(accepted)
        .is_ok_and(|age| age >= limits::LOST_LOGS_LIFE);
    found.newest <= accepted && !old
}

/// Every log of a pool. One listing of all the pool's objects, so not for every minute.
///
/// # Errors
/// The store failed.
pub async fn incarnations(store: &Store, pool: &PoolId) -> Result<Vec<Found>, StoreError> {
    let prefix = Path::from(pool.as_str());
    let mut objects = store.objects.list(Some(&prefix));
    let mut newest: HashMap<LogKey, SystemTime> = HashMap::new();
    while let Some(object) = store.next_listed(&mut objects).await? {
        let Some(place) = LogKey::of_key(&object.location) else {
            continue;
        };
        let written = object.last_modified.into();
        let newest = newest.entry(place).or_insert(written);
        *newest = written.max(*newest);
    }
    let found = newest.into_iter();
    Ok(found
        .map(|(place, newest)| Found { place, newest })
        .collect())
}

/// Whether a log's session is over, so that the log may be deleted. `live` is the incarnation in the
/// session's lease, read after the log was found; `now` is the [time of the store](Store::time), read before
/// that; `lease_life` is how long a lease of the pool lives without its owner.
///
/// The bus may lose what it acknowledged, and clocks run apart, so a log must have been left alone for
/// twice the life of a lease, and in no case less than [`limits::DEAD_GRACE`].
#[must_use]
pub fn is_orphan(
    found: &Found,
    live: Option<Incarnation>,
    now: SystemTime,
    lease_life: Duration,
) -> bool {
    if live == Some(found.place.incarnation) {
        return false;
    }
    let patience = lease_life.saturating_mul(2).max(limits::DEAD_GRACE);
    // Not over either when it was written after this look began.
    now.duration_since(found.newest)
        .is_ok_and(|age| age >= patience)
}

#[cfg(test)]
mod tests {
    use proto::ambient::Ids;
    use ulid::Ulid;

    use super::*;

    const LEASE: Duration = Duration::from_secs(600);

    fn found(age: Duration) -> (Found, SystemTime) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let place = LogKey {
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            session: "a".repeat(26).parse().unwrap(),
            incarnation: Incarnation::from_ulid(Ulid::from_parts(5, 5)),
        };
        let newest = now - age;
        (Found { place, newest }, now)
    }

    #[test]
    fn no_fence_is_longer_than_what_is_taken_for_one() {
        let commit = Commit::new(&Ids::seeded(1), Epoch::LAST, Body::Fence);
        let pack = vec![];
        let length = encode(&Packed { commit, pack }).unwrap().len() as u64;
        assert!(length <= FENCE_BYTES, "{length}");
    }

    #[test]
    fn the_log_of_a_live_session_is_never_an_orphan() {
        let (found, now) = found(Duration::from_secs(1_000_000));
        assert!(!is_orphan(
            &found,
            Some(found.place.incarnation),
            now,
            LEASE
        ));
    }

    #[test]
    fn a_log_without_a_lease_is_an_orphan_after_two_leases() {
        let (early, now) = found(2 * LEASE - Duration::from_millis(1));
        assert!(!is_orphan(&early, None, now, LEASE));
        let (late, now) = found(2 * LEASE);
        assert!(is_orphan(&late, None, now, LEASE));
        let other = Incarnation::from_ulid(Ulid::from_parts(6, 6));
        assert!(is_orphan(&late, Some(other), now, LEASE));
    }

    #[test]
    fn what_a_lost_bus_knew_is_kept_for_a_while() {
        let (found, now) = found(Duration::from_secs(1000));
        let second = Duration::from_secs(1);
        let life = limits::LOST_LOGS_LIFE;
        assert!(is_of_lost_bus(&found, found.newest + second, now));
        assert!(!is_of_lost_bus(&found, found.newest - second, now));
        assert!(is_of_lost_bus(
            &found,
            found.newest,
            found.newest + life - second
        ));
        assert!(!is_of_lost_bus(&found, found.newest, found.newest + life));
        assert!(
            is_of_lost_bus(&found, now, now - second),
            "a clock that is behind"
        );
    }

    #[test]
    fn short_leases_make_no_hasty_collection() {
        let (found, now) = found(Duration::from_secs(60));
        assert!(!is_orphan(&found, None, now, Duration::from_secs(1)));
    }

    #[test]
    fn a_log_that_was_written_since_is_no_orphan() {
        let (found, now) = found(Duration::ZERO);
        let behind = now - Duration::from_secs(100_000);
        assert!(!is_orphan(&found, None, behind, LEASE));
    }
}
