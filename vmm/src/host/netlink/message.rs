// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A netlink message and its attributes. Linux, `include/uapi/linux/netlink.h`. Pure.

/// Lengths of `struct nlmsghdr` and `struct nlattr`.
pub(super) const HEADER_SIZE: usize = 16;
const ATTRIBUTE_HEADER_SIZE: usize = 4;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const ATTRIBUTE_FLAGS: u16 = 0xc000;
const NESTED: u16 = 0x8000;

/// A request to the kernel.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of type `kind`. `payload` is the structure of the family and whole attributes after it.
    pub(super) fn new(kind: u16, flags: u16, payload: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(payload);
        Self { bytes }
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        push_attribute(&mut self.bytes, kind, value);
        self
    }

    /// Adds an attribute that contains others.
    pub(super) fn nested(self, kind: u16, attributes: &[(u16, &[u8])]) -> Self {
        let mut value = Vec::new();
        attributes.iter().for_each(|(kind, value_of)| push_attribute(&mut value, *kind, value_of));
        self.attribute(kind | NESTED, &value)
    }

    /// The bytes to send, with `flags` added to the request's own.
    pub(super) fn into_bytes(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a request is shorter than a page");
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// Appends one attribute, padded to four bytes.
pub(super) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER_SIZE + value.len()).expect("an attribute is shorter than 64 KiB");
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Type and value of each attribute in `bytes`, up to the first one whose length is invalid.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<ATTRIBUTE_HEADER_SIZE>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !ATTRIBUTE_FLAGS;
        let value = bytes.get(ATTRIBUTE_HEADER_SIZE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of type `kind`.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// A text with or without the zero byte at its end.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages in what one call received, up to the first one whose length is invalid.
pub(super) fn received(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER_SIZE>()?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let payload = bytes.get(HEADER_SIZE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received { kind: half(4), flags: half(6), sequence: word(8), payload })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_read_back_as_it_was_written() {
        let request = Request::new(16, 0x400, &[1, 2, 3, 4]).attribute(3, b"eth0\0").nested(18, &[(1, b"bridge")]);
        let bytes = request.into_bytes(5, 7);
        let messages: Vec<_> = received(&bytes).collect();
        let [Received { kind: 16, flags: 0x405, sequence: 7, payload }] = &*messages else { panic!("{messages:?}") };
        let found: Vec<_> = attributes(&payload[4..]).collect();
        assert_eq!(found[0], (3, &b"eth0\0"[..]));
        assert_eq!((found[1].0, attribute(found[1].1, 1)), (18, Some(&b"bridge"[..])));
        assert_eq!((text(found[0].1), text(b"eth0")), ("eth0".to_owned(), "eth0".to_owned()));
    }

    #[test]
    fn invalid_lengths_end_the_iteration() {
        for bytes in [&[][..], &[1], &[3, 0, 1, 0], &[9, 0, 1, 0, 5, 5, 5, 5], &[0; 8]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).count(), 1, "the last one need not be padded");
        for length in [0_u32, 15, 17, u32::MAX] {
            let bytes = [&length.to_ne_bytes()[..], &[0; 12]].concat();
            assert_eq!(received(&bytes).count(), 0, "{length}");
        }
    }
}
