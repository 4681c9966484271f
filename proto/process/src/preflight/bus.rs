//! The bus as a process will meet it.

use std::{path::Path, time::Duration};

use async_nats::{Client, ServerAddr};
use routing::bus::{
    AuthError, Bus, BusError, ConnectError, Connected, NatsAuth,
    clock::{self, ClockOffset},
    connect::Peer,
    rights::{Prober, Right, RightsError},
};
use tokio::time::Instant;

use super::Finding;
use crate::failure::causes;

const BUS: &str = "bus";
const RIGHTS: &str = "bus-rights";
const CLOCK: &str = "clock";

/// Who will be on the bus.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Addresses of the servers.
    pub servers: &'a [ServerAddr],
    /// File with user and password.
    pub auth: &'a Path,
    /// Prefix of the inboxes of a process of this kind and name.
    pub inbox: &'a str,
    /// What such a process may do.
    pub rights: &'static [Right],
    /// A stream that it may ask for.
    pub stream: &'static str,
}

/// What was found of the bus.
#[derive(Debug)]
pub struct Visit {
    /// One for each thing.
    pub findings: Vec<Finding>,
    /// The connection, if the bus answers over it.
    pub bus: Option<(Client, Bus)>,
}

impl Visit {
    fn in_vain(finding: Finding) -> Self {
        Self {
            findings: vec![finding],
            bus: None,
        }
    }
}

/// Connects, tries every right without effect, and compares clocks.
pub async fn look(visitor: Visitor<'_>) -> Visit {
    let auth = match NatsAuth::read(visitor.auth) {
        Ok(auth) => auth,
        Err(error) => return Visit::in_vain(no_auth(&error)),
    };
    let peer = Peer {
        name: "check".to_owned(),
        inbox_prefix: visitor.inbox.to_owned(),
        subscription_capacity: 64,
    };
    let prober = match Prober::connect(visitor.servers, auth, peer).await {
        Ok(prober) => prober,
        Err(error) => return Visit::in_vain(no_connection(&error)),
    };
    let begun = Instant::now();
    let offset = clock::offset(prober.client(), visitor.stream).await;
    let took = begun.elapsed();
    let missing = prober.missing(visitor.rights, visitor.stream).await;
    let client = prober.client().clone();
    let version = client.server_info().version;
    let bus = match &offset {
        Ok(_) => Bus::over(client.clone(), visitor.inbox, Connected::default()).await,
        Err(_) => Err(BusError::Down),
    };
    Visit {
        findings: vec![
            of_answer(&version, took, offset.as_ref().err()),
            of_rights(visitor.rights.len(), missing),
            of_clock(&offset),
        ],
        bus: bus.ok().map(|bus| (client, bus)),
    }
}

fn no_auth(error: &AuthError) -> Finding {
    Finding::fail(BUS, causes(error), error.remedy().unwrap_or_default())
}

fn no_connection(error: &ConnectError) -> Finding {
    Finding::fail(BUS, causes(error), error.remedy().unwrap_or_default())
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
            "turn JetStream on in the configuration of nats-server, as in infra/nats/hearth.conf.template",
        ),
    }
}

fn of_rights(all: usize, missing: Result<Vec<Right>, BusError>) -> Finding {
    match missing {
        Ok(missing) if missing.is_empty() => Finding::ok(RIGHTS, format!("all {all} rights")),
        Ok(missing) => Finding::fail(
            RIGHTS,
            RightsError::Missing(missing).to_string(),
            RightsError::REMEDY,
        ),
        Err(error) => Finding::fail(
            RIGHTS,
            format!("rights cannot be tried: {}", causes(&error)),
            RightsError::REMEDY,
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
            "mend the bus first",
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
