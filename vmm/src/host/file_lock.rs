// SPDX-License-Identifier: Apache-2.0 OR MIT
//! flock(2) with a time limit.

use rustix::fs::{FlockOperation, flock, fstat, major, minor};
use rustix::io::Errno;
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The kernel has no lock that waits for a limited time.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Locks `file` exclusively. `path` is its name in the error.
///
/// # Errors
/// Another process has the lock for longer than `limit`. The error names it, if this process may see it.
pub(crate) fn lock_within(file: impl AsFd, path: &Path, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(RETRY_INTERVAL),
            Err(Errno::WOULDBLOCK) => {
                let holder = holder(&file).unwrap_or_else(|| "another process".to_owned());
                let (path, limit) = (path.display(), limit.as_secs_f32());
                let detail = format!("{path} has been locked by {holder} for more than {limit} s");
                return Err(Error::new(ErrorKind::TimedOut, detail));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The process that has a lock on `file`, in the words of an error.
fn holder(file: impl AsFd) -> Option<String> {
    let status = fstat(file).ok()?;
    let id = format!("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
    let process = locking_process(&fs::read_to_string("/proc/locks").ok()?, &id)?;
    // Not of another PID namespace.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    Some(describe(process, &stat))
}

/// The process that has a lock of flock(2) on the file `id`, in the text of proc_locks(5).
fn locking_process(locks: &str, id: &str) -> Option<u32> {
    // Those that wait have an arrow in the second place.
    let fields = locks.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let mut held = fields.filter(|fields| fields.first() == Some(&"FLOCK") && fields.get(4) == Some(&id));
    held.find_map(|fields| fields.get(3)?.parse().ok().filter(|process| *process > 0))
}

/// `stat` is proc_pid_stat(5).
fn describe(process: u32, stat: &str) -> String {
    let Some((start, rest)) = stat.rsplit_once(')') else { return format!("process {process}") };
    let name = start.split_once('(').map_or("", |(_, name)| name);
    let stopped = if rest.trim_start().starts_with(['T', 't']) { ", stopped" } else { "" };
    format!("process {process} ({name}{stopped})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn lock_has_a_time_limit_and_names_its_holder() {
        let path = std::env::temp_dir();
        let directory = tempfile::tempdir_in(&path).unwrap();
        let open = || File::open(directory.path()).unwrap();
        let held = open();
        lock_within(&held, &path, Duration::ZERO).unwrap();
        let error = lock_within(open(), Path::new("/run/x"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let text = error.to_string();
        assert!(text.starts_with("/run/x has been locked by ") && text.ends_with(" for more than 0.05 s"), "{text}");
        // The file system may have another number than its files.
        let own = format!("process {} (", std::process::id());
        assert!(text.contains(&own) || text.contains("another process"), "{text}");

        let waiting = std::thread::spawn({
            let file = open();
            move || lock_within(file, Path::new("/"), Duration::from_secs(60))
        });
        drop(held);
        assert!(waiting.join().unwrap().is_ok());
    }

    #[test]
    fn holder_is_found_in_the_kernels_list() {
        let locks = "1: FLOCK  ADVISORY  WRITE 77 00:1a:10 0 EOF\n2: POSIX  ADVISORY  WRITE 5 00:1a:9 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 88 00:1a:9 0 EOF\n3: -> FLOCK  ADVISORY  WRITE 99 00:1a:9 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 00:1a:8 0 EOF\n";
        assert_eq!(locking_process(locks, "00:1a:9"), Some(88));
        assert_eq!(locking_process(locks, "00:1a:8"), None, "of another PID namespace");
        assert_eq!(locking_process(locks, "00:1a:1"), None);
        assert_eq!(describe(88, "88 (a) b) T 1 88"), "process 88 (a) b, stopped)");
        assert_eq!(describe(88, "88 (coracle) S 1 88"), "process 88 (coracle)");
        assert_eq!(describe(88, ""), "process 88");
    }
}
