//! An execution that ended while its caller waited.

use proto::execution::Outcome;
use tokio::time::Instant;

use super::outcome::Times;
use crate::{
    error::ApiError,
    reader::Reader,
    service::{Code, Service, Session, Wishes},
};

/// What an answer is made of.
#[derive(Debug)]
pub struct Ran {
    /// Where it ran.
    pub session: Session,
    /// What the code left.
    pub outcome: Outcome,
    /// How the caller wishes to be told.
    pub wishes: Wishes,
    /// Where the time went.
    pub times: Times,
}

/// Runs the code of a request that arrived then; a reader gets its output as it happens.
///
/// # Errors
/// The platform failed.
pub async fn run(
    service: &Service,
    arrived: Instant,
    session: Session,
    code: Code,
    reader: Option<&Reader>,
) -> Result<Ran, ApiError> {
    let preparation = arrived.elapsed();
    let wishes = code.wishes;
    let (outcome, reading) = service.execute(&session, code, reader).await?;
    let times = Times {
        preparation,
        service: arrived.elapsed().saturating_sub(preparation),
        reading,
    };
    Ok(Ran {
        session,
        outcome,
        wishes,
        times,
    })
}
