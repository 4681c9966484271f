//! What this process measures of itself and of the fleet, for `/readyz`.

use std::time::Duration;

use process::{
    checks::{self, BUS, STORE},
    measure::{self, Measured, Rhythm},
};
use proto::health::{Check, Health};
use routing::bus::capacity::Room;
use store::Store;
use tokio::task::JoinSet;

use crate::bus::Bus;

const fn rhythm(every: u64, within: u64) -> Rhythm {
    Rhythm {
        every: Duration::from_secs(every),
        within: Duration::from_secs(within),
        misses: 1,
    }
}

// A change shows within 10 seconds: a pause may be a fifth longer.
const WORKERS: Rhythm = rhythm(2, 5);
const CLOCK: Rhythm = rhythm(4, 4);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Where it is reported.
    pub health: Health,
    /// The bus.
    pub bus: Bus,
    /// The object store.
    pub store: Store,
}

impl Readiness {
    /// Measures everything once, so that the first answer is a true one.
    pub async fn begin(&self) {
        let health = &self.health;
        health.pass(Check::Draining);
        tokio::join!(
            measure::once(health, Check::Bus, BUS.within, checks::bus(&self.bus)),
            measure::once(health, Check::Workers, WORKERS.within, self.workers()),
            measure::once(health, Check::Store, STORE.within, self.store()),
            measure::once(health, Check::Clock, CLOCK.within, self.clock()),
        );
    }

    /// Measures everything for ever.
    pub async fn keep(self) {
        let mut all = JoinSet::new();
        let (bus, workers, store) = (self.clone(), self.clone(), self.clone());
        all.spawn(async move {
            measure::keep(bus.health.clone(), Check::Bus, BUS, bus.bus.ids(), || {
                checks::bus(&bus.bus)
            })
            .await;
        });
        all.spawn(async move {
            let health = workers.health.clone();
            measure::keep(health, Check::Workers, WORKERS, workers.bus.ids(), || {
                workers.workers()
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
        measure::keep(
            self.health.clone(),
            Check::Clock,
            CLOCK,
            self.bus.ids(),
            || self.clock(),
        )
        .await;
    }

    async fn workers(&self) -> Measured {
        // Workers wait for the bus's data, which is no fault of theirs.
        if self.bus.standing().loss().is_some() {
            return Measured::Unknown;
        }
        match self.bus.room().await {
            Ok(room) => judge(room),
            // The bus's own check tells of it.
            Err(_) => Measured::Unknown,
        }
    }

    /// Workers write, too.
    async fn store(&self) -> Measured {
        self.store.answers().await.into()
    }

    async fn clock(&self) -> Measured {
        match self.bus.clock_offset().await {
            Ok(Some(offset)) if offset.is_too_far() => Measured::Fails(offset.to_string()),
            Ok(Some(_)) => Measured::Holds,
            Ok(None) | Err(_) => Measured::Unknown,
        }
    }
}

fn judge(room: Room) -> Measured {
    let reason = match room {
        Room::Found => return Measured::Holds,
        Room::NoWorker => "no worker runs",
        Room::NoRoom => "every worker is full or draining",
        Room::Refused => {
            "every worker with room refuses: its clock is wrong, its disk is full, or it makes no sandboxes"
        }
        Room::Silent => "no worker with room answers",
    };
    Measured::Fails(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_within_ten_seconds() {
        for rhythm in [WORKERS, CLOCK] {
            assert!(rhythm.shows_within() < Duration::from_secs(10));
        }
    }

    #[test]
    fn only_a_worker_that_answers_and_has_room_counts() {
        assert_eq!(judge(Room::Found), Measured::Holds);
        for room in [Room::NoWorker, Room::NoRoom, Room::Refused, Room::Silent] {
            assert!(matches!(judge(room), Measured::Fails(_)), "{room:?}");
        }
    }
}
