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
use tokio::time::Instant;

use super::ports::KernelPort;
use crate::{
    kernel::{Cell, Program},
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

/// Runs code from this moment on, keeping `output_bytes` of each output stream.
pub async fn run(
    mut kernel: Box<dyn KernelPort>,
    code: Source,
    store: Store,
    output_bytes: u64,
    from: Instant,
) -> (Box<dyn KernelPort>, Ran) {
    if from > Instant::now() {
        tokio::select! {
            () = tokio::time::sleep_until(from) => {}
            // The cell finds that there is no kernel any more.
            _ = kernel.idle() => {}
        }
    }
    let ran = match (text(code.text, code.kept, &store).await, code.language) {
        (Err(fault), _) => Err(fault),
        (Ok(_), Language::Unknown) => Err(unknown_language()),
        (Ok(text), language) => {
            let program = Program {
                text: &text,
                environment: &code.environment,
                output_bytes,
                outlet: code.outlet,
            };
            Ok(kernel.run(language, &program).await)
        }
    };
    (kernel, ran)
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
