//! The ingress: stateless; any of them can answer any request.
//!
//! Data flows one way: `api → service → route → {placement, bus}`.
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod auth;
pub mod bus;
pub mod config;
pub mod devkeys;
pub mod download;
pub mod error;
pub mod placement;
pub mod route;
pub mod service;
pub mod sessions;
pub mod tls;
pub mod unowned;
