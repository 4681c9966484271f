//! The ingress: stateless; any of them can answer any request.
//!
//! Data flows one way: `server → api → app → service → route → {placement, reader, bus}`; the latter three and `route`
//! are the crate `routing`.
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod auth;
pub mod command;
pub mod config;
pub mod connections;
pub mod download;
pub mod error;
pub mod executions;
pub mod headers;
pub mod membership;
pub mod metrics;
pub mod preflight;
pub mod queues;
pub mod readiness;
pub mod remedy;
pub mod seal;
pub mod server;
pub mod service;
pub mod sessions;
pub mod tls;
pub mod trace;
pub mod unowned;

pub use routing::{bus, patience, reader, route};
