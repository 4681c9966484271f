//! Records on the bus as ingress and workers both use them. They lie in streams that keep the last
//! message of every subject, and change by compare-and-set only: [`cas`] has the port
//! to the bus for that, [`nats`] is the bus behind it, [`execution`] the records that both sides write, [`share`] how many of them a pool may have, [`queue`]
//! the asynchronous executions, [`fleet`] what all processes must agree on.
#![forbid(unsafe_code)]

pub mod cas;
pub mod execution;
pub mod fleet;
pub mod nats;
pub mod queue;
pub mod room;
pub mod share;
pub mod watch;
