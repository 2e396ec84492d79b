// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When a workload counts as ready, as a service manager hears of it.

use coracle_tests::{Case, Place, case, image};
use rustix::process::Signal;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, a_service_manager_hears_ready_when_redis_answers),
        case!(Full, a_workload_is_ready_once_it_is_executed_unless_told_otherwise),
        case!(Full, a_command_that_exits_with_0_makes_it_ready),
        case!(Full, a_workload_that_speaks_for_itself_is_heard),
        case!(Full, a_redis_that_speaks_to_systemd_is_heard),
        case!(Full, a_watchdog_is_fed),
        case!(Full, a_workload_feeds_the_watchdog_itself_and_a_pause_does_not_starve_it),
        case!(Full, what_a_workload_may_say_is_passed_on_and_nothing_else),
        case!(Full, a_detached_start_waits_until_it_is_ready),
        case!(Quick, ready_cannot_mean_two_things),
        case!(Quick, a_service_manager_that_is_not_there_is_named),
    ]
}

/// The socket of a service manager, in place of systemd.
struct ServiceManager {
    socket: UnixDatagram,
    path: String,
    heard: Vec<String>,
}

impl ServiceManager {
    fn new(place: &Place) -> ServiceManager {
        let path = place.file("notify");
        let socket = UnixDatagram::bind(&path).expect("the test's own folder is writable");
        ServiceManager { socket, path: path.display().to_string(), heard: Vec::new() }
    }

    /// Waits until it hears `wanted`.
    fn wait_for(&mut self, wanted: &str) {
        self.listen(wanted, |heard| heard == wanted);
    }

    /// Waits until it hears something that begins with `wanted`.
    fn wait_for_start(&mut self, wanted: &str) {
        self.listen(wanted, |heard| heard.starts_with(wanted));
    }

    fn listen(&mut self, wanted: &str, is_it: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(100);
        while !self.heard.iter().any(|heard| is_it(heard)) {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a time that is not zero");
            let mut bytes = [0; 4096];
            let length =
                self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("no {wanted} ({error}): {:?}", self.heard));
            self.heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
    }
}

fn a_service_manager_hears_ready_when_redis_answers() {
    let place = Place::new();
    let mut manager = ServiceManager::new(&place);
    let arguments = ["--ready-port", "6379", &image("redis")];
    let mut run = place.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path).start();
    manager.wait_for("READY=1");
    run.wait_for_stdout("Ready to accept connections");
    run.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    run.finish().assert_status(0).assert_reason("stopped");
    assert_eq!(manager.heard, ["READY=1", "STOPPING=1"]);
}

fn a_workload_is_ready_once_it_is_executed_unless_told_otherwise() {
    let place = Place::new();
    let mut manager = ServiceManager::new(&place);
    let run = place.invocation(&[&image("busybox"), "echo", "x"]).env("NOTIFY_SOCKET", &manager.path).finish();
    run.assert_status(0).assert_stdout("x\n");
    manager.wait_for("STOPPING=1");
    assert_eq!(manager.heard, ["READY=1", "STOPPING=1"]);
}

fn a_command_that_exits_with_0_makes_it_ready() {
    let place = Place::new();
    let mut manager = ServiceManager::new(&place);
    let script = "read line; echo $line; touch /tmp/there; while :; do sleep 1; done";
    let arguments = ["-i", "--init", "--ready-exec", "test -e /tmp/there", &image("busybox"), "sh", "-c", script];
    let invocation = place.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path);
    let mut run = invocation.stdin(coracle_tests::Stdin::Pipe).start();
    // It is asked several times before the file is there.
    std::thread::sleep(Duration::from_secs(3));
    manager.socket.set_nonblocking(true).expect("a socket");
    assert!(manager.socket.recv(&mut [0; 64]).is_err(), "ready before it is");
    manager.socket.set_nonblocking(false).expect("a socket");
    run.send("go\n");
    run.wait_for_stdout("go\n");
    manager.wait_for("READY=1");
    run.signal(Signal::TERM);
    run.finish().assert_reason("stopped");
}

fn a_workload_that_speaks_for_itself_is_heard() {
    let place = Place::new();
    let mut manager = ServiceManager::new(&place);
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
    let run = place.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path).start();
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=Serving");
    run.signal(Signal::TERM);
    run.finish().assert_status(3).assert_reason("stopped");
    manager.wait_for("STOPPING=1");
    assert_eq!(manager.heard.iter().filter(|heard| *heard == "READY=1").count(), 1, "{:?}", manager.heard);
}

fn a_redis_that_speaks_to_systemd_is_heard() {
    let place = Place::new();
    let mut manager = ServiceManager::new(&place);
    let arguments = ["--ready-notify", &image("redis"), "redis-server", "--supervised", "systemd"];
    let mut run = place.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path).start();
    manager.wait_for("READY=1");
    run.wait_for_stdout("Ready to accept connections");
    run.signal(Signal::TERM);
    run.finish().assert_status(0).assert_reason("stopped");
    assert!(manager.heard.iter().any(|heard| heard.starts_with("STATUS=")), "{:?}", manager.heard);
}

fn a_watchdog_is_fed() {
    let place = Place::new();
    let mut manager = ServiceManager::new(&place);
    let invocation = place.invocation(&["--init", &image("busybox"), "sleep", "1000"]);
    let run = invocation.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "400000").start();
    manager.wait_for("READY=1");
    for _ in 0..3 {
        manager.heard.clear();
        manager.wait_for("WATCHDOG=1");
    }
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
}

/// Says to its service manager what it reads, a datagram a line, with blanks between the lines of one.
const SPEAKER: &str = "\
import os, socket, sys
address = os.environ['NOTIFY_SOCKET']
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect('\\0' + address[1:])
to.send(b'READY=1')
print(os.environ.get('WATCHDOG_USEC'), os.environ.get('WATCHDOG_PID'), flush=True)
for line in sys.stdin: to.send(line.strip().replace(' ', '\\n').encode())
";

fn speaker(place: &Place, manager: &ServiceManager) -> coracle_tests::Invocation {
    let arguments =
        ["--name", "speaker", "-i", "--ready-notify", "--entrypoint", "python3", &image("python"), "-c", SPEAKER];
    let run = place.invocation(&arguments).env("NOTIFY_SOCKET", &manager.path);
    run.stdin(coracle_tests::Stdin::Pipe)
}

fn a_workload_feeds_the_watchdog_itself_and_a_pause_does_not_starve_it() {
    let place = Place::new().keeping_run_entries();
    let mut manager = ServiceManager::new(&place);
    let mut run = speaker(&place, &manager).env("WATCHDOG_USEC", "600000").start();
    run.wait_for_stdout("600000 None\n");
    manager.wait_for("READY=1");
    // Longer than the watchdog waits: coracle is not to answer for the workload.
    std::thread::sleep(Duration::from_millis(700));
    run.send("STATUS=first\n");
    manager.wait_for("STATUS=first");
    assert_eq!(manager.heard, ["READY=1", "STATUS=first"]);
    run.send("WATCHDOG=1\n");
    manager.wait_for("WATCHDOG=1");
    manager.heard.clear();
    place.verb("pause", &["speaker"]).finish().assert_status(0);
    manager.wait_for("WATCHDOG=1");
    place.verb("resume", &["speaker"]).finish().assert_status(0);
    run.close_stdin();
    run.finish().assert_status(0);
}

fn what_a_workload_may_say_is_passed_on_and_nothing_else() {
    let place = Place::new().keeping_run_entries();
    let mut manager = ServiceManager::new(&place);
    let mut run = speaker(&place, &manager).start();
    run.wait_for_stdout("None None\n");
    manager.wait_for("READY=1");
    manager.heard.clear();
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
    let time = manager.heard[1].rsplit('=').next().and_then(|time| time.parse::<u64>().ok());
    assert!(time.is_some_and(|microseconds| microseconds > 1), "{:?}", manager.heard);
    assert_eq!(manager.heard.len(), 5, "{:?}", manager.heard);
    run.close_stdin();
    run.finish().assert_status(0);
}

fn a_detached_start_waits_until_it_is_ready() {
    let place = Place::new().keeping_run_entries();
    let start = place.verb("run", &["-d", "--name", "m", "--ready-port", "6379", &image("redis")]).finish();
    start.assert_status(0).assert_stdout("m\n");
    place.verb("exec", &["m", "redis-cli", "ping"]).finish().assert_status(0).assert_stdout("PONG\n");
    place.verb("stop", &["m"]).finish().assert_status(0);
}

fn ready_cannot_mean_two_things() {
    let place = Place::new();
    let run = place.run(&["--ready-port", "80", "--ready-notify", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["--ready-port", "--ready-notify"]);
    place.run(&["--ready-port", "0", "oci:x"]).assert_status(125).assert_one_line_naming(&["--ready-port", "0"]);
    let run = place.run(&["--health-interval", "soon", "oci:x"]);
    run.assert_status(125).assert_one_line_naming(&["--health-interval", "soon"]);
}

fn a_service_manager_that_is_not_there_is_named() {
    let place = Place::new();
    let path = place.file("nobody").display().to_string();
    let run = place.invocation(&[&image("busybox"), "true"]).env("NOTIFY_SOCKET", &path).finish();
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["NOTIFY_SOCKET", &path]);
}
