// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands for work on coracle: `cargo xtask check|test|nested|bench|campaign|drill|hostile|engines`.

mod bench;
mod campaign;
mod check;
mod drill;
mod engines;
mod hostile;
mod nested;
mod repository;
mod suite;
mod user_cache;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask check [STEP...]  examine the sources; without STEP every step
cargo xtask test [WORLD...]  run every test and print a table: unit (and documentation) tests, end-to-end tests here, and in
                             the nested runner; without WORLD all three, but nested only where KVM here is not native
cargo xtask nested [--filter NAME] [--memory MIB] [--timeout SECONDS] [-- COMMAND...]
                             run the end-to-end tests, or COMMAND, in a Linux in QEMU with emulated SVM;
                             what is left in /out comes back as target/nested/out
cargo xtask bench [ROUNDS]   in the nested runner: side by side with other monitors, medians of ROUNDS (10) and ratios; what
                             is done to a running machine, next to the goals; boot stages. BENCH_FIRECRACKER and
                             BENCH_CLOUD_HYPERVISOR (and BENCH_CLOUD_HYPERVISOR_KERNEL) name more monitors
cargo xtask bench side-by-side|verbs|stages [ROUNDS]
                             one of these on this machine's KVM
cargo xtask bench here [ROUNDS] [--old PATH]
                             time and memory of the release build on this machine's KVM, next to the goals; first in turns
                             with the binary PATH (or BENCH_OLD), if there is one
cargo xtask bench images [ROUNDS]
                             images of 1 GB to machines that can be started, beside umoci, mkfs.erofs, mksquashfs and skopeo, next
                             to the goals; starts no guest
cargo xtask campaign kill [COUNT] [--seed N]
                             kill -9 at COUNT (1000) random moments of a run: nothing is left, and the name starts again
cargo xtask campaign faults [COUNT] [--seed N] [--only CALL:USE:ERRNO]
                             COUNT (2000) of the first 20 uses of each system call fail: every run ends in time, with a reason
cargo xtask campaign durability [COUNT] [--seed N]
                             COUNT (1000) monitors of a guest that writes are killed: no record that was synced is lost
cargo xtask campaign blocks [COUNT]
                             COUNT (10000) reads, writes and deallocations of a disk's file fail: the guest sees each
cargo xtask campaign machines [COUNT [MINUTES]]
                             COUNT (50) machines with hostile guests run for MINUTES (30): the monitors' memory does not grow
cargo xtask drill            what each kind of thread can do once it is confined, as root and as an unprivileged user
cargo xtask hostile          a guest that does everything wrong to its devices, and whether it finds faults that are planted in them
cargo xtask engines podman-tests [FILE...]
                             podman's own system tests with runc and with coracle-oci on this machine's KVM; as root";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(verb, rest)| (verb.as_str(), rest)) {
        Some(("check", steps)) => check::run(steps),
        Some(("test", worlds)) => suite::run(&suite::World::choose(worlds)?),
        Some(("nested", words)) => nested::run(words),
        Some(("bench", words)) => bench::run(words),
        Some(("campaign", words)) => campaign::run(words),
        Some(("drill", [])) => drill::run(),
        Some(("hostile", [])) => hostile::run(),
        Some(("engines", words)) => engines::run(words),
        Some(("help" | "--help" | "-h", _)) => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("no such command\n{USAGE}"),
    }
}
