// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Content digests in the form of the OCI image specification: `algorithm:hex`.

use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;

/// A checked digest string. Its parts are safe as file names: the algorithm is known, the rest is
/// lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// Algorithms that the OCI image specification registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha512,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `algorithm:hex`, or hex of the wrong length.
    #[error("digest `{0}` is malformed")]
    Malformed(String),
    /// Neither sha256 nor sha512.
    #[error("digest `{0}` uses an unknown algorithm (known: sha256, sha512)")]
    UnknownAlgorithm(String),
}

impl Digest {
    /// Parses `text`. It is shortened in an error.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let shown = || text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::Malformed(shown()))?;
        let (algorithm, length) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return Err(DigestError::UnknownAlgorithm(shown())),
        };
        if hex.len() != length || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Malformed(shown()));
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// The part after the colon.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns a hasher of the same algorithm, to compute a digest to compare with.
    pub fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::sha256(),
            Algorithm::Sha512 => Hasher(State::Sha512(Sha512::new())),
        }
    }

    /// The first sixteen bytes, for a volume's UUID.
    pub(crate) fn first_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(self.hex.as_bytes().chunks(2)) {
            let digit = |c: u8| (c as char).to_digit(16).expect("a digest consists of hex digits") as u8;
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        bytes
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex)
    }
}

/// Computes a digest piece by piece.
pub struct Hasher(State);

enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn sha256() -> Self {
        Self(State::Sha256(Sha256::new()))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        match self.0 {
            State::Sha256(hasher) => Digest { algorithm: Algorithm::Sha256, hex: hex(&hasher.finalize()) },
            State::Sha512(hasher) => Digest { algorithm: Algorithm::Sha512, hex: hex(&hasher.finalize()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_value() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").first_bytes()[..3], [0xe3, 0xb0, 0xc4]);
    }

    #[test]
    fn digest_that_is_not_a_file_name_is_malformed() {
        for text in ["sha256:../../x", "sha256:", "sha256", "", &EMPTY.to_uppercase(), &EMPTY[..70], "sha512:00"] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_algorithm_has_its_own_error() {
        assert!(matches!(Digest::parse("md5:d41d8cd98f00b204e9800998ecf8427e"), Err(DigestError::UnknownAlgorithm(_))));
    }
}
