//! Tells operators when a pool's share of the records is full.

use std::time::Duration;

use proto::health::{Check, Health};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    execution::Executions,
    room::Room,
    share::{Share, words},
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Reports to the check of records whether every pool has room for more, for ever. Without an answer of the
/// bus the last report stands: that the bus is away is another check's.
pub async fn watch(executions: Executions, shares: Vec<Share>, health: Health) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut rooms = vec![];
        for share in &shares {
            match executions.look(share).await {
                Ok(room) => rooms.push((share, room)),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(pool.id = %share.pool, error, "records not counted");
                }
            }
        }
        if rooms.len() == shares.len() {
            report(&rooms, &health);
        }
    }
}

fn report(rooms: &[(&Share, Room)], health: &Health) {
    let full: Vec<_> = rooms
        .iter()
        .filter_map(|(share, room)| said(share, *room))
        .collect();
    if full.is_empty() {
        if health.pass(Check::Records) {
            tracing::info!("every pool has room for records of executions");
        }
        return;
    }
    let reason = full.join("; ");
    if health.fail(Check::Records, reason.clone()) {
        tracing::warn!(
            reason,
            "new executions are refused for want of room for their records"
        );
    }
}

fn said(share: &Share, room: Room) -> Option<String> {
    match room {
        Room::Left(()) => None,
        Room::Full { retry_after } => Some(format!(
            "pool `{}` has no room for more records of executions (recorded_executions = {}); \
             there is room again in {}",
            share.name,
            share.most,
            words(retry_after),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_is_named_until_it_has_room() {
        let share = |name: &str| Share {
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            name: name.parse().unwrap(),
            most: 7,
        };
        let (one, other) = (share("one"), share("other"));
        let health = Health::default();
        report(&[(&one, Room::Left(())), (&other, Room::Left(()))], &health);
        assert!(health.passes(Check::Records));
        let retry_after = Duration::from_secs(7200);
        let full = Room::Full { retry_after };
        report(&[(&one, Room::Left(())), (&other, full)], &health);
        let [check] = health.report().checks.try_into().unwrap();
        let reason = check.reason.unwrap();
        for part in ["`other`", "recorded_executions = 7", "2 h 0 min"] {
            assert!(reason.contains(part), "{reason}");
        }
        assert!(!reason.contains("`one`"), "{reason}");
        report(&[(&one, Room::Left(())), (&other, Room::Left(()))], &health);
        assert!(health.passes(Check::Records));
    }
}
