//! The worker's binary. Run again under the names that [`worker::sandbox`] defines, it is one of
//! the worker's helper processes instead.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use worker::{command, sandbox};

fn main() -> ExitCode {
    // The helpers must stay single-threaded and touch neither arguments nor environment.
    match std::env::args_os()
        .next()
        .as_deref()
        .and_then(std::ffi::OsStr::to_str)
    {
        Some(sandbox::CAGED) => sandbox::caged::main(),
        Some(sandbox::ZYGOTE) => sandbox::launcher::main(),
        _ => command::main(),
    }
}
