//! The id of a worker while it has it.

use std::{sync::Arc, time::Duration};

use async_nats::Client;
use proto::{id::WorkerId, subject};
use records::{cas::RecordBus, fleet::Standing};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::Identity;
use crate::presence;

/// How long the bus may take when the id is given back.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// A claim that is renewed, by a run that answers whoever asks whether it lives. One that is dropped ends by
/// its time.
#[derive(Debug)]
pub struct HeldId {
    bus: Arc<dyn RecordBus>,
    id: WorkerId,
    run: WorkerId,
    /// Cancelled when another worker has the id.
    replaced: CancellationToken,
    /// Ends the renewal.
    end: CancellationToken,
    renewal: AbortOnDropHandle<()>,
    proof: AbortOnDropHandle<()>,
}

impl HeldId {
    /// Claims `id` for `run`. The worker must have its place on this host already: a claim of a run on this
    /// host that does not listen is taken over, because its process is known to be gone.
    ///
    /// # Errors
    /// Another worker of this id lives, or the bus failed.
    pub async fn take(
        client: &Client,
        bus: Arc<dyn RecordBus>,
        standing: Standing,
        (id, run): (&WorkerId, &WorkerId),
    ) -> anyhow::Result<Self> {
        let asked = client.subscribe(subject::worker_control(run)).await?;
        let proof = presence::prove_life(client.clone(), asked);
        let proof = AbortOnDropHandle::new(tokio::spawn(proof));
        let identity = Identity::claim(client, bus.clone(), id, run).await?;
        let (replaced, end) = (CancellationToken::new(), CancellationToken::new());
        // At once: a worker may take longer to start than a claim lives.
        let renewal = tokio::spawn(identity.keep(standing, replaced.clone(), end.clone()));
        Ok(Self {
            bus,
            id: id.clone(),
            run: run.clone(),
            replaced,
            end,
            renewal: AbortOnDropHandle::new(renewal),
            proof,
        })
    }

    /// Returns when another worker has the id: this one was cut off from the bus for longer than its claim
    /// lives.
    pub async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    /// Gives the id back, so that nobody has to wait for the end of the claim. Until then the run answers.
    pub async fn release(self) {
        let Self {
            bus,
            id,
            run,
            end,
            renewal,
            proof: _proof,
            replaced: _,
        } = self;
        end.cancel();
        let released = async {
            // A renewal on its way would make the claim anew.
            drop(renewal.await);
            Identity::release(&*bus, &id, &run).await
        };
        match tokio::time::timeout(RELEASE_WITHIN, released).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => tracing::warn!("failed to give the id of this worker back"),
        }
    }
}
