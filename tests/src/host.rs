// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this host offers to the tests.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::path::Path;

/// The kind of `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// `/dev/kvm` does not exist or cannot be opened.
    None,
    /// Guest kernel mode is emulated instruction by instruction: a boot takes seconds.
    Software,
    /// Guest kernel mode runs on the processor.
    Native,
}

#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub kvm: Kvm,
    pub root: bool,
    /// Which tests run, by `CORACLE_TESTS`.
    pub selection: Selection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those that this host is fast enough for.
    Usual,
    /// `all`: also those that this host is too slow for.
    All,
    /// `machines`: only those that boot a guest or that each kind of KVM has to pass. The others gave their verdict on another host.
    Machines,
}

impl Host {
    #[must_use]
    pub fn detect() -> Host {
        Host { kvm: detect_kvm(), root: rustix::process::geteuid().is_root(), selection: Selection::from_environment() }
    }
}

impl Selection {
    fn from_environment() -> Selection {
        match std::env::var("CORACLE_TESTS").as_deref() {
            Ok("all") => Selection::All,
            Ok("machines") => Selection::Machines,
            Ok("") | Err(_) => Selection::Usual,
            Ok(other) => panic!("CORACLE_TESTS={other}: not all or machines"),
        }
    }
}

/// Whether each of `programs` is found in PATH.
pub(crate) fn are_installed(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs.iter().all(|program| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Whether the ELF file `program` names no interpreter.
pub(crate) fn is_static(program: &Path) -> bool {
    const INTERPRETER: &[u8] = b"/ld-linux-x86-64.so.2";
    let mut head = [0; 4096];
    let read = fs::File::open(program).and_then(|mut file| file.read(&mut head));
    read.is_ok() && !head.windows(INTERPRETER.len()).any(|window| window == INTERPRETER)
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.kvm {
            Kvm::None => "without KVM",
            Kvm::Software => "emulating KVM",
            Kvm::Native => "native KVM",
        })
    }
}

/// The name of the module is certain; the flags of the processor decide where KVM is built in.
fn detect_kvm() -> Kvm {
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Kvm::None;
    }
    if Path::new("/sys/module/kvm_pvm").exists() {
        return Kvm::Software;
    }
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if hardware { Kvm::Native } else { Kvm::Software }
}
