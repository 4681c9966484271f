//! The bus as a process will meet it.

use std::time::Duration;

use async_nats::Client;
use records::execution::Stamps;
use routing::bus::{
    Bus, BusError, Connected, NatsAuth,
    clock::{self, ClockOffset},
    connect::Peer,
    rights::{Prober, Right, RightsError},
};
use tokio::time::Instant;

use super::{Finding, visit::Visitor};
use crate::{failure::causes, remedy::Remedy, settings::BusSettings};

const BUS: &str = "bus";
const RIGHTS: &str = "bus-rights";
const CLOCK: &str = "clock";

/// Connects, tries every right without effect, and compares clocks. With the findings comes the connection, if
/// the bus answers over it.
pub async fn look(
    settings: &BusSettings,
    visitor: Visitor,
    stamps: &Stamps,
) -> (Option<(Client, Bus)>, Vec<Finding>) {
    let auth = match NatsAuth::read(&settings.nats_auth) {
        Ok(auth) => auth,
        Err(error) => return (None, vec![Finding::refused(BUS, &error)]),
    };
    let inbox = visitor.inbox(&stamps.ids);
    let peer = Peer {
        name: "check".to_owned(),
        inbox_prefix: inbox.clone(),
        subscription_capacity: 64,
    };
    let prober = match Prober::connect(&settings.nats, auth, peer).await {
        Ok(prober) => prober,
        Err(error) => return (None, vec![Finding::refused(BUS, &error)]),
    };
    let (rights, stream) = (visitor.rights(), visitor.stream());
    let begun = Instant::now();
    let offset = clock::offset(prober.client(), stream, &stamps.clock).await;
    let took = begun.elapsed();
    let missing = prober.missing(rights, stream).await;
    let client = prober.client().clone();
    let version = client.server_info().version;
    let bus = match &offset {
        Ok(_) => {
            let connected = Connected::default();
            Bus::over(client.clone(), &inbox, connected, stamps.clone()).await
        }
        Err(_) => Err(BusError::Down),
    };
    let findings = vec![
        of_answer(&version, took, offset.as_ref().err()),
        of_rights(rights.len(), missing),
        of_clock(&offset),
    ];
    (bus.ok().map(|bus| (client, bus)), findings)
}

fn of_answer(version: &str, took: Duration, error: Option<&BusError>) -> Finding {
    match error {
        None => {
            let took = took.as_secs_f64() * 1000.0;
            Finding::ok(
                BUS,
                format!("nats-server {version} answers in {took:.1} ms"),
            )
        }
        Some(error) => Finding::fail(
            BUS,
            format!("JetStream does not answer: {}", causes(error)),
            Remedy::BusWithoutJetStream,
        ),
    }
}

fn of_rights(all: usize, missing: Result<Vec<Right>, BusError>) -> Finding {
    match missing {
        Ok(missing) if missing.is_empty() => Finding::ok(RIGHTS, format!("all {all} rights")),
        Ok(missing) => Finding::fail(
            RIGHTS,
            RightsError::Missing(missing).to_string(),
            Remedy::BusRights,
        ),
        Err(error) => Finding::fail(
            RIGHTS,
            format!("rights cannot be tried: {}", causes(&error)),
            Remedy::BusRights,
        ),
    }
}

fn of_clock(offset: &Result<Option<ClockOffset>, BusError>) -> Finding {
    match offset {
        Ok(Some(offset)) if offset.is_too_far() => Finding::fail(
            CLOCK,
            offset.to_string(),
            "set the clock, and keep it right (chrony, systemd-timesyncd)",
        ),
        Ok(Some(offset)) => Finding::ok(CLOCK, offset.to_string()),
        Ok(None) => Finding::warn(
            CLOCK,
            "not compared: the bus tells its time only once a worker has made its streams",
            "check again when a worker runs",
        ),
        Err(_) => Finding::fail(
            CLOCK,
            "not compared: the bus does not answer",
            Remedy::BusFirst,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Outcome;

    #[test]
    fn a_right_that_is_missing_is_named() {
        let missing = Ok(vec![Right::Publish("a.*"), Right::Subscribe("b.> q")]);
        let finding = of_rights(7, missing);
        assert_eq!(finding.outcome, Outcome::Fail);
        assert!(finding.what.ends_with("publish `a.*`, subscribe `b.> q`"));
        assert_eq!(of_rights(7, Ok(vec![])).outcome, Outcome::Ok);
        assert_eq!(of_rights(7, Err(BusError::Down)).outcome, Outcome::Fail);
    }

    #[test]
    fn a_clock_that_cannot_be_compared_is_not_called_right() {
        assert_eq!(of_clock(&Ok(None)).outcome, Outcome::Warn);
        assert_eq!(of_clock(&Err(BusError::Down)).outcome, Outcome::Fail);
    }
}
