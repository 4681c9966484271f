//! Packets with file descriptors on a `SOCK_SEQPACKET` socket.

use std::ffi::c_int;
use std::io::{Error, ErrorKind, Result};
use std::mem;
use std::ptr;

use crate::wire::{CGROUPS_MAX, JOIN_DESCRIPTORS};

/// Most descriptors in one packet.
const DESCRIPTORS_MAX: usize = JOIN_DESCRIPTORS + CGROUPS_MAX;

/// Room for one control message with [`DESCRIPTORS_MAX`] descriptors, aligned as `cmsghdr` is.
type Control = [u64; 16];

/// A received packet. The descriptors are bare numbers, because in a forked child they end
/// together with everything else, not one by one.
pub(crate) struct Packet {
    pub(crate) length: usize,
    pub(crate) descriptors: Vec<c_int>,
}

/// Length of a descriptor in a packet.
const DESCRIPTOR_BYTES: u32 = 4;
const _: () = assert!(DESCRIPTOR_BYTES as usize == mem::size_of::<c_int>());

/// Waits for a packet; `None` when the peer has closed its end.
pub(crate) fn receive(socket: c_int, buffer: &mut [u8]) -> Result<Option<Packet>> {
    let mut control: Control = [0; 16];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = message(&mut part, &mut control, mem::size_of::<Control>());
    // SAFETY: `header` points to a buffer and a control area that outlive the call.
    let received = unsafe { libc::recvmsg(socket, &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(received).map_err(|_| Error::last_os_error())?;
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(Error::new(ErrorKind::InvalidData, "a packet does not fit"));
    }
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(Packet {
        length,
        descriptors: descriptors(&header),
    }))
}

/// Sends a packet, with one descriptor if given.
pub(crate) fn send(socket: c_int, packet: &[u8], descriptor: Option<c_int>) -> Result<()> {
    let mut control: Control = [0; 16];
    let mut part = libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    };
    // SAFETY: pure arithmetic.
    let space = unsafe { libc::CMSG_SPACE(DESCRIPTOR_BYTES) } as usize;
    let header = message(
        &mut part,
        &mut control,
        if descriptor.is_some() { space } else { 0 },
    );
    if let Some(descriptor) = descriptor {
        // SAFETY: `header` tells of the control area.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        // SAFETY: the control area is large enough for one header and aligned for it.
        let control = unsafe { &mut *first };
        control.cmsg_level = libc::SOL_SOCKET;
        control.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: pure arithmetic.
        control.cmsg_len = unsafe { libc::CMSG_LEN(DESCRIPTOR_BYTES) } as usize;
        // SAFETY: the data of this header lies inside the control area.
        let data = unsafe { libc::CMSG_DATA(control) }.cast::<c_int>();
        // SAFETY: there is room for one descriptor, which may be unaligned.
        unsafe { data.write_unaligned(descriptor) };
    }
    // SAFETY: `header` points to the packet and a control area that outlive the call; the kernel
    // only reads both.
    let sent = unsafe { libc::sendmsg(socket, &raw const header, libc::MSG_NOSIGNAL) };
    if sent < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

fn message(part: &mut libc::iovec, control: &mut Control, controllen: usize) -> libc::msghdr {
    // SAFETY: all-zero is a valid `msghdr`: no name, no parts, no control area.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    if controllen > 0 {
        header.msg_control = ptr::from_mut(control).cast();
        header.msg_controllen = controllen;
    }
    header
}

fn descriptors(header: &libc::msghdr) -> Vec<c_int> {
    let mut found = Vec::with_capacity(DESCRIPTORS_MAX);
    // SAFETY: the kernel has filled in the control area and its length.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: not null, so it is a header inside the control area.
        let head = unsafe { control.read() };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the data follows its header inside the control area.
            let data = unsafe { libc::CMSG_DATA(control) }.cast::<c_int>();
            for index in 0..(head.cmsg_len - empty) / mem::size_of::<c_int>() {
                let place = data.wrapping_add(index);
                // SAFETY: `index` is below the number of descriptors that the length tells.
                found.push(unsafe { place.read_unaligned() });
            }
        }
        // SAFETY: `control` is a header of `header`.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    found
}
