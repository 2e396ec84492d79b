// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of the hostile guest against the binary: a kernel that drives it (`tests/hostile/kernel`), in a machine with each
//! kind of device that the table has, and what it printed.

use crate::artifacts::target_directory;
use crate::{NetworkNamespace, TestDir, image, workspace};
use std::env;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Starts each line of the kernel. The console device writes to the same log.
pub(crate) const MARK: &str = "hostile: ";
/// With the waits for a device that is lost.
const LIMIT: Duration = Duration::from_secs(540);
/// Exit statuses of the kernel: every case passed; one did not.
const PASSED: i32 = 0;
const FAILED: i32 = 1;

/// What the kernel counted, or why it could not.
#[derive(Debug)]
pub struct Verdicts {
    pub cases: usize,
    /// A line for each case that did not pass; the kernel ends after some.
    pub faults: Vec<String>,
    pub elapsed: Duration,
}

/// A machine that runs the table.
#[derive(Debug)]
pub struct Table {
    program: Option<PathBuf>,
    fault: Option<String>,
    every: usize,
    max_faults: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table { program: None, fault: None, every: 1, max_faults: 20 }
    }
}

impl Table {
    /// One of `every` cases.
    #[must_use]
    pub fn every(mut self, every: usize) -> Table {
        self.every = every;
        self
    }

    /// Another binary than the one under test. Its PID 1 is that of the one under test.
    #[must_use]
    pub fn program(mut self, path: PathBuf) -> Table {
        self.program = Some(path);
        self
    }

    /// With a fault in the devices, which the binary has to be built for (the feature `planted-faults` of `devices`), until a case
    /// does not pass.
    #[must_use]
    pub fn planted(mut self, fault: &str) -> Table {
        self.fault = Some(fault.to_owned());
        self.max_faults = 1;
        self
    }

    /// Runs it. As root one network device has three pairs of queues.
    ///
    /// # Errors
    /// The kernel did not come to its end, with everything that it printed.
    pub fn run(self) -> Result<Verdicts, String> {
        let dir = TestDir::new();
        let path = |name: &str| dir.file(name).display().to_string();
        let (kernel, image) = (kernel().display().to_string(), image("busybox"));
        let (switch, vsock) = (format!("socket={}", path("switch")), path("v.sock"));
        let listener = UnixListener::bind(dir.file("switch")).expect("the test's directory is writable");
        // The switch takes every frame, until the machine ends.
        let reader = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = [0; 65536];
            while stream.read(&mut buffer)? > 0 {}
            std::io::Result::Ok(())
        });
        let words = format!("hostile.every={} hostile.max_faults={}", self.every, self.max_faults);
        let options = ["--kernel", &kernel, "--append", &words, "--network", &switch, "--vsock", &vsock];
        let network = rustix::process::geteuid().is_root().then(|| NetworkNamespace::empty(&dir, ""));
        let pairs: &[&str] = if network.is_some() { &["--cpus", "3", "--network", "tap=tap0"] } else { &[] };
        let mut run = dir.invocation(&[&options[..], pairs, &[&image, "true"]].concat()).limit(LIMIT);
        if let Some(network) = &network {
            network.ip("tuntap add dev tap0 mode tap multi_queue");
            network.ip("link set tap0 up");
            run = run.in_network(network);
        }
        if let Some(program) = self.program {
            let init = crate::coracle().with_file_name("coracle-init");
            run = run.program(program).env("CORACLE_INIT", init);
        }
        if let Some(fault) = self.fault {
            run = run.env("CORACLE_PLANTED_FAULT", fault);
        }
        let run = run.finish();
        drop(reader);
        let lines: Vec<&str> =
            run.console.lines().filter_map(|line| line.split_once(MARK)).map(|(_, line)| line).collect();
        let counts = lines.last().and_then(|line| parse_counts(line));
        match (run.status.code(), counts) {
            (Some(PASSED | FAILED), Some(cases)) => {
                let is_fault = |line: &&&str| line.starts_with("failed: ") || line.starts_with("wedged: ");
                let faults = lines.iter().filter(is_fault).map(|line| (*line).to_owned()).collect();
                Ok(Verdicts { cases, faults, elapsed: run.elapsed })
            }
            _ => Err(format!("the table did not come to its end: {}\n{}", lines.join("\n"), run.report())),
        }
    }
}

/// The cases of `N cases, N failed, N wedged`.
fn parse_counts(line: &str) -> Option<usize> {
    let (cases, rest) = line.split_once(" cases, ")?;
    rest.ends_with(" wedged").then(|| cases.parse().ok())?
}

/// The kernel: `CORACLE_HOSTILE_KERNEL`, or what cargo builds, if it is not built yet.
#[must_use]
pub fn kernel() -> PathBuf {
    let given = env::var_os("CORACLE_HOSTILE_KERNEL").map(PathBuf::from);
    given.unwrap_or_else(|| build(&["hostile-kernel", "--profile", "init"]).join("init/hostile-kernel"))
}

/// Builds a binary in which faults can be planted.
#[must_use]
pub fn build_with_planted_faults() -> PathBuf {
    build(&["vmm", "--features", "devices/planted-faults"]).join("debug/coracle")
}

/// Has cargo build a package, and returns the target directory.
fn build(package: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package"]).args(package).current_dir(workspace());
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "{cargo:?}: {status}");
    target_directory()
}

#[cfg(test)]
mod tests {
    use super::parse_counts;

    #[test]
    fn closing_line_has_the_number_of_cases() {
        assert_eq!(parse_counts("5253 cases, 1 failed, 0 wedged"), Some(5253));
        for other in ["", "5253 cases", "failed: device 0 queue 1", "x cases, 0 failed, 0 wedged"] {
            assert_eq!(parse_counts(other), None, "{other}");
        }
    }
}
