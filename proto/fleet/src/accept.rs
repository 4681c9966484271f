//! An operator's word that the data of a bus is lost for good.

use std::collections::HashSet;

use async_nats::jetstream::Context;
use proto::{
    fleet::{FleetRecord, Found, Generation, Known, Verdict},
    id::PoolName,
    pool::Pools,
};
use records::fleet::FleetStream;
use store::{Store, StoreError, log::collect};

use crate::{FleetFailure, look, new_id};

/// What accepting a new generation means.
#[derive(Debug)]
pub struct Acceptance {
    store: Store,
    stream: FleetStream,
    known: Option<Known>,
    /// How store and bus stand.
    pub verdict: Verdict,
    /// What the store holds of each pool.
    pub pools: Vec<Unreachable>,
}

/// What the store holds of a pool's sessions. Callers do not get to it without the bus's leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Which pool.
    pub pool: PoolName,
    /// Sessions with files.
    pub sessions: usize,
    /// Their lives: those that were over and not removed yet count, too.
    pub logs: usize,
}

impl Acceptance {
    /// Looks at store and bus. Writes nothing.
    ///
    /// # Errors
    /// Store or bus failed.
    pub async fn consider(
        store: Store,
        context: Context,
        pools: &Pools,
    ) -> Result<Self, FleetFailure> {
        let stream = FleetStream::new(context);
        let (known, verdict) = look(&store, &stream, true).await?;
        let mut unreachable = vec![];
        for pool in &pools.pool {
            let logs = collect::incarnations(&store, &pool.id).await;
            let logs = logs.map_err(|error: StoreError| FleetFailure::Store(error.into()))?;
            let sessions: HashSet<_> = logs.iter().map(|found| &found.place.session).collect();
            unreachable.push(Unreachable {
                pool: pool.name.clone(),
                sessions: sessions.len(),
                logs: logs.len(),
            });
        }
        Ok(Self {
            store,
            stream,
            known,
            verdict,
            pools: unreachable,
        })
    }

    /// Whether there is anything to accept.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        match self.verdict {
            Verdict::Lost(_) | Verdict::OtherStore { .. } => true,
            Verdict::Same(_) | Verdict::New | Verdict::Begun(_) => false,
        }
    }

    /// Gives store and bus a new generation, which is returned. Workers that wait for one begin to serve.
    ///
    /// # Errors
    /// Store or bus failed; the command is to be repeated.
    pub async fn accept(self, replicas: usize) -> Result<Generation, FleetFailure> {
        let (store, previous) = match self.known {
            Some(Known { record, .. }) => (record.store, Some(record.generation)),
            None => (new_id(self.store.ids())?, None),
        };
        let record = FleetRecord {
            store,
            generation: new_id(self.store.ids())?,
            previous,
        };
        // The store first: a worker finishes what was begun there.
        self.store.replace_fleet_record(&record).await?;
        self.stream.replace(&record, replicas).await?;
        match self.stream.find().await? {
            Found::Record(found, _) if found == record => Ok(record.generation),
            _ => Err(records::cas::BusError::new(
                "generation was not kept",
                "another process wrote one; repeat the command",
            )
            .into()),
        }
    }
}
