//! Contents on their way between data directories and the store, in bounded memory.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use store::log::{commit::PACK_BYTES, source::SourceError, writer::Writer};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

/// Parts of one commit that are on their way at once, and sources of one restore.
pub(super) const AT_ONCE: usize = 4;

/// Memory for contents on their way, shared by all sessions of a worker. Each commit needs one pack
/// beside it.
#[derive(Clone, Debug)]
pub struct Transfers(Arc<Semaphore>);

/// A share of it: memory for [`PACK_BYTES`].
pub(super) type Room = OwnedSemaphorePermit;

impl Transfers {
    /// Room for so many bytes, for one pack at least.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let packs = (bytes / u64::from(PACK_BYTES)).max(1);
        let packs = usize::try_from(packs).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(packs.min(Semaphore::MAX_PERMITS))))
    }

    pub(super) async fn room(&self) -> Result<Room, Stopped> {
        self.0.clone().acquire_owned().await.map_err(|_| Stopped)
    }
}

/// The other half of the work has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transfer has stopped")]
pub(super) struct Stopped;

/// Contents that become a blob.
#[derive(Debug)]
pub(super) struct Part {
    /// Its number in its commit.
    pub(super) number: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) room: Room,
}

/// Where a reading thread hands parts over.
#[derive(Debug)]
pub(super) struct PartSink {
    parts: mpsc::Sender<Part>,
    transfers: Transfers,
    runtime: Handle,
}

impl PartSink {
    /// An outlet and its other end. Needs a runtime.
    pub(super) fn new(transfers: &Transfers) -> (Self, mpsc::Receiver<Part>) {
        let (parts, other_end) = mpsc::channel(1);
        let outlet = Self {
            parts,
            transfers: transfers.clone(),
            runtime: Handle::current(),
        };
        (outlet, other_end)
    }

    /// Waits for memory, on a thread that may wait.
    pub(super) fn room(&self) -> Result<Room, Stopped> {
        self.runtime.block_on(self.transfers.room())
    }

    /// Hands a part over, on a thread that may wait.
    pub(super) fn send(&self, part: Part) -> Result<(), Stopped> {
        self.parts.blocking_send(part).map_err(|_| Stopped)
    }
}

/// Makes every part a blob. Returns the blobs' names by the parts' numbers.
pub(super) async fn upload(
    writer: &Writer,
    parts: mpsc::Receiver<Part>,
) -> Result<HashMap<usize, String>, SourceError> {
    let parts = stream::unfold(parts, async |mut parts| Some((parts.recv().await?, parts)));
    parts
        .map(|part| async move {
            let name = writer.put_blob(part.bytes.into()).await?;
            drop(part.room);
            Ok((part.number, name))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
