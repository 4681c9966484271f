//! Chance that can be repeated: everything random in a run follows from one printed seed.

/// A stream of pseudo-random numbers (SplitMix64): small, fast, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for somebody called `name`, whatever others draw.
    #[must_use]
    pub fn of(seed: u64, name: &str) -> Self {
        let mut own = Self(seed);
        for byte in name.bytes() {
            own = Self(own.draw() ^ u64::from(byte));
        }
        own
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0 when there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias is below 2^-40 for every bound in use.
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Whether something happens that does so `permille` times in a thousand.
    pub fn happens(&mut self, permille: u16) -> bool {
        self.below(1000) < u64::from(permille)
    }

    /// One of these, each as likely as its weight says; `None` when all weights are 0.
    pub fn weighted<'a, T>(&mut self, choices: &'a [(u32, T)]) -> Option<&'a T> {
        let all: u64 = choices.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut drawn = self.below(all);
        choices.iter().find_map(|(weight, choice)| {
            let weight = u64::from(*weight);
            if drawn < weight {
                return Some(choice);
            }
            drawn -= weight;
            None
        })
    }

    /// Puts things into a random order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(last);
            things.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_stream_and_names_give_others() {
        let draw = |mut chance: Chance| [(); 4].map(|()| chance.draw());
        assert_eq!(
            draw(Chance::of(7, "client 1")),
            draw(Chance::of(7, "client 1"))
        );
        assert_ne!(
            draw(Chance::of(7, "client 1")),
            draw(Chance::of(7, "client 2"))
        );
        assert_ne!(
            draw(Chance::of(7, "client 1")),
            draw(Chance::of(8, "client 1"))
        );
        // The reference values of SplitMix64 for seed 0.
        assert_eq!(Chance::new(0).draw(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn weights_are_kept() {
        let mut chance = Chance::new(1);
        let choices = [(0, "never"), (1, "seldom"), (3, "often")];
        let drawn: Vec<_> = (0..4000)
            .filter_map(|_| chance.weighted(&choices))
            .collect();
        let often = drawn.iter().filter(|choice| ***choice == "often").count();
        assert!(
            !drawn.contains(&&"never") && (2800..3200).contains(&often),
            "{often}"
        );
        assert_eq!(chance.weighted(&[(0, ())]), None);
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut things: Vec<u32> = (0..100).collect();
        Chance::new(3).shuffle(&mut things);
        assert_ne!(things, (0..100).collect::<Vec<_>>());
        things.sort_unstable();
        assert_eq!(things, (0..100).collect::<Vec<_>>());
    }
}
