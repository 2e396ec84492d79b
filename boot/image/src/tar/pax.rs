// SPDX-License-Identifier: Apache-2.0 OR MIT
//! PAX extended headers: `LENGTH KEY=VALUE\n` records, whose values may contain any bytes,
//! including newlines.

use super::Time;
use std::collections::BTreeMap;

/// The records before an entry, with the types of the entry's fields. Unknown keys are ignored.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: PaxSparse,
}

/// GNU's sparse files in PAX, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Default, PartialEq)]
pub(super) struct PaxSparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Alternating offsets and lengths, of version 0.0 or 0.1.
    pub map: Option<Vec<u64>>,
}

/// Parses a complete header. A later record replaces an earlier one; an empty value removes it.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or("a record without a length")?;
        let length = decimal(&bytes[..space]).ok_or("a record with an invalid length")?;
        let length = usize::try_from(length).ok().filter(|length| (space + 2..=bytes.len()).contains(length));
        let (record, rest) = bytes.split_at(length.ok_or("a record longer than its header")?);
        bytes = rest;
        let record = record[space + 1..].strip_suffix(b"\n").ok_or("a record without its newline")?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or("a record without a value")?;
        pax.record(&record[..equals], &record[equals + 1..])?;
    }
    Ok(pax)
}

impl Pax {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let some = !value.is_empty();
        let number = || if some { decimal(value).map(Some).ok_or("an invalid number") } else { Ok(None) };
        let bytes = || {
            if value.contains(&0) { Err("a name with a NUL byte") } else { Ok(some.then(|| value.to_vec())) }
        };
        match key {
            b"path" => self.path = bytes()?,
            b"linkpath" => self.link = bytes()?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = if some { Some(time(value).ok_or("an invalid time")?) } else { None },
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = bytes()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number()?,
            b"GNU.sparse.map" => self.sparse.map = Some(number_list(value).ok_or("an invalid sparse map")?),
            // Version 0.0 repeats these two, with one record per number.
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                if map.len() % 2 != usize::from(key == b"GNU.sparse.numbytes") {
                    return Err("a sparse map out of order");
                }
                map.push(number()?.ok_or("an invalid number")?);
            }
            _ => return self.xattr(key, value),
        }
        Ok(())
    }

    /// `SCHILY.xattr.NAME` holds the raw value; `LIBARCHIVE.xattr.NAME` has a percent-encoded name
    /// and a base64 value. If both are set, they have the same value, and the first form is used.
    fn xattr(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if value.is_empty() {
                self.xattrs.remove(name);
            } else {
                self.xattrs.insert(name.to_vec(), value.to_vec());
            }
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = percent_decoded(name).ok_or("an attribute with an invalid name")?;
            let value = base64_decoded(value).ok_or("an attribute with an invalid value")?;
            self.xattrs.entry(name).or_insert(value);
        }
        Ok(())
    }
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn number_list(value: &[u8]) -> Option<Vec<u64>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    value.split(|byte| *byte == b',').map(decimal).collect()
}

/// Parses seconds with an optional sign and fraction. A negative fraction counts down from its
/// second.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, digits) = value.strip_prefix(b"-").map_or((false, value), |digits| (true, digits));
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at| u32::from(fraction.get(at).unwrap_or(&b'0') - b'0');
    let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: (-seconds).checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| (*digit as char).to_digit(16));
            decoded.push((digit()? << 4 | digit()?) as u8);
        } else {
            decoded.push(*byte);
        }
    }
    Some(decoded)
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text {
        let sextet = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(sextet)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    // Six remaining bits are not a byte.
    (count < 6).then_some(decoded)
}

#[cfg(test)]
#[path = "pax_tests.rs"]
mod tests;
