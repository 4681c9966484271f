//! What descriptions of several operations share.

pub mod answers;
pub mod parameters;
