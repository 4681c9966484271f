//! Which session it is.

use proto::{
    id::{Identifier, Incarnation, PoolId, SessionKey},
    message::Job,
};
use store::log::key::LogKey;

/// The names of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName {
    /// Its pool.
    pub pool: PoolId,
    /// Its name on the bus and in the store.
    pub key: SessionKey,
    /// Its callers' name for it.
    pub identifier: Identifier,
}

impl SessionName {
    /// That of the session which a job is for.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self {
            pool: job.pool.clone(),
            key: job.session.clone(),
            identifier: job.identifier.clone(),
        }
    }

    /// Where the log of one of its lives is.
    #[must_use]
    pub fn log(&self, incarnation: Incarnation) -> LogKey {
        LogKey {
            pool: self.pool.clone(),
            session: self.key.clone(),
            incarnation,
        }
    }
}
