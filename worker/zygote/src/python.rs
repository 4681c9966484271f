//! The three functions of CPython that make a plain `fork()` safe for it.
//!
//! Found at run time in the process that loaded this library, so it fits any Python 3 that keeps
//! them and links to none.

use std::ffi::CStr;

/// Calls around `fork()`, in the thread that holds Python's global lock.
#[derive(Clone, Copy)]
pub(crate) struct Python {
    before_fork: unsafe extern "C" fn(),
    after_fork_parent: unsafe extern "C" fn(),
    after_fork_child: unsafe extern "C" fn(),
}

impl Python {
    /// Finds the functions; the error names the first one that is missing.
    pub(crate) fn find() -> Result<Self, &'static CStr> {
        Ok(Self {
            before_fork: symbol(c"PyOS_BeforeFork")?,
            after_fork_parent: symbol(c"PyOS_AfterFork_Parent")?,
            after_fork_child: symbol(c"PyOS_AfterFork_Child")?,
        })
    }

    /// Takes Python's import and runtime locks.
    pub(crate) fn before_fork(self) {
        // SAFETY: CPython's documented call before `fork()`; the caller of `zygote_serve` holds
        // the global lock.
        unsafe { (self.before_fork)() }
    }

    /// Releases what [`before_fork`](Self::before_fork) took.
    pub(crate) fn after_fork_parent(self) {
        // SAFETY: follows `before_fork` in the process that called it.
        unsafe { (self.after_fork_parent)() }
    }

    /// Makes the interpreter the child's own and runs its at-fork hooks.
    pub(crate) fn after_fork_child(self) {
        // SAFETY: runs once, in the child of a real `fork()` that `before_fork` preceded.
        unsafe { (self.after_fork_child)() }
    }
}

fn symbol(name: &'static CStr) -> Result<unsafe extern "C" fn(), &'static CStr> {
    // SAFETY: looks up a terminated name among the libraries already loaded.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() {
        return Err(name);
    }
    // SAFETY: the address is that of a C function without arguments or result, as the names of
    // this module are declared in CPython's headers.
    Ok(unsafe { std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn()>(address) })
}
