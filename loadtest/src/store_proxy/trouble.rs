//! Which trouble a request gets into: pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;

/// Shares of the requests that get into trouble, in thousandths; the rest passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trouble {
    /// Answered 500; the store hears nothing.
    pub refused: u16,
    /// Answered 500 after the store did it.
    pub forgotten: u16,
    /// The connection is reset; the store hears nothing.
    pub reset: u16,
    /// The connection is reset after the store did it: instead of the answer, or in the middle of
    /// one to a read.
    pub cut: u16,
    /// Wait first.
    pub delayed: u16,
    /// How long these wait, in milliseconds.
    pub delay_ms: u64,
    /// Hang until the trouble changes; then the connection is reset.
    pub stalled: u16,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes through.
    Pass,
    /// It is answered 500; the store hears nothing.
    Refuse,
    /// It is answered 500 after the store did it.
    Forget,
    /// Its connection is reset; the store hears nothing.
    Reset,
    /// Its connection is reset after the store did it.
    Cut,
    /// It goes through after this time.
    Delay(Duration),
    /// It hangs.
    Stall,
}

impl Trouble {
    /// What happens to request number `number`.
    #[must_use]
    pub fn fate(&self, seed: u64, number: u64) -> Fate {
        let delay = Fate::Delay(Duration::from_millis(self.delay_ms));
        let fates = [
            (self.refused, Fate::Refuse),
            (self.forgotten, Fate::Forget),
            (self.reset, Fate::Reset),
            (self.cut, Fate::Cut),
            (self.delayed, delay),
            (self.stalled, Fate::Stall),
        ];
        let mut drawn = Chance::of(seed, &number.to_string()).below(1000);
        for (share, fate) in fates {
            match drawn.checked_sub(share.into()) {
                Some(rest) => drawn = rest,
                None => return fate,
            }
        }
        Fate::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Trouble = Trouble {
        refused: 100,
        forgotten: 100,
        reset: 100,
        cut: 100,
        delayed: 100,
        delay_ms: 7,
        stalled: 100,
    };

    #[test]
    fn fates_follow_from_seed_and_number() {
        let fates = |seed| {
            (0..200)
                .map(|number| ALL.fate(seed, number))
                .collect::<Vec<_>>()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }

    #[test]
    fn shares_are_kept() {
        let delay = Fate::Delay(Duration::from_millis(7));
        let kinds = [
            Fate::Refuse,
            Fate::Forget,
            Fate::Reset,
            Fate::Cut,
            delay,
            Fate::Stall,
        ];
        for kind in kinds {
            let hit = (0..10_000)
                .filter(|&number| ALL.fate(3, number) == kind)
                .count();
            assert!((850..1150).contains(&hit), "{kind:?}: {hit}");
        }
        let calm = (0..1000).all(|number| Trouble::default().fate(3, number) == Fate::Pass);
        assert!(calm);
    }
}
