// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Helper programs, such as `mke2fs`, in an environment that does not depend on coracle's caller: its variables, ignored signals,
//! soft limits, working directory and open files.
#![allow(unsafe_code, reason = "the state of the child is set between fork and exec")]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};
use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Soft limits that change what a program can do.
const LIMITS: [Resource; 6] =
    [Resource::As, Resource::Cpu, Resource::Data, Resource::Fsize, Resource::Nofile, Resource::Nproc];
/// Signals of x86-64 Linux are 1 to 64.
const MAX_SIGNAL: libc::c_int = 64;
/// First descriptor after the standard streams.
const FIRST_OTHER_FD: libc::c_uint = 3;

/// A command for `program`, which is looked up in the caller's PATH and after that in the administrator's directories, in which
/// e2fsprogs is installed. Its standard streams are for the caller of this function to set.
#[must_use]
pub(crate) fn helper(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path()).env("LC_ALL", "C").current_dir("/");
    // SAFETY: `reset_state` makes system calls only, each of which is async-signal-safe, and does not allocate.
    unsafe { command.pre_exec(reset_state) };
    command
}

/// A process that is ended with this value.
#[derive(Debug)]
pub(crate) struct HelperProcess(Child);

impl HelperProcess {
    #[must_use]
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its process ID, until it is dropped.
    #[must_use]
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for HelperProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` until it ends. After `limit` it is ended, which is an error.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    let mut process = HelperProcess::new(command.spawn()?);
    let child = &mut process.0;
    let descriptor = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("limits are short");
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(Error::new(ErrorKind::TimedOut, format!("it did not end in {} s", limit.as_secs()))),
            Ok(_) => return child.wait(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn path() -> OsString {
    const DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    match std::env::var_os("PATH").filter(|path| !path.is_empty()) {
        Some(mut path) => {
            path.push(":");
            path.push(DEFAULT);
            path
        }
        None => DEFAULT.into(),
    }
}

/// In the child: every signal has its default effect, but that a limit of the size of files is an error of `write`; soft limits are
/// the hard ones; no descriptor but the standard streams stays open.
fn reset_state() -> Result<()> {
    for signal in (1..=MAX_SIGNAL).filter(|&signal| signal != libc::SIGXFSZ) {
        // SAFETY: sets a disposition without a handler. It fails for KILL, STOP and the C library's own signals, which have
        // no other disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    for limit in LIMITS {
        let Rlimit { maximum, .. } = getrlimit(limit);
        let _ = setrlimit(limit, Rlimit { current: maximum, maximum });
    }
    // SAFETY: only sets a flag of descriptors that this process has no further use for. Kernels before 5.11 lack the call.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST_OTHER_FD, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_setfd};

    fn output(script: &str) -> String {
        let output = helper("sh").args(["-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn helper_has_none_of_the_callers_ignored_signals() {
        // SAFETY: no other test uses this signal.
        unsafe { libc::signal(libc::SIGURG, libc::SIG_IGN) };
        let status = output("cat /proc/self/status");
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        // XFSZ, and 32 and 33, which the C library keeps to itself.
        let exempt = [libc::SIGXFSZ, 32, 33].iter().fold(0, |mask, signal| mask | 1 << (signal - 1));
        assert_eq!((mask("SigBlk:"), mask("SigIgn:") & !exempt), (0, 0), "{status}");
    }

    #[test]
    fn helper_has_the_hard_limits() {
        let Rlimit { current, maximum } = getrlimit(Resource::Fsize);
        // So large that no other test meets it meanwhile.
        setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 50), maximum }).unwrap();
        let limits = output("ulimit -Sf; ulimit -Hf");
        setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
        let limits: Vec<&str> = limits.lines().collect();
        assert_eq!(limits[0], limits[1]);
    }

    #[test]
    fn helper_that_does_not_end_is_ended_at_the_limit() {
        let limit = Duration::from_secs(60);
        assert_eq!(run_within(helper("sh").args(["-c", "exit 3"]), limit).unwrap().code(), Some(3));
        let error = run_within(helper("sleep").arg("1000"), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn helper_has_its_own_environment_and_directory() {
        let text = output("env; pwd");
        let names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| ["PATH", "LC_ALL", "PWD", "OLDPWD", "_", "SHLVL"].contains(name)), "{text}");
        assert!(text.ends_with("\n/\n"), "{text}");
    }

    #[test]
    fn helper_has_no_descriptors_but_the_standard_streams() {
        let file = tempfile::tempfile().unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        // 3 is that of `ls` for the directory.
        assert_eq!(output("exec ls /proc/self/fd").split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
}
