//! A worker: owns sessions and runs their code in sandboxes.
//!
//! Data flows one way: `bus → session → {kernel, files, sync, lease, stock} → sandbox`.

pub mod about;
pub mod accept;
pub mod admin;
pub mod allowance;
pub mod app;
pub mod bus;
pub mod clock;
pub mod command;
pub mod config;
pub mod files;
pub mod fleet;
pub mod identity;
pub mod journal;
pub mod kernel;
pub mod lease;
pub mod listener;
pub mod membership;
pub mod metrics;
pub mod outlet;
pub mod preflight;
pub mod presence;
pub mod queue;
pub mod readiness;
pub mod record;
pub mod remedy;
pub mod sandbox;
pub mod session;
pub mod stock;
pub mod sweep;
pub mod sync;
pub mod trace;

pub use routing::patience;
