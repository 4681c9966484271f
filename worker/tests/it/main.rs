//! The worker's parts on a real kernel and a real bus. Needs root, the session image, the zygote's
//! library and nats-server.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::mem_forget,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's way to fail"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a real kernel and a real bus are tested at their own pace"
)]

mod connecting;
mod identity;
mod kernel;
mod listener;
mod records;
mod responder;
mod sandbox;
mod sync;
