//! The checks that every process measures alike.

use std::time::Duration;

use routing::bus::{Bus, BusError};

use crate::measure::{Measured, Rhythm};

/// When the bus is asked. One slow answer is no failure.
pub const BUS: Rhythm = Rhythm {
    every: Duration::from_secs(2),
    within: Duration::from_secs(2),
    misses: 2,
};
/// When the store is asked.
pub const STORE: Rhythm = Rhythm {
    every: Duration::from_secs(4),
    within: Duration::from_secs(4),
    misses: 1,
};

/// Whether the bus answers a round trip.
pub async fn bus(bus: &Bus) -> Measured {
    answers(bus.check().await)
}

fn answers(checked: Result<(), BusError>) -> Measured {
    match checked {
        // It answers. What it lost has a check of its own.
        Err(BusError::Lost(_)) => Measured::Holds,
        checked => checked.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_within_ten_seconds() {
        for rhythm in [BUS, STORE] {
            assert!(rhythm.shows_within() < Duration::from_secs(10));
        }
    }

    #[test]
    fn a_bus_that_lost_its_data_answers() {
        assert_eq!(
            answers(Err(BusError::Lost("wiped".into()))),
            Measured::Holds
        );
        assert!(matches!(answers(Err(BusError::Down)), Measured::Fails(_)));
    }
}
