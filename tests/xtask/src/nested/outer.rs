// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU with the outer Linux: devices, streams, time limit, end.

use super::Options;
use super::layers::Layers;
use super::ports::Port;
use crate::repository::root;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Receives standard output as it comes.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// From the end of the command's time to that of QEMU: the outer Linux copies its files out meanwhile.
const GRACE: Duration = Duration::from_secs(120);
/// Two for the command, and the first, on which no guest may run (see `nested/outer.sh`).
const PROCESSORS: &str = "3";
/// All that QEMU emulates, without what is slow and tests nothing: a fifth level of page tables in both dimensions and checks of
/// user pages (with all three a boot takes a fifth more processor time), and ERMS (with it kernels copy by the byte, which QEMU
/// emulates in a loop, and a boot takes twice as long).
const PROCESSOR: &str = "max,+svm,-la57,-smap,-smep,-erms,-fsrm";

const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on cryptomgr.notests";

/// Half of the boot time of Debian's kernel on an emulated processor (`initcall_debug`), and not used: self-tests of cryptography,
/// keys and certificates for signatures of modules and files, reports of hardware errors, directories in /sys.
const NOT_NEEDED: [&str; 9] = [
    "crypto_kdf108_init",
    "jent_mod_init",
    "load_system_certificate_list",
    "blacklist_init",
    "init_encrypted",
    "init_ima",
    "mcheck_init_device",
    "param_sysfs_builtin_init",
    "slab_late_init",
];

enum Message {
    Stdout(Vec<u8>),
    Status(Vec<u8>),
    Closed,
}

/// Attempts to boot the outer Linux. One may fail: QEMU 7.2 sometimes executes code as it was before another processor patched it
/// (`tests/README.md`), and the kernel patches itself while it boots.
const BOOTS: usize = 3;

#[derive(Debug, PartialEq, Eq)]
enum End {
    Status(u8),
    /// Without a status, after the command had started, or by the time limit.
    Died,
    /// Before the command had started.
    NotBooted,
}

/// Runs the outer Linux to its end. Copies its `/out` to `target/nested/out`.
pub(super) fn run(options: &Options, layers: &Layers, stdout: &mut Sink<'_>) -> Result<u8> {
    let console = root().join("target/nested/console.log");
    for _ in 0..BOOTS {
        match run_once(options, layers, &console, stdout)? {
            End::Status(status) => return Ok(status),
            End::Died => bail!("the outer Linux ended without a status; the end of its console:\n{}", tail(&console)),
            End::NotBooted => eprintln!("the outer Linux did not boot; the end of its console:\n{}", tail(&console)),
        }
    }
    bail!("the outer Linux did not boot {BOOTS} times")
}

fn run_once(options: &Options, layers: &Layers, console: &Path, stdout: &mut Sink<'_>) -> Result<End> {
    let results = root().join("target/nested");
    let out = results.join("out");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;

    let directory = layers.directory.path();
    let [standard, error, status, files] =
        ["stdout", "stderr", "status", "out"].map(|name| Port::listen(directory, name));
    let (standard, error, status, files) = (standard?, error?, status?, files?);
    let mut command = machine(options, layers, console);
    for port in [&standard, &error, &status, &files] {
        command.args(port.arguments());
    }
    let mut unpack = Command::new("tar").arg("-x").arg("-C").arg(&out).stdin(Stdio::piped()).spawn().context("tar")?;
    let mut archive = unpack.stdin.take().context("tar's input")?;

    let mut qemu = Qemu(command.spawn().context("qemu-system-x86_64")?);
    let (sender, messages) = mpsc::channel();
    let to_stdout = sender.clone();
    let to_status = sender.clone();
    let readers = [
        standard.read(move |bytes| drop(to_stdout.send(Message::Stdout(bytes.to_vec())))),
        error.read(|bytes| drop(io::stderr().lock().write_all(bytes))),
        status.read(move |bytes| drop(to_status.send(Message::Status(bytes.to_vec())))),
        files.read(move |bytes| drop(archive.write_all(bytes))),
    ];
    std::thread::spawn(move || {
        readers.into_iter().for_each(|reader| drop(reader.join()));
        drop(sender.send(Message::Closed));
    });

    let end = follow(&messages, Instant::now() + options.timeout + GRACE, stdout);
    // It has ended, or its time is over.
    let _ = qemu.0.kill();
    let _ = qemu.0.wait();
    let _ = unpack.wait();
    end
}

impl End {
    /// From what `nested/outer.sh` wrote to the status port: a line when the command starts, and the exit status.
    fn from_status_port(lines: &str) -> End {
        match lines.lines().collect::<Vec<_>>()[..] {
            [] => End::NotBooted,
            [.., last] => last.parse().map_or(End::Died, End::Status),
        }
    }
}

/// The process of QEMU. Dropping it kills it.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail without harm if the process was waited for already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// QEMU's command line without the ports.
fn machine(options: &Options, layers: &Layers, console: &Path) -> Command {
    // QEMU ends with this process.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(&layers.emulator);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", PROCESSORS]);
    command.args(["-m", &format!("{}M", options.memory_mib)]);
    command.arg("-serial").arg(file("file:", console));
    command.arg("-kernel").arg(&layers.kernel).arg("-initrd").arg(&layers.initramfs);
    command.arg("-append").arg(format!("{KERNEL_WORDS} initcall_blacklist={}", NOT_NEEDED.join(",")));
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    for (index, disk) in layers.disks.iter().enumerate() {
        let drive = format!("if=none,id=layer-{index},format=raw,readonly=on,file=");
        command.arg("-drive").arg(file(&drive, disk));
        command.args(["-device", &format!("virtio-blk-pci,drive=layer-{index},serial=layer-{index}")]);
    }
    command.stdin(Stdio::null());
    command
}

/// A path at the end of an option: QEMU takes two commas for one.
fn file(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display().to_string().replace(',', ",,"))
}

/// Passes on output until all ports are closed.
fn follow(messages: &Receiver<Message>, deadline: Instant, stdout: &mut Sink<'_>) -> Result<End> {
    let started = Instant::now();
    let mut status = Vec::new();
    let mut timed_out = false;
    loop {
        match messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Message::Stdout(bytes)) => stdout(&bytes).context("standard output")?,
            Ok(Message::Status(bytes)) => {
                if status.is_empty() {
                    eprintln!("the outer Linux started the command after {} s", started.elapsed().as_secs());
                }
                status.extend(bytes);
            }
            Ok(Message::Closed) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("the outer Linux did not end in time");
                timed_out = true;
                break;
            }
        }
    }
    Ok(match End::from_status_port(&String::from_utf8_lossy(&status)) {
        // A boot that hangs has used the time of the run. Another attempt would double it.
        End::NotBooted if timed_out => End::Died,
        end => end,
    })
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::End;

    #[test]
    fn status_port_gives_the_end() {
        assert_eq!(End::from_status_port(""), End::NotBooted);
        assert_eq!(End::from_status_port("started\n"), End::Died);
        assert_eq!(End::from_status_port("started\n7\n"), End::Status(7));
    }
}
