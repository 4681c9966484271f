//! One file operation of a session, beside whatever cell runs.

use std::{io, time::Duration};

use proto::{
    blob::{Blob, Logged},
    fault::{Fault, FaultCode},
    file::{FileEntry, FilePath},
    id::Incarnation,
    limits,
    message::{Answer, Job, Request},
    wire,
};
use store::{StagingScope, Store};

use super::{
    claim::unsupported,
    saver::{SaveError, Saver},
};
use crate::files::{DataDir, FileError};

/// Encoded size of an entry without its path, at most.
const ENTRY_BYTES: usize = 64;

/// A session's files as an operation reaches them.
#[derive(Clone, Debug)]
pub struct Files {
    /// The life of the session whose log holds them.
    pub incarnation: Incarnation,
    /// The files themselves.
    pub data: DataDir,
    /// What makes changes durable.
    pub saver: Saver,
    /// Where long bodies are.
    pub store: Store,
}

/// Performs the operation for as long as its sender waits.
///
/// # Errors
/// What the caller is told when it fails.
pub async fn perform_in_time(job: &Job, files: &Files) -> Result<Answer, Fault> {
    let budget = Duration::from_millis(job.budget_ms);
    let performed = tokio::time::timeout(budget, perform(job, files)).await;
    performed.unwrap_or_else(|_| {
        let words = "the file operation took too long; it may have had effects";
        Err(Fault::new(FaultCode::Internal, words))
    })
}

/// Performs the operation. What changes files is answered once they are saved.
async fn perform(job: &Job, files: &Files) -> Result<Answer, Fault> {
    let owner = StagingScope {
        pool: &job.pool,
        session: &job.session,
        operation: &job.operation,
    };
    let Files {
        data, saver, store, ..
    } = files;
    let done = match &job.request {
        Request::Upload { path, content } => match data.upload(path, content, store).await {
            Ok(entry) => return saved(saver, path, Answer::File(entry)).await,
            Err(error) => Err(error),
        },
        Request::Delete { path } => match data.delete(path).await {
            Ok(()) => return saved(saver, path, Answer::Gone).await,
            Err(error) => Err(error),
        },
        Request::List {
            directory,
            recursive,
        } => match data.list(directory, *recursive).await {
            Ok(entries) => listed(entries, store, owner).await,
            Err(error) => Err(error),
        },
        Request::Stat { path } => data.stat(path).await.map(Answer::File),
        Request::Download { path } => download(path, files, owner).await,
        Request::Execute { .. }
        | Request::Cancel { .. }
        | Request::Interrupt
        | Request::Credit { .. }
        | Request::Recall { .. }
        | Request::Describe
        | Request::Inspect
        | Request::Stop
        | Request::Unknown => return Err(unsupported()),
    };
    done.map_err(|error| {
        if let FileError::Store(_) | FileError::Io(_) = error {
            tracing::error!(operation.id = %job.operation, session.key = %job.session,
                error = &error as &dyn std::error::Error, "failed to do a file operation");
        }
        Fault::from(&error)
    })
}

async fn saved(saver: &Saver, path: &FilePath, answer: Answer) -> Result<Answer, Fault> {
    match saver.path(path).await {
        Ok(()) => Ok(answer),
        Err(error @ SaveError::Unkeepable(_)) => Err(Fault::from(&error)),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to save what a file operation did"
            );
            Err(Fault::from(&error))
        }
    }
}

/// A long file that is in the log as it is goes to its reader from there; any other is read here.
async fn download(
    path: &FilePath,
    files: &Files,
    owner: StagingScope<'_>,
) -> Result<Answer, FileError> {
    let opened = files.data.open(path).await?;
    let entry = opened.entry();
    if !Blob::fits_inline(entry.size)
        && let Some(file) = files.saver.find(path).await
        // It may have been replaced in between by one that is too long to be sent.
        && file.size == entry.size
        && let Ok(encoded) = wire::encode(&file)
        && Blob::fits_inline(encoded.len() as u64)
    {
        let entry = FileEntry {
            modified_ns: file.modified_ns,
            ..entry.clone()
        };
        let content = Logged {
            incarnation: files.incarnation,
            file: encoded,
        };
        return Ok(Answer::Logged { entry, content });
    }
    let (entry, content) = opened.stage(&files.store, owner).await?;
    Ok(Answer::Content { entry, content })
}

/// Puts a listing into an answer, a long one by way of the store.
async fn listed(
    entries: Vec<FileEntry>,
    store: &Store,
    owner: StagingScope<'_>,
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

/// The session's own refusal of one file operation too many.
#[must_use]
pub fn too_many() -> Fault {
    let most = limits::SESSION_FILE_JOBS;
    Fault::new(
        FaultCode::SessionBusy,
        format!("{most} file operations are under way already"),
    )
}
