//! Long frames, which take a processor for longer than the other tasks of a thread should wait: to read one of
//! 32 MiB takes 50 to 250 ms, depending on what is in it.

use tokio::runtime::{Handle, RuntimeFlavor};

/// A longer frame is read and written aside, in bytes. One of this length takes 2 ms at most.
pub(super) const LONG_BYTES: usize = 256 * 1024;

/// Does what may take long, on this thread, whose processor time it counts as; if it `is_long`, another thread
/// goes on with the tasks of this one.
pub(super) fn aside<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) if is_long => tokio::task::block_in_place(work),
        // A runtime of one thread has no other, as in tests.
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn other_tasks_of_the_thread_go_on_meanwhile() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let parsing = runtime.spawn(async {
            let (other, is_run) = mpsc::channel();
            aside(true, || {
                tokio::spawn(async move { other.send(()).unwrap() });
                is_run.recv_timeout(Duration::from_secs(30))
            })
        });
        assert_eq!(runtime.block_on(parsing).unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_does_it_itself() {
        assert_eq!(aside(true, || 7), 7);
    }
}
