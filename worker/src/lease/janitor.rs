//! Frees slots that no lease belongs to: their creators died between the two writes, or their
//! leases ended by time.

use std::{
    collections::HashMap,
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};

use async_nats::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use proto::{limits, subject};
use records::{cas, clock::time_at};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use super::{BusError, Ledger};

/// Shortest time between two sweeps of a pool by one worker, so that a full pool under load is not
/// swept for every refused caller.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// When this worker last swept the pool.
#[derive(Debug, Default)]
pub(super) struct Sweeps(Mutex<Option<Instant>>);

impl Sweeps {
    fn is_due(&self) -> bool {
        let mut last = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= SWEEP_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

/// One record as a sweep sees it.
#[derive(Debug)]
struct Seen {
    sequence: u64,
    stored: OffsetDateTime,
}

impl Ledger {
    /// Deletes slots that are older than [`limits::SLOT_GRACE`] and have no lease. Does nothing
    /// when this worker swept a moment ago.
    ///
    /// # Errors
    /// The bus failed.
    pub async fn sweep(&self) -> Result<(), BusError> {
        if !self.inner.sweeps.is_due() {
            return Ok(());
        }
        let pool = &self.inner.pool.id;
        let connection = self.connection();
        // The time first, then slots, then leases: a slot that is old by this time had a lease by the
        // time that leases are read, or its creator knows that it cannot be sure of it.
        let now = self.server_time().await?;
        let slots = self
            .all(&subject::slots_stream(pool), &format!("h1.slots.{pool}.*"))
            .await?;
        let leases = self
            .all(
                &subject::leases_stream(pool),
                &format!("$KV.h1_leases_{pool}.>"),
            )
            .await?;
        for (session, slot) in slots {
            let old = now - slot.stored > limits::SLOT_GRACE;
            // Behind another connection may be another bus, where the sequence is another slot's.
            if self.connection() != connection {
                return Ok(());
            }
            if old && !leases.contains_key(&session) {
                tracing::warn!(pool.id = %pool, slot = slot.sequence, "abandoned slot freed");
                cas::delete(&self.inner.slots, slot.sequence).await?;
            }
        }
        Ok(())
    }

    /// Tells this connection from those before and after it.
    fn connection(&self) -> u64 {
        let client = self.inner.context.client();
        client.statistics().connects.load(Ordering::Relaxed)
    }

    /// The bus's clock: ages are differences between its own times only.
    pub(super) async fn server_time(&self) -> Result<OffsetDateTime, BusError> {
        let stream = subject::slots_stream(&self.inner.pool.id);
        time_at(&self.inner.context, &stream).await
    }

    /// The last record of every subject with the time at which the server stored it, in one
    /// request (NATS ADR-31, "multi-subject last").
    async fn all(&self, stream: &str, filter: &str) -> Result<HashMap<String, Seen>, BusError> {
        let failed = |what| BusError::new("records were not listed", what);
        let client = self.inner.context.client();
        let inbox = client.new_inbox();
        let mut answers = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| failed(error.to_string()))?;
        let request = serde_json::json!({ "multi_last": [filter], "batch": 1000 });
        client
            .publish_with_reply(
                format!("$JS.API.DIRECT.GET.{stream}"),
                inbox,
                request.to_string().into(),
            )
            .await
            .map_err(|error| failed(error.to_string()))?;
        let mut found = HashMap::new();
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(2), answers.next()).await;
            let Ok(Some(message)) = answer else {
                return Err(failed("no answer".to_owned()));
            };
            match message.status {
                // 404: nothing matches; 204: that was all.
                Some(StatusCode::NOT_FOUND) => return Ok(found),
                Some(status) if status.as_u16() == 204 => return Ok(found),
                Some(status) => return Err(failed(format!("status {status}"))),
                None => {}
            }
            if let Some((session, seen)) = message.headers.as_ref().and_then(record) {
                found.insert(session, seen);
            }
        }
    }
}

fn record(headers: &HeaderMap) -> Option<(String, Seen)> {
    let subject = headers.get("Nats-Subject")?.as_str();
    let session = subject.rsplit('.').next()?.to_owned();
    let sequence = headers.get("Nats-Sequence")?.as_str().parse().ok()?;
    let stored = headers.get("Nats-Time-Stamp")?.as_str();
    let stored = OffsetDateTime::parse(stored, &Rfc3339).ok()?;
    Some((session, Seen { sequence, stored }))
}
