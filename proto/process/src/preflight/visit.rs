//! Bus and store of a fleet, looked at as a process of one kind will meet them.

use async_nats::Client;
use proto::{ambient::Ids, subject};
use records::execution::Stamps;
use routing::bus::{
    Bus,
    rights::{self, Right},
};

use super::{Finding, bus, fleet, store};
use crate::settings::FleetSettings;

/// What kind of process looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// It may look for all streams, and begins the generation of a new fleet when it starts.
    Worker,
    /// It has no right to look for streams.
    Ingress,
}

impl Visitor {
    /// Prefix of its inboxes: of another name than a process that may be running.
    pub(super) fn inbox(self, ids: &Ids) -> String {
        let name = format!("check-{}", ids.next());
        match self {
            Self::Worker => subject::worker_inbox(&name),
            Self::Ingress => subject::ingress_inbox(&name),
        }
    }

    /// What it may do on the bus.
    pub(super) fn rights(self) -> &'static [Right] {
        match self {
            Self::Worker => rights::WORKER,
            Self::Ingress => rights::INGRESS,
        }
    }

    /// A stream that it may ask for.
    pub(super) fn stream(self) -> &'static str {
        match self {
            Self::Worker => subject::WORKERS_STREAM,
            Self::Ingress => subject::EXECUTIONS_STREAM,
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Visit {
    /// The connection, if the bus answers over it.
    pub connection: Option<(Client, Bus)>,
    /// Of the bus: its answer, the rights on it, its clock.
    pub bus: Vec<Finding>,
    /// Of the store.
    pub store: Finding,
    /// Whether both belong together.
    pub fleet: Finding,
}

/// Looks at both. Changes nothing but some small objects in the store, which are removed again.
pub async fn look(settings: &FleetSettings, visitor: Visitor, stamps: &Stamps) -> Visit {
    let (connection, bus) = bus::look(&settings.bus, visitor, stamps).await;
    let (store, opened) = store::look(&settings.store, &stamps.ids).await;
    let reached = connection.as_ref().map(|(_, bus)| bus);
    let fleet = fleet::look(opened.as_ref(), reached, visitor).await;
    Visit {
        connection,
        bus,
        store,
        fleet,
    }
}

impl Visit {
    /// The bus, if it answers.
    #[must_use]
    pub fn reached_bus(&self) -> Option<&Bus> {
        self.connection.as_ref().map(|(_, bus)| bus)
    }
}
