//! What ingress and worker have in common as processes of a host: their settings ([`settings`]), how they log
//! ([`log`]) and export spans ([`spans`]), read settings again ([`hangup`]), say why they end ([`failure`]) and what to do about it ([`remedy`]), measure their readiness ([`measure`], [`checks`]), show
//! it and their figures ([`admin`], [`metrics`]), and look at a host and its settings before they start
//! ([`preflight`]).
#![forbid(unsafe_code)]

pub mod admin;
pub mod checks;
pub mod failure;
pub mod hangup;
pub mod log;
pub mod measure;
pub mod metrics;
pub mod preflight;
pub mod remedy;
pub mod settings;
pub mod spans;
