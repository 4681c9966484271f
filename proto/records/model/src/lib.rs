//! The bus in memory, for tests and simulations of what keeps its records there: [`Model`] stands for the servers,
//! [`Connection`] for one process's end of them. It keeps what nats-server keeps, as [`suite`] shows, which both
//! pass. Its time is tokio's, so that tests pause it; its faults come on request or from a seed.
//!
//! Only tests depend on this crate; no program has it.
#![forbid(unsafe_code)]

mod connection;
mod faults;
pub mod messages;
mod model;
mod server;
pub mod suite;

pub use connection::Connection;
pub use faults::{Chances, Fate, Operation};
pub use model::Model;
pub use server::{Change, Record};
