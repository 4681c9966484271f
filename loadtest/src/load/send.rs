//! Sends requests when they are due.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::Result;
use futures_util::{
    future::{join_all, try_join_all},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::time::{Instant, sleep_until};

use super::plan::{Arrival, Kind, Plan};
use crate::client::{Client, ClientError, Session, Status};

/// The file that is stored and read.
const FILE: &str = "load.bin";
const FILE_BYTES: [u8; 1024] = [b'x'; 1024];

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// What it was.
    pub kind: Kind,
    /// When it was due, from the beginning on.
    pub due: Duration,
    /// By how much later it was sent: this program's own fault.
    pub late: Duration,
    /// From when it was due to its whole answer, or the code of the error.
    pub outcome: Result<Duration, String>,
}

/// A pool, and sessions that run in it.
#[derive(Debug)]
pub(super) struct Target {
    client: Client,
    sessions: Vec<Session>,
    next: AtomicUsize,
    code: String,
}

impl Target {
    /// Makes the sessions.
    ///
    /// # Errors
    /// The pool refuses one.
    pub(super) async fn prepare(client: Client, sessions: u32, code: &str) -> Result<Self> {
        let made = (0..sessions).map(|_| async {
            let session = client.fresh();
            session.upload(FILE, &FILE_BYTES).await?;
            session.execute(code).await?;
            Ok::<_, ClientError>(session)
        });
        Ok(Self {
            sessions: try_join_all(made).await?,
            client,
            next: AtomicUsize::default(),
            code: code.to_owned(),
        })
    }

    /// Ends the sessions. One that cannot be ended ends by itself.
    pub(super) async fn clean_up(self) {
        join_all(self.sessions.iter().map(Session::delete)).await;
    }

    /// The session whose turn it is.
    fn session(&self) -> Option<&Session> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.sessions.get(turn.checked_rem(self.sessions.len())?)
    }

    /// The session that a request is for: a new one, or one of those that run.
    fn choose(&self, kind: Kind) -> Option<Session> {
        match kind {
            Kind::New => Some(self.client.fresh()),
            Kind::Warm | Kind::Upload | Kind::Download => self.session().cloned(),
        }
    }

    async fn send(&self, kind: Kind, session: &Session) -> Result<(), String> {
        match kind {
            Kind::Warm | Kind::New => match session.execute(&self.code).await {
                Ok(executed) if executed.status == Status::Failure => Err("CodeFailed".to_owned()),
                done => done.map(drop).map_err(|error| name(&error)),
            },
            Kind::Upload => {
                let stored = session.upload(FILE, &FILE_BYTES).await;
                stored.map(drop).map_err(|error| name(&error))
            }
            Kind::Download => match session.download(FILE).await {
                Ok(bytes) if bytes == FILE_BYTES => Ok(()),
                Ok(_) => Err("WrongBytes".to_owned()),
                Err(error) => Err(name(&error)),
            },
        }
    }
}

/// What an error is called: the service's code, or what kept the request from it.
fn name(error: &ClientError) -> String {
    match error {
        ClientError::Refused { status, code, .. } if code.is_empty() => format!("Http{status}"),
        ClientError::Refused { code, .. } => code.clone(),
        _ => "NoAnswer".to_owned(),
    }
}

/// Sends everything, and returns when the last is answered.
pub(super) async fn all(target: &Target, plan: &Plan, outstanding: usize) -> Vec<Sent> {
    let began = Instant::now();
    let mut under_way = FuturesUnordered::new();
    let mut sent = vec![];
    for arrival in &plan.arrivals {
        let due = began + arrival.due;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(due) => break,
                Some(done) = under_way.next() => sent.push(done),
            }
        }
        if under_way.len() < outstanding {
            under_way.push(one(target, *arrival, due));
        } else {
            sent.push(Sent {
                kind: arrival.kind,
                due: arrival.due,
                late: due.elapsed(),
                outcome: Err("TooManyOutstanding".to_owned()),
            });
        }
    }
    sent.extend(under_way.collect::<Vec<_>>().await);
    sent.sort_by_key(|sent| sent.due);
    sent
}

async fn one(target: &Target, arrival: Arrival, due: Instant) -> Sent {
    let late = due.elapsed();
    let session = target.choose(arrival.kind);
    let outcome = match &session {
        Some(session) => target.send(arrival.kind, session).await,
        None => Err("NoSession".to_owned()),
    };
    let outcome = outcome.map(|()| due.elapsed());
    if let (Kind::New, Some(session)) = (arrival.kind, session) {
        // Only this request was for it. One that cannot be ended ends by itself.
        session.delete().await.ok();
    }
    Sent {
        kind: arrival.kind,
        due: arrival.due,
        late,
        outcome,
    }
}
