//! What the tests beside the code share, and the tests that run on real stores.

pub(crate) mod faults;
pub(crate) mod generate;
mod probes;
mod stores;
mod suite;
