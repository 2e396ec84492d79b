// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Descriptors that a client passes with a request (`SCM_RIGHTS`, unix(7)).

use rustix::cmsg_space;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The most that a request needs.
pub(crate) const MAX_DESCRIPTORS: usize = 3;

/// What came with one request, open until the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Descriptors(Arc<[OwnedFd]>);

impl Descriptors {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter()
    }
}

impl From<Vec<OwnedFd>> for Descriptors {
    fn from(descriptors: Vec<OwnedFd>) -> Self {
        Self(descriptors.into())
    }
}

/// Two are equal if one is a clone of the other, or if both have none.
impl PartialEq for Descriptors {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.is_empty() && other.0.is_empty())
    }
}

impl Eq for Descriptors {}

/// Reads once into `bytes`. Descriptors that come with them are added to `descriptors`; those beyond [`MAX_DESCRIPTORS`] are closed.
pub(super) fn receive(socket: impl AsFd, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    descriptors.truncate(MAX_DESCRIPTORS);
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::unix::net::UnixStream;

    fn send(socket: &UnixStream, count: usize) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = vec![socket.as_fd(); count];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(socket, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
    }

    #[test]
    fn descriptors_are_received_up_to_their_limit() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut bytes, mut descriptors) = ([0; 8], Vec::new());
        for (count, expected) in [(1, 1), (1, 2), (8, MAX_DESCRIPTORS), (1, MAX_DESCRIPTORS)] {
            send(&far, count);
            assert_eq!(receive(&near, &mut bytes, &mut descriptors).unwrap(), 1);
            assert_eq!(descriptors.len(), expected);
        }
    }
}
