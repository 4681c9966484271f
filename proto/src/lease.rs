//! Records of ownership: slots, leases and worker keys, as they lie on the bus.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    fleet::PoolDigest,
    id::{Epoch, Identifier, Incarnation, PoolId, WorkerId},
    pool::Pool,
};

/// A session's claim on its pool's maximum. Created and deleted, never overwritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Who created it.
    pub worker: WorkerId,
    /// Tells a creator whose acknowledgement was lost that the slot is its own.
    pub nonce: String,
}

/// Whether a session is served, ending, or waits for an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Its owner serves it.
    Active,
    /// Its owner is ending it; requests wait and then start a new session.
    Stopping,
    /// Its owner gave it up: whoever is asked next takes it over, with its files.
    Vacant,
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

/// The ownership record of a session. Its age is counted by the bus's own message times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The session's name as its caller gave it, for listings.
    pub identifier: Identifier,
    /// Who serves it.
    pub owner: WorkerId,
    /// Fencing number of this ownership.
    pub epoch: Epoch,
    /// The life of the session that it belongs to.
    pub incarnation: Incarnation,
    /// Stream sequence of the session's slot.
    pub slot: u64,
    /// Whether it is served or ending.
    pub state: LeaseState,
    /// How long the session had not been used when this was written, in milliseconds. With the age
    /// of the record itself, by the bus's clock, it tells when the session ends.
    #[serde(default)]
    pub idle_ms: u64,
}

impl Lease {
    /// How long the session has not been used when this record is `age` old.
    #[must_use]
    pub fn idle(&self, age: Duration) -> Duration {
        Duration::from_millis(self.idle_ms).saturating_add(age)
    }

    /// Whether the session still lives when this record is `age` old, whatever became of its owner. The
    /// age is counted by the bus's own times, never by a worker's clock.
    #[must_use]
    pub fn lives(&self, age: Duration, pool: &Pool) -> bool {
        match self.state {
            // Its owner may have died while it ended it.
            LeaseState::Stopping => false,
            LeaseState::Active | LeaseState::Vacant | LeaseState::Unknown => {
                self.idle(age) <= pool.cooldown() + pool.renewed_every()
            }
        }
    }
}

/// What a worker says of itself with every beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerBeat {
    /// Sessions that it holds at most.
    pub capacity: u32,
    /// Sessions that it holds.
    pub sessions: u32,
    /// Takes no new sessions and will end.
    pub draining: bool,
    /// Wire versions that it understands, oldest and newest.
    pub versions: (u16, u16),
    /// The pools that it serves, with their settings. An older worker does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<BTreeMap<PoolId, PoolDigest>>,
    /// Would take a new session if it had room: its clock is right, its disk's reserve is not reached, and
    /// it can make sandboxes. An older worker does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepting: Option<bool>,
}

/// The claim of a worker's id by one of its runs: no other may have the id while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerClaim {
    /// The run.
    pub run: WorkerId,
    /// The boot id of the kernel that it runs on: it tells hosts apart, and the times between two boots.
    pub boot: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{ContainerType, Limits, Network};

    fn pool(cooldown_seconds: u32) -> Pool {
        Pool {
            id: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            subscription: "s".into(),
            resource_group: "r".into(),
            name: "python".parse().unwrap(),
            container_type: ContainerType::PythonLTS,
            max_sessions: 1,
            cooldown_seconds,
            network: Network::EgressDisabled,
            development: false,
            write_behind_ms: None,
            queued_executions: crate::limits::QUEUED_OF_POOL,
            recorded_executions: crate::limits::RECORDED_OF_POOL,
            cors_origins: vec![],
            limits: Limits::default(),
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
            let found = lease(state, idle_ms).lives(seconds(age), &pool(300));
            assert_eq!(found, lives, "{state:?} {idle_ms} {age}");
        }
    }

    #[test]
    fn no_idle_time_overflows() {
        let old = lease(LeaseState::Vacant, u64::MAX);
        assert!(!old.lives(Duration::MAX, &pool(300)));
    }
}
