//! Records of ownership: slots, leases and worker keys, as they lie on the bus.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Identifier, Incarnation, WorkerId};

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
}
