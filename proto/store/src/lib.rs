//! The object store as ingress and workers both use it: staged bodies on their way, long
//! results of executions, and the commit logs that sessions' files live in.
#![forbid(unsafe_code)]

mod clock;
mod local;
pub mod log;
mod objects;
mod open;
mod probe;
mod results;
mod staging;
#[cfg(test)]
mod tests;

pub use objects::{Store, StoreError};
pub use open::{OpenError, local_directory};
pub use probe::ProbeError;
pub use staging::{Owner, Upload};
