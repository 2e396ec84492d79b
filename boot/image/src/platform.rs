// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Operating system and processor, which select one of the images in an index.

use std::fmt;
use std::str::FromStr;

/// An operating system and a processor architecture, with the names of the OCI image specification
/// (Go's names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// For example `linux`.
    os: String,
    /// For example `amd64`.
    architecture: String,
    /// Highest level of the instruction set that runs: `v1` to `v4` for amd64, 0 elsewhere.
    level: u32,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    #[error("not OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT")]
    Malformed,
    #[error("only linux/amd64 images run here")]
    Foreign,
    #[error("the variants of amd64 are v1 to v4")]
    Variant,
}

/// Linux on this processor.
impl Default for Platform {
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), level: processor_level() }
    }
}

/// `linux/amd64`, or `linux/amd64/v2` for images of at most that level.
impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let (Some(os), Some(architecture), variant, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PlatformError::Malformed);
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err(PlatformError::Malformed);
        }
        // Go's names, and the ones of uname.
        if !os.eq_ignore_ascii_case("linux") || !["amd64", "x86_64", "x86-64"].contains(&architecture) {
            return Err(PlatformError::Foreign);
        }
        let level = match variant {
            None => processor_level(),
            Some(variant) => level(variant).ok_or(PlatformError::Variant)?,
        };
        Ok(Self { level, ..Self::default() })
    }
}

impl Platform {
    /// How well an image for `os`, `architecture` and `variant` suits: more is better, `None` does
    /// not run. An image for a higher level may use instructions that the processor lacks.
    pub(crate) fn rank(&self, os: &str, architecture: &str, variant: &str) -> Option<u32> {
        if self.os != os || self.architecture != architecture {
            return None;
        }
        level(variant).filter(|level| *level <= self.level)
    }
}

/// The level of a variant of amd64. Without one it is the first.
fn level(variant: &str) -> Option<u32> {
    match variant {
        "" | "v1" => Some(1),
        "v2" => Some(2),
        "v3" => Some(3),
        "v4" => Some(4),
        _ => None,
    }
}

/// The level of this processor (System V ABI, AMD64 supplement, "Micro-architecture levels").
fn processor_level() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse3") && has!("ssse3") && has!("sse4.1");
        let v2 = v2 && has!("sse4.2");
        let v3 = v2 && has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c") && has!("fma");
        let v3 = v3 && has!("lzcnt") && has!("movbe") && has!("xsave");
        let v4 = v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq");
        let v4 = v4 && has!("avx512vl");
        1 + u32::from(v2) + u32::from(v3) + u32::from(v4)
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_level_that_runs_ranks_first() {
        let platform: Platform = "linux/amd64/v2".parse().unwrap();
        let rank = |variant| platform.rank("linux", "amd64", variant);
        assert_eq!([rank(""), rank("v1"), rank("v2"), rank("v3"), rank("v9")], [Some(1), Some(1), Some(2), None, None]);
        assert_eq!((platform.rank("linux", "arm64", "v8"), platform.rank("windows", "amd64", "")), (None, None));
        assert!(Platform::default().rank("linux", "amd64", "v1").is_some());
    }

    #[test]
    fn platforms_that_do_not_run_are_rejected() {
        for (text, error) in [
            ("linux", PlatformError::Malformed),
            ("linux/amd64/v2/x", PlatformError::Malformed),
            ("linux/amd64/", PlatformError::Malformed),
            ("", PlatformError::Malformed),
            ("linux/arm64", PlatformError::Foreign),
            ("windows/amd64", PlatformError::Foreign),
            ("linux/amd64/v5", PlatformError::Variant),
        ] {
            assert_eq!(text.parse::<Platform>(), Err(error), "{text}");
        }
    }
}
