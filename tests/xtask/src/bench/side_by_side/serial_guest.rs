// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest for monitors without the named console ports that Coracle's PID 1 talks over: the same root disk and command, but
//! mounted by the kernel itself and run by the image's shell as PID 1, with the serial port for its streams. These guests do
//! less than Coracle's: no conversation, no overlay, no file systems but the root, `/dev` and, for a disk, `/sys`.

use super::guest::Guest;
use anyhow::{Result, ensure};

/// Nothing is printed but a panic: whatever comes first is taken for the workload's first byte. The kernel mounts `/dev`.
const KERNEL_WORDS: &str =
    "console=ttyS0 loglevel=1 panic=-1 root=/dev/vda rootfstype=erofs ro devtmpfs.mount=1 init=/bin/sh";
/// What an x86 kernel keeps of its command line (`COMMAND_LINE_SIZE`), less what a monitor may add about its devices.
const LONGEST: usize = 2048 - 256;

/// The kernel's command line. PID 1 ends the machine with `end`, in the way that the monitor understands.
pub(super) fn kernel_line(guest: &Guest, words: &str, end: &str) -> Result<String> {
    let script = script(guest, end);
    // What the kernel holds together for PID 1 ends at the next double quote, whatever is in front of it.
    ensure!(!script.contains('"'), "a kernel's command line cannot hold `{script}`");
    let line = format!("{KERNEL_WORDS}{words} -- -c \"{script}\"");
    ensure!(line.len() <= LONGEST, "{} bytes are too many for a kernel's command line: `{line}`", line.len());
    Ok(line)
}

/// The command is executed, never one of the shell's own. Then `stty` sets what is set already, but once all output was sent:
/// the end of a machine does not wait for its serial port.
fn script(guest: &Guest, end: &str) -> String {
    let mount = if guest.disk.is_some() { "mount -t sysfs sys /sys; " } else { "" };
    let words: Vec<String> = guest.command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    format!("{mount}(exec {}); stty onlcr; {end}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::kernel_line;
    use crate::bench::side_by_side::{fio, guest::Guest};

    #[test]
    fn the_shell_is_pid_1_and_ends_the_machine() {
        let guest = Guest::new("busybox", &["echo", "it's"]);
        let line = kernel_line(&guest, " reboot=k", "reboot -f").unwrap();
        let (kernel, script) = line.split_once(" -- ").unwrap();
        assert!(kernel.ends_with("init=/bin/sh reboot=k"), "{kernel}");
        assert_eq!(script, r#"-c "(exec 'echo' 'it'\''s'); stty onlcr; reboot -f""#);
    }

    #[test]
    fn a_disk_is_looked_for_in_sys() {
        let guest = Guest { disk: Some("/disk".into()), ..Guest::new("fio", &["sh", "-c", &fio::script()]) };
        let line = kernel_line(&guest, "", "reboot -f").unwrap();
        assert!(line.contains(" -- -c \"mount -t sysfs sys /sys; (exec 'sh' '-c' '"), "{line}");
    }

    #[test]
    fn what_would_not_reach_pid_1_whole_is_refused() {
        for word in [r#"say "x""#, &"x".repeat(1800)] {
            assert!(kernel_line(&Guest::new("busybox", &["echo", word]), "", "reboot -f").is_err(), "{word}");
        }
    }
}
