// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One use of one system call of the binary fails, by `tests/inject/failing_use.c`.

use super::{Report, assert_nothing_is_left, random, resetting, undisturbed};
use crate::{TestDir, failing_use};
use rustix::io::Errno;
use std::fmt;
use std::fs;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What each use fails with, one after the other.
pub const FAILING_ERRNOS: [(&str, Errno); 6] = [
    ("EINTR", Errno::INTR),
    ("EAGAIN", Errno::AGAIN),
    ("ENOMEM", Errno::NOMEM),
    ("EIO", Errno::IO),
    ("ENOSPC", Errno::NOSPC),
    ("EPERM", Errno::PERM),
];
const MAX_USES: usize = 20;
/// Beyond an undisturbed run.
const MAX_HANG: Duration = Duration::from_secs(5);

/// The calls that a run makes, by their numbers on x86-64. Not in it are `close`, which has closed the descriptor whatever it returns,
/// `futex`, whose waiters a wake-up that was not made leaves asleep, `prlimit64`, which fails only for values that are never passed, and
/// those whose failure makes the standard library abort or panic (`mmap`, `mprotect`, `rt_sigaction`, `getrandom`, and `poll`, by which
/// it looks at the standard streams before `main`). The binary is a static one: the loader of another makes calls of its own.
const CALLS: [(&str, u32); 58] = [
    ("read", 0),
    ("write", 1),
    ("open", 2),
    ("fstat", 5),
    ("lseek", 8),
    ("munmap", 11),
    ("rt_sigprocmask", 14),
    ("ioctl", 16),
    ("pread64", 17),
    ("pwrite64", 18),
    ("readv", 19),
    ("writev", 20),
    ("access", 21),
    ("mremap", 25),
    ("madvise", 28),
    ("dup2", 33),
    ("socket", 41),
    ("connect", 42),
    ("sendto", 44),
    ("recvfrom", 45),
    ("sendmsg", 46),
    ("recvmsg", 47),
    ("shutdown", 48),
    ("bind", 49),
    ("listen", 50),
    ("socketpair", 53),
    ("kill", 62),
    ("fcntl", 72),
    ("flock", 73),
    ("fsync", 74),
    ("fdatasync", 75),
    ("ftruncate", 77),
    ("rename", 82),
    ("mkdir", 83),
    ("rmdir", 84),
    ("unlink", 87),
    ("readlink", 89),
    ("chmod", 90),
    ("getpriority", 140),
    ("prctl", 157),
    ("sched_getaffinity", 204),
    ("getdents64", 217),
    ("epoll_wait", 232),
    ("epoll_ctl", 233),
    ("tgkill", 234),
    ("openat", 257),
    ("newfstatat", 262),
    ("unlinkat", 263),
    ("timerfd_create", 283),
    ("fallocate", 285),
    ("timerfd_settime", 286),
    ("signalfd4", 289),
    ("eventfd2", 290),
    ("epoll_create1", 291),
    ("pipe2", 293),
    ("seccomp", 317),
    ("statx", 332),
    ("clone3", 435),
];

/// A use of a call, and what it fails with, as text `CALL:USE:ERRNO`.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    call: (&'static str, u32),
    number: usize,
    error: (&'static str, Errno),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.call.0, self.number, self.error.0)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let invalid = || format!("invalid fault '{text}': expected CALL:USE:ERRNO");
        let [call, number, error] = text.split(':').collect::<Vec<_>>()[..] else { return Err(invalid()) };
        let call = CALLS.into_iter().find(|&(name, _)| name == call).ok_or_else(invalid)?;
        let error = FAILING_ERRNOS.into_iter().find(|&(name, _)| name == error).ok_or_else(invalid)?;
        Ok(Fault { call, number: number.parse().map_err(|_| invalid())?, error })
    }
}

/// Injects `only`, or `count` of all faults, selected by `seed`.
#[must_use]
pub fn faults(count: usize, seed: u64, only: Option<Fault>) -> Report {
    let mut report = Report::default();
    let usual = undisturbed(&TestDir::new());
    let mut state = seed;
    let mut faults = only.map_or_else(|| faults_of(&selected(CALLS.into(), count, &mut state)), |fault| vec![fault]);
    faults = selected(faults, count, &mut state);
    for fault in faults {
        report.add(&format!("faults --only {fault}"), || injected(&fault, usual));
    }
    report
}

/// At most `count` of the items, in a random order.
fn selected<T>(mut items: Vec<T>, count: usize, state: &mut u64) -> Vec<T> {
    for last in (1..items.len()).rev() {
        items.swap(last, (random(state) % (last as u64 + 1)) as usize);
    }
    items.truncate(count);
    items
}

/// The faults of those of `calls` that an undisturbed run makes.
fn faults_of(calls: &[(&'static str, u32)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for &call in calls {
        let dir = TestDir::new();
        let none = Fault { call, number: 0, error: FAILING_ERRNOS[0] };
        let (uses, _) = run(&dir, &none, MAX_HANG).1;
        for number in 1..=uses.min(MAX_USES) {
            faults.extend(FAILING_ERRNOS.map(|error| Fault { call, number, error }));
        }
    }
    faults
}

/// A run with the fault; the uses that there were, and the thread of the one that failed.
fn run(dir: &TestDir, fault: &Fault, limit: Duration) -> (crate::Finished, (usize, String)) {
    let path = dir.file("uses").display().to_string();
    let (call, number, error) = (fault.call.1.to_string(), fault.number.to_string(), fault.error.1.raw_os_error());
    let wrapper = [&*failing_use(), &call, &number, &error.to_string(), &path];
    let finished = resetting(dir).wrapped(&wrapper).limit(limit).finish();
    // The supervisor writes it when the last process with the filter has ended.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        if let Some((uses, thread)) = text.strip_suffix('\n').and_then(|line| line.split_once(' ')) {
            return (finished, (uses.parse().expect("the supervisor writes a number"), thread.to_owned()));
        }
        assert!(Instant::now() < deadline, "the supervisor wrote nothing: {text:?}");
        std::thread::yield_now();
    }
}

/// The run ends in time, with a status of its own and a reason, and without a panic.
fn injected(fault: &Fault, usual: Duration) -> String {
    let dir = TestDir::new().keeping_machines();
    let (run, (_, thread)) = run(&dir, fault, usual + MAX_HANG);
    let shown = format!("{fault} on the thread {thread}");
    assert_eq!(run.status.code(), Some(125), "{shown}: not an end of coracle's\n{}", run.report());
    // It fails only if the program has a fault: a panic, and so the reason `internal-error`, is meant.
    let may_panic = fault.call.0 == "epoll_wait";
    assert!(may_panic || !run.stderr.contains("panicked"), "{shown}: a panic\n{}", run.report());
    let reason = run.result.as_ref().and_then(|result| result.pointer("/end/reason")?.as_str());
    let reason = reason.map(str::to_owned);
    assert_ne!(reason.as_deref(), Some("sandbox-error"), "{shown}\n{}", run.report());
    // Where the line is the write that failed, the result document has the reason.
    let says_why = run.stderr.starts_with("coracle: ") || reason.is_some();
    assert!(says_why, "{shown}: no line says why\n{}", run.report());
    assert_nothing_is_left(&dir, &shown);
    if thread == "-" { "not reached".to_owned() } else { reason.unwrap_or_else(|| "no result document".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::Fault;

    #[test]
    fn faults_are_parsed_as_they_are_printed() {
        let fault: Fault = "openat:3:EIO".parse().unwrap();
        assert_eq!(fault.to_string(), "openat:3:EIO");
        for invalid in ["", "openat", "openat:3", "openat:x:EIO", "exit:1:EIO", "openat:1:EVIL", "openat:1:EIO:2"] {
            assert!(invalid.parse::<Fault>().is_err(), "{invalid}");
        }
    }
}
