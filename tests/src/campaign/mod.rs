// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Campaigns: one fault, injected many times at different places into the binary under test. The guest of most is a kernel of seven
//! bytes that resets the machine, so that a run with all kinds of devices takes 50 ms on every KVM.

mod blocks;
mod durability;
mod faults;
mod kill;
mod machines;

pub use blocks::blocks;
pub use durability::{Moments, RecordVolume, durability};
pub use faults::{FAILING_ERRNOS, Fault, faults};
pub use kill::kill;
pub use machines::machines;

use crate::{Elf, Finished, Invocation, TestDir, image};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What a campaign did.
#[derive(Debug, Default)]
pub struct Report {
    pub repetitions: usize,
    /// How often the repetitions ended in which way.
    pub outcomes: std::collections::BTreeMap<String, usize>,
    /// Each with the words of `cargo xtask campaign` that repeat it.
    pub failures: Vec<Failure>,
}

#[derive(Debug)]
pub struct Failure {
    pub repeat: String,
    pub what: String,
}

impl Report {
    /// Counts a repetition, whose assertions may fail.
    fn add(&mut self, repeat: &str, repetition: impl FnOnce() -> String) {
        self.repetitions += 1;
        match catch_unwind(AssertUnwindSafe(repetition)) {
            Ok(outcome) => *self.outcomes.entry(outcome).or_default() += 1,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let what = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
                self.failures.push(Failure { repeat: repeat.to_owned(), what: what.unwrap_or_default() });
            }
        }
    }
}

/// The next of a sequence of numbers (SplitMix64). Neighbouring states have unrelated sequences.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// `mov $0xfe, %al; out %al, $0x64`: the line that resets the machine.
const RESET: [u8; 7] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];

/// A run of the machine `m` with a disk, a share, a socket device and logs, which the guest resets at once.
fn resetting(dir: &TestDir) -> Invocation {
    let path = |name: &str| dir.file(name).display().to_string();
    dir.write("kernel", Elf { code: RESET.to_vec(), ..Elf::default() }.to_bytes());
    dir.write("disk", [0; 4096]);
    fs::create_dir_all(dir.file("share")).expect("the test's directory is writable");
    let (kernel, disk, share) = (path("kernel"), format!("path={}", path("disk")), format!("{}:/data", path("share")));
    let (vsock, events, image) = (path("v.sock"), path("events"), image("busybox"));
    let options = ["--name", "m", "--rm", "--kernel", &kernel, "--disk", &disk, "-v", &share, "--vsock", &vsock];
    dir.invocation(&[&options[..], &["--events", &events, &image, "true"]].concat())
}

/// The time that an undisturbed run takes, the median of five. The first converts the image.
fn undisturbed(dir: &TestDir) -> Duration {
    let mut times: Vec<_> = (0..6).map(|_| assert_reset(&resetting(dir).finish())).skip(1).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn assert_reset(run: &Finished) -> Duration {
    run.assert_status(125).assert_reason("guest-reset");
    run.elapsed
}

/// After a disturbed run no process is left, the name starts again, and that leaves nothing.
fn assert_nothing_is_left(dir: &TestDir, disturbed: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Some(process) = dir.residue().into_iter().find(|left| left.starts_with("process ")) {
        assert!(Instant::now() < deadline, "still there 5 s after {disturbed}: {process}");
        std::thread::yield_now();
    }
    let left: Vec<_> = dir.residue().into_iter().filter(|left| left.contains("/tmp/")).collect();
    let left: Vec<_> = left.into_iter().filter(|left| left.starts_with(&*dir.temporary().to_string_lossy())).collect();
    assert!(left.is_empty(), "left in TMPDIR after {disturbed}: {left:?}");
    let again = resetting(dir).finish();
    assert_eq!(again.status.code(), Some(125), "the name does not start again after {disturbed}\n{}", again.report());
    assert_eq!(again.result_at("/end/reason"), "guest-reset", "started again after {disturbed}\n{}", again.report());
    let left = dir.residue();
    assert!(left.is_empty(), "left by the start after {disturbed}: {left:?}");
    assert!(!dir.file("v.sock").exists(), "the socket is left by the start after {disturbed}");
}
