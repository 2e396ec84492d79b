// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The options of `--tmpfs PATH[:OPTIONS]`, parted into what `mount` takes as flags and what the file system takes as
//! text. As with docker, a tmpfs is `nosuid,nodev,noexec` unless the options say otherwise.

use alloc::string::String;

/// What to mount a tmpfs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// `ro`.
    pub read_only: bool,
    /// `nosuid`.
    pub no_suid: bool,
    /// `nodev`.
    pub no_devices: bool,
    /// `noexec`.
    pub no_execute: bool,
    /// For the file system: `size=`, `mode=`, `nr_inodes=` and so on, as given.
    pub data: String,
}

impl TmpfsOptions {
    /// Never fails: what is no flag is the file system's to judge.
    #[must_use]
    pub fn parse(options: &str) -> Self {
        let mut parsed =
            Self { read_only: false, no_suid: true, no_devices: true, no_execute: true, data: String::new() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => parsed.read_only = true,
                "rw" => parsed.read_only = false,
                "nosuid" => parsed.no_suid = true,
                "suid" => parsed.no_suid = false,
                "nodev" => parsed.no_devices = true,
                "dev" => parsed.no_devices = false,
                "noexec" => parsed.no_execute = true,
                "exec" => parsed.no_execute = false,
                other => {
                    if !parsed.data.is_empty() {
                        parsed.data.push(',');
                    }
                    parsed.data.push_str(other);
                }
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_options_a_tmpfs_is_writable_and_otherwise_closed() {
        let options = TmpfsOptions::parse("");
        assert_eq!(
            (options.read_only, options.no_suid, options.no_devices, options.no_execute, &*options.data),
            (false, true, true, true, "")
        );
    }

    #[test]
    fn flags_and_text_are_parted_and_the_last_flag_wins() {
        let options = TmpfsOptions::parse("ro,size=64m,exec,,noexec,exec,mode=1770,rw,suid,dev");
        assert_eq!(
            (options.read_only, options.no_suid, options.no_devices, options.no_execute, &*options.data),
            (false, false, false, false, "size=64m,mode=1770")
        );
    }
}
