//! Who gets how much of a bounded stock: a pure choice. Every kind of limits asks for the same; where
//! not all can have it, kinds get in proportion to how often they were used lately.

use std::time::Duration;

/// After so long an unused sandbox of a kind counts half.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// What a kind counts that was not used lately. Small: one recent use outweighs it many times.
const UNUSED: f64 = 0.05;

/// How much is kept ready of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Empty cages.
    pub cages: usize,
    /// Cages with a waiting kernel.
    pub spares: usize,
}

impl Targets {
    /// Both together.
    #[must_use]
    pub fn all(self) -> usize {
        self.cages.saturating_add(self.spares)
    }

    /// So many sandboxes of these, the more useful first.
    fn first(self, count: usize) -> Self {
        let spares = count.min(self.spares);
        Self {
            spares,
            cages: (count - spares).min(self.cages),
        }
    }
}

/// How often a kind was used lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    uses: f64,
    at: Duration,
}

impl Demand {
    /// Counts one use at this moment, on any clock that only goes forward.
    pub fn used(&mut self, now: Duration) {
        *self = Self {
            uses: self.lately(now) + 1.0,
            at: now,
        };
    }

    /// Uses, each counted less the longer ago it was.
    #[must_use]
    pub fn lately(&self, now: Duration) -> f64 {
        let age = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.uses * (-age).exp2()
    }
}

/// The targets of kinds with these recent uses, in their order: each at most `most`, all together at
/// most `total` sandboxes, and as many as these bounds allow.
#[must_use]
pub fn targets(uses: &[f64], most: Targets, total: usize) -> Vec<Targets> {
    let wanted = most.all();
    if wanted.saturating_mul(uses.len()) <= total {
        return vec![most; uses.len()];
    }
    let mut counts = vec![0_usize; uses.len()];
    for _ in 0..total {
        // One after the other, each to the kind that has least for its use (D'Hondt's rule).
        let next = counts
            .iter_mut()
            .zip(uses)
            .filter(|(count, _)| **count < wanted);
        let next = next.reduce(|best, one| {
            if claim(&one) > claim(&best) {
                one
            } else {
                best
            }
        });
        match next {
            Some((count, _)) => *count += 1,
            None => break,
        }
    }
    counts.into_iter().map(|count| most.first(count)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of sandboxes are small")]
fn claim((count, uses): &(&mut usize, &f64)) -> f64 {
    (**uses + UNUSED) / (**count as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Targets = Targets {
        cages: 8,
        spares: 4,
    };

    fn together(targets: &[Targets]) -> usize {
        targets.iter().map(|one| one.all()).sum()
    }

    #[test]
    fn where_there_is_room_every_kind_gets_all() {
        assert_eq!(targets(&[0.0; 4], MOST, 48), [MOST; 4]);
        assert_eq!(targets(&[], MOST, 48), []);
    }

    #[test]
    fn all_kinds_together_never_get_more_than_the_total_and_never_less() {
        for kinds in [5, 12, 86, 120, 1000] {
            let targets = targets(&vec![0.0; kinds], MOST, 48);
            assert_eq!((targets.len(), together(&targets)), (kinds, 48));
        }
        assert_eq!(together(&targets(&[1.0; 3], MOST, 0)), 0);
    }

    #[test]
    fn unused_kinds_share_alike_and_spares_come_first() {
        let twelve = targets(&[0.0; 12], MOST, 48);
        assert_eq!(twelve, [MOST.first(4); 12]);
        assert_eq!(
            MOST.first(4),
            Targets {
                cages: 0,
                spares: 4
            }
        );
        let more = targets(&[0.0; 120], MOST, 48);
        assert!(more.iter().all(|one| one.all() <= 1));
    }

    #[test]
    fn the_kinds_in_use_get_the_stock_in_proportion() {
        let mut uses = vec![0.0; 120];
        (uses[70], uses[90]) = (20.0, 10.0);
        let shares = targets(&uses, MOST, 48);
        assert_eq!(shares[70], MOST);
        assert_eq!(shares[90], MOST);
        assert_eq!(together(&shares), 48);
        let shares = targets(&uses, MOST, 15);
        assert_eq!((shares[70].all(), shares[90].all()), (10, 5));
    }

    #[test]
    fn a_use_counts_half_after_the_half_life() {
        let mut demand = Demand::default();
        demand.used(HALF_LIFE);
        demand.used(HALF_LIFE);
        assert!((demand.lately(HALF_LIFE) - 2.0).abs() < 1e-9);
        assert!((demand.lately(HALF_LIFE * 2) - 1.0).abs() < 1e-9);
        // A clock that stands or goes back changes nothing.
        assert!((demand.lately(Duration::ZERO) - 2.0).abs() < 1e-9);
    }
}
