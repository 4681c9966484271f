//! The use cases around sessions themselves: which live, since when, until when, and what their
//! sandboxes hold. None of it allocates a session or prolongs its life.

use std::time::Duration;

use bytes::Bytes;
use proto::{
    about::About,
    id::{Identifier, Incarnation},
    lease::{Lease, LeaseState},
    message::{Answer, FrameBody, Request, SessionInfo},
    pool::Pool,
    subject, wire,
};
use routing::served::Served;
use time::OffsetDateTime;

use crate::{
    bus::{Bus, BusError, inbox::Arrival, leases::Written},
    route::RouteError,
    service::{Service, ServiceError, Session},
};

/// An owner or worker that does not answer such a question within this time is not waited for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// A session that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// Its name.
    pub identifier: Identifier,
    /// Its life.
    pub incarnation: Incarnation,
    /// When it was used last; up to the time between two renewals older if its worker was not asked.
    pub last_used: OffsetDateTime,
    /// When it ends if nothing comes.
    pub expires: OffsetDateTime,
}

impl Living {
    /// When it was allocated, by its first worker's clock.
    #[must_use]
    pub fn created(&self) -> OffsetDateTime {
        at(self.incarnation.allocated_ms())
    }

    /// What a lease tells that was written at this time; `None` when the session has ended.
    #[must_use]
    pub fn of(
        lease: Lease,
        written: OffsetDateTime,
        now: OffsetDateTime,
        pool: &Pool,
    ) -> Option<Self> {
        let age = Duration::try_from(now - written).unwrap_or_default();
        if !lease.lives(age, pool) {
            return None;
        }
        let last_used = written - lease.idle(Duration::ZERO);
        Some(Self {
            identifier: lease.identifier,
            incarnation: lease.incarnation,
            last_used,
            expires: last_used + pool.cooldown(),
        })
    }

    /// As its worker has just described it.
    fn updated(self, info: &SessionInfo, now: OffsetDateTime) -> Self {
        Self {
            incarnation: info.incarnation,
            last_used: now - Duration::from_millis(info.idle_ms),
            expires: now + Duration::from_millis(info.remaining_ms),
            ..self
        }
    }
}

impl Service {
    /// The pool's living sessions, oldest first.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn sessions(&self, pool: &Pool) -> Result<Vec<Living>, ServiceError> {
        let subject = subject::lease_wildcard(&pool.id);
        let leases = self.bus.leases(&pool.id, &subject).await?;
        if leases.is_empty() {
            return Ok(vec![]);
        }
        // Leases carry the bus's times, so their ages are counted by its clock.
        let now = self.bus.time().await?;
        let living = leases
            .into_iter()
            .filter_map(|Written { lease, at, .. }| Living::of(lease, at, now, pool));
        let mut sessions: Vec<_> = living.collect();
        sessions.sort_unstable_by(|a, b| {
            let order = a.incarnation.cmp(&b.incarnation);
            order.then_with(|| a.identifier.as_str().cmp(b.identifier.as_str()))
        });
        Ok(sessions)
    }

    /// One session, if it lives.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn living(&self, session: &Session) -> Result<Option<Living>, ServiceError> {
        let pool = &session.pool;
        let subject = subject::lease(&pool.id, &session.key);
        let leases = self.bus.leases(&pool.id, &subject).await?;
        let Some(Written { lease, at, .. }) = leases.into_iter().next() else {
            return Ok(None);
        };
        let is_served = lease.state == LeaseState::Active;
        let now = self.bus.time().await?;
        let Some(living) = Living::of(lease, at, now, pool) else {
            return Ok(None);
        };
        if !is_served {
            return Ok(Some(living));
        }
        let job = session.job(Request::Describe, ANSWERS_WITHIN);
        let subject = subject::session(&pool.id, &session.key, job.request.verb());
        let payload = Bytes::from(wire::encode(&job)?);
        Ok(Some(match ask(&self.bus, subject, payload).await? {
            Some(Answer::Session(info)) => living.updated(&info, now),
            _ => living,
        }))
    }

    /// What the pool's sandboxes hold.
    ///
    /// # Errors
    /// No worker serves the pool, or the bus did not answer.
    pub async fn about(&self, pool: &Pool) -> Result<About, ServiceError> {
        match ask(&self.bus, subject::about(&pool.id), Bytes::new()).await? {
            Some(Answer::About(about)) => Ok(about),
            Some(_) => Err(ServiceError::Answer),
            None => Err(match self.bus.served(&pool.id).await {
                Served::Same | Served::Unknown => RouteError::NoCapacity,
                other => RouteError::PoolNotServed(other),
            }
            .into()),
        }
    }
}

/// Asks a question whose answer is one frame. `None` if nobody answers it in time.
async fn ask(bus: &Bus, subject: String, question: Bytes) -> Result<Option<Answer>, BusError> {
    let mut inbox = bus.send(subject, question).await?;
    match tokio::time::timeout(ANSWERS_WITHIN, inbox.next()).await {
        Ok(Arrival::Frame(frame)) => match frame.body {
            FrameBody::Done(answer) => Ok(Some(answer)),
            FrameBody::Accepted
            | FrameBody::Heartbeat
            | FrameBody::Output(_)
            | FrameBody::Failed(_) => Ok(None),
        },
        Ok(Arrival::Nobody | Arrival::Gap) | Err(_) => Ok(None),
    }
}

/// A time of the bus or of an id; what no calendar holds is 1970.
#[must_use]
pub fn at(milliseconds: u64) -> OffsetDateTime {
    let nanoseconds = i128::from(milliseconds) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proto::{
        id::Epoch,
        limits,
        pool::{ContainerType, Limits, Network},
    };

    use super::*;

    fn pool() -> Pool {
        Pool {
            id: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            subscription: "s".into(),
            resource_group: "g".into(),
            name: "python".parse().unwrap(),
            container_type: ContainerType::PythonLTS,
            max_sessions: 1,
            cooldown_seconds: 300,
            network: Network::EgressDisabled,
            development: false,
            write_behind_ms: None,
            queued_executions: limits::QUEUED_OF_POOL,
            recorded_executions: limits::RECORDED_OF_POOL,
            cors_origins: vec![],
            limits: Limits::default(),
        }
    }

    fn lease(state: LeaseState, idle_ms: u64) -> Lease {
        Lease {
            identifier: "user-1".parse().unwrap(),
            owner: "worker-1".parse().unwrap(),
            epoch: Epoch::default().next(),
            incarnation: Incarnation::from_ulid(ulid::Ulid::nil()),
            slot: 3,
            state,
            idle_ms,
        }
    }

    #[test]
    fn a_session_lives_from_its_last_use_to_its_cooldown() {
        let written = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1000);
        let seconds = |after: u64| written + Duration::from_secs(after);
        let table = [
            // (state, idle seconds when written, seconds since, expires so long after)
            (LeaseState::Active, 0, 10, Some(300)),
            (LeaseState::Vacant, 100, 10, Some(200)),
            (LeaseState::Active, 0, 315, Some(300)),
            (LeaseState::Active, 0, 316, None),
            (LeaseState::Vacant, u64::MAX / 1000, 0, None),
            (LeaseState::Stopping, 0, 0, None),
        ];
        for (state, idle, since, expires) in table {
            let found = Living::of(lease(state, idle * 1000), written, seconds(since), &pool());
            let found = found.map(|living| living.expires);
            assert_eq!(found, expires.map(seconds), "{state:?} {idle} {since}");
        }
    }
}
