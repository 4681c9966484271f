//! The bus's clock. The ages of what lies on the bus are differences between its own times only.

use async_nats::jetstream::Context;
use time::OffsetDateTime;

use crate::cas::BusError;

/// What time it is where a stream's leader runs, which also says when each of its records was stored.
///
/// # Errors
/// The bus did not answer, or there is no such stream.
pub async fn time_at(context: &Context, stream: &str) -> Result<OffsetDateTime, BusError> {
    #[derive(serde::Deserialize)]
    struct Info {
        #[serde(with = "time::serde::rfc3339")]
        ts: OffsetDateTime,
    }
    let info: Result<Info, _> = context.request(format!("STREAM.INFO.{stream}"), &()).await;
    let info = info.map_err(|error| BusError::new("stream was not described", error))?;
    Ok(info.ts)
}
