// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest for monitors without the named console ports that coracle's PID 1 needs: the same root disk and command, but the
//! kernel mounts the disk, the image's shell is PID 1, and the serial port is its standard streams. These guests do less than
//! coracle's: no protocol, no overlay, no file systems except the root, `/dev` and, for a disk, `/sys`.

use super::guest::Guest;
use super::tap::Tap;
use anyhow::{Result, ensure};

/// The kernel prints nothing except a panic, because the first byte counts as the workload's. It mounts `/dev`.
const KERNEL_WORDS: &str =
    "console=ttyS0 loglevel=1 panic=-1 root=/dev/vda rootfstype=erofs ro devtmpfs.mount=1 init=/bin/sh";
/// `COMMAND_LINE_SIZE` of an x86 kernel, less what a monitor may add for its devices.
const MAX_KERNEL_LINE: usize = 2048 - 256;

/// The kernel's command line. PID 1 ends the machine with the command `end`, which depends on the monitor.
pub(super) fn kernel_line(guest: &Guest, words: &str, end: &str) -> Result<String> {
    let script = script(guest, end);
    // A quoted argument of PID 1 ends at the next double quote; the kernel knows no escapes.
    ensure!(!script.contains('"'), "a double quote cannot be passed on a kernel's command line: `{script}`");
    let line = format!("{KERNEL_WORDS}{words} -- -c \"{script}\"");
    ensure!(line.len() <= MAX_KERNEL_LINE, "{} bytes are too many for a kernel's command line: `{line}`", line.len());
    Ok(line)
}

/// The command is executed, even where the shell has a builtin of its name. `stty` changes nothing, but waits until all output
/// has been sent: the end of the machine does not.
fn script(guest: &Guest, end: &str) -> String {
    let mount = if guest.disk.is_some() { "mount -t sysfs sys /sys; " } else { "" };
    let network = guest.tap().map_or(String::new(), |_| {
        format!("busybox ip addr add {}/{} dev eth0; busybox ip link set eth0 up; ", Tap::GUEST, Tap::PREFIX)
    });
    let words: Vec<String> = guest.command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    format!("{mount}{network}(exec {}); stty onlcr; {end}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{Tap, kernel_line};
    use crate::bench::side_by_side::fio;
    use crate::bench::side_by_side::guest::{Guest, Network};

    #[test]
    fn shell_is_pid_1_and_ends_the_machine() {
        let guest = Guest::new("busybox", &["echo", "it's"]);
        let line = kernel_line(&guest, " reboot=k", "reboot -f").unwrap();
        let (kernel, script) = line.split_once(" -- ").unwrap();
        assert!(kernel.ends_with("init=/bin/sh reboot=k"), "{kernel}");
        assert_eq!(script, r#"-c "(exec 'echo' 'it'\''s'); stty onlcr; reboot -f""#);
    }

    #[test]
    fn guest_with_a_disk_mounts_sys() {
        let guest = Guest { disk: Some("/disk".into()), ..Guest::new("fio", &["sh", "-c", &fio::script()]) };
        let line = kernel_line(&guest, "", "reboot -f").unwrap();
        assert!(line.contains(" -- -c \"mount -t sysfs sys /sys; (exec 'sh' '-c' '"), "{line}");
    }

    #[test]
    fn guest_with_an_interface_sets_its_address() {
        let guest = Guest { network: Network::Tap(Tap { name: "bench0" }), ..Guest::new("fio", &["true"]) };
        let line = kernel_line(&guest, "", "reboot -f").unwrap();
        let network = "busybox ip addr add 172.30.0.2/24 dev eth0; busybox ip link set eth0 up; (exec 'true')";
        assert!(line.contains(network), "{line}");
    }

    #[test]
    fn command_that_would_not_reach_pid_1_is_rejected() {
        for word in [r#"say "x""#, &"x".repeat(1800)] {
            assert!(kernel_line(&Guest::new("busybox", &["echo", word]), "", "reboot -f").is_err(), "{word}");
        }
    }
}
