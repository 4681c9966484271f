//! Logs whose sessions are over.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use object_store::{ObjectMeta, path::Path};
use proto::{
    id::{Incarnation, PoolId},
    limits,
};

use super::{
    commit::{Body, Seq},
    entry::{self, EntryError},
    place::Place,
};
use crate::{Store, StoreError, objects::in_time};

/// No fence is longer.
const FENCE_BYTES: u64 = 128;

/// A log that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub place: Place,
    /// When its newest object was written, by the store's clock.
    pub newest: SystemTime,
}

/// Deletes all that there is of an incarnation. Its session must be over: the fence goes too.
///
/// # Errors
/// The store failed; some of it may be left.
pub async fn delete(store: &Store, place: &Place) -> Result<(), StoreError> {
    let prefix = place.prefix();
    let listed = store.list(&prefix, None).await?;
    let keys = listed.into_iter().map(|object| object.location).collect();
    store.delete_all(keys).await?;
    store.remove_directory(&prefix).await
}

/// Deletes all that there is of an incarnation but its fences: an owner that was replaced and does not know it
/// must still collide with the fence of whoever came next. They hold nothing of the session's, and go with
/// [`delete`] when they are old. Its session must be over.
///
/// # Errors
/// The store failed; some of it may be left.
pub async fn retire(store: &Store, place: &Place) -> Result<(), StoreError> {
    let listed = store.list(&place.prefix(), None).await?;
    let commits = place.commits();
    let commit_of = |object: &ObjectMeta| {
        let is_commit = object.location.prefix_matches(&commits);
        let seq = is_commit.then(|| Seq::of_key(&object.location)).flatten();
        seq.filter(|_| object.size <= FENCE_BYTES)
    };
    let mut fences = HashSet::new();
    for object in &listed {
        if let Some(seq) = commit_of(object)
            && is_fence(store, place, seq).await?
        {
            fences.insert(&object.location);
        }
    }
    let keys = listed.iter().map(|object| &object.location);
    let keys = keys.filter(|key| !fences.contains(key)).cloned().collect();
    store.delete_all(keys).await
}

/// What cannot be read may be one.
async fn is_fence(store: &Store, place: &Place, seq: Seq) -> Result<bool, StoreError> {
    match entry::read(store, place, seq).await {
        Ok(entry) => Ok(entry.is_some_and(|entry| entry.commit.body == Body::Fence)),
        Err(EntryError::Store(error)) => Err(error),
        Err(EntryError::Commit(..) | EntryError::Undecided(_)) => Ok(true),
    }
}

/// Every log of a pool. One listing of all the pool's objects, so not for every minute.
///
/// # Errors
/// The store failed.
pub async fn incarnations(store: &Store, pool: &PoolId) -> Result<Vec<Found>, StoreError> {
    let prefix = Path::from(pool.as_str());
    let mut objects = store.objects.list(Some(&prefix));
    let mut newest: HashMap<Place, SystemTime> = HashMap::new();
    while let Some(object) = in_time(async { Ok(objects.try_next().await?) }).await? {
        let Some(place) = Place::of_key(&object.location) else {
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
/// session's lease, read after the log was found; `lease_life` is how long a lease of the pool lives
/// without its owner.
///
/// The bus may lose what it acknowledged, and clocks differ, so a log must have been left alone for
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
    // Not over either when the store's clock is ahead.
    now.duration_since(found.newest)
        .is_ok_and(|age| age >= patience)
}

#[cfg(test)]
mod tests {
    use proto::id::Epoch;
    use ulid::Ulid;

    use super::*;
    use crate::log::commit::{Commit, Packed, encode};

    const LEASE: Duration = Duration::from_secs(600);

    fn found(age: Duration) -> (Found, SystemTime) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let place = Place {
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            session: "a".repeat(26).parse().unwrap(),
            incarnation: Incarnation::from_ulid(Ulid::from_parts(5, 5)),
        };
        let newest = now - age;
        (Found { place, newest }, now)
    }

    #[test]
    fn no_fence_is_longer_than_what_is_taken_for_one() {
        let commit = Commit::new(Epoch::from_number(u64::MAX), Body::Fence);
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
    fn short_leases_make_no_hasty_collection() {
        let (found, now) = found(Duration::from_secs(60));
        assert!(!is_orphan(&found, None, now, Duration::from_secs(1)));
    }

    #[test]
    fn a_store_whose_clock_is_ahead_makes_no_orphans() {
        let (found, now) = found(Duration::ZERO);
        let behind = now - Duration::from_secs(100_000);
        assert!(!is_orphan(&found, None, behind, LEASE));
    }
}
