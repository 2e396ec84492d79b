// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The 512-byte header block of an entry and its number formats (POSIX pax, "ustar Interchange
//! Format"; GNU tar manual, "Basic Tar Format").

use super::{BLOCK, Time};

/// A checked header block; fields are decoded on demand.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// Extension of the old format, by the magic number.
#[derive(PartialEq, Eq)]
enum Dialect {
    Old,
    Ustar,
    /// ustar with a shorter prefix followed by times, recognised by the `tar` trailer.
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    /// Verifies the checksum. Some old writers summed signed bytes.
    pub(super) fn check(block: &'a [u8; BLOCK]) -> Option<Self> {
        let stored = octal(&block[148..156])?;
        let field = 148..156;
        let bytes = || block.iter().enumerate().map(|(at, byte)| if field.contains(&at) { b' ' } else { *byte });
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        (stored == unsigned || i64::try_from(stored) == Ok(signed)).then_some(Self(block))
    }

    fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar\x0000" if &self.0[508..512] == b"tar\0" => Dialect::Star,
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
            _ => Dialect::Old,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with its prefix in dialects that have one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.dialect() {
            Dialect::Ustar => text(&self.0[345..500]),
            Dialect::Star => text(&self.0[345..476]),
            Dialect::Old | Dialect::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Option<u16> {
        number(&self.0[100..108]).map(|mode| (mode & 0o7777) as u16)
    }

    /// User and group, unchecked: PAX may replace them.
    pub(super) fn owner(&self) -> (Option<i64>, Option<i64>) {
        (number(&self.0[108..116]), number(&self.0[116..124]))
    }

    pub(super) fn size(&self) -> Option<u64> {
        number(&self.0[124..136]).and_then(|size| u64::try_from(size).ok())
    }

    pub(super) fn mtime(&self) -> Option<Time> {
        number(&self.0[136..148]).map(|seconds| Time { seconds, nanoseconds: 0 })
    }

    /// Major and minor number. The old format has no such fields.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        if self.dialect() == Dialect::Old {
            return Some((0, 0));
        }
        let part = |range| number(&self.0[range]).and_then(|part| u32::try_from(part).ok());
        Some((part(329..337)?, part(337..345)?))
    }

    /// Old GNU header: start of the sparse map, whether more blocks of it follow, and the file's
    /// real size.
    pub(super) fn gnu_sparse(&self) -> Option<(&'a [u8], bool, u64)> {
        let real_size = number(&self.0[483..495]).and_then(|size| u64::try_from(size).ok())?;
        Some((&self.0[386..482], self.0[482] != 0, real_size))
    }
}

/// Returns the field up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// Decodes octal digits, or GNU's big-endian two's complement if the top bit of the first byte is
/// set. Empty is zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => {
            // Bit 6 is the sign. The field is longer than 64 bits; the bits above must be copies of
            // the sign.
            let negative = first & 0x40 != 0;
            let start = if negative { i64::from(*first as i8) } else { i64::from(first & 0x7f) };
            rest.iter().try_fold(start, |value, byte| Some(value.checked_mul(256)? | i64::from(*byte)))
        }
        _ => octal(field).and_then(|value| i64::try_from(value).ok()),
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_field_may_be_padded_or_empty() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   755 \0"), Some(0o755));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777"), Some(0o77777777777));
        assert_eq!(number(b"12x\0"), None);
        assert_eq!(number(b"-1\0"), None);
    }

    #[test]
    fn base_256_field_holds_big_and_negative_numbers() {
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]), Some(0xffff_fffe));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0]), Some(-(1 << 40)));
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), None, "2^63");
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None, "2^80");
    }
}
