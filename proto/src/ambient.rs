//! What code takes from its surroundings, as values that are handed in: new ids and the time of day. A process
//! makes the real ones where it starts; tests and simulations hand in others, which a seed repeats.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use ulid::Ulid;

/// Where new ids come from. Clones share it.
#[derive(Clone)]
pub struct Ids(Arc<dyn Fn() -> Ulid + Send + Sync>);

impl Ids {
    /// Ids that nobody can guess and that no other process makes.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "real ids are made here, and nowhere else"
    )]
    pub fn random() -> Self {
        Self(Arc::new(Ulid::new))
    }

    /// Ids that the same seed makes again, in the same order. Later ones sort after earlier ones, as real ones do.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let (random, made) = (Random::seeded(seed), AtomicU64::new(1));
        Self(Arc::new(move || {
            let high = u128::from(random.next()) << 64;
            let number = made.fetch_add(1, Ordering::Relaxed);
            Ulid::from_parts(number, high | u128::from(random.next()))
        }))
    }

    /// A new id.
    #[must_use]
    pub fn next(&self) -> Ulid {
        (self.0)()
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids(..)")
    }
}

/// Where the time of day comes from: what people are shown and what other clocks are compared with, never an age
/// that decides anything. Clones share it.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    /// This host's.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this host's clock is read here, and nowhere else"
    )]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// One that is read by calling `read`.
    #[must_use]
    pub fn reading(read: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock(..)")
    }
}

/// Numbers that a seed repeats: for tests and simulations, and good for nothing that has to be a secret.
#[derive(Debug)]
pub struct Random(AtomicU64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number, any of them equally likely (`SplitMix64`).
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`; 0 if there is none.
    pub fn below(&self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_ids_and_another_seed_has_others() {
        let of = |seed| {
            let ids = Ids::seeded(seed);
            (0..100).map(|_| ids.next()).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert!(of(1).is_sorted());
        assert!(of(1).iter().all(|id| !of(2).contains(id)));
    }

    #[test]
    fn numbers_of_a_seed_are_those_of_splitmix64() {
        // From the reference implementation (https://prng.di.unimi.it/splitmix64.c).
        let random = Random::seeded(1_234_567);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(
            first,
            [
                6457827717110365317,
                3203168211198807973,
                9817491932198370423
            ]
        );
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
