//! Workers with many kinds of limits.

use loadtest::cluster::{Cluster, pool_path};

use crate::stack::value;

/// A worker that kept eight cages and four spares of each kind ready never became ready from 86 on.
const KINDS: u32 = 120;

fn name(kind: u32) -> String {
    format!("kind-{kind}")
}

#[tokio::test]
async fn a_worker_with_any_number_of_kinds_of_limits_becomes_ready_and_serves_each() {
    let mut builder = Cluster::builder();
    for kind in 0..KINDS {
        builder = builder.pool(move |pool| {
            let pool = pool.name(&name(kind)).max_sessions(5);
            // The bus reserves room for the records of each pool.
            let pool = pool.recorded_executions(1000);
            pool.limits(|limits| limits.processes = 64 + kind)
        });
    }
    let cluster = builder.start().await.unwrap();
    for kind in [0, 1, KINDS / 2, KINDS - 1] {
        let session = cluster.client_of(&name(kind)).unwrap().fresh();
        assert_eq!(
            value(&session, "6 * 7").await,
            42,
            "{}",
            pool_path(&name(kind))
        );
    }
}
