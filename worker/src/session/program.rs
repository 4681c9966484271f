//! Code on its way from a job to the kernel.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use proto::{
    blob::Blob,
    execution::Language,
    fault::{Fault, FaultCode},
    limits,
};
use store::Store;
use tokio::{sync::watch, time::Instant};

use super::ports::KernelPort;
use crate::{
    kernel::{Cell, Program},
    lease::ownership_check::OwnershipCheck,
    outlet::Outlet,
};

/// Code as it came, and what it is written in.
#[derive(Debug)]
pub struct Source {
    /// UTF-8 text, here or in the store.
    pub text: Blob,
    /// Decides what runs it.
    pub language: Language,
    /// In the store it is left for another try.
    pub kept: bool,
    /// Environment variables for this run alone.
    pub environment: BTreeMap<String, String>,
    /// Gets its output as it comes.
    pub outlet: Option<Arc<Outlet>>,
}

/// A cell's end, or why it never began.
pub type Ran = Result<Cell, Fault>;

/// A cell at work; the kernel comes back with what it left.
pub type CellAtWork = BoxFuture<'static, (Box<dyn KernelPort>, Ran)>;

/// Whether an execution's code was handed to the kernel. Its clones know the same: the code on its way, and
/// whoever may stop it before.
#[derive(Clone, Debug)]
pub struct Handover(watch::Sender<Step>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    OnItsWay,
    Withdrawn,
    Begun(Instant),
}

impl Default for Handover {
    fn default() -> Self {
        Self(watch::Sender::new(Step::OnItsWay))
    }
}

impl Handover {
    /// When the code began, if it did.
    #[must_use]
    pub fn begun(&self) -> Option<Instant> {
        match *self.0.borrow() {
            Step::Begun(at) => Some(at),
            Step::OnItsWay | Step::Withdrawn => None,
        }
    }

    /// Whether it may begin yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.0.borrow() == Step::OnItsWay
    }

    /// Has the code never begin, unless it has begun.
    pub fn withdraw(&self) {
        self.0.send_if_modified(|step| {
            let is_in_time = *step == Step::OnItsWay;
            if is_in_time {
                *step = Step::Withdrawn;
            }
            is_in_time
        });
    }

    fn begin(&self) {
        self.0.send_replace(Step::Begun(Instant::now()));
    }

    async fn withdrawn(&self) {
        // The sender is here, too.
        drop(
            self.0
                .subscribe()
                .wait_for(|step| *step == Step::Withdrawn)
                .await,
        );
    }
}

/// When and for whom code begins.
#[expect(
    missing_debug_implementations,
    reason = "it holds a closure, and is gone at once"
)]
pub struct Beginning {
    /// Not before this moment.
    pub from: Instant,
    /// Whether the session is still this worker's: of a session that is another's nothing may run.
    pub ownership_check: OwnershipCheck,
    /// Called when the kernel is about to get the code.
    pub note: Box<dyn FnOnce() + Send>,
    /// Tells whether it got it.
    pub handover: Handover,
}

/// Runs code, keeping `output_bytes` of each output stream.
pub async fn run(
    mut kernel: Box<dyn KernelPort>,
    code: Source,
    store: Store,
    output_bytes: u64,
    beginning: Beginning,
) -> (Box<dyn KernelPort>, Ran) {
    let Beginning {
        from,
        ownership_check,
        note,
        handover,
    } = beginning;
    let language = code.language;
    let waiting = async {
        if from > Instant::now() {
            tokio::select! {
                () = tokio::time::sleep_until(from) => {}
                // The cell finds that there is no kernel any more.
                _ = kernel.idle() => {}
            }
        }
        if language == Language::Unknown {
            return Err(unknown_language());
        }
        // First, since code that is fetched is gone from the store, and the next owner may need it.
        if !ownership_check.owns().await {
            return Err(not_owner());
        }
        let text = text(code.text, code.kept, &store).await?;
        match ownership_check.owns().await {
            true => Ok(text),
            false => Err(not_owner()),
        }
    };
    let text = tokio::select! {
        biased;
        () = handover.withdrawn() => return (kernel, Ok(Cell::nothing())),
        text = waiting => text,
    };
    let text = match text {
        Ok(text) => text,
        Err(fault) => return (kernel, Err(fault)),
    };
    let program = Program {
        text: &text,
        environment: &code.environment,
        output_bytes,
        outlet: code.outlet,
    };
    handover.begin();
    note();
    let cell = kernel.run(language, &program).await;
    (kernel, Ok(cell))
}

/// What those hear whose code did not begin here: they find the session elsewhere.
pub(super) fn not_owner() -> Fault {
    let words = "the session moved to another worker; nothing was done";
    Fault::new(FaultCode::NotOwner, words)
}

fn unknown_language() -> Fault {
    Fault::new(
        FaultCode::Unsupported,
        "this worker does not know the code's language",
    )
}

async fn text(code: Blob, kept: bool, store: &Store) -> Result<String, Fault> {
    let fetched = match code {
        Blob::Staged(object) if kept => {
            let bytes = store.read_result(&object, limits::CODE_BYTES as u64).await;
            bytes.map(Vec::from)
        }
        code => store.fetch_bytes(code, limits::CODE_BYTES).await,
    };
    let bytes = fetched.map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "failed to fetch the code"
        );
        Fault::new(
            FaultCode::StorageUnavailable,
            "the code could not be fetched; it did not run",
        )
    })?;
    String::from_utf8(bytes)
        .map_err(|_| Fault::new(FaultCode::Unsupported, "the code is not UTF-8 text"))
}
