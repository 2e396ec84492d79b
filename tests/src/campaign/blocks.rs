// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of a disk's file, each of which the guest has to see: one of two reads, writes and deallocations on the thread of a disk
//! fails, by `tests/inject/failing_use.c`. The guest is the hostile guest's kernel, which counts the statuses of its requests, and
//! compares what it reads with what it wrote.

use super::Report;
use crate::hostile::{self, MARK};
use crate::{TestDir, failing_use, image};
use rustix::io::Errno;
use std::fs;
use std::time::{Duration, Instant};

/// Errors of one machine.
const MAX_ERRORS: usize = 1000;
/// `preadv`, `pwritev` and `fallocate` on x86-64. After a sync that failed a disk reports every later one as failed, so that those
/// cannot be counted.
const CALLS: &str = "295,296,285";
/// The disk behind the root and the scratch disk.
const THREAD: &str = "disk-2";
const ERRNOS: [Errno; 2] = [Errno::IO, Errno::NOSPC];

/// Lets `count` calls fail, in machines of at most a thousand.
#[must_use]
pub fn blocks(count: usize) -> Report {
    let mut report = Report::default();
    let mut left = count;
    while left > 0 {
        let errors = left.min(MAX_ERRORS);
        left -= errors;
        let errno = ERRNOS[report.repetitions % ERRNOS.len()];
        report.add(&format!("blocks {errors}"), || machine(errors, errno));
    }
    report
}

fn machine(errors: usize, errno: Errno) -> String {
    let dir = TestDir::new();
    let path = |name: &str| dir.file(name).display().to_string();
    dir.write("disk", vec![0; 1 << 20]);
    let (kernel, uses) = (hostile::kernel().display().to_string(), path("uses"));
    let (disk, words) = (format!("path={}", path("disk")), format!("hostile.block_errors={errors}"));
    let options = ["--kernel", &kernel, "--disk", &disk, "--append", &words, &image("busybox"), "true"];
    let (calls, wrapper) = (errno.raw_os_error().to_string(), failing_use());
    let run = dir.invocation(&options).wrapped(&[&wrapper, CALLS, &format!("1/2:{THREAD}"), &calls, &uses]).finish();
    run.assert_status(0);
    let lines = run.console.lines().filter_map(|line| line.split_once(MARK));
    let line = lines.map(|(_, line)| line).next_back().unwrap_or_default().to_owned();
    let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [requests, seen, 0] = numbers[..] else { panic!("{line}\n{}", run.report()) };
    let injected = injected(&uses);
    assert_eq!(seen, injected, "silent: of {injected} errors the guest saw {seen}, in {requests} requests");
    assert_eq!(seen, errors, "{requests} requests");
    format!("each of {errors} times {errno:?} was seen")
}

/// The supervisor writes it when the last process with the filter has ended.
fn injected(report: &str) -> usize {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let text = fs::read_to_string(report).unwrap_or_default();
        if let Some(count) = text.split(' ').next().and_then(|count| count.parse().ok()) {
            return count;
        }
        assert!(Instant::now() < deadline, "the supervisor wrote nothing: {text:?}");
        std::thread::yield_now();
    }
}
