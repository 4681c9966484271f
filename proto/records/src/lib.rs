//! Records on the bus as ingress and workers both use them. They lie in streams that keep the last
//! message of every subject, and change by compare-and-set only: [`cas`] has the primitives,
//! [`execution`] the records that both sides write.
#![forbid(unsafe_code)]

pub mod cas;
pub mod execution;
