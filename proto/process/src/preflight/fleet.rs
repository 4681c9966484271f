//! Whether store and bus belong together, as a process judges it at its start.

use fleet::FleetFailure;
use proto::fleet::Verdict;
use records::fleet::FleetStream;
use routing::bus::Bus;
use store::Store;

use super::{Finding, visit::Visitor};
use crate::failure::causes;

const FLEET: &str = "fleet";

/// Compares the generations of store and bus. Writes nothing.
pub async fn look(store: Option<&Store>, bus: Option<&Bus>, visitor: Visitor) -> Finding {
    let (Some(store), Some(bus)) = (store, bus) else {
        return Finding::warn(
            FLEET,
            "not compared: store or bus cannot be used",
            "mend them, then check again",
        );
    };
    let stream = FleetStream::new(bus.jetstream());
    let looked = fleet::look(store, &stream, visitor == Visitor::Worker).await;
    judge(looked.map(|(_, verdict)| verdict), visitor)
}

fn judge(looked: Result<Verdict, FleetFailure>, visitor: Visitor) -> Finding {
    match looked {
        Ok(Verdict::Same(record)) => Finding::ok(
            FLEET,
            format!("store and bus have generation {}", record.generation),
        ),
        Ok(Verdict::New | Verdict::Begun(_)) if visitor == Visitor::Worker => Finding::ok(
            FLEET,
            "store and bus are new; this worker gives them a generation",
        ),
        Ok(Verdict::New | Verdict::Begun(_)) => Finding::warn(
            FLEET,
            "store and bus are new: no worker has started yet",
            "start a worker, then check again",
        ),
        Ok(Verdict::Lost(loss)) => Finding::fail(
            FLEET,
            loss.to_string(),
            "correct --nats, or put the bus's data back, or accept the loss with `worker accept-new-bus`",
        ),
        Ok(verdict @ Verdict::OtherStore { .. }) => Finding::fail(
            FLEET,
            verdict.to_string(),
            "correct --store or --nats; if the store was replaced on purpose, `worker accept-new-bus`",
        ),
        Err(error) => Finding::fail(
            FLEET,
            causes(&error),
            "mend what does not answer, then check again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use proto::fleet::{FleetRecord, Loss};

    use super::*;
    use crate::preflight::Outcome;

    #[test]
    fn what_a_start_refuses_or_waits_for_fails() {
        let generation = "01JDE1KZ0000000000000000PY";
        let record = FleetRecord {
            store: generation.parse().unwrap(),
            generation: generation.parse().unwrap(),
            previous: None,
        };
        let lost = Loss::Younger {
            expected: record.generation.clone(),
            mark: 7,
        };
        let other = Verdict::OtherStore {
            ours: None,
            theirs: record.store.clone(),
        };
        for (verdict, worker, ingress) in [
            (Verdict::Same(record.clone()), Outcome::Ok, Outcome::Ok),
            (Verdict::New, Outcome::Ok, Outcome::Warn),
            (Verdict::Begun(record), Outcome::Ok, Outcome::Warn),
            (Verdict::Lost(lost), Outcome::Fail, Outcome::Fail),
            (other, Outcome::Fail, Outcome::Fail),
        ] {
            for (visitor, outcome) in [(Visitor::Worker, worker), (Visitor::Ingress, ingress)] {
                assert_eq!(
                    judge(Ok(verdict.clone()), visitor).outcome,
                    outcome,
                    "{verdict:?}"
                );
            }
        }
    }
}
