//! The worker's parts on a real kernel. Needs root, the session image and the zygote's library.
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

mod kernel;
mod sandbox;
mod sync;
