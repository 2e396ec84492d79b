// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU around the outer Linux: its devices, its streams, its watchdog, its end.

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

/// Takes standard output as it comes.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// From the end of the command's own time until QEMU is ended: the outer Linux hands over its files in it.
const GRACE: Duration = Duration::from_secs(120);
/// Two for the command, and the first, on which no guest may run: `nested/outer.sh` says why.
const PROCESSORS: &str = "3";
/// Everything that can be emulated, but for what costs and proves nothing: a fifth level of page tables, in both dimensions,
/// and checks of user pages (with all three a boot takes a fifth more processor time); and the promise that copying by the
/// byte is fast, which every kernel believes (with it a boot takes twice as long: QEMU goes through a loop for each byte).
const PROCESSOR: &str = "max,+svm,-la57,-smap,-smep,-erms,-fsrm";

const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on cryptomgr.notests";

/// Half of the boot of Debian's kernel on an emulated processor (`initcall_debug`), and nothing of it is used: self-tests of
/// cryptography, keys and certificates for signatures of modules and files, reports of hardware errors, folders in /sys.
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

/// What the ports bring.
enum Message {
    Stdout(Vec<u8>),
    Status(Vec<u8>),
    Closed,
}

/// How often the outer Linux is booted until its command starts. A boot may fail: QEMU 7.2 now and then runs code as it was
/// before another processor patched it (`tests/README.md`), and the kernel patches itself while it boots.
const BOOTS: usize = 3;

/// How an outer Linux ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Status(u8),
    /// Without one, after the command had started, or by the watchdog.
    Died,
    /// By itself, before that.
    NotBooted,
}

/// Runs the outer Linux to its end. Its `/out` becomes `target/nested/out`.
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

    let folder = layers.folder.path();
    let [standard, error, status, files] = ["stdout", "stderr", "status", "out"].map(|name| Port::listen(folder, name));
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
    // Either it is gone, or it has to go.
    let _ = qemu.0.kill();
    let _ = qemu.0.wait();
    let _ = unpack.wait();
    end
}

impl End {
    /// What `nested/outer.sh` wrote to the port of the status: a line when the command starts, and the status.
    fn told_by(lines: &str) -> End {
        match lines.lines().collect::<Vec<_>>()[..] {
            [] => End::NotBooted,
            [.., last] => last.parse().map_or(End::Died, End::Status),
        }
    }
}

/// QEMU, which does not outlive this.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail harmlessly when the end was seen already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine without its ports.
fn machine(options: &Options, layers: &Layers, console: &Path) -> Command {
    // Who kills this process ends QEMU, too.
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

/// A path as the last part of an option of QEMU's, where a comma is written twice.
fn file(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display().to_string().replace(',', ",,"))
}

/// Passes output on until all ports are closed.
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
    Ok(match End::told_by(&String::from_utf8_lossy(&status)) {
        // What hangs has used up its time; another boot would take as much again.
        End::NotBooted if timed_out => End::Died,
        end => end,
    })
}

/// The last lines of a console.
fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::End;

    #[test]
    fn the_port_of_the_status_tells_how_it_ended() {
        assert_eq!(End::told_by(""), End::NotBooted);
        assert_eq!(End::told_by("started\n"), End::Died);
        assert_eq!(End::told_by("started\n7\n"), End::Status(7));
    }
}
