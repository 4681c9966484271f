//! What a worker measures of itself, for `/readyz`. What it does not measure but finds out as it works is
//! reported where it is found out.

use process::{
    checks::{self, BUS, STORE},
    measure::{self, Measured},
};
use proto::health::{Check, Health};
use routing::bus::Bus;
use store::Store;
use tokio::task::JoinSet;

use crate::sandbox::Sandboxes;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Where it is reported.
    pub health: Health,
    /// The bus.
    pub bus: Bus,
    /// The object store.
    pub store: Store,
    /// What sandboxes come from.
    pub sandboxes: Sandboxes,
    /// Name of this worker, one path segment.
    pub worker: String,
}

/// Does work during which nothing but the bus is measured: waiting for its data may take long.
pub async fn measuring_bus<T>(health: &Health, bus: &Bus, work: impl Future<Output = T>) -> T {
    let measuring = measure::keep(health.clone(), Check::Bus, BUS, bus.ids(), || {
        checks::bus(bus)
    });
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = measuring => {}
    }
    work.await
}

impl Readiness {
    /// Measures everything once, so that the first answer is a true one.
    pub async fn begin(&self) {
        tokio::join!(
            measure::once(&self.health, Check::Bus, BUS.within, checks::bus(&self.bus)),
            measure::once(&self.health, Check::Store, STORE.within, self.store()),
        );
    }

    /// Measures everything for ever.
    pub async fn keep(self) {
        let mut all = JoinSet::new();
        let (bus, store) = (self.clone(), self.clone());
        all.spawn(async move {
            measure::keep(bus.health.clone(), Check::Bus, BUS, bus.bus.ids(), || {
                checks::bus(&bus.bus)
            })
            .await;
        });
        all.spawn(async move {
            measure::keep(
                store.health.clone(),
                Check::Store,
                STORE,
                store.bus.ids(),
                || store.store(),
            )
            .await;
        });
        self.sandboxes.report(&self.health).await;
        // They have ended, and this worker ends too.
        while all.join_next().await.is_some() {}
    }

    /// Every worker writes, and ingresses only read: on a store that takes money for each request, all
    /// processes of a fleet would write an object every few seconds.
    async fn store(&self) -> Measured {
        let name = format!("worker-{}", self.worker);
        self.store.round_trip(&name).await.into()
    }
}
