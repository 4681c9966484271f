//! Which pools a process knows otherwise than the others of its fleet do: a pure comparison, and how it is said.

use proto::{
    id::{PoolId, PoolName},
    lease::WorkerBeat,
    pool::Pools,
};
use records::fleet::Digests;
use std::collections::BTreeMap;

use crate::served::{Served, look};

/// Pools with their settings, as one process knows them.
#[derive(Clone, Debug)]
pub struct Own {
    /// Digests of their settings.
    pub pools: Digests,
    names: BTreeMap<PoolId, PoolName>,
}

impl From<&Pools> for Own {
    fn from(pools: &Pools) -> Self {
        let all = pools.pool.iter();
        let names = all.clone().map(|pool| (pool.id.clone(), pool.name.clone()));
        Self {
            names: names.collect(),
            pools: all.map(|pool| (pool.id.clone(), pool.digest())).collect(),
        }
    }
}

impl Own {
    /// What an ingress finds wrong, one text for each pool.
    #[must_use]
    pub fn with_workers(&self, workers: &[WorkerBeat]) -> Vec<String> {
        let served = self.pools.iter().map(|(pool, ours)| {
            let name = self.name(pool);
            match look(pool, ours, workers) {
                Served::Same | Served::Unknown => None,
                Served::Nowhere => Some(format!("no worker serves pool `{name}`")),
                Served::Differently => {
                    Some(format!("workers serve pool `{name}` with other settings"))
                }
            }
        });
        served.flatten().collect()
    }

    /// What a worker finds wrong, one text for each pool and kind of process.
    #[must_use]
    pub fn with_others(&self, workers: &[WorkerBeat], ingresses: &[Digests]) -> Vec<String> {
        let mut wrong = vec![];
        for (pool, ours) in &self.pools {
            let name = self.name(pool);
            let mut living = workers.iter().filter(|worker| !worker.draining);
            if living
                .any(|worker| look(pool, ours, std::slice::from_ref(worker)) == Served::Differently)
            {
                wrong.push(format!(
                    "other workers serve pool `{name}` with other settings"
                ));
            }
            let known = ingresses.iter().filter_map(|pools| pools.get(pool));
            if known.clone().any(|theirs| theirs != ours) {
                wrong.push(format!("ingresses know pool `{name}` with other settings"));
            } else if !ingresses.is_empty() && known.count() == 0 {
                wrong.push(format!("no ingress knows pool `{name}`"));
            }
        }
        wrong
    }

    fn name(&self, pool: &PoolId) -> &str {
        self.names.get(pool).map_or("", |name| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "01JDE1KZ0000000000000000PY";
    const OTHER: &str = "01JDE1KZ0000000000000000PX";

    fn digests(pools: &[(&str, &str)]) -> Digests {
        let pool = |(pool, digest): &(&str, &str)| {
            (pool.parse().unwrap(), digest.repeat(16).parse().unwrap())
        };
        pools.iter().map(pool).collect()
    }

    fn worker(pools: &[(&str, &str)], draining: bool) -> WorkerBeat {
        WorkerBeat {
            capacity: 1,
            sessions: 0,
            draining,
            versions: (1, 3),
            pools: Some(digests(pools)),
            accepting: None,
        }
    }

    fn own() -> Own {
        Own {
            pools: digests(&[(POOL, "a")]),
            names: BTreeMap::from([(POOL.parse().unwrap(), "python".parse().unwrap())]),
        }
    }

    #[test]
    fn an_ingress_names_pools_that_no_worker_serves_as_it_knows_them() {
        let [same, edited, without] =
            [(POOL, "a"), (POOL, "b"), (OTHER, "a")].map(|pool| move || worker(&[pool], false));
        for (workers, wrong) in [
            (vec![], ""),
            (vec![same(), edited()], ""),
            (
                vec![edited()],
                "workers serve pool `python` with other settings",
            ),
            (vec![without()], "no worker serves pool `python`"),
        ] {
            assert_eq!(own().with_workers(&workers).join("; "), wrong);
        }
    }

    #[test]
    fn a_worker_names_pools_that_any_other_knows_otherwise() {
        let (same, edited) = ([(POOL, "a")], [(POOL, "b")]);
        for (workers, ingresses, wrong) in [
            (vec![], vec![], ""),
            (vec![worker(&same, false)], vec![digests(&same)], ""),
            (vec![worker(&edited, true)], vec![], ""),
            (
                vec![worker(&same, false), worker(&edited, false)],
                vec![],
                "other workers serve pool `python` with other settings",
            ),
            (
                vec![],
                vec![digests(&same), digests(&edited)],
                "ingresses know pool `python` with other settings",
            ),
            (
                vec![],
                vec![digests(&[(OTHER, "a")])],
                "no ingress knows pool `python`",
            ),
        ] {
            assert_eq!(own().with_others(&workers, &ingresses).join("; "), wrong);
        }
    }
}
