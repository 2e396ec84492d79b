// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The options of `--tmpfs PATH[:OPTIONS]`, split into mount flags and the file system's own
//! options. As in docker, a tmpfs is `nosuid,nodev,noexec` unless the options override that.

use alloc::string::String;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsOptions {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_devices: bool,
    pub no_execute: bool,
    /// Options of the file system, as given: `size=`, `mode=`, `nr_inodes=` and so on.
    pub data: String,
}

impl TmpfsOptions {
    /// Cannot fail: the kernel checks all options that are not flags.
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
    fn parse_defaults_to_a_writable_restricted_tmpfs() {
        let options = TmpfsOptions::parse("");
        assert_eq!(
            (options.read_only, options.no_suid, options.no_devices, options.no_execute, &*options.data),
            (false, true, true, true, "")
        );
    }

    #[test]
    fn parse_splits_flags_from_data_and_the_last_flag_wins() {
        let options = TmpfsOptions::parse("ro,size=64m,exec,,noexec,exec,mode=1770,rw,suid,dev");
        assert_eq!(
            (options.read_only, options.no_suid, options.no_devices, options.no_execute, &*options.data),
            (false, false, false, false, "size=64m,mode=1770")
        );
    }
}
