//! Reading many leases at once, with the times at which they were written.

use async_nats::{HeaderMap, Message, header};
use proto::{
    id::{PoolId, SessionKey},
    lease::Lease,
    limits, subject, wire,
};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Bus, BusError};

/// A lease as it lies on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The session that it is of.
    pub session: SessionKey,
    /// The lease.
    pub lease: Lease,
    /// When it was written, by the bus's clock.
    pub at: OffsetDateTime,
}

impl Bus {
    /// The leases of a pool on this subject, which may be a wildcard, from whichever server has them
    /// nearest: a hint. At most [`limits::LISTED_SESSIONS`].
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn leases(&self, pool: &PoolId, subject: &str) -> Result<Vec<Written>, BusError> {
        let question = json!({ "multi_last": [subject], "batch": limits::LISTED_SESSIONS });
        let stream = subject::leases_stream(pool);
        let leases = match self.answers(&stream, &question).await {
            Ok((leases, _)) => leases,
            Err(BusError::NoStream) if self.never_had(pool).await => vec![],
            Err(error) => return Err(error),
        };
        Ok(leases.iter().filter_map(written).collect())
    }
}

fn written(message: &Message) -> Option<Written> {
    let headers = message.headers.as_ref()?;
    let at = time_of(headers)?;
    let (_, session) = headers
        .get(header::NATS_SUBJECT)?
        .as_str()
        .rsplit_once('.')?;
    let session = session.parse().ok()?;
    match wire::decode(&message.payload) {
        Ok(lease) => Some(Written { session, lease, at }),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "failed to decode a lease; it is not listed");
            None
        }
    }
}

pub(super) fn time_of(headers: &HeaderMap) -> Option<OffsetDateTime> {
    let text = headers.get(header::NATS_TIME_STAMP)?;
    OffsetDateTime::parse(text.as_str(), &Rfc3339).ok()
}
