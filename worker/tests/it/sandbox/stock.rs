//! The bounded stock of ready sandboxes over many kinds of limits.

use std::path::Path;

use proto::pool::Limits;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use worker::stock::{Bounds, Stock, Targets};

use super::{Host, cgroups, limits, until, within};

/// More than a worker could have kept a full shelf of each ready.
const KINDS: u32 = 120;
const TOTAL: usize = 6;

fn kind(number: u32) -> Limits {
    Limits {
        processes: 100 + number,
        data_bytes: 16 << 20,
        ..limits()
    }
}

/// Cages of a host that exist now.
fn cages(host: &Host) -> usize {
    let directories = cgroups(&host.config);
    let count = |directory: &Path| {
        let entries = std::fs::read_dir(directory).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir())
            .count()
    };
    directories.iter().map(|one| count(one)).max().unwrap_or(0)
}

#[tokio::test]
async fn the_stock_of_many_kinds_is_bounded_and_follows_what_is_used() {
    let host = Host::start().await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let bounds = Bounds {
        kind: Targets {
            cages: 2,
            spares: 2,
        },
        total: TOTAL,
    };
    let kinds = (0..KINDS).map(kind);
    let stock = Stock::open(host.sandboxes.clone(), bounds, kinds, &tasks, &stop);
    within("the stock", stock.filled()).await;
    assert_eq!(cages(&host), TOTAL);

    // Kinds of which nothing is ready are served all the same, and are ready the next time.
    let cold: Vec<Limits> = (0..KINDS)
        .map(kind)
        .filter(|kind| !stock.is_warm(kind))
        .take(2)
        .collect();
    for kind in &cold {
        let taken = within("a sandbox", stock.take(kind)).await.unwrap();
        until("a spare of the kind in use", || stock.is_warm(kind)).await;
        within("the end of a cage", taken.cage.destroy())
            .await
            .unwrap();
    }
    within("the stock", stock.filled()).await;
    until("a stock within its bound", || cages(&host) <= TOTAL).await;
    assert!(cold.iter().all(|kind| stock.is_warm(kind)));

    stop.cancel();
    tasks.close();
    within("the end of refilling", tasks.wait()).await;
    stock.close().await;
    host.stop().await;
}

#[tokio::test]
async fn a_kind_of_which_nothing_can_be_made_keeps_no_other_from_being_ready() {
    let host = Host::start().await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let bounds = Bounds {
        kind: Targets {
            cages: 0,
            spares: 1,
        },
        total: 4,
    };
    let impossible = Limits {
        data_bytes: 1,
        ..limits()
    };
    let kinds = [impossible.clone(), limits()];
    let stock = Stock::open(host.sandboxes.clone(), bounds, kinds, &tasks, &stop);
    within("the stock", stock.filled()).await;
    assert!(stock.is_warm(&limits()) && !stock.is_warm(&impossible));

    stop.cancel();
    tasks.close();
    within("the end of refilling", tasks.wait()).await;
    stock.close().await;
    host.stop().await;
}
