// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Readiness of a workload, and the messages to a service manager.

use coracle_tests::{Case, TestDir, case, image};
use rustix::process::Signal;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, redis_is_ready_when_it_answers_and_saves_at_term),
        case!(Full, ready_is_sent_once_the_workload_is_executed),
        case!(Full, ready_command_that_exits_with_0_sends_ready),
        case!(Full, ready_notify_waits_for_the_workloads_own_message),
        case!(Full, ready_notify_passes_on_what_redis_sends),
        case!(Full, watchdog_is_notified),
        case!(Full, watchdog_of_the_workload_outlives_a_pause),
        case!(Full, notification_fields_of_a_workload_are_filtered),
        case!(Full, detached_start_waits_until_ready),
        case!(Quick, ready_options_that_conflict_are_rejected),
        case!(Quick, missing_service_manager_is_named),
    ]
}

/// The socket of a service manager, in place of systemd.
struct ServiceManager {
    socket: UnixDatagram,
    path: String,
    received: Vec<String>,
}

impl ServiceManager {
    fn new(dir: &TestDir) -> ServiceManager {
        let path = dir.file("notify");
        let socket = UnixDatagram::bind(&path).expect("the test's directory is writable");
        ServiceManager { socket, path: path.display().to_string(), received: Vec::new() }
    }

    /// Waits for the message `wanted`.
    fn wait_for(&mut self, wanted: &str) {
        self.receive(wanted, |received| received == wanted);
    }

    /// Waits for a message that begins with `wanted`.
    fn wait_for_start(&mut self, wanted: &str) {
        self.receive(wanted, |received| received.starts_with(wanted));
    }

    fn receive(&mut self, wanted: &str, is_it: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while !self.received.iter().any(|received| is_it(received)) {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a time that is not zero");
            let mut bytes = [0; 4096];
            let length = self
                .socket
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("no {wanted} ({error}): {:?}", self.received));
            self.received.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
    }
}

fn redis_is_ready_when_it_answers_and_saves_at_term() {
    let dir = TestDir::new();
    let mut manager = ServiceManager::new(&dir);
    // Where the guest's kernel is emulated it saves for longer than docker's ten seconds.
    let arguments = ["--ready-port", "6379", "--stop-timeout", "120", &image("redis")];
    let mut run = dir.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path).start();
    manager.wait_for("READY=1");
    run.wait_for_stdout("Ready to accept connections");
    run.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    let run = run.finish();
    run.assert_status(0).assert_reason("stopped");
    let output = run.stdout_text();
    for sentence in ["Received SIGTERM", "Saving the final RDB snapshot", "DB saved on disk"] {
        assert!(output.contains(sentence), "`{sentence}` is missing\n{}", run.report());
    }
    assert_eq!(manager.received, ["READY=1", "STOPPING=1"]);
}

fn ready_is_sent_once_the_workload_is_executed() {
    let dir = TestDir::new();
    let mut manager = ServiceManager::new(&dir);
    let run = dir.invocation(&[&image("busybox"), "echo", "x"]).env("NOTIFY_SOCKET", &manager.path).finish();
    run.assert_status(0).assert_stdout("x\n");
    manager.wait_for("STOPPING=1");
    assert_eq!(manager.received, ["READY=1", "STOPPING=1"]);
}

fn ready_command_that_exits_with_0_sends_ready() {
    let dir = TestDir::new();
    let mut manager = ServiceManager::new(&dir);
    let script = "read line; echo $line; touch /tmp/there; while :; do sleep 1; done";
    let arguments = ["-i", "--init", "--ready-exec", "test -e /tmp/there", &image("busybox"), "sh", "-c", script];
    let invocation = dir.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path);
    let mut run = invocation.stdin(coracle_tests::Stdin::Pipe).start();
    // The command runs several times before the file exists.
    std::thread::sleep(Duration::from_secs(3));
    manager.socket.set_nonblocking(true).expect("a socket");
    assert!(manager.socket.recv(&mut [0; 64]).is_err(), "READY before the workload is ready");
    manager.socket.set_nonblocking(false).expect("a socket");
    run.send("go\n");
    run.wait_for_stdout("go\n");
    manager.wait_for("READY=1");
    run.signal(Signal::TERM);
    run.finish().assert_reason("stopped");
}

fn ready_notify_waits_for_the_workloads_own_message() {
    let dir = TestDir::new();
    let mut manager = ServiceManager::new(&dir);
    let program = "\
import os, socket, signal, sys
address = os.environ['NOTIFY_SOCKET']
say = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
say.connect('\\0' + address[1:])
say.send(b'STATUS=Loading\\n')
signal.signal(signal.SIGTERM, lambda *_: (say.send(b'STOPPING=1'), sys.exit(3)))
say.send(b'READY=1\\nSTATUS=Serving')
while True: signal.pause()
";
    let arguments = ["--ready-notify", "--entrypoint", "python3", &image("python"), "-c", program];
    let run = dir.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path).start();
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=Serving");
    run.signal(Signal::TERM);
    run.finish().assert_status(3).assert_reason("stopped");
    manager.wait_for("STOPPING=1");
    assert_eq!(manager.received.iter().filter(|received| *received == "READY=1").count(), 1, "{:?}", manager.received);
}

fn ready_notify_passes_on_what_redis_sends() {
    let dir = TestDir::new();
    let mut manager = ServiceManager::new(&dir);
    let arguments = ["--ready-notify", &image("redis"), "redis-server", "--supervised", "systemd"];
    let mut run = dir.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path).start();
    manager.wait_for("READY=1");
    run.wait_for_stdout("Ready to accept connections");
    run.signal(Signal::TERM);
    run.finish().assert_status(0).assert_reason("stopped");
    assert!(manager.received.iter().any(|received| received.starts_with("STATUS=")), "{:?}", manager.received);
}

fn watchdog_is_notified() {
    let dir = TestDir::new();
    let mut manager = ServiceManager::new(&dir);
    let invocation = dir.invocation(&["--init", &image("busybox"), "sleep", "1000"]);
    let run = invocation.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "400000").start();
    manager.wait_for("READY=1");
    for _ in 0..3 {
        manager.received.clear();
        manager.wait_for("WATCHDOG=1");
    }
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
}

/// Sends what it reads to its service manager: a datagram for each line, in which blanks separate the fields.
const SPEAKER: &str = "\
import os, socket, sys
address = os.environ['NOTIFY_SOCKET']
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect('\\0' + address[1:])
to.send(b'READY=1')
print(os.environ.get('WATCHDOG_USEC'), os.environ.get('WATCHDOG_PID'), flush=True)
for line in sys.stdin: to.send(line.strip().replace(' ', '\\n').encode())
";

fn speaker(dir: &TestDir, manager: &ServiceManager) -> coracle_tests::Invocation {
    let arguments =
        ["--name", "speaker", "-i", "--ready-notify", "--entrypoint", "python3", &image("python"), "-c", SPEAKER];
    let run = dir.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path);
    run.stdin(coracle_tests::Stdin::Pipe)
}

fn watchdog_of_the_workload_outlives_a_pause() {
    let dir = TestDir::new().keeping_machines();
    let mut manager = ServiceManager::new(&dir);
    let mut run = speaker(&dir, &manager).env("WATCHDOG_USEC", "600000").start();
    run.wait_for_stdout("600000 None\n");
    manager.wait_for("READY=1");
    // Longer than the watchdog's limit: coracle does not notify it in place of the workload.
    std::thread::sleep(Duration::from_millis(700));
    run.send("STATUS=first\n");
    manager.wait_for("STATUS=first");
    assert_eq!(manager.received, ["READY=1", "STATUS=first"]);
    run.send("WATCHDOG=1\n");
    manager.wait_for("WATCHDOG=1");
    manager.received.clear();
    dir.verb("pause", &["speaker"]).finish().assert_status(0);
    manager.wait_for("WATCHDOG=1");
    dir.verb("resume", &["speaker"]).finish().assert_status(0);
    run.close_stdin();
    run.finish().assert_status(0);
}

fn notification_fields_of_a_workload_are_filtered() {
    let dir = TestDir::new().keeping_machines();
    let mut manager = ServiceManager::new(&dir);
    let mut run = speaker(&dir, &manager).start();
    run.wait_for_stdout("None None\n");
    manager.wait_for("READY=1");
    manager.received.clear();
    run.send("MAINPID=1 FDSTORE=1 WATCHDOG_USEC=1 EXTEND_TIMEOUT_USEC=5000000\n");
    manager.wait_for("EXTEND_TIMEOUT_USEC=5000000");
    run.send("RELOADING=1 MONOTONIC_USEC=1\n");
    manager.wait_for_start("RELOADING=1\nMONOTONIC_USEC=");
    run.send("READY=1\n");
    manager.wait_for("READY=1");
    run.send("EXTEND_TIMEOUT_USEC=99999999999999\n");
    manager.wait_for("EXTEND_TIMEOUT_USEC=3600000000");
    run.send("STOPPING=1\n");
    manager.wait_for("STOPPING=1");
    let time = manager.received[1].rsplit('=').next().and_then(|time| time.parse::<u64>().ok());
    assert!(time.is_some_and(|microseconds| microseconds > 1), "{:?}", manager.received);
    assert_eq!(manager.received.len(), 5, "{:?}", manager.received);
    run.close_stdin();
    run.finish().assert_status(0);
}

fn detached_start_waits_until_ready() {
    let dir = TestDir::new().keeping_machines();
    let start = dir.verb("run", &["-d", "--name", "m", "--ready-port", "6379", &image("redis")]).finish();
    start.assert_status(0).assert_stdout("m\n");
    dir.verb("exec", &["m", "redis-cli", "ping"]).finish().assert_status(0).assert_stdout("PONG\n");
    dir.verb("stop", &["m"]).finish().assert_status(0);
}

fn ready_options_that_conflict_are_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["--ready-port", "80", "--ready-notify", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["--ready-port", "--ready-notify"]);
    dir.run(&["--ready-port", "0", "oci:x"]).assert_status(125).assert_one_line_naming(&["--ready-port", "0"]);
    let run = dir.run(&["--health-interval", "soon", "oci:x"]);
    run.assert_status(125).assert_one_line_naming(&["--health-interval", "soon"]);
}

fn missing_service_manager_is_named() {
    let dir = TestDir::new();
    let path = dir.file("missing").display().to_string();
    let run = dir.invocation(&[&image("busybox"), "true"]).env("NOTIFY_SOCKET", &path).finish();
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["NOTIFY_SOCKET", &path]);
}
