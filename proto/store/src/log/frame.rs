//! zstd frames of bounded length, and the threads that long ones are made on.

use zstd::zstd_safe;

/// Level of compression. Higher ones cost several times the processor time for a few percent.
const LEVEL: i32 = 1;
/// Work on fewer bytes is done where it stands; handing it to another thread costs more.
const INLINE_BYTES: usize = 64 * 1024;

/// Bytes are no frame that we made, or a longer one than allowed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// zstd cannot read it, or its checksum is wrong.
    #[error("the compressed bytes are damaged")]
    Damaged(#[source] std::io::Error),
    /// It does not say its length, or says one beyond the limit.
    #[error("the compressed bytes have no length or too great a one")]
    Length,
}

/// One frame that says its length and carries a checksum.
pub(super) fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    compressor.compress(bytes)
}

/// What is in a frame of at most `limit` bytes.
pub(super) fn decompress(frame: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
    let said = zstd_safe::get_frame_content_size(frame);
    let said = said.ok().flatten().ok_or(FrameError::Length)?;
    let length = usize::try_from(said).map_err(|_| FrameError::Length)?;
    if length > limit {
        return Err(FrameError::Length);
    }
    let bytes = zstd::bulk::decompress(frame, length).map_err(FrameError::Damaged)?;
    if bytes.len() == length {
        Ok(bytes)
    } else {
        Err(FrameError::Length)
    }
}

/// Runs work on `bytes` bytes, elsewhere when there are many.
pub(super) async fn run_blocking<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= INLINE_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels work that has not begun, and then nobody waits.
            Err(_) => std::future::pending().await,
        },
    }
}
