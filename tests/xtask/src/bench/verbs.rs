// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench verbs`: verbs on a running machine, next to the goals. Each as a command, with the start of the client's
//! process, and over the control socket, as a driver sends it that is running already.

use super::product::Product;
use super::report::{Goal, Measure, Report};
use super::unit::{elapsed_us, processors};
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Instant;

// Goals, in microseconds.
const EXEC_OVERHEAD: u64 = 30_000;
const PS: u64 = 50_000;
const STOP: u64 = 150_000;
/// Machines that `ps` lists.
const LISTED: usize = 500;
/// Runs of `true` in one sample inside: `/proc/uptime` of the guest counts hundredths of a second.
const REPEATED: u64 = 200;

/// Machines in a run directory of their own.
struct Machines<'a> {
    product: &'a Product,
    directory: tempfile::TempDir,
}

pub(crate) fn run(rounds: usize) -> Result<ExitCode> {
    let product = Product::find()?;
    let mut report = Report::new(&product, rounds);
    execute(&product, rounds, &mut report)?;
    stop(&product, rounds, &mut report)?;
    list(&product, rounds, &mut report)?;
    println!("{}", report.markdown());
    let path = super::out_directory().join("bench-verbs.json");
    fs::write(&path, report.json()).with_context(|| path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn execute(product: &Product, rounds: usize, report: &mut Report) -> Result<()> {
    let machines = Machines::new(product)?;
    machines.start("m", "sleep 100000")?;
    let (mut inside, mut asked, mut typed, mut client, mut more) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        eprintln!("exec: round {}", round + 1);
        inside.push(machines.inside("m")?);
        asked.push(time(|| machines.ask("m", "exec", &json!({ "command": ["true"] })).map(drop))?);
        more.push(asked[round].saturating_sub(inside[round]));
        typed.push(time(|| machines.verb(&["exec"], &["m", "true"]).map(drop))?);
        client.push(time(|| machines.verb(&["--version"], &[]).map(drop))?);
    }
    report.add(Measure::time("fork and exec of `true` inside the guest", inside, Goal::None));
    report.add(Measure::time("exec of `true` over the control socket, from request to end", asked, Goal::None));
    report.add(Measure::time("the same, less the time inside", more, Goal::AtMost(EXEC_OVERHEAD)));
    report.add(Measure::time("`coracle exec m true`, a process from start to end", typed, Goal::None));
    report.add(Measure::time("`coracle --version`, a process from start to end", client, Goal::None));
    machines.ask("m", "kill", &json!({}))?;
    machines.wait_for_end("m")
}

/// Of a workload that ends at once, the result document included, which is written before the process ends.
fn stop(product: &Product, rounds: usize, report: &mut Report) -> Result<()> {
    let machines = Machines::new(product)?;
    let (mut asked, mut typed) = (vec![], vec![]);
    for round in 0..rounds {
        eprintln!("stop: round {}", round + 1);
        for (times, over_socket) in [(&mut asked, true), (&mut typed, false)] {
            machines.start("m", "sleep 100000")?;
            times.push(time(|| {
                if over_socket {
                    machines.ask("m", "stop", &json!({}))?;
                    return machines.wait_for_end("m");
                }
                machines.verb(&["stop"], &["m"]).map(drop)
            })?);
            ensure!(machines.entry("m").join("result.json").exists(), "no result after a stop");
        }
    }
    report.add(Measure::time(
        "stop over the control socket, from request to the process's end",
        asked,
        Goal::AtMost(STOP),
    ));
    report.add(Measure::time("`coracle stop m`, a process from start to end", typed, Goal::None));
    Ok(())
}

/// Lists machines that have ended. The goal is for a real processor.
pub(super) fn list(product: &Product, rounds: usize, report: &mut Report) -> Result<()> {
    let machines = Machines::new(product)?;
    machines.start("m", "true")?;
    machines.wait_for_end("m")?;
    for index in 1..LISTED {
        let entry = machines.entry(&format!("m{index}"));
        fs::create_dir(&entry)?;
        for name in ["lock", "status.json", "config.json", "result.json"] {
            fs::copy(machines.entry("m").join(name), entry.join(name)).with_context(|| name.to_owned())?;
        }
    }
    let mut typed = vec![];
    for round in 0..rounds {
        eprintln!("ps: round {}", round + 1);
        typed.push(time(|| {
            let listed = machines.verb(&["ps", "-a"], &[])?;
            ensure!(listed.iter().filter(|byte| **byte == b'\n').count() == LISTED + 1, "some machines are not listed");
            Ok(())
        })?);
    }
    let goal = if processors().contains("TCG") { Goal::None } else { Goal::AtMost(PS) };
    report.add(Measure::time("`coracle ps -a` of 500 entries, a process from start to end", typed, goal));
    Ok(())
}

impl<'a> Machines<'a> {
    fn new(product: &'a Product) -> Result<Machines<'a>> {
        Ok(Machines { product, directory: tempfile::tempdir()? })
    }

    fn entry(&self, name: &str) -> PathBuf {
        self.directory.path().join("run").join(name)
    }

    /// Starts a machine and waits until it runs.
    fn start(&self, name: &str, script: &str) -> Result<()> {
        let mut command = self.product.run_command(self.product.cache(), self.directory.path());
        let image = format!("oci:{}", self.product.image("busybox").display());
        let words =
            ["-d", "--init", "--scratch", "tmpfs", "--name", name, &image, "sh", "-c", &format!("exec {script}")];
        succeeded(command.args(words).stdout(Stdio::null()).status()?)
    }

    /// Runs `verb` and returns its output.
    fn verb(&self, verb: &[&str], words: &[&str]) -> Result<Vec<u8>> {
        let mut command = std::process::Command::new(self.product.binary());
        command.args(verb);
        if !verb[0].starts_with('-') {
            command.arg("--run-dir").arg(self.directory.path().join("run"));
        }
        let output = command.args(words).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        succeeded(output.status).with_context(|| verb.join(" "))?;
        Ok(output.stdout)
    }

    /// Sends a request and reads until the machine closes the connection.
    fn ask(&self, name: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
        let mut stream = connect(&self.entry(name))?;
        let body = body.to_string();
        let fields = if path == "exec" { "Connection: Upgrade\r\nUpgrade: tcp" } else { "Connection: close" };
        let length = body.len();
        write!(stream, "POST /v1/{path} HTTP/1.1\r\nHost: m\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        let first = response.get(9..10).unwrap_or_default();
        ensure!(matches!(first, b"1" | b"2"), "{path}: {}", String::from_utf8_lossy(&response));
        Ok(response)
    }

    /// Microseconds that fork and exec of `true` take inside.
    fn inside(&self, name: &str) -> Result<u64> {
        let script = format!(
            "read a b < /proc/uptime; i=0; while [ $i -lt {REPEATED} ]; do /bin/true; i=$((i + 1)); done; \
             read c d < /proc/uptime; echo $a $c"
        );
        let output = String::from_utf8(self.verb(&["exec"], &[name, "sh", "-c", &script])?)?;
        let times: Vec<f64> = output.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [before, after] = times[..] else { anyhow::bail!("unexpected output `{output}`") };
        Ok(((after - before) * 1e6) as u64 / REPEATED)
    }

    /// Waits for the end of a machine's process.
    fn wait_for_end(&self, name: &str) -> Result<()> {
        let status: Value = serde_json::from_slice(&fs::read(self.entry(name).join("status.json"))?)?;
        let pid = status["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("a pid")?;
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
            poll(&mut [PollFd::new(&process, PollFlags::IN)], None)?;
        }
        Ok(())
    }
}

fn connect(entry: &Path) -> Result<UnixStream> {
    let path = entry.join("control.sock");
    UnixStream::connect(&path).with_context(|| path.display().to_string())
}

fn succeeded(status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

fn time(act: impl FnOnce() -> Result<()>) -> Result<u64> {
    let started = Instant::now();
    act()?;
    elapsed_us(started)
}
