//! Ingress on a real bus. Needs nats-server and the harness of the end-to-end tests.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's way to fail")]

mod abandoned;
mod documents;
mod imports;
mod once;
mod owner;
