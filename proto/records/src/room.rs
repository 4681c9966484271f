//! Whether there is room for more records. A stream that is full to the last byte would refuse the ends of
//! executions, too, so new ones are refused while there is still room for the ends of those that run.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::Context;
use proto::subject;
use tokio::time::Instant;

use crate::cas::BusError;

/// A look at the stream is believed for this long,
const BELIEVED_FOR: Duration = Duration::from_secs(3);
/// and for so many executions.
const BELIEVED_TIMES: u32 = 64;

/// What is known of the room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Arc<Mutex<Option<Look>>>);

/// One look at the stream.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    times: u32,
    is_left: bool,
}

impl Room {
    /// Whether one more execution may be recorded. Looks at the stream now and then.
    ///
    /// # Errors
    /// The bus did not answer.
    pub(crate) async fn is_left(&self, context: &Context) -> Result<bool, BusError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let stream = context.get_stream(subject::EXECUTIONS_STREAM).await;
        let stream = stream.map_err(|error| BusError::new("stream was not described", error))?;
        let info = stream.cached_info();
        let is_left = fits(info.state.bytes, info.config.max_bytes);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Look {
            at: Instant::now(),
            times: 0,
            is_left,
        });
        Ok(is_left)
    }

    fn known(&self) -> Option<bool> {
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = look.as_mut()?;
        look.times += 1;
        let believed = look.times < BELIEVED_TIMES && look.at.elapsed() < BELIEVED_FOR;
        believed.then_some(look.is_left)
    }
}

/// The last eighth is for the ends of executions.
fn fits(bytes: u64, most: i64) -> bool {
    match u64::try_from(most) {
        Ok(most) if most > 0 => bytes < most - most / 8,
        // Not bounded.
        Ok(_) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_eighth_is_kept_for_ends() {
        for (bytes, most, left) in [
            (0, 800, true),
            (699, 800, true),
            (700, 800, false),
            (800, 800, false),
            (900, 800, false),
            (u64::MAX, -1, true),
            (u64::MAX, 0, true),
        ] {
            assert_eq!(fits(bytes, most), left, "{bytes} {most}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_believed_for_a_while_and_so_many_times() {
        let look = |is_left| {
            let at = Instant::now();
            Room(Arc::new(Mutex::new(Some(Look {
                at,
                times: 0,
                is_left,
            }))))
        };
        let room = look(false);
        assert_eq!(room.known(), Some(false));
        tokio::time::advance(BELIEVED_FOR).await;
        assert_eq!(room.known(), None);
        let room = look(true);
        let believed = (0..200).filter(|_| room.known().is_some()).count();
        assert_eq!(believed, 63);
        assert_eq!(Room::default().known(), None);
    }
}
