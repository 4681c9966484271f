//! Why an ingress does not belong to its fleet.

use std::sync::Arc;

use fleet::FleetFailure;
use proto::fleet::KeyFingerprint;

/// Why this ingress does not belong to its fleet.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Misfit {
    /// Another cluster key.
    #[error(
        "the cluster key of this ingress has fingerprint {ours}, that of its fleet {theirs}: with \
         another key every identifier is another session. Give it the fleet's key in --cluster-key, or \
         the fleet's own bus in --nats; if the key was changed on purpose, run `ingress accept-new-key`"
    )]
    Key {
        /// This ingress's.
        ours: KeyFingerprint,
        /// That of the ingress that was first.
        theirs: KeyFingerprint,
    },
    /// Another store.
    #[error(transparent)]
    Store(Arc<FleetFailure>),
}
