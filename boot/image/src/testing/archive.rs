// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tar archives byte by byte, without any check.

#[derive(Clone, Default)]
pub(crate) struct Archive(Vec<u8>);

/// One member, whose header can be changed arbitrarily.
#[derive(Clone)]
pub(crate) struct Member {
    pub header: [u8; 512],
    pub data: Vec<u8>,
    /// PAX records before it.
    pub pax: Vec<u8>,
}

impl Member {
    /// A ustar member. A name or link of more than 100 bytes becomes a PAX record.
    pub(crate) fn new(kind: u8, name: impl AsRef<[u8]>, link: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        let (name, link, data) = (name.as_ref(), link.as_ref(), data.as_ref());
        let mut member = Self { header: [0; 512], data: data.to_vec(), pax: Vec::new() };
        member.set(257, b"ustar\x0000");
        member.header[156] = kind;
        for (at, key, text) in [(0, "path", name), (157, "linkpath", link)] {
            if text.len() <= 100 {
                member.set(at, text);
            } else {
                member.pax.extend(pax_record(key, text));
            }
        }
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        member.number(100, mode).number(108, 0).number(116, 0).size(data.len() as u64).mtime(1_700_000_000)
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self::new(b'0', name, "", data)
    }

    pub(crate) fn directory(name: impl AsRef<[u8]>) -> Self {
        Self::new(b'5', name, "", "")
    }

    pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(b'2', name, target, "")
    }

    pub(crate) fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(b'1', name, target, "")
    }

    /// Sets bytes at an offset of the header.
    pub(crate) fn set(&mut self, at: usize, bytes: &[u8]) {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Sets a field of eight bytes in octal.
    pub(crate) fn number(mut self, at: usize, value: u32) -> Self {
        self.set(at, format!("{value:07o}\0").as_bytes());
        self
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.number(100, mode)
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        self.number(108, uid).number(116, gid)
    }

    pub(crate) fn device(self, major: u32, minor: u32) -> Self {
        self.number(329, major).number(337, minor)
    }

    /// Sets the size field, regardless of the data.
    pub(crate) fn size(mut self, size: u64) -> Self {
        self.set(124, format!("{size:011o}\0").as_bytes());
        self
    }

    pub(crate) fn mtime(mut self, seconds: u64) -> Self {
        self.set(136, format!("{seconds:011o}\0").as_bytes());
        self
    }

    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.extend(pax_record(key, value.as_ref()));
        self
    }
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An archive of these members.
    pub(crate) fn of(members: impl IntoIterator<Item = Member>) -> Self {
        members.into_iter().fold(Self::new(), Self::with)
    }

    pub(crate) fn with(mut self, member: Member) -> Self {
        if !member.pax.is_empty() {
            let mut header = Member::new(b'x', "pax", "", &member.pax);
            header.pax.clear();
            self = self.with(header);
        }
        let mut header = member.header;
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(&member.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Includes the two final zero blocks.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// `LENGTH KEY=VALUE\n`, where the length includes itself.
pub(crate) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..).find(|length| format!("{length}").len() + rest.len() == *length).unwrap();
    [format!("{length}").as_bytes(), &rest].concat()
}
