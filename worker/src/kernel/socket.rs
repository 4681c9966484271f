//! A kernel's socket. Bytes alone come out of it: descriptors that are sent along are refused.

use std::io::{self, IoSliceMut};

use bytes::BytesMut;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, recvmsg};
use tokio::io::Interest;

use super::{chunk::with_chunk, descriptor::Descriptor, violation::Violation};
use crate::sandbox::unread_by_peer;

/// Takes what is there; 0 if there is nothing.
pub(super) fn receive(socket: &Descriptor, into: &mut BytesMut) -> Result<usize, Violation> {
    with_chunk(|chunk| {
        let received = socket.try_io(Interest::READABLE, |socket| {
            let mut nowhere = RecvAncillaryBuffer::default();
            let parts = &mut [IoSliceMut::new(chunk)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = recvmsg(socket, parts, &mut nowhere, flags)?;
            Ok((message.bytes, message.flags))
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            // Without room for them they are closed by the kernel, which says so.
            Ok((_, flags)) if flags.contains(ReturnFlags::CTRUNC) => Err(Violation::Descriptors),
            Ok((count @ 1.., _)) => {
                into.extend_from_slice(chunk.get(..count).unwrap_or_default());
                Ok(count)
            }
            Ok((0, _)) | Err(_) => Err(Violation::Closed),
        }
    })
}

/// Sends what there is room for; `None` if there is none.
pub(super) fn send(socket: &Descriptor, bytes: &[u8]) -> Result<Option<usize>, Violation> {
    let sent = socket.try_io(Interest::WRITABLE, |socket| {
        Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?)
    });
    match sent {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(_) => Err(Violation::Closed),
    }
}

/// Sends these bytes whole, whether or not the runtime knows yet that there is room; `false` if there is not.
pub(super) fn send_at_once(socket: &Descriptor, bytes: &[u8]) -> Result<bool, Violation> {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(count) => Ok(count == bytes.len()),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(_) => Err(Violation::Closed),
    }
}

/// Whether nothing waits to be received. The runtime may not know of the newest yet.
pub(super) fn is_silent(socket: &Descriptor) -> bool {
    let mut byte = [0_u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recv(socket, &mut byte, flags) {
        Ok((_, count)) => count == 0,
        Err(_) => true,
    }
}

/// Whether the other side has not taken all that was sent.
pub(super) fn is_unread(socket: &Descriptor) -> bool {
    unread_by_peer(socket).is_ok_and(|bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use std::{
        io::IoSlice,
        mem::MaybeUninit,
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

    use super::*;

    fn pair() -> (Descriptor, Descriptor) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let watched = |stream: UnixStream| {
            stream.set_nonblocking(true).unwrap();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let mut descriptor = Descriptor::new(stream.into(), interest);
            descriptor.watch().unwrap();
            descriptor
        };
        (watched(ours), watched(theirs))
    }

    async fn receive_after(send: impl FnOnce(&Descriptor)) -> Result<usize, Violation> {
        let (ours, theirs) = pair();
        theirs.writable().await;
        send(&theirs);
        ours.readable().await;
        receive(&ours, &mut BytesMut::new())
    }

    #[tokio::test]
    async fn bytes_are_received() {
        let received = receive_after(|socket| {
            assert_eq!(super::send(socket, b"abc").unwrap(), Some(3));
        });
        assert_eq!(received.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn descriptors_are_a_violation_and_are_not_kept() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let received = receive_after(|socket| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [writer.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let parts = [IoSlice::new(b"abc")];
            rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::empty()).unwrap();
        });
        assert!(matches!(received.await, Err(Violation::Descriptors)));
        io::Write::write_all(&mut writer, b"x").unwrap();
        drop(writer);
        // No copy of the writing end is left: the end comes after the byte.
        assert_eq!(io::read_to_string(reader).unwrap(), "x");
    }

    #[tokio::test]
    async fn bytes_are_sent_at_once_to_a_socket_that_was_at_rest() {
        let (mut ours, theirs) = pair();
        ours.unwatch();
        ours.watch().unwrap();
        assert!(send_at_once(&ours, b"abc").unwrap());
        theirs.readable().await;
        assert_eq!(receive(&theirs, &mut BytesMut::new()).unwrap(), 3);
    }

    #[tokio::test]
    async fn what_the_other_side_has_not_taken_shows() {
        let (ours, theirs) = pair();
        ours.writable().await;
        assert!(!is_unread(&ours) && is_silent(&theirs));
        assert_eq!(send(&ours, b"abc").unwrap(), Some(3));
        assert!(is_unread(&ours) && !is_silent(&theirs));
        theirs.readable().await;
        assert_eq!(receive(&theirs, &mut BytesMut::new()).unwrap(), 3);
        assert!(!is_unread(&ours) && is_silent(&theirs));
    }
}
