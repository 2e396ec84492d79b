// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One test: its name, its level, what it needs, and its body.

use crate::artifacts::{coracle, foreign_kernels, has_firecracker_kernel};
use crate::host::{Host, Kvm, Selection, are_installed, is_static};
use libtest_mimic::{Completion, Trial};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long each test took that has passed or failed.
static TIMES: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

/// What a test costs, which decides on which hosts it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Ends before a machine is built. Runs on every host.
    Quick,
    /// Boots a microVM. Runs on every KVM, those that emulate guest kernel mode included.
    Smoke,
    /// Boots microVMs. Runs on native KVM only.
    Full,
}

/// What a test needs besides what its level implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A `/dev/kvm` that opens, of any kind, for a test that does not boot.
    Kvm,
    /// The same for what each kind of KVM has to show for itself.
    EachKvm,
    /// Root, to change users or to make a mount namespace.
    Root,
    /// Debian's cloud kernel, in `CORACLE_KERNELS`.
    Kernels,
    /// The kernel with Firecracker's options, beside it.
    FirecrackerKernel,
    /// Debian's docker-registry and skopeo, and openssl.
    Registry,
    /// passt, for `--network user`.
    Passt,
    /// dpkg and make, for the Debian package.
    Dpkg,
    /// xmllint and make, for the OpenNebula driver.
    Xmllint,
    /// dosfstools and mtools, for disks of `--context`.
    Vfat,
    /// nft, for `--network bridge`.
    Nftables,
    /// socat, for `--vsock`.
    Socat,
    /// busybox, for its server and client of DHCP.
    Busybox,
    /// Debian's podman, conmon and runc, and a coracle that runs in any root.
    Podman,
    /// Debian's containerd and runc, and a coracle that runs in any root.
    Containerd,
    /// Debian's docker.io besides.
    Docker,
}

pub struct Case {
    name: &'static str,
    level: Level,
    needs: &'static [Need],
    body: fn(),
}

impl Case {
    /// A test whose body panics if what `name` states does not hold.
    #[must_use]
    pub const fn new(name: &'static str, level: Level, needs: &'static [Need], body: fn()) -> Case {
        Case { name, level, needs, body }
    }

    /// Why this host cannot run it, or `None`.
    fn reason_to_skip(&self, host: Host) -> Option<&'static str> {
        let needs = |need| self.needs.contains(&need);
        let boots = self.level != Level::Quick;
        if (boots || needs(Need::Kvm) || needs(Need::EachKvm)) && host.kvm == Kvm::None {
            return Some("needs a /dev/kvm that opens");
        }
        if !(boots || needs(Need::EachKvm) || needs(Need::Kernels)) && host.selection == Selection::Machines {
            return Some("boots no guest; the tests on this machine's KVM have it");
        }
        if self.level == Level::Full && host.kvm != Kvm::Native && host.selection != Selection::All {
            return Some("too slow where guest kernel mode is emulated; the nested runner has it");
        }
        if needs(Need::Kernels) && foreign_kernels().is_none() {
            return Some("needs foreign kernels (CORACLE_KERNELS); the nested runner has them");
        }
        if needs(Need::FirecrackerKernel) && !has_firecracker_kernel() {
            return Some("needs the kernel with Firecracker's options (cargo xtask nested --all-kernels)");
        }
        if needs(Need::Registry) && !are_installed(&["docker-registry", "skopeo", "openssl"]) {
            return Some("needs docker-registry, skopeo and openssl");
        }
        if needs(Need::Passt) && !are_installed(&["passt"]) {
            return Some("needs passt");
        }
        if needs(Need::Dpkg) && !are_installed(&["dpkg", "dpkg-deb", "make", "gzip", "xz"]) {
            return Some("needs dpkg and make");
        }
        if needs(Need::Xmllint) && !are_installed(&["xmllint", "make"]) {
            return Some("needs xmllint and make");
        }
        if needs(Need::Vfat) && !are_installed(&["/usr/sbin/mkfs.vfat", "mcopy"]) {
            return Some("needs dosfstools and mtools");
        }
        if needs(Need::Nftables) && !are_installed(&["nft"]) {
            return Some("needs nftables");
        }
        if needs(Need::Socat) && !are_installed(&["socat"]) {
            return Some("needs socat");
        }
        if needs(Need::Busybox) && !are_installed(&["busybox"]) {
            return Some("needs busybox");
        }
        let needs_engine = [Need::Podman, Need::Containerd, Need::Docker].iter().any(|need| self.needs.contains(need));
        if needs_engine && !is_static(coracle()) {
            return Some("needs a static binary, as `make build` makes it");
        }
        if needs(Need::Podman) && !are_installed(&["podman", "conmon", "runc"]) {
            return Some("needs podman, conmon and runc (guest-kernel-config/packages.sh engines)");
        }
        if needs(Need::Containerd) && !are_installed(&["containerd", "ctr", "runc"]) {
            return Some("needs containerd and runc (Debian's containerd)");
        }
        if needs(Need::Docker) && !are_installed(&["dockerd", "docker", "containerd", "runc"]) {
            return Some("needs dockerd, docker, containerd and runc (Debian's docker.io)");
        }
        (needs(Need::Root) && !host.root).then_some("needs root")
    }

    /// The same test for libtest-mimic.
    #[must_use]
    pub fn into_trial(self, host: Host) -> Trial {
        let skip = self.reason_to_skip(host);
        // The first segment is the name of the test binary.
        let name = self.name.split_once("::").map_or(self.name, |(_, rest)| rest);
        Trial::ignorable_test(name, move || {
            if let Some(reason) = skip {
                return Ok(Completion::ignored_with(reason));
            }
            let _clock = Clock { name, started: Instant::now() };
            (self.body)();
            Ok(Completion::Completed)
        })
    }
}

/// Records how long a test took when it ends, by a panic as well.
struct Clock {
    name: &'static str,
    started: Instant,
}

impl Drop for Clock {
    fn drop(&mut self) {
        TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((self.name, self.started.elapsed()));
    }
}

/// The tests that took longest, the longest first.
#[must_use]
pub fn slowest(count: usize) -> Vec<(&'static str, Duration)> {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    times.truncate(count);
    times
}

/// A [`Case`] that has the name of its function and module: `case!(Smoke, streams_stay_apart)`, `case!(Quick[Root], ...)`.
#[macro_export]
macro_rules! case {
    ($level:ident $([$($need:ident),+])?, $body:ident) => {
        $crate::Case::new(
            concat!(module_path!(), "::", stringify!($body)),
            $crate::Level::$level,
            &[$($($crate::Need::$need),+)?],
            $body,
        )
    };
}
