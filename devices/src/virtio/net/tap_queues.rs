// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many descriptors are attached to a tap with several queues, by netlink. Called on `main`.
//! Linux, `drivers/net/tun.c` (`tun_fill_info`, since 4.17).

use super::link_watch::{Interface, MESSAGE_BUF_SIZE, next_message, open_socket, request_link};
use rustix::net::{RecvFlags, recv};

/// Attributes of a link, of what its kind has, and of a tap. Linux, `include/uapi/linux/if_link.h`.
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
/// Flags in the type of an attribute.
const TYPE_MASK: u16 = (1 << 14) - 1;
const HEADER_SIZE: usize = 4;

/// Descriptors that are attached to the tap with this index. `None` if it is not known.
pub(super) fn attached(index: u32) -> Option<u32> {
    let socket = open_socket().ok()?;
    request_link(&socket, index).ok()?;
    let mut buffer = vec![0; MESSAGE_BUF_SIZE];
    // The kernel answers a request before it returns from it.
    let (_, length) = recv(&socket, &mut *buffer, RecvFlags::empty()).ok()?;
    let (kind, body) = next_message(&mut buffer.get(..length)?)?;
    let attributes = body.get(size_of::<Interface>()..).filter(|_| kind == libc::RTM_NEWLINK)?;
    let path = [IFLA_LINKINFO, IFLA_INFO_DATA, IFLA_TUN_NUM_QUEUES];
    let queues = path.into_iter().try_fold(attributes, attribute)?;
    Some(u32::from_ne_bytes(*queues.first_chunk()?))
}

/// Content of the first attribute of type `kind` in `bytes`.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(&[a, b, c, d]) = bytes.first_chunk::<HEADER_SIZE>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let content = bytes.get(HEADER_SIZE..length)?;
        if u16::from_ne_bytes([c, d]) & TYPE_MASK == kind {
            return Some(content);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_is_found_behind_others_and_none_past_the_end() {
        let bytes = [7, 0, 3, 0, 1, 2, 3, 0, 6, 0, 8, 0x80, 4, 5, 0, 0, 9, 0, 9, 0];
        assert_eq!(attribute(&bytes, 3), Some(&[1, 2, 3][..]));
        assert_eq!(attribute(&bytes, 8), Some(&[4, 5][..]));
        assert_eq!(attribute(&bytes, 9), None, "longer than what there is");
        assert_eq!(attribute(&bytes, 1), None);
        assert_eq!(attribute(&[3, 0, 1, 0], 1), None, "shorter than its header");
    }
}
