//! The use cases: what callers can ask of a session, in domain words.

use std::{borrow::Cow, sync::Arc, time::Duration};

use proto::{
    blob::Blob,
    execution::{Extension, Language, Outcome},
    fault::FaultCode,
    file::{DirectoryPath, FileEntry, FilePath},
    id::{ClusterKey, Identifier, Incarnation, OperationId, SessionKey},
    limits,
    message::{Answer, Carried, Job, Request},
    pool::Pool,
    record::{BodyDigest, Queued, RecordKey, RecordRef, Submission},
    recovery::SealedIdentifier,
    trace::TraceContext,
    wire,
};
use store::{
    StagingScope, Store, StoreError, Upload,
    log::{history, key::LogKey, manifest::Manifest},
};
use tokio::time::Instant;

use crate::{
    bus::{Bus, BusError},
    download::{Bytes, Download},
    reader::Reader,
    route::{
        Missing, RouteError,
        once::{OnceError, route_once},
        route,
    },
    seal::Sealer,
    unowned,
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
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    pub(crate) cluster_key: ClusterKey,
    sealer: Sealer,
    /// How long the caller of an execution that it named waits for its end.
    wait: Duration,
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
    /// The caller named it, and may ask for it again: an execution gets a record.
    pub named: bool,
    pub(crate) key: SessionKey,
    pub(crate) sealed: Option<SealedIdentifier>,
    /// The trace of the request.
    pub(crate) trace: TraceContext,
}

impl Session {
    /// Whose staging objects its requests are.
    fn owner(&self) -> StagingScope<'_> {
        StagingScope {
            pool: &self.pool.id,
            session: &self.key,
            operation: &self.operation,
        }
    }

    /// What code its pool runs.
    #[must_use]
    pub fn language(&self) -> Language {
        self.pool.container_type.language().unwrap_or_default()
    }

    pub(crate) fn job(&self, request: Request, budget: Duration) -> Job {
        Job {
            v: request.version(),
            operation: self.operation.clone(),
            pool: self.pool.id.clone(),
            session: self.key.clone(),
            identifier: self.identifier.clone(),
            sealed: self.sealed.clone(),
            trace: Some(self.trace),
            budget_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
            request,
        }
    }
}

/// Code to be run.
#[derive(Debug)]
pub struct Code {
    /// What it is written in.
    pub language: Language,
    /// Source text.
    pub text: String,
    /// The caller's wish; the pool's ceiling applies.
    pub timeout: Duration,
    /// How the answer is wished; whoever asks for it later gets it so, too.
    pub wishes: Wishes,
    /// What the caller wants beyond the contract.
    pub extension: Option<Extension>,
}

/// How a caller wishes the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `outputStreamsMaxLength`: characters of each stream; without it the pool's limit alone applies.
    pub stream_characters: Option<u64>,
    /// `returnJupyterFormatExecutionResult`: all forms of the result instead of one.
    pub all_forms: bool,
    /// `hearth`: what is beyond the contract.
    pub extended: bool,
}

impl From<&Submission> for Wishes {
    fn from(submission: &Submission) -> Self {
        Self {
            stream_characters: submission.stream_characters,
            all_forms: submission.all_forms,
            extended: submission.extended,
        }
    }
}

impl Code {
    pub(crate) fn timeout_ms(&self) -> u64 {
        u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX)
    }

    /// What two requests of one operation must have in common, beside their time limit.
    fn compared(&self) -> Cow<'_, [u8]> {
        let text = self.text.as_bytes();
        let environment = self
            .extension
            .as_ref()
            .map(|extension| &extension.environment);
        match environment.filter(|environment| !environment.is_empty()) {
            None => text.into(),
            Some(environment) => {
                let environment = wire::encode(environment).unwrap_or_default();
                [text, b"\0environment\0", &environment].concat().into()
            }
        }
    }
}

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The job has no answer.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// An execution with a record has no result.
    #[error(transparent)]
    Once(#[from] OnceError),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store failed when the code had run.
    #[error("failed to fetch the result")]
    Outcome(#[source] StoreError),
    /// The log of a session without a worker cannot be read.
    #[error("failed to read the session's log")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The execution was not added to the queue and will not run.
    #[error("too many executions wait for this session or pool")]
    QueueFull,
    /// A worker answered something else than was asked.
    #[error("the worker's answer is one to another kind of request")]
    Answer,
    /// A worker's answer cannot be decoded.
    #[error("failed to decode the worker's answer")]
    Wire(#[from] wire::WireError),
}

impl From<BusError> for ServiceError {
    fn from(error: BusError) -> Self {
        Self::Route(error.into())
    }
}

impl Service {
    /// The use cases over this bus and store.
    #[must_use]
    pub fn new(
        bus: Bus,
        store: Store,
        cluster_key: ClusterKey,
        sealer: Sealer,
        wait: Duration,
    ) -> Self {
        Self {
            bus,
            store,
            cluster_key,
            sealer,
            wait,
        }
    }

    /// The session of this name. `named` says whether the caller chose the operation's id.
    #[must_use]
    pub fn session(
        &self,
        pool: Arc<Pool>,
        identifier: Identifier,
        (operation, named): (OperationId, bool),
        trace: TraceContext,
    ) -> Session {
        let key = SessionKey::derive(&self.cluster_key, &pool.id, &identifier);
        // Without it the session is served all the same.
        let sealed = self.sealer.seal(&identifier, (&pool.id, &key)).ok();
        Session {
            pool,
            identifier,
            operation,
            named,
            key,
            sealed,
            trace,
        }
    }

    /// Runs code; tells what it left, and how long it took to read that once the worker had answered. A reader gets
    /// its output as it happens.
    ///
    /// # Errors
    /// The platform failed. Code that fails is an [`Outcome`].
    pub async fn execute(
        &self,
        session: &Session,
        code: Code,
        reader: Option<&Reader>,
    ) -> Result<(Outcome, Duration), ServiceError> {
        let record = session.named.then(|| self.record(session, &code, None));
        let request = Request::Execute {
            timeout_ms: code.timeout_ms(),
            language: code.language,
            code: self.body(session, code.text.into_bytes()).await?,
            record: record.clone(),
            extension: code.extension,
            stream: reader.is_some(),
        };
        let job = session.job(request, EXECUTE_BUDGET);
        let executed = async {
            let answer = match record {
                None => self.send(&job, Missing::Allocate, reader).await?,
                Some(record) => self.send_once(&job, record, reader).await?,
            };
            let heard = Instant::now();
            Ok((self.executed(answer).await?, heard.elapsed()))
        };
        let Some(reader) = reader else {
            return executed.await;
        };
        tokio::select! {
            outcome = executed => outcome,
            never = reader.give_credit(&self.bus, &job) => match never {},
        }
    }

    /// What an execution left, from the answer that tells of it.
    pub(crate) async fn executed(&self, answer: Answer) -> Result<Outcome, ServiceError> {
        match answer {
            Answer::Executed(carried) => self.outcome(carried).await,
            _ => Err(ServiceError::Answer),
        }
    }

    /// Where the execution is recorded.
    pub(crate) fn record(
        &self,
        session: &Session,
        code: &Code,
        queued: Option<Queued>,
    ) -> RecordRef {
        let (cluster, key) = (&self.cluster_key, &session.key);
        RecordRef {
            key: RecordKey::derive(cluster, &session.pool.id, key, &session.operation),
            digest: BodyDigest::derive(cluster, key, code.timeout, &code.compared()),
            seen: 0,
            submission: Some(Submission {
                operation: session.operation.clone(),
                language: code.language,
                stream_characters: code.wishes.stream_characters,
                all_forms: code.wishes.all_forms,
                extended: code.wishes.extended,
                queued,
            }),
        }
    }

    /// Code as it travels.
    async fn body(&self, session: &Session, code: Vec<u8>) -> Result<Blob, ServiceError> {
        if Blob::fits_inline(code.len() as u64) {
            return Ok(Blob::Inline(code));
        }
        let staged = self.store.stage_bytes(code, session.owner(), "in");
        Ok(Blob::Staged(staged.await?))
    }

    async fn outcome(&self, carried: Carried) -> Result<Outcome, ServiceError> {
        let read = match carried {
            Carried::Inline(outcome) => return Ok(*outcome),
            Carried::Staged(staged) => self.store.read_all(staged, OUTCOME_BYTES).await,
            Carried::Kept(kept) => self.store.read_result(&kept, OUTCOME_BYTES).await,
        };
        Ok(wire::decode(&read.map_err(ServiceError::Outcome)?)?)
    }

    /// Starts a staged upload.
    ///
    /// # Errors
    /// The store failed.
    pub async fn begin_upload(&self, session: &Session) -> Result<Upload, ServiceError> {
        Ok(self.store.begin(session.owner(), "in").await?)
    }

    /// Removes what was staged and nobody will use.
    pub async fn discard(&self, content: &Blob) {
        if let Blob::Staged(staged) = content {
            self.store.discard(staged).await;
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
        match self.ask(session, Request::Upload { path, content }).await? {
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
        let request = Request::List {
            directory: directory.clone(),
            recursive,
        };
        match self.ask(session, request).await {
            Ok(Answer::Files(entries)) => Ok(entries),
            Ok(Answer::ManyFiles(staged)) => {
                let bytes = self.store.read_all(staged, LISTING_BYTES).await?;
                Ok(wire::decode(&bytes)?)
            }
            Ok(_) => Err(ServiceError::Answer),
            Err(error) => {
                let (_, tree) = self.unowned(session, error).await?;
                Ok(unowned::list(&tree, &directory, recursive).map_err(RouteError::from)?)
            }
        }
    }

    /// Describes a file.
    ///
    /// # Errors
    /// The platform failed or there is no such file.
    pub async fn stat(&self, session: &Session, path: FilePath) -> Result<FileEntry, ServiceError> {
        match self
            .ask(session, Request::Stat { path: path.clone() })
            .await
        {
            Ok(Answer::File(entry)) => Ok(entry),
            Ok(_) => Err(ServiceError::Answer),
            Err(error) => {
                let (_, tree) = self.unowned(session, error).await?;
                Ok(unowned::stat(&tree, &path).map_err(RouteError::from)?)
            }
        }
    }

    /// Finds a file to be read.
    ///
    /// # Errors
    /// The platform failed or there is no such file.
    pub async fn download(
        &self,
        session: &Session,
        path: FilePath,
    ) -> Result<Download, ServiceError> {
        let request = Request::Download { path: path.clone() };
        let (entry, bytes) = match self.ask(session, request).await {
            Ok(Answer::Content { entry, content }) => match content {
                Blob::Inline(bytes) => (entry, Bytes::Inline(bytes.into())),
                Blob::Staged(staged) => (entry, Bytes::Staged(staged)),
            },
            Ok(Answer::Logged { entry, content }) => {
                let file = wire::decode(&content.file)?;
                let place = place(session, content.incarnation);
                (entry, Bytes::Logged(place, file))
            }
            Ok(_) => return Err(ServiceError::Answer),
            Err(error) => {
                let (place, tree) = self.unowned(session, error).await?;
                let (entry, file) = unowned::file(&tree, &path).map_err(RouteError::from)?;
                (entry, Bytes::Logged(place, file.clone()))
            }
        };
        Ok(Download::new(self.store.clone(), entry, bytes))
    }

    /// The files of a session that no worker serves; any other error stays one.
    async fn unowned(
        &self,
        session: &Session,
        error: ServiceError,
    ) -> Result<(LogKey, Manifest), ServiceError> {
        let ServiceError::Route(RouteError::Unowned(incarnation)) = error else {
            return Err(error);
        };
        let place = place(session, incarnation);
        let history = history::read(&self.store, &place).await;
        let history = history.map_err(|error| ServiceError::Log(Box::new(error)))?;
        Ok((place, history.manifest))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The platform failed or there is no such file.
    pub async fn delete(&self, session: &Session, path: FilePath) -> Result<(), ServiceError> {
        match self.ask(session, Request::Delete { path }).await? {
            Answer::Gone => Ok(()),
            _ => Err(ServiceError::Answer),
        }
    }

    /// Ends a session; `None` where it does not run.
    ///
    /// # Errors
    /// The platform failed.
    pub async fn stop(&self, session: &Session) -> Result<Option<()>, ServiceError> {
        match self.ask_running(session, Request::Stop).await? {
            Some(Answer::Gone) => Ok(Some(())),
            Some(_) => Err(ServiceError::Answer),
            None => Ok(None),
        }
    }

    /// Interrupts whatever runs in a session; says whether something did, `None` where the session does not run.
    ///
    /// # Errors
    /// The platform failed.
    pub async fn interrupt(&self, session: &Session) -> Result<Option<bool>, ServiceError> {
        match self.ask_running(session, Request::Interrupt).await? {
            Some(Answer::Interrupted(something)) => Ok(Some(something)),
            Some(_) => Err(ServiceError::Answer),
            None => Ok(None),
        }
    }

    /// Asks something of a session, which is allocated where it does not run.
    async fn ask(&self, session: &Session, request: Request) -> Result<Answer, ServiceError> {
        let job = session.job(request, FILE_BUDGET);
        self.send(&job, Missing::Allocate, None).await
    }

    /// Asks something of a session that runs; `None` where it does not.
    async fn ask_running(
        &self,
        session: &Session,
        request: Request,
    ) -> Result<Option<Answer>, ServiceError> {
        let job = session.job(request, FILE_BUDGET);
        match self.send(&job, Missing::Refuse, None).await {
            Err(ServiceError::Route(RouteError::Fault(fault)))
                if fault.code == FaultCode::NotOwner =>
            {
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// Routes a job. What it staged is removed when it fails: nobody else will.
    async fn send(
        &self,
        job: &Job,
        missing: Missing,
        reader: Option<&Reader>,
    ) -> Result<Answer, ServiceError> {
        let answer = route(&self.bus, job, missing, reader).await;
        if let (Err(_), Some(content)) = (&answer, content(&job.request)) {
            self.discard(content).await;
        }
        Ok(answer?)
    }

    /// Routes an execution with a record. What it staged is removed as soon as nobody can need it.
    async fn send_once(
        &self,
        job: &Job,
        record: RecordRef,
        reader: Option<&Reader>,
    ) -> Result<Answer, ServiceError> {
        let answer = route_once(&self.bus, job.clone(), record, self.wait, reader).await;
        match (&answer, content(&job.request)) {
            (Err(OnceError::Pending), _) | (_, None) => {}
            (_, Some(content)) => self.discard(content).await,
        }
        Ok(answer?)
    }
}

fn place(session: &Session, incarnation: Incarnation) -> LogKey {
    LogKey {
        pool: session.pool.id.clone(),
        session: session.key.clone(),
        incarnation,
    }
}

/// What a request brings along.
fn content(request: &Request) -> Option<&Blob> {
    match request {
        Request::Execute { code: content, .. } | Request::Upload { content, .. } => Some(content),
        _ => None,
    }
}
