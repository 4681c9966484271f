//! The zygote's half of the sandbox: a library that a warm, single-threaded Python process loads
//! with `ctypes.PyDLL` to fork sessions into cages.
//!
//! Python imports everything a session is likely to want and then calls [`zygote_serve`]. For each
//! join message of the worker the process forks once; the child enters the cage, gives up every
//! right it has ([`join`]) and returns to Python, which from then on is that session's kernel.
//!
//! A session can read all memory of the process it was forked from. So nothing secret ever comes
//! here: messages are numbers and file descriptors ([`wire`]), and the environment is the image's.
#![expect(
    unsafe_code,
    reason = "one of the two places for it: between fork and Python there is no library that could do it"
)]

mod join;
mod leftovers;
mod pages;
mod python;
mod serve;
mod socket;
pub mod wire;

use std::ffi::c_int;

/// Serves join messages that arrive on `control`, a `SOCK_SEQPACKET` socket with descriptor 3.
///
/// Returns `0` once in every child, with the session's socket as descriptor 3, everything else
/// closed but 0 to 2, and all privileges gone. In the zygote itself it never returns: the process
/// ends with status 0 when the worker closes its end, and with status 1, after one line on stderr,
/// when it cannot go on safely.
///
/// Must be called by the only thread of the process, with Python's global lock held.
#[unsafe(no_mangle)]
pub extern "C" fn zygote_serve(control: c_int) -> c_int {
    match serve::serve(control) {
        Ok(serve::Role::Session) => 0,
        Ok(serve::Role::Done) => exit(0),
        Err(error) => {
            eprintln!("zygote: {error}");
            exit(1)
        }
    }
}

fn exit(status: c_int) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(status) }
}
