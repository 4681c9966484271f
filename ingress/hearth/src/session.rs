//! One session: how it stands, and its end.

use std::time::Duration;

use proto::{
    id::{Identifier, OperationId},
    inspection::Inspection,
    message::{Answer, Job, Request},
    pool::Pool,
    subject, wire,
};
use serde::Serialize;

use crate::{
    error::CommandError,
    fleet::Fleet,
    sessions::{self, Listed},
    table::{Row, span},
};

/// An owner that does not answer within this time is stuck.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long the end of a session may take.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A session as its lease and its owner tell of it.
#[derive(Debug, Serialize)]
pub(crate) struct Session {
    /// What its lease tells.
    #[serde(flatten)]
    lease: Listed,
    /// What its owner tells.
    owner_tells: Told,
}

/// What an owner tells of a session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    /// How it stands.
    Inspection(Inspection),
    /// Nothing: nobody listens for the session. Its worker died or is cut off; the next request moves it.
    Nobody,
    /// Nothing in time.
    Silent,
    /// Not this: the worker is of an older version.
    Older,
}

impl Row for Session {
    const HEAD: &'static [&'static str] = &[
        "identifier",
        "key",
        "owner",
        "epoch",
        "state",
        "runs",
        "waiting",
        "file operations",
        "idle",
        "ends in",
        "lease renewed",
        "files committed",
        "uses",
    ];

    fn cells(&self) -> Vec<String> {
        let lease = &self.lease;
        let known = [
            lease.identifier.to_string(),
            lease.key.to_string(),
            lease.owner.to_string(),
            lease.epoch.to_string(),
        ];
        let told = match &self.owner_tells {
            Told::Inspection(inspection) => of(inspection).to_vec(),
            Told::Nobody => unknown(
                lease,
                "nobody listens for it: the next request moves it to another worker",
            ),
            Told::Silent => unknown(lease, "its owner does not answer: see that worker's log"),
            Told::Older => unknown(
                lease,
                "its owner is of an older version, which does not tell",
            ),
        };
        [known.to_vec(), told].concat()
    }
}

fn of(inspection: &Inspection) -> [String; 9] {
    let Inspection { session, .. } = inspection;
    let ago = |milliseconds: u64| format!("{} ago", span(milliseconds / 1000));
    let runs = inspection.running.as_ref().map(|running| {
        let what = if running.is_saving {
            "; its files are being saved"
        } else {
            ""
        };
        format!(
            "{} since {}{what}",
            running.operation,
            span(running.since_ms / 1000)
        )
    });
    let committed = inspection
        .committed_ms
        .map_or_else(|| "not here yet".to_owned(), ago);
    let uses = inspection.usage.map(|usage| {
        format!(
            "{} MiB of memory, {} processes, {}.{:03} s of processor time",
            usage.memory_bytes >> 20,
            usage.processes,
            usage.cpu_ms / 1000,
            usage.cpu_ms % 1000
        )
    });
    let state = &inspection.state;
    [
        if inspection.is_unsaved {
            format!("{state}; its files are not saved")
        } else {
            state.clone()
        },
        runs.unwrap_or_else(|| "nothing".to_owned()),
        inspection.waiting.to_string(),
        inspection.file_operations.to_string(),
        span(session.idle_ms / 1000),
        span(session.remaining_ms / 1000),
        ago(inspection.lease_renewed_ms),
        committed,
        uses.unwrap_or_else(|| "not known".to_owned()),
    ]
}

fn unknown(lease: &Listed, why: &str) -> Vec<String> {
    let state = match lease.state {
        "held" => why.to_owned(),
        other => other.to_owned(),
    };
    let mut cells = vec!["?".to_owned(); 9];
    for (place, text) in [
        (0, state),
        (4, span(lease.idle_seconds)),
        (5, span(lease.remaining_seconds)),
    ] {
        if let Some(cell) = cells.get_mut(place) {
            *cell = text;
        }
    }
    cells
}

/// How a session stands.
///
/// # Errors
/// There is no such pool or session, or the bus did not answer.
pub(crate) async fn look(
    fleet: &Fleet,
    pool: &str,
    identifier: &Identifier,
) -> anyhow::Result<Session> {
    let (pool, lease) = find(fleet, pool, identifier).await?;
    let asked = ask(fleet, pool, &lease, Request::Inspect, ANSWERS_WITHIN).await;
    let owner_tells = match asked {
        Ok(Some(Answer::Inspection(inspection))) => Told::Inspection(*inspection),
        Ok(Some(_)) => Told::Older,
        Ok(None) => Told::Nobody,
        Err(error) => match error.downcast_ref() {
            Some(CommandError::Silent(..)) => Told::Silent,
            Some(CommandError::Refused { .. }) => Told::Older,
            _ => return Err(error),
        },
    };
    Ok(Session { lease, owner_tells })
}

/// Ends a session, and says so on standard error.
///
/// # Errors
/// There is no such pool or session, no worker holds it, or it did not end in time.
pub(crate) async fn stop(fleet: &Fleet, pool: &str, identifier: &Identifier) -> anyhow::Result<()> {
    let (pool, lease) = find(fleet, pool, identifier).await?;
    let remaining = Duration::from_secs(lease.remaining_seconds);
    match ask(fleet, pool, &lease, Request::Stop, ENDS_WITHIN).await? {
        Some(Answer::Gone) => {
            eprintln!("the session has ended");
            Ok(())
        }
        Some(_) => Err(CommandError::Answer(format!("worker {}", lease.owner)).into()),
        None => Err(CommandError::NotHeld(remaining).into()),
    }
}

async fn find<'a>(
    fleet: &'a Fleet,
    pool: &str,
    identifier: &Identifier,
) -> anyhow::Result<(&'a Pool, Listed)> {
    let mut listed = sessions::list(fleet, pool).await?.into_iter();
    let found = listed.find(|session| session.identifier == *identifier);
    let found = found.ok_or_else(|| CommandError::NoSession(pool.to_owned()))?;
    Ok((fleet.pool(pool)?, found))
}

async fn ask(
    fleet: &Fleet,
    pool: &Pool,
    session: &Listed,
    request: Request,
    within: Duration,
) -> anyhow::Result<Option<Answer>> {
    let subject = subject::session(&pool.id, &session.key, request.verb());
    let operation = OperationId::from_ulid(fleet.bus.ids().next());
    let job = Job {
        v: request.version(),
        operation,
        pool: pool.id.clone(),
        session: session.key.clone(),
        identifier: session.identifier.clone(),
        sealed: None,
        trace: None,
        budget_ms: u64::try_from(within.as_millis())?,
        request,
    };
    let who = format!("worker {}", session.owner);
    let question = wire::encode(&job)?.into();
    fleet.ask(&who, subject, question, within).await
}
