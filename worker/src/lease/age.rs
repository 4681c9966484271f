//! Whether a session whose owner is gone still lives: a pure decision. Its age is counted by the bus's
//! own times, never by a worker's clock.

use std::time::Duration;

use proto::{
    lease::{Lease, LeaseState},
    pool::Pool,
};

use super::Life;

/// Longest time between two renewals of a session in use.
const RENEW_EVERY: Duration = Duration::from_secs(15);

/// Time between two renewals of a session in use: what a record may be older than the last use.
#[must_use]
pub fn renewed_every(pool: &Pool) -> Duration {
    RENEW_EVERY.min(pool.cooldown() / 10)
}

/// What a claim finds behind a lease record of this age.
#[must_use]
pub fn life(lease: &Lease, age: Duration, pool: &Pool) -> Life {
    let ended = Life::New {
        ended: Some(lease.incarnation),
    };
    let idle = Duration::from_millis(lease.idle_ms).saturating_add(age);
    match lease.state {
        // Its owner died while it ended it.
        LeaseState::Stopping => ended,
        LeaseState::Active | LeaseState::Vacant | LeaseState::Unknown => {
            if idle <= pool.cooldown() + renewed_every(pool) {
                Life::Continued
            } else {
                ended
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::id::{Epoch, Incarnation};

    use super::*;

    fn pool(cooldown_seconds: u32) -> Pool {
        Pool {
            id: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            subscription: "s".into(),
            resource_group: "r".into(),
            name: "python".parse().unwrap(),
            container_type: proto::pool::ContainerType::PythonLTS,
            max_sessions: 1,
            cooldown_seconds,
            network: proto::pool::Network::EgressDisabled,
            development: false,
            write_behind_ms: None,
            limits: proto::pool::Limits::default(),
        }
    }

    fn lease(state: LeaseState, idle_ms: u64) -> Lease {
        Lease {
            identifier: "user-1".parse().unwrap(),
            owner: "worker-1".parse().unwrap(),
            epoch: Epoch::default().next(),
            incarnation: Incarnation::from_ulid(ulid::Ulid::nil()),
            slot: 3,
            state,
            idle_ms,
        }
    }

    #[test]
    fn a_session_outlives_its_owner_until_its_cooldown_is_over() {
        let seconds = Duration::from_secs;
        let table = [
            // (state, idle ms when written, age, lives on)
            (LeaseState::Active, 0, 0, true),
            (LeaseState::Active, 0, 315, true),
            (LeaseState::Active, 0, 316, false),
            (LeaseState::Vacant, 200_000, 115, true),
            (LeaseState::Vacant, 200_000, 116, false),
            (LeaseState::Unknown, 0, 10, true),
            (LeaseState::Stopping, 0, 0, false),
        ];
        for (state, idle_ms, age, lives) in table {
            let found = life(&lease(state, idle_ms), seconds(age), &pool(300));
            assert_eq!(found == Life::Continued, lives, "{state:?} {idle_ms} {age}");
        }
    }

    #[test]
    fn no_idle_time_overflows() {
        let old = lease(LeaseState::Vacant, u64::MAX);
        assert_ne!(life(&old, Duration::MAX, &pool(300)), Life::Continued);
    }
}
