//! The object store as ingress and workers both use it: staged bodies on their way, long
//! results of executions, and the commit logs that sessions' files live in.
#![forbid(unsafe_code)]

mod clock;
mod errors;
mod fleet;
mod local;
pub mod log;
mod objects;
mod open;
mod probe;
mod recovery;
mod results;
mod round_trip;
mod staging;
#[cfg(test)]
mod tests;

pub use errors::Errors;
pub use fleet::FleetError;
pub use objects::{Store, StoreError};
pub use open::{OpenError, local_directory};
pub use probe::ProbeError;
pub use recovery::RecoveryError;
pub use round_trip::RoundTripError;
pub use staging::{StagingScope, Upload};
