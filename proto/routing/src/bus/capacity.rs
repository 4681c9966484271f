//! Whether a worker has room for a new session.

use std::time::Duration;

use async_nats::{HeaderMap, Message, header};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use proto::{id::WorkerId, lease::WorkerBeat, subject, wire};
use serde_json::json;
use tokio::time::timeout;

use super::{Bus, BusError, inbox::Arrival};

/// Most workers that are read of.
const WORKERS_READ: usize = 1024;
/// Most workers that are asked whether they live, all at once: the first that does is enough.
const WORKERS_ASKED: usize = 64;
/// How long a worker may take to say that it lives.
const LIVES_WITHIN: Duration = Duration::from_secs(2);

/// Whether somebody takes new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A worker with room has just said that it lives.
    Found,
    /// No worker has written a key in a while.
    NoWorker,
    /// All that have are draining or hold as many sessions as they may.
    NoRoom,
    /// Some have room, but refuse: a clock is wrong, a disk's reserve is reached, or no sandbox can be made.
    Refused,
    /// Some have room by their keys, but none of them answers.
    Silent,
}

impl Bus {
    /// Whether a worker has room for a new session and lives: its key may outlive it.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn room(&self) -> Result<Room, BusError> {
        let question = json!({ "multi_last": [subject::WORKERS], "batch": WORKERS_READ });
        let (keys, _) = self.answers(subject::WORKERS_STREAM, &question).await?;
        let beats: Vec<_> = keys.iter().filter_map(beat).collect();
        let roomy = match with_room(&beats) {
            Ok(roomy) => roomy,
            Err(none) => return Ok(none),
        };
        let asked = roomy.into_iter().take(WORKERS_ASKED);
        let mut answers: FuturesUnordered<_> = asked.map(|worker| self.lives(worker)).collect();
        while let Some(lives) = answers.next().await {
            if lives? {
                return Ok(Room::Found);
            }
        }
        Ok(Room::Silent)
    }

    async fn lives(&self, worker: &WorkerId) -> Result<bool, BusError> {
        let mut inbox = self
            .send(subject::worker_control(worker), Bytes::new())
            .await?;
        let answer = timeout(LIVES_WITHIN, inbox.next()).await;
        Ok(matches!(answer, Ok(Arrival::Frame(_))))
    }
}

/// The workers that new sessions may go to, or why there is none.
fn with_room(beats: &[(WorkerId, WorkerBeat)]) -> Result<Vec<&WorkerId>, Room> {
    if beats.is_empty() {
        return Err(Room::NoWorker);
    }
    let roomy = beats
        .iter()
        .filter(|(_, beat)| !beat.draining && beat.sessions < beat.capacity);
    let roomy: Vec<_> = roomy.collect();
    if roomy.is_empty() {
        return Err(Room::NoRoom);
    }
    let accepting = roomy
        .into_iter()
        .filter(|(_, beat)| beat.accepting.unwrap_or(true));
    let accepting: Vec<_> = accepting.map(|(worker, _)| worker).collect();
    if accepting.is_empty() {
        Err(Room::Refused)
    } else {
        Ok(accepting)
    }
}

fn beat(message: &Message) -> Option<(WorkerId, WorkerBeat)> {
    let subject = message.headers.as_ref().and_then(subject_of)?;
    let worker = subject.rsplit('.').next()?.parse().ok()?;
    Some((worker, wire::decode(&message.payload).ok()?))
}

fn subject_of(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::NATS_SUBJECT)
        .map(async_nats::HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(of: &[(u32, u32, bool)]) -> Vec<(WorkerId, WorkerBeat)> {
        let beat = |(number, &(sessions, capacity, draining)): (usize, &(u32, u32, bool))| {
            let beat = WorkerBeat {
                capacity,
                sessions,
                draining,
                versions: (1, 1),
                pools: None,
                accepting: None,
            };
            (format!("worker-{number}").parse().unwrap(), beat)
        };
        of.iter().enumerate().map(beat).collect()
    }

    #[test]
    fn only_a_worker_that_takes_sessions_has_room() {
        assert_eq!(with_room(&[]), Err(Room::NoWorker));
        let none = beats(&[(5, 5, false), (0, 5, true)]);
        assert_eq!(with_room(&none), Err(Room::NoRoom));
        let one = beats(&[(5, 5, false), (4, 5, false)]);
        assert_eq!(with_room(&one).unwrap(), [&one.get(1).unwrap().0]);

        // An older worker does not say whether it refuses.
        let mut two = beats(&[(0, 5, false), (0, 5, false)]);
        two[0].1.accepting = Some(false);
        assert_eq!(with_room(&two).unwrap(), [&two[1].0]);
        two[1].1.accepting = Some(false);
        assert_eq!(with_room(&two), Err(Room::Refused));
        two[1].1.accepting = Some(true);
        assert_eq!(with_room(&two).unwrap(), [&two[1].0]);
        two[1].1.sessions = 5;
        assert_eq!(with_room(&two), Err(Room::Refused));
    }
}
