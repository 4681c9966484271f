//! Whether workers serve a pool as this process knows it: a pure choice from the workers' keys. A pool that
//! its operator edits is known differently for as long as processes are restarted one after the other.

use proto::{fleet::PoolDigest, id::PoolId, lease::WorkerBeat};

/// Whether workers serve a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// One does, with the same settings.
    Same,
    /// All that do have other settings.
    Differently,
    /// None does.
    Nowhere,
    /// There is no worker, or one that is too old to tell.
    Unknown,
}

/// Looks for a worker that serves the pool with these settings.
#[must_use]
pub fn look(pool: &PoolId, ours: &PoolDigest, workers: &[WorkerBeat]) -> Served {
    let mut served = Served::Unknown;
    for worker in workers.iter().filter(|worker| !worker.draining) {
        let Some(pools) = &worker.pools else {
            return Served::Unknown;
        };
        match pools.get(pool) {
            Some(theirs) if theirs == ours => return Served::Same,
            Some(_) => served = Served::Differently,
            None if served == Served::Unknown => served = Served::Nowhere,
            None => {}
        }
    }
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pools: Option<&[(&str, &str)]>, draining: bool) -> WorkerBeat {
        let pools = pools.map(|pools| {
            let pools = pools.iter();
            let pool = |(pool, digest): &(&str, &str)| {
                (pool.parse().unwrap(), digest.repeat(16).parse().unwrap())
            };
            pools.map(pool).collect()
        });
        WorkerBeat {
            capacity: 1,
            sessions: 0,
            draining,
            versions: (1, 3),
            pools,
            accepting: None,
        }
    }

    #[test]
    fn a_pool_is_served_when_one_worker_has_it_with_the_same_settings() {
        const POOL: &str = "01JDE1KZ0000000000000000PY";
        const OTHER: &str = "01JDE1KZ0000000000000000PX";
        let same = || worker(Some(&[(POOL, "a")]), false);
        let edited = || worker(Some(&[(POOL, "b"), (OTHER, "a")]), false);
        let without = || worker(Some(&[(OTHER, "a")]), false);
        let ends = || worker(Some(&[(POOL, "a")]), true);
        let older = || worker(None, false);
        for (workers, served) in [
            (vec![], Served::Unknown),
            (vec![same()], Served::Same),
            (vec![edited(), same(), without()], Served::Same),
            (vec![edited()], Served::Differently),
            (vec![edited(), without()], Served::Differently),
            (vec![without(), edited()], Served::Differently),
            (vec![without()], Served::Nowhere),
            (vec![without(), ends()], Served::Nowhere),
            (vec![ends()], Served::Unknown),
            (vec![without(), older()], Served::Unknown),
            (vec![older(), same()], Served::Unknown),
        ] {
            let ours = "a".repeat(16).parse().unwrap();
            let found = look(&POOL.parse().unwrap(), &ours, &workers);
            assert_eq!(found, served, "{workers:?}");
        }
    }
}
