//! Stories of leases on the model of the bus: no root, no services, a paused clock, and seeds that are printed.

mod beat;
mod claim;
mod janitor;
mod keeper;
mod lost_answers;
mod orphan;
mod ownership_check;
mod properties;
mod turns;

use std::sync::Arc;

use records_model::{Connection, Fate, Model, Record};

use super::{streams::Replicas, *};

/// The longest that an ordinary claim may take of the answers that it waits for.
const COOLDOWN: Duration = Duration::from_secs(300);

/// A pool on a bus, and its workers.
struct Fleet {
    model: Model,
    pool: Pool,
}

/// One worker.
struct Worker {
    bus: Arc<Connection>,
    ledger: Ledger,
}

fn pool(max_sessions: u32) -> Pool {
    let text = format!(
        r#"{{"id": "01JDE1KZ0000000000000000PY", "subscription": "s", "resource_group": "r",
            "name": "python", "max_sessions": {max_sessions}, "cooldown_seconds": {}}}"#,
        COOLDOWN.as_secs()
    );
    serde_json::from_str(&text).unwrap()
}

/// The session of this letter.
fn session(letter: char) -> SessionKey {
    letter.to_string().repeat(26).parse().unwrap()
}

fn identifier() -> Identifier {
    "user-1".parse().unwrap()
}

impl Fleet {
    /// A pool of so many sessions.
    fn new(max_sessions: u32) -> Self {
        Self {
            model: Model::default(),
            pool: pool(max_sessions),
        }
    }

    async fn worker(&self, number: u64) -> Worker {
        let bus = self.model.connect(number);
        let name = format!("worker-{number}").parse().unwrap();
        let (pool, ids) = (self.pool.clone(), Ids::seeded(number));
        let ledger = Ledger::open(bus.clone(), name, pool, Replicas::ONE, ids).await;
        Worker {
            bus,
            ledger: ledger.unwrap(),
        }
    }

    fn slots(&self) -> Vec<Record> {
        self.model.records(&subject::slots_stream(&self.pool.id))
    }

    fn leases(&self) -> Vec<Record> {
        self.model.records(&subject::leases_stream(&self.pool.id))
    }

    /// The lease of a session as an ingress sees it.
    fn lease(&self, letter: char) -> Option<(Lease, u64)> {
        let subject = subject::lease(&self.pool.id, &session(letter));
        let leases = self.leases().into_iter();
        let found = leases.filter(|lease| lease.subject == subject).last()?;
        Some((wire::decode(&found.payload).unwrap(), found.sequence))
    }

    fn seen(&self, letter: char) -> u64 {
        self.lease(letter).map_or(0, |(_, revision)| revision)
    }
}

impl Worker {
    async fn claim(&self, letter: char, seen: u64) -> Result<Claimed, ClaimError> {
        let session = session(letter);
        self.ledger.claim(&session, &identifier(), seen).await
    }

    /// Claims a session that nobody has, or that is as it was seen.
    async fn take(&self, letter: char, seen: u64) -> HeldLease {
        self.claim(letter, seen).await.unwrap().lease
    }
}

fn is_lost(changed: &Result<(), LeaseError>) -> bool {
    matches!(changed, Err(LeaseError::Lost))
}

fn is_unknown(changed: &Result<(), LeaseError>) -> bool {
    matches!(changed, Err(LeaseError::Bus(_)))
}
