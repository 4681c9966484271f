//! Where a job goes whose session subject nobody answered: a pure choice. What it chooses from is a
//! hint only; that one worker owns a session is the work of compare-and-set at the workers.

use std::time::Duration;

use proto::{
    lease::{Lease, LeaseState},
    limits,
    record::Holder,
};

/// Silence of both subjects of an owner after which it counts as gone.
pub const GONE_AFTER: Duration = Duration::from_millis(300);
/// After a (re)connect an ingress knows too little to call an owner gone: the owner's own reconnect
/// and beat may be on their way (one worker TTL and one beat).
pub const SETTLED_AFTER: Duration = limits::WORKER_TTL.saturating_add(limits::WORKER_BEAT);

/// The lease record of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseView {
    /// There is none.
    None,
    /// A record and its revision.
    Held(Lease, u64),
}

/// What is known of an owner's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerStatus {
    /// Its key exists.
    pub has_key: bool,
    /// Its key says that it drains.
    pub draining: bool,
    /// How long both its session subject and its control subject have had no listener.
    pub silent: Option<Duration>,
}

impl OwnerStatus {
    /// What is known where there is no owner.
    pub const NONE: Self = Self {
        has_key: false,
        draining: false,
        silent: None,
    };
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the job to the placement subject with this revision.
    Holder {
        /// Revision of the lease that was seen, 0 for none.
        seen: u64,
    },
    /// Try the session's subject again a little later.
    Wait,
}

/// Chooses. `settled` says whether this ingress has been connected for [`SETTLED_AFTER`].
#[must_use]
pub fn choose(record: &LeaseView, owner: OwnerStatus, settled: bool) -> Next {
    let LeaseView::Held(lease, revision) = record else {
        return Next::Holder { seen: 0 };
    };
    let silent = owner.silent.is_some_and(|silence| silence >= GONE_AFTER);
    let gone = match (owner.has_key, owner.draining) {
        (false, _) => settled,
        (true, true) => silent,
        (true, false) => silent && settled,
    };
    match (lease.state, gone) {
        // Nobody owns it.
        (LeaseState::Vacant, _) => Next::Holder { seen: *revision },
        (LeaseState::Active | LeaseState::Stopping | LeaseState::Unknown, true) => {
            Next::Holder { seen: *revision }
        }
        (LeaseState::Active | LeaseState::Stopping | LeaseState::Unknown, false) => Next::Wait,
    }
}

/// Whether whoever has an execution has lost its session for good. `elsewhere` is how long the session's
/// lease has been another's or nobody's: one look may have been at a server that was behind.
#[must_use]
pub fn executor_is_gone(
    place: &Holder,
    record: &LeaseView,
    owner: OwnerStatus,
    settled: bool,
    elsewhere: Duration,
) -> bool {
    if holds(record, place) {
        matches!(choose(record, owner, settled), Next::Holder { .. })
    } else {
        elsewhere >= GONE_AFTER
    }
}

/// Whether the lease is the one under which an execution was taken.
#[must_use]
pub fn holds(record: &LeaseView, place: &Holder) -> bool {
    matches!(record, LeaseView::Held(lease, _)
        if lease.owner == place.worker
            && lease.epoch == place.epoch
            && lease.incarnation == place.incarnation)
}

#[cfg(test)]
mod tests {
    use proto::id::{Epoch, Incarnation};

    use super::*;

    fn held(state: LeaseState) -> LeaseView {
        let lease = Lease {
            identifier: "user-1".parse().unwrap(),
            owner: "worker-1".parse().unwrap(),
            epoch: Epoch::default().next(),
            incarnation: Incarnation::from_ulid(ulid::Ulid::nil()),
            slot: 3,
            state,
            idle_ms: 0,
        };
        LeaseView::Held(lease, 7)
    }

    fn owner(has_key: bool, draining: bool, silent_ms: u64) -> OwnerStatus {
        let silent = (silent_ms > 0).then(|| Duration::from_millis(silent_ms));
        OwnerStatus {
            has_key,
            draining,
            silent,
        }
    }

    #[test]
    fn a_session_without_a_record_is_placed_at_once() {
        let nobody = owner(false, false, 0);
        assert_eq!(
            choose(&LeaseView::None, nobody, false),
            Next::Holder { seen: 0 }
        );
    }

    #[test]
    fn an_owner_is_gone_only_when_it_surely_is() {
        let place = Next::Holder { seen: 7 };
        let table = [
            // (key, draining, silent ms, settled) → next
            (true, false, 0, true, Next::Wait),
            (true, false, 299, true, Next::Wait),
            (true, false, 300, true, place),
            (true, false, 9_999, false, Next::Wait),
            (false, false, 0, true, place),
            (false, false, 9_999, false, Next::Wait),
            (true, true, 300, false, place),
            (true, true, 0, true, Next::Wait),
        ];
        for (key, draining, silent, settled, next) in table {
            for state in [LeaseState::Active, LeaseState::Stopping] {
                let chosen = choose(&held(state), owner(key, draining, silent), settled);
                assert_eq!(chosen, next, "{key} {draining} {silent} {settled}");
            }
        }
    }

    fn place_of(record: &LeaseView) -> Holder {
        let LeaseView::Held(lease, _) = record else {
            panic!("no lease")
        };
        Holder {
            worker: lease.owner.clone(),
            epoch: lease.epoch,
            incarnation: lease.incarnation,
        }
    }

    #[test]
    fn who_has_an_execution_is_gone_when_its_lease_is_anothers_or_nobody_serves_it() {
        let lease = held(LeaseState::Active);
        let (mine, long) = (place_of(&lease), GONE_AFTER);
        let later = Holder {
            epoch: mine.epoch.next(),
            ..mine.clone()
        };
        let short = GONE_AFTER.checked_sub(Duration::from_millis(1)).unwrap();
        let (alive, dead) = (owner(true, false, 0), owner(false, false, 0));
        let table = [
            // (place, lease, owner, settled, elsewhere) → gone
            (&mine, &lease, alive, true, long, false),
            (&mine, &lease, dead, true, Duration::ZERO, true),
            (&mine, &lease, dead, false, long, false),
            (&mine, &lease, owner(true, false, 300), true, long, true),
            (&later, &lease, alive, true, short, false),
            (&later, &lease, alive, false, long, true),
            (&mine, &LeaseView::None, dead, false, short, false),
            (&mine, &LeaseView::None, dead, false, long, true),
        ];
        for (place, lease, owner, settled, elsewhere, gone) in table {
            let answer = executor_is_gone(place, lease, owner, settled, elsewhere);
            assert_eq!(
                answer, gone,
                "{place:?} {lease:?} {owner:?} {settled} {elsewhere:?}"
            );
        }
    }
}
