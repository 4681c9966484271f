//! The host's clock against the bus's.

use async_nats::Client;
use proto::ambient::WallClock;
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use super::{Bus, BusError};

/// A clock that is further off than this makes ages and tokens wrong.
pub const CLOCK_OFF_MAX: Duration = Duration::seconds(60);

/// How far this host's clock is ahead of the bus's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Negative when it is behind.
    pub ahead: Duration,
    /// The truth is at most this far from it, either way.
    pub unsure: Duration,
}

impl ClockOffset {
    /// From a question that was sent and answered at these times of the host, in between which the bus's
    /// clock said `bus`.
    #[must_use]
    pub fn of(sent: OffsetDateTime, answered: OffsetDateTime, bus: OffsetDateTime) -> Self {
        let asking: Duration = answered - sent;
        let half: Duration = asking / 2_i32;
        let unsure = half.max(Duration::ZERO);
        Self {
            ahead: sent + unsure - bus,
            unsure,
        }
    }

    /// Whether the clock is certainly too far off.
    #[must_use]
    pub fn is_too_far(&self) -> bool {
        self.ahead.abs() - self.unsure > CLOCK_OFF_MAX
    }
}

impl std::fmt::Display for ClockOffset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let direction = if self.ahead.is_negative() {
            "behind"
        } else {
            "ahead of"
        };
        let seconds = self.ahead.abs().as_seconds_f64();
        write!(
            f,
            "the host's clock is {seconds:.3} s {direction} the bus's"
        )
    }
}

#[derive(Deserialize)]
struct Info {
    /// When the server answered. It says so only of a stream that it has.
    #[serde(default, with = "time::serde::rfc3339::option")]
    ts: Option<OffsetDateTime>,
}

/// Asks the bus for its time. `None` when it has no such stream, of which alone it tells.
pub(super) async fn time(
    client: &Client,
    stream: &str,
) -> Result<Option<OffsetDateTime>, BusError> {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let answer = client.request(subject, "".into()).await;
    let answer = answer.map_err(|error| BusError::Read(Box::new(error)))?;
    let info: Info =
        serde_json::from_slice(&answer.payload).map_err(|error| BusError::Read(Box::new(error)))?;
    Ok(info.ts)
}

/// Compares the host's clock with the bus's. `None` when it has no such stream, of which alone it tells the time.
///
/// # Errors
/// It did not answer.
pub async fn offset(
    client: &Client,
    stream: &str,
    clock: &WallClock,
) -> Result<Option<ClockOffset>, BusError> {
    let sent = clock.now().into();
    let bus = time(client, stream).await;
    let answered = clock.now().into();
    Ok(bus?.map(|bus| ClockOffset::of(sent, answered, bus)))
}

impl Bus {
    /// How far this host's clock is ahead of the bus's; `None` before the first worker has started.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn clock_offset(&self) -> Result<Option<ClockOffset>, BusError> {
        self.up()?;
        let stream = proto::subject::EXECUTIONS_STREAM;
        offset(&self.0.client, stream, self.wall_clock()).await
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn of(answered_after: i64, bus_ahead: i64) -> ClockOffset {
        let sent = datetime!(2026-01-01 00:00:00 UTC);
        let seconds = Duration::seconds;
        ClockOffset::of(
            sent,
            sent + seconds(answered_after),
            sent + seconds(bus_ahead),
        )
    }

    #[test]
    fn a_clock_is_off_only_by_what_the_way_there_and_back_cannot_explain() {
        // (seconds until the answer, bus ahead of the question, too far)
        for (answered, bus, too_far) in [
            (0, 60, false),
            (0, 61, true),
            (0, -60, false),
            (0, -61, true),
            (10, 70, false),
            (10, 71, true),
            (10, -60, false),
            (10, -61, true),
        ] {
            assert_eq!(of(answered, bus).is_too_far(), too_far, "{answered} {bus}");
        }
    }

    #[test]
    fn a_clock_that_jumped_back_while_asking_is_no_panic() {
        assert_eq!(of(-30, 0).unsure, Duration::ZERO);
    }

    #[test]
    fn it_is_said_in_which_direction() {
        assert!(of(0, 90).to_string().contains("90.000 s behind the bus's"));
        assert!(of(0, -90).to_string().contains("90.000 s ahead of"));
    }
}
