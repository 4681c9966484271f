//! The worker's parts on a real kernel. Needs root, the session image and the zygote's library.
#![expect(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test's way to fail")]

mod kernel;
mod sandbox;
