//! The use cases: what callers can ask of a session, in domain words.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use proto::{
    blob::{Blob, Staged},
    execution::Outcome,
    fault::{Fault, FaultCode},
    file::{DirectoryPath, FileEntry, FilePath},
    id::{ClusterKey, Identifier, OperationId, SessionKey},
    limits,
    message::{Answer, Carried, Job, Request, SessionInfo, VERSION},
    pool::Pool,
    wire,
};

use crate::{
    bus::Bus,
    route::{Missing, RouteError, route},
    store::{Store, StoreError, Upload},
};

/// Time that a file operation may take altogether.
const FILE_BUDGET: Duration = Duration::from_secs(120);
/// Time that an execution may wait and run altogether: the ceiling and some waiting.
const EXECUTE_BUDGET: Duration = Duration::from_secs(limits::EXECUTION_SECONDS as u64 + 30);
/// Longest encoded listing: as many entries as there may be, each with the longest path.
const LISTING_BYTES: u64 = (limits::LIST_ENTRIES * (limits::FILE_PATH_BYTES + 128)) as u64;
/// Longest encoded outcome that is read back.
const OUTCOME_BYTES: u64 = 96 * 1024 * 1024;

/// What the use cases need.
#[derive(Clone, Debug)]
pub struct Service {
    bus: Bus,
    store: Store,
    cluster_key: ClusterKey,
}

/// The session that a request is about.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its pool.
    pub pool: Arc<Pool>,
    /// Its name.
    pub identifier: Identifier,
    /// Names the request.
    pub operation: OperationId,
    key: SessionKey,
}

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The job has no answer.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store failed when the code had run.
    #[error("the result could not be fetched")]
    Outcome(#[source] StoreError),
    /// A worker answered something else than was asked.
    #[error("the worker's answer does not fit the question")]
    Answer,
    /// A worker's answer cannot be decoded.
    #[error("the worker's answer cannot be decoded")]
    Wire(#[from] wire::WireError),
}

/// A file's bytes on their way to the caller.
pub type Content = stream::BoxStream<'static, Result<Bytes, object_store::Error>>;

impl Service {
    /// The use cases over this bus and store.
    #[must_use]
    pub fn new(bus: Bus, store: Store, cluster_key: ClusterKey) -> Self {
        Self {
            bus,
            store,
            cluster_key,
        }
    }

    /// The session of this name.
    #[must_use]
    pub fn session(
        &self,
        pool: Arc<Pool>,
        identifier: Identifier,
        operation: OperationId,
    ) -> Session {
        let key = SessionKey::derive(&self.cluster_key, &pool.id, &identifier);
        Session {
            pool,
            identifier,
            operation,
            key,
        }
    }

    /// Runs code. `timeout` is the caller's wish; the pool's ceiling applies.
    ///
    /// # Errors
    /// The platform failed. Code that fails is an [`Outcome`].
    pub async fn execute(
        &self,
        session: &Session,
        code: String,
        timeout: Duration,
    ) -> Result<Outcome, ServiceError> {
        let code = code.into_bytes();
        let code = if Blob::fits_inline(code.len() as u64) {
            Blob::Inline(code)
        } else {
            let place = (&session.pool.id, &session.key);
            Blob::Staged(
                self.store
                    .stage(code.into(), place, &session.operation)
                    .await?,
            )
        };
        let staged = staged(&code);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let job = job(
            session,
            Request::Execute { code, timeout_ms },
            EXECUTE_BUDGET,
        );
        let answer = self.send(&job, Missing::Allocate, staged).await?;
        match answer {
            Answer::Executed(Carried::Inline(outcome)) => Ok(outcome),
            Answer::Executed(Carried::Staged(staged)) => {
                let read = self.store.read_all(staged, OUTCOME_BYTES).await;
                let bytes = read.map_err(ServiceError::Outcome)?;
                Ok(wire::decode(&bytes)?)
            }
            _ => Err(ServiceError::Answer),
        }
    }

    /// Starts a staged upload.
    ///
    /// # Errors
    /// The store failed.
    pub async fn begin_upload(&self, session: &Session) -> Result<Upload, ServiceError> {
        let place = (&session.pool.id, &session.key);
        Ok(self.store.begin(place, &session.operation).await?)
    }

    /// Removes a staged upload that will not be stored.
    pub async fn discard(&self, content: &Blob) {
        if let Blob::Staged(staged) = content {
            self.store.discard(&staged.key).await;
        }
    }

    /// Stores a file.
    ///
    /// # Errors
    /// The platform failed or the file cannot be stored.
    pub async fn upload(
        &self,
        session: &Session,
        path: FilePath,
        content: Blob,
    ) -> Result<FileEntry, ServiceError> {
        let staged = staged(&content);
        let job = job(session, Request::Upload { path, content }, FILE_BUDGET);
        match self.send(&job, Missing::Allocate, staged).await? {
            Answer::File(entry) => Ok(entry),
            _ => Err(ServiceError::Answer),
        }
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// The platform failed or there is no such directory.
    pub async fn list(
        &self,
        session: &Session,
        directory: DirectoryPath,
        recursive: bool,
    ) -> Result<Vec<FileEntry>, ServiceError> {
        let job = job(
            session,
            Request::List {
                directory,
                recursive,
            },
            FILE_BUDGET,
        );
        match self.send(&job, Missing::Allocate, None).await? {
            Answer::Files(entries) => Ok(entries),
            Answer::ManyFiles(staged) => {
                let bytes = self.store.read_all(staged, LISTING_BYTES).await?;
                Ok(wire::decode(&bytes)?)
            }
            _ => Err(ServiceError::Answer),
        }
    }

    /// Describes a file.
    ///
    /// # Errors
    /// The platform failed or there is no such file.
    pub async fn stat(&self, session: &Session, path: FilePath) -> Result<FileEntry, ServiceError> {
        match self
            .send(
                &job(session, Request::Stat { path }, FILE_BUDGET),
                Missing::Allocate,
                None,
            )
            .await?
        {
            Answer::File(entry) => Ok(entry),
            _ => Err(ServiceError::Answer),
        }
    }

    /// Fetches a file.
    ///
    /// # Errors
    /// The platform failed or there is no such file.
    pub async fn download(
        &self,
        session: &Session,
        path: FilePath,
    ) -> Result<(FileEntry, Content), ServiceError> {
        let job = job(session, Request::Download { path }, FILE_BUDGET);
        match self.send(&job, Missing::Allocate, None).await? {
            Answer::Content {
                entry,
                content: Blob::Inline(bytes),
            } => Ok((entry, stream::iter([Ok(bytes.into())]).boxed())),
            Answer::Content {
                entry,
                content: Blob::Staged(staged),
            } => Ok((entry, self.store.read(staged).await?.boxed())),
            _ => Err(ServiceError::Answer),
        }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The platform failed or there is no such file.
    pub async fn delete(&self, session: &Session, path: FilePath) -> Result<(), ServiceError> {
        let job = job(session, Request::Delete { path }, FILE_BUDGET);
        self.gone(&job, Missing::Allocate).await
    }

    /// Ends a session that runs.
    ///
    /// # Errors
    /// The platform failed, or the session does not run ([`FaultCode::NotOwner`]).
    pub async fn stop(&self, session: &Session) -> Result<(), ServiceError> {
        self.gone(&job(session, Request::Stop, FILE_BUDGET), Missing::Refuse)
            .await
    }

    /// Describes a session that runs.
    ///
    /// # Errors
    /// The platform failed, or the session does not run ([`FaultCode::NotOwner`]).
    pub async fn describe(&self, session: &Session) -> Result<SessionInfo, ServiceError> {
        let job = job(session, Request::Describe, FILE_BUDGET);
        match self.send(&job, Missing::Refuse, None).await? {
            Answer::Session(info) => Ok(info),
            _ => Err(ServiceError::Answer),
        }
    }

    async fn gone(&self, job: &Job, missing: Missing) -> Result<(), ServiceError> {
        match self.send(job, missing, None).await? {
            Answer::Gone => Ok(()),
            _ => Err(ServiceError::Answer),
        }
    }

    /// Routes a job. What it staged is removed when it fails: nobody else will.
    async fn send(
        &self,
        job: &Job,
        missing: Missing,
        staged: Option<Staged>,
    ) -> Result<Answer, ServiceError> {
        let answer = route(&self.bus, job, missing).await;
        if let (Err(_), Some(staged)) = (&answer, staged) {
            self.store.discard(&staged.key).await;
        }
        Ok(answer?)
    }
}

impl ServiceError {
    /// Whether the session does not run.
    #[must_use]
    pub fn is_not_running(&self) -> bool {
        matches!(
            self,
            Self::Route(RouteError::Fault(Fault {
                code: FaultCode::NotOwner,
                ..
            }))
        )
    }
}

fn staged(blob: &Blob) -> Option<Staged> {
    match blob {
        Blob::Staged(staged) => Some(staged.clone()),
        Blob::Inline(_) => None,
    }
}

fn job(session: &Session, request: Request, budget: Duration) -> Job {
    Job {
        v: VERSION,
        operation: session.operation.clone(),
        pool: session.pool.id.clone(),
        session: session.key.clone(),
        identifier: session.identifier.clone(),
        budget_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
        request,
    }
}
