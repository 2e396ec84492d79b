// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keys that detach a terminal without ending what runs in it (`--detach-keys`), in docker's
//! form: `ctrl-p,ctrl-q`. Pure.

use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected characters, or ctrl- and one of a-z @ [ \\ ] ^ _, separated by commas")]
pub(crate) struct DetachKeysError;

/// A sequence of keys, and how many of them were typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

/// What goes on to the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Bytes without the sequence. A part of it at the end is held back.
    Text(Vec<u8>),
    /// The sequence is complete; these bytes came before it.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// Looks for the sequence in `bytes`, and across calls.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Typed {
        let mut text = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return Typed::Detach(text);
                }
                continue;
            }
            // As in docker, what was held back is text, and the sequence can begin anew with this
            // key.
            text.extend_from_slice(&self.keys[..std::mem::take(&mut self.typed)]);
            match byte == self.keys[0] {
                true => self.typed = 1,
                false => text.push(byte),
            }
        }
        Typed::Text(text)
    }
}

impl FromStr for DetachKeys {
    type Err = DetachKeysError;

    fn from_str(text: &str) -> Result<Self, DetachKeysError> {
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(|keys| Self { keys, typed: 0 }).ok_or(DetachKeysError)
    }
}

/// The byte that a key sends.
fn key(name: &str) -> Option<u8> {
    match (name.strip_prefix("ctrl-").map(str::as_bytes), name.as_bytes()) {
        (Some([key @ (b'a'..=b'z' | b'@' | b'['..=b'_')]), _) => Some(key & 0x1f),
        (None, [key]) if key.is_ascii() => Some(*key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> DetachKeys {
        text.parse().unwrap()
    }

    #[test]
    fn sequence_is_found_across_calls() {
        let mut keys = keys("ctrl-p,ctrl-q");
        assert_eq!(keys.take(b"ls\r\x10"), Typed::Text(b"ls\r".to_vec()));
        assert_eq!(keys.take(b"x"), Typed::Text(b"\x10x".to_vec()));
        assert_eq!(keys.take(b"\x10\x10\x11rest"), Typed::Detach(b"\x10".to_vec()));
        assert_eq!(keys.take(b"a\x10"), Typed::Text(b"a".to_vec()));
        assert_eq!(keys.take(b"\x11"), Typed::Detach(vec![]));
    }

    #[test]
    fn names_of_keys_are_those_of_docker() {
        assert_eq!(keys("ctrl-a,x,ctrl-@,ctrl-_").keys, [1, b'x', 0, 0x1f]);
        assert_eq!(keys("ctrl-[,ctrl-\\,ctrl-],ctrl-^").keys, [0x1b, 0x1c, 0x1d, 0x1e]);
        for text in ["", "ctrl-", "ctrl-A", "ctrl-1", "ctrl-pp", "ab", "a,,b", "a,", "ä"] {
            assert_eq!(text.parse::<DetachKeys>(), Err(DetachKeysError), "{text}");
        }
    }
}
