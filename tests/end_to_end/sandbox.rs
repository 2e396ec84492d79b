// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The confinement of coracle's own process. The guest is a kernel of three bytes, which halts: no test boots Linux.

use coracle_tests::drill::{Drill, THREADS, User, attempts};
use coracle_tests::{
    Case, Elf, Invocation, NetworkNamespace, Running, TestDir, case, failing_calls, forbidden_call, image, without_call,
};
use rustix::process::Signal;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[EachKvm], every_thread_is_confined_while_the_guest_runs),
        case!(Quick[Kvm, Root], forbidden_call_of_any_thread_ends_with_sandbox_error),
        case!(Quick[Kvm], panic_with_a_backtrace_is_not_a_forbidden_call),
        case!(Quick[Kvm], result_and_check_have_each_layer),
        case!(Quick[Kvm], missing_layer_is_named_if_it_is_required),
        case!(Quick[EachKvm], machine_without_sandbox_has_no_filter),
        case!(Quick[Kvm, Root, Nftables], threads_of_a_bridge_are_confined),
        case!(Quick[Kvm, Root, Passt], threads_that_were_taken_over_reach_nothing),
    ]
}

/// System calls by their numbers on x86-64.
const EXECVE: &str = "59";
const LANDLOCK_CREATE_RULESET: &str = "444";
const LAYERS: [&str; 5] = ["capabilities", "landlock", "limits", "no-new-privileges", "seccomp"];

/// A run whose guest halts for ever.
fn halted(dir: &TestDir, options: &[&str]) -> Invocation {
    let code = vec![0xf4, 0xeb, 0xfd];
    let kernel = dir.write("kernel", Elf { code, ..Elf::default() }.to_bytes()).display().to_string();
    let image = image("busybox");
    let arguments = [&["--kernel", &kernel][..], options, &[&image, "true"]].concat();
    dir.invocation(&arguments).limit(Duration::from_secs(30))
}

/// Name and status of each thread.
fn threads(run: &Running) -> Vec<(String, String)> {
    let directory = format!("/proc/{}/task", run.pid());
    let tasks = fs::read_dir(directory).expect("the process runs").flatten();
    let read = |task: fs::DirEntry| {
        let of = |file| fs::read_to_string(task.path().join(file)).ok();
        Some((of("comm")?.trim_end().to_owned(), of("status")?))
    };
    // KVM's own thread, which executes nothing of this process.
    tasks.filter_map(read).filter(|(name, _)| !name.starts_with("kvm-")).collect()
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// The threads, once there is a vCPU and they are as `is_started` wants.
fn started(run: &Running, is_started: impl Fn(&[(String, String)]) -> bool) -> Vec<(String, String)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let threads = threads(run);
        if threads.iter().any(|(name, _)| name == "vcpu-0") && is_started(&threads) {
            return threads;
        }
        assert!(Instant::now() < deadline, "the machine does not start: {threads:?}");
        std::thread::yield_now();
    }
}

/// `main` is the last thread that is confined.
fn confined(threads: &[(String, String)]) -> bool {
    threads.iter().all(|(_, status)| field(status, "Seccomp") == "2")
}

fn end(run: Running) {
    run.signal(Signal::TERM);
    run.signal(Signal::TERM);
    let _ = run.finish();
}

fn every_thread_is_confined_while_the_guest_runs() {
    let dir = TestDir::new();
    let share = dir.file("share");
    fs::create_dir(&share).expect("the test's directory is writable");
    let (share, vsock) = (format!("{}:/data:ro", share.display()), dir.file("v.sock").display().to_string());
    let run = halted(&dir, &["--cpus", "2", "-v", &share, "--vsock", &vsock]).start();
    let threads = started(&run, confined);
    let names: Vec<&str> = threads.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["coracle", "vcpu-0", "vcpu-1", "io", "vsock", "fs-share0", "disk-0", "disk-1"] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    for (name, status) in &threads {
        assert_eq!(field(status, "NoNewPrivs"), "1", "{name}");
        // As root these act on files and sockets of other users.
        if name != "fs-share0" && name != "vsock" {
            assert_eq!(field(status, "CapEff").trim_start_matches('0'), "", "{name}");
        }
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", run.pid())).expect("the process runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    end(run);
}

fn forbidden_call_of_any_thread_ends_with_sandbox_error() {
    for thread in ["main", "io", "vcpu-0", "disk-0"] {
        let dir = TestDir::new();
        let run = halted(&dir, &[]).start();
        started(&run, confined);
        let made = Command::new(forbidden_call()).args([&run.pid().to_string(), thread, EXECVE]).output();
        let made = made.expect("the program can be executed");
        assert!(made.status.success(), "{thread}: {}", String::from_utf8_lossy(&made.stderr));
        if thread == "main" || thread == "io" || thread == "disk-0" {
            run.signal(Signal::TERM);
        }
        let run = run.finish();
        let line = format!("the thread {thread} made the system call execve");
        run.assert_status(125).assert_reason("sandbox-error").assert_one_line_naming(&[&line]);
    }
}

fn panic_with_a_backtrace_is_not_a_forbidden_call() {
    let dir = TestDir::new();
    let run = halted(&dir, &["--timeout", "20"]).wrapped(&[&failing_calls(), "disk-0"]).env("RUST_BACKTRACE", "1");
    let run = run.finish();
    run.assert_status(125).assert_reason("internal-error");
    assert!(run.stderr.contains("the thread disk-0 panicked at "), "{}", run.report());
}

fn result_and_check_have_each_layer() {
    let dir = TestDir::new();
    let check = dir.verb("check", &["--sandbox", "auto"]).finish().stdout_text();
    let line = check.lines().find(|line| line.contains("seccomp")).unwrap_or_default().to_owned();
    let missing: Vec<&str> = LAYERS.into_iter().filter(|layer| !line.contains(&format!("{layer} on"))).collect();
    // Of the layers only this one depends on how a kernel was configured that has KVM.
    assert!(missing.iter().all(|&layer| layer == "landlock"), "{check}");
    // What `main` opens and writes besides the run directory.
    let path = |name: &str| dir.file(name).display().to_string();
    let (events, profile) = (path("events"), path("profile"));
    let options = ["--sandbox", "require", "--timeout", "1", "--events", &events, "--profile", &profile];
    let run = halted(&dir, &options).finish();
    if let Some(layer) = missing.first() {
        run.assert_status(125).assert_reason("sandbox-error").assert_one_line_naming(&[layer]);
        return;
    }
    run.assert_status(137).assert_reason("timeout").assert_one_line_naming(&["1 s"]);
    assert!([events, profile].iter().all(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0)));
    for layer in LAYERS {
        assert_eq!(run.result_at("/sandbox")[layer], "on", "{layer}\n{}", run.report());
    }
}

fn missing_layer_is_named_if_it_is_required() {
    let dir = TestDir::new();
    let without = [&*without_call(), LANDLOCK_CREATE_RULESET];
    let run = halted(&dir, &["--sandbox", "require"]).wrapped(&without).finish();
    run.assert_status(125).assert_reason("sandbox-error").assert_one_line_naming(&["--sandbox require: landlock"]);
    let run = halted(&dir, &["--timeout", "1"]).wrapped(&without).finish();
    run.assert_status(137).assert_reason("timeout").assert_one_line_naming(&["1 s"]);
    let states = run.result_at("/sandbox");
    assert_eq!(
        (&states["landlock"], &states["seccomp"]),
        (&"unavailable: not supported by this kernel".into(), &"on".into())
    );
}

fn machine_without_sandbox_has_no_filter() {
    let dir = TestDir::new();
    let run = halted(&dir, &["--sandbox", "off"]).start();
    let threads = started(&run, |threads| threads.iter().any(|(name, _)| name == "disk-1"));
    for (name, status) in &threads {
        assert_eq!((field(status, "Seccomp"), field(status, "NoNewPrivs")), ("0".into(), "0".into()), "{name}");
    }
    end(run);
}

fn threads_of_a_bridge_are_confined() {
    let dir = TestDir::new();
    let network = NetworkNamespace::new(&dir, "nameserver 10.9.9.9\n");
    let options = ["--network", "bridge", "-p", "8080:80", "-p", "8053:53/udp"];
    let run = halted(&dir, &options).in_network(&network).start();
    // `main` executes programs at the end.
    let is_confined = |(name, status): &(String, String)| name == "coracle" || field(status, "Seccomp") == "2";
    let threads = started(&run, |threads| threads.iter().all(is_confined));
    for name in ["names", "ports", "datagrams"] {
        let status = threads.iter().find_map(|(found, status)| (found == name).then_some(status));
        let status = status.unwrap_or_else(|| panic!("{name} is missing: {threads:?}"));
        let capabilities = field(status, "CapEff");
        assert_eq!((&*field(status, "NoNewPrivs"), capabilities.trim_start_matches('0')), ("1", ""), "{name}");
    }
    // Each has a thread of its own, and more than eight threads make the C library count processors.
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).expect("the port is published");
    let connections: Vec<_> = network.enter(|| (0..12).map(|_| connect()).collect());
    started(&run, |threads| threads.iter().filter(|(name, _)| name == "port").count() == connections.len());
    run.signal(Signal::TERM);
    run.signal(Signal::TERM);
    let run = run.finish();
    assert_ne!(run.result_at("/end/reason"), "sandbox-error", "{}", run.report());
}

/// `cargo xtask drill` is the long form.
fn threads_that_were_taken_over_reach_nothing() {
    for user in User::ALL {
        let drill = Drill::new(user);
        let attempts = drill.possible_or_lasting(attempts());
        let reports: Vec<_> = THREADS.iter().map(|thread| drill.attack(thread, &attempts)).collect();
        let failures: Vec<_> = reports.into_iter().flat_map(|report| report.failures).collect();
        assert!(failures.is_empty(), "as {}:\n{}", user.name(), failures.join("\n"));
    }
}
