//! One file operation of a session, beside whatever cell runs.

use std::{io, time::Duration};

use proto::{
    fault::{Fault, FaultCode},
    file::FileEntry,
    limits,
    message::{Answer, Job, Request},
    wire,
};

use super::place::unsupported;
use crate::{
    bus::Responder,
    files::{DataDir, FileError},
    store::{Owner, Store},
};

/// Encoded size of an entry without its path, at most.
const ENTRY_BYTES: usize = 64;

/// Performs the operation for as long as its sender waits.
///
/// # Errors
/// What the caller is told when it fails.
pub async fn perform_in_time(job: &Job, data: &DataDir, store: &Store) -> Result<Answer, Fault> {
    let budget = Duration::from_millis(job.budget_ms);
    let performed = tokio::time::timeout(budget, perform(job, data, store)).await;
    performed.unwrap_or_else(|_| {
        let words = "the file operation took too long; it may have had effects";
        Err(Fault::new(FaultCode::Internal, words))
    })
}

/// Performs the operation.
///
/// # Errors
/// What the caller is told when it fails.
async fn perform(job: &Job, data: &DataDir, store: &Store) -> Result<Answer, Fault> {
    let owner = Owner {
        pool: &job.pool,
        session: &job.session,
        operation: &job.operation,
    };
    let done = match &job.request {
        Request::Upload { path, content } => {
            data.upload(path, content, store).await.map(Answer::File)
        }
        Request::List {
            directory,
            recursive,
        } => match data.list(directory, *recursive).await {
            Ok(entries) => listed(entries, store, owner).await,
            Err(error) => Err(error),
        },
        Request::Stat { path } => data.stat(path).await.map(Answer::File),
        Request::Download { path } => data
            .download(path, store, owner)
            .await
            .map(|(entry, content)| Answer::Content { entry, content }),
        Request::Delete { path } => data.delete(path).await.map(|()| Answer::Gone),
        Request::Execute { .. }
        | Request::Cancel { .. }
        | Request::Describe
        | Request::Stop
        | Request::Unknown => return Err(unsupported()),
    };
    done.map_err(|error| {
        if let FileError::Store(_) | FileError::Io(_) = error {
            tracing::error!(operation.id = %job.operation, session.key = %job.session,
                error = &error as &dyn std::error::Error, "file operation failed");
        }
        Fault::from(&error)
    })
}

/// Puts a listing into an answer, a long one by way of the store.
async fn listed(
    entries: Vec<FileEntry>,
    store: &Store,
    owner: Owner<'_>,
) -> Result<Answer, FileError> {
    let sizes = entries.iter().map(|entry| entry.path.len() + ENTRY_BYTES);
    if sizes.sum::<usize>() <= limits::INLINE_BYTES {
        return Ok(Answer::Files(entries));
    }
    let encoded = wire::encode(&entries).map_err(io::Error::other)?;
    Ok(Answer::ManyFiles(
        store.stage_bytes(encoded, owner, "list").await?,
    ))
}

/// Does `work` while telling those who wait that it goes on.
pub async fn with_heartbeats<T>(waiting: &mut [Responder], work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut beat = tokio::time::interval(limits::HEARTBEAT);
    beat.reset();
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = beat.tick() => for responder in &mut *waiting {
                responder.heartbeat().await;
            },
        }
    }
}

/// The session's own refusal of one file operation too many.
#[must_use]
pub fn too_many() -> Fault {
    let most = limits::SESSION_FILE_JOBS;
    Fault::new(
        FaultCode::SessionBusy,
        format!("{most} file operations are under way already"),
    )
}
