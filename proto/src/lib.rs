//! The words that both sides of the bus share: identifiers, limits, pools, messages, subjects and
//! faults. Nothing here performs I/O.
#![forbid(unsafe_code)]

pub mod about;
pub mod ambient;
pub mod blob;
pub mod execution;
pub mod fault;
pub mod file;
pub mod fleet;
pub mod health;
pub mod id;
pub mod inspection;
pub mod journal;
pub mod lease;
pub mod limits;
pub mod message;
pub mod pool;
pub mod record;
pub mod recovery;
pub mod subject;
pub mod trace;
pub mod wire;
