//! One harness, three uses: end-to-end tests, benchmarks and load. It starts the real stack (NATS,
//! ingresses, workers) on free loopback ports, talks to it as any HTTP client would, and leaves
//! nothing behind.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures real processes, and names what they must not have seen before"
)]

pub mod bench;
pub mod chance;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod command;
pub mod documents;
pub mod events;
pub mod inventory;
pub mod load;
pub mod multipart;
pub mod object_server;
pub mod places;
pub mod raw;
pub mod stall;
pub mod statistics;
pub mod store_proxy;
pub mod token;
pub mod wait;
