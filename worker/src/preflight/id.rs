//! Whether the worker's id is free in its fleet.

use async_nats::{Client, jetstream};
use process::{failure::causes, preflight::Finding, remedy::Remedy};
use proto::{ambient::Ids, id::WorkerId};
use records::cas::BusError;

use crate::identity::{
    decide::{Decision, Holder},
    look::{Standing, look as look_for_holder},
};

const ID: &str = "worker-id";

/// Asks whoever has the id whether it lives. Claims nothing.
pub(super) async fn look(client: &Client, id: &WorkerId, ids: &Ids) -> Finding {
    let context = jetstream::new(client.clone());
    match look_for_holder(client, &context, id, ids).await {
        Ok(standing) => judge(id, &standing),
        Err(error) => unknown(&error),
    }
}

fn unknown(error: &BusError) -> Finding {
    Finding::fail(
        ID,
        format!("failed to read who has the id: {}", causes(error)),
        Remedy::BusFirst,
    )
}

fn judge(id: &WorkerId, standing: &Standing) -> Finding {
    let Standing {
        holder,
        here,
        decision,
    } = standing;
    let run = |holder: &Option<Holder>| {
        let run = holder.as_ref().map(|holder| holder.claim.run.to_string());
        run.unwrap_or_default()
    };
    match (decision, here) {
        (Decision::Take(_), _) => Finding::ok(ID, format!("no worker `{id}` runs")),
        (Decision::Refuse, true) => Finding::warn(
            ID,
            format!(
                "worker `{id}` runs already on this host, as `{}`",
                run(holder)
            ),
            "right if it is the worker of these settings; if not, give this one another --id",
        ),
        (Decision::Refuse, false) => Finding::fail(
            ID,
            format!(
                "worker `{id}` runs already on another host, as `{}`",
                run(holder)
            ),
            "ids are unique in a fleet: give this worker another --id, or stop that one",
        ),
        (Decision::Wait, _) => Finding::warn(
            ID,
            format!("the last run of worker `{id}` does not answer"),
            "nothing: a start waits for the end of its claim, 20 seconds at most",
        ),
    }
}

#[cfg(test)]
mod tests {
    use process::preflight::Outcome;

    use super::*;

    #[test]
    fn a_living_worker_elsewhere_fails_and_one_here_may_be_this_one() {
        for (decision, here, outcome) in [
            (Decision::Take(0), false, Outcome::Ok),
            (Decision::Refuse, true, Outcome::Warn),
            (Decision::Refuse, false, Outcome::Fail),
            (Decision::Wait, false, Outcome::Warn),
        ] {
            let standing = Standing {
                holder: None,
                here,
                decision,
            };
            let finding = judge(&"w1".parse().unwrap(), &standing);
            assert_eq!(finding.outcome, outcome, "{decision:?}");
        }
    }
}
