//! Packets with file descriptors between the worker and its two helper processes.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zygote::wire::{CGROUPS_MAX, FILTER_BYTES_MAX, JOIN_DESCRIPTORS};

use super::sys;

/// Longest packet, in bytes.
const PACKET_BYTES_MAX: usize = FILTER_BYTES_MAX;

/// Most descriptors of one packet.
const DESCRIPTORS_MAX: usize = JOIN_DESCRIPTORS + CGROUPS_MAX;

/// A received packet.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Two connected ends; neither survives an exec unless told to.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(
        family,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one packet.
pub(super) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives one packet; `None` when the peer is gone.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut bytes)];
    let mut read = || rustix::net::recvmsg(&socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC);
    // That the peer ended before it had read everything is told once, ahead of what the peer has sent.
    let message = match read() {
        Err(rustix::io::Errno::CONNRESET) => read()?,
        received => received?,
    };
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a packet does not fit",
        ));
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    bytes.truncate(message.bytes);
    Ok(Some(Packet { bytes, descriptors }))
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(sys::asynchronous(
            socket,
            Interest::READABLE | Interest::WRITABLE,
        )?))
    }

    pub(super) async fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.0
            .async_io(Interest::WRITABLE, |socket| {
                send(socket, bytes, descriptors)
            })
            .await
    }

    /// Sends at once or not at all.
    pub(super) fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.get_ref(), bytes, &[])
    }

    /// Ends the conversation in both directions.
    pub(super) fn close(&self) {
        if let Err(error) = rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Both) {
            tracing::debug!(%error, "a socket was closed before");
        }
    }

    pub(super) async fn receive(&self) -> io::Result<Option<Packet>> {
        self.0
            .async_io(Interest::READABLE, |socket| receive(socket))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_of_a_peer_that_did_not_read_everything_are_heard() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"unread", &[]).unwrap();
        send(&theirs, b"last words", &[]).unwrap();
        drop(theirs);
        let packet = receive(&ours).unwrap().unwrap();
        assert_eq!(packet.bytes, b"last words");
        assert!(receive(&ours).unwrap().is_none());
    }
}
