// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's microvm machine: PVH entry, virtio-mmio, its own small firmware, as little of a PC as possible (QEMU manual, "microvm
//! virtual platform"), and an I/O thread for each disk. The guest is the one that coracle boots, so that the benchmark serves its
//! PID 1.

use super::Monitor;
use super::control::{self, Ports};
use super::coracle::Coracle;
use super::guest::{Guest, Network};
use super::passt;
use super::process::Process;
use super::roots::Roots;
use super::tap::Tap;
use anyhow::{Context, Result};
use boot::Initramfs;
use guest_protocol::protocol::PORT_NAMES;
use rustix::process::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// `-machine microvm` without what the guest does not use.
const MACHINE: &str =
    "microvm,x-option-roms=off,isa-serial=off,rtc=off,pit=off,pic=off,acpi=off,auto-kernel-cmdline=on";
/// Coracle's, except for the end: without a keyboard controller a restart is a triple fault.
const KERNEL_WORDS: &str = "console=hvc0 quiet panic=-1 reboot=t";

pub(super) struct Qemu<'a> {
    kernel: PathBuf,
    roots: &'a Roots,
    directory: TempDir,
}

impl<'a> Qemu<'a> {
    /// With the kernel, PID 1 and root disks of `coracle`.
    pub(super) fn of(coracle: &Coracle, roots: &'a Roots) -> Result<Qemu<'a>> {
        let directory = tempfile::tempdir()?;
        let init = fs::read(coracle.beside("coracle-init")).context("coracle-init")?;
        fs::write(directory.path().join("initramfs"), Initramfs::with_init(&init)?.finish())?;
        Ok(Qemu { kernel: coracle.beside("vmlinux"), roots, directory })
    }
}

impl Monitor for Qemu<'_> {
    fn name(&self) -> &'static str {
        "QEMU microvm"
    }

    fn start(&self, guest: &Guest) -> Result<Process> {
        let directory = tempfile::tempdir()?;
        let ports = Ports::listen(directory.path())?;
        let root = self.roots.disk(guest.image)?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-accel",
            "kvm",
            "-cpu",
            "host",
        ]);
        command.args(["-machine", MACHINE, "-smp", "1", "-m", &format!("{}M", guest.memory_mib)]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(self.directory.path().join("initramfs"));
        command.args(["-append", KERNEL_WORDS, "-device", "virtio-rng-device"]);
        disk(&mut command, "root", &format!("{},readonly=on", root.display()));
        if let Some(path) = &guest.disk {
            disk(&mut command, "bench", &path.display().to_string());
        }
        let backend = match guest.network {
            Network::Tap(tap) => Some(format!("tap,id=net,ifname={},script=no,downscript=no,vhost=off", tap.name)),
            Network::User => {
                let socket = passt::start(guest, directory.path())?;
                Some(format!("stream,id=net,server=off,addr.type=unix,addr.path={}", socket.display()))
            }
            _ => None,
        };
        if let Some(backend) = backend {
            command.arg("-netdev").arg(backend);
            command.arg("-device").arg(format!("virtio-net-device,netdev=net,mac={}", Tap::MAC_TEXT));
        }
        command.args(["-device", "virtio-serial-device,max_ports=4"]);
        let console = directory.path().join("console.log");
        command.arg("-chardev").arg(format!("file,id=console,path={}", console.display()));
        command.args(["-device", "virtconsole,chardev=console,nr=0"]);
        for (number, name) in PORT_NAMES.iter().enumerate().skip(1) {
            let path = ports.path(name);
            command.arg("-chardev").arg(format!("socket,id={name},path={}", path.display()));
            command.arg("-device").arg(format!("virtserialport,chardev={name},nr={number},name={name}"));
        }
        // It writes a line when a signal ends it.
        let log = fs::File::create(directory.path().join(Process::LOG))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let child = command.spawn().context("qemu-system-x86_64")?;
        let (stdout, server) = control::serve(ports, guest, Pid::from_child(&child))?;
        Ok(Process::new(child, started, Box::new(stdout), directory).with_server(server))
    }
}

/// A disk with its own I/O thread and, like coracle's, the host's page cache.
fn disk(command: &mut Command, serial: &str, file: &str) {
    command.args(["-object", &format!("iothread,id={serial}-io")]);
    command.arg("-drive").arg(format!("if=none,id={serial},format=raw,cache=writeback,aio=threads,file={file}"));
    command.args(["-device", &format!("virtio-blk-device,drive={serial},serial={serial},iothread={serial}-io")]);
}
