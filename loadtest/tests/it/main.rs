//! End-to-end tests: a real nats-server, real ingresses, real workers with real sandboxes, and
//! requests as any HTTP client would send them.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "real processes are tested at their own pace, with names that they have not seen before"
)]

#[cfg(test)]
mod async_executions;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod az_extension;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod bus_lost;
#[cfg(test)]
mod cells;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod client_wire;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod command;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod contradictions;
#[cfg(test)]
mod cors;
#[cfg(test)]
mod counted;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod execute;
#[cfg(test)]
mod exported;
#[cfg(test)]
mod extension;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod file_names;
#[cfg(test)]
mod files;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hand_over;
#[cfg(test)]
mod hearth;
#[cfg(test)]
mod hostile_code;
#[cfg(test)]
mod hostile_files;
#[cfg(test)]
mod hostile_frames;
#[cfg(test)]
mod identifiers;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod keeper;
#[cfg(test)]
mod leaks;
#[cfg(test)]
mod libraries;
#[cfg(test)]
mod load;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod network;
#[cfg(test)]
mod new_contract;
#[cfg(test)]
mod object_store;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod operator_mistakes;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod packages;
#[cfg(test)]
mod place;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod preflight;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod records;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod results;
#[cfg(test)]
mod runbook;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod shell;
#[cfg(test)]
mod stack;
#[cfg(test)]
mod start_failures;
#[cfg(test)]
mod stock;
#[cfg(test)]
mod store_proxy;
#[cfg(test)]
mod streaming;
#[cfg(test)]
mod systemd_units;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod unkept_files;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod wrong_clock;
