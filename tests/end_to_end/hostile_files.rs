// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files of the workload that block the process that opens them: `exec`, health checks and the end keep their deadlines.

use crate::health::wait_for_health;
use coracle_tests::{Case, TestDir, case, image};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// For a slow host, beyond the time that the product promises.
const SLACK: Duration = Duration::from_secs(10);
/// A start of a process.
const START_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, users_in_fifos_and_endless_files_block_nothing),
        case!(Full, file_system_that_hangs_delays_nothing_beyond_its_deadline),
    ]
}

fn users_in_fifos_and_endless_files_block_nothing() {
    let dir = TestDir::new().keeping_machines();
    let script = "rm /etc/passwd; mkfifo /etc/passwd; ln -sf /dev/zero /etc/group; trap 'exit 3' TERM; echo up; \
                  while :; do sleep 1000 & wait $!; done";
    let health = ["--health-cmd", "test -p /etc/passwd", "--health-interval", "300ms"];
    let mut run = dir.start(&[&["--name", "m"], &health[..], &[&image("busybox"), "sh", "-c", script]].concat());
    run.wait_for_stdout("up\n");
    let start = Instant::now();
    let exec = |arguments: &[&str]| dir.verb("exec", arguments).finish();
    for user in ["", "0", "1000:1000"] {
        exec(&["-u", user, "m", "echo", "here"]).assert_status(0).assert_stdout("here\n");
    }
    exec(&["-u", "daemon", "m", "true"]).assert_status(125).assert_one_line_naming(&["/etc/passwd", "regular file"]);
    let script = "rm /etc/passwd; echo daemon:x:2:2::/: > /etc/passwd";
    exec(&["m", "sh", "-c", script]).assert_status(0);
    exec(&["-u", "daemon:tty", "m", "true"]).assert_status(125).assert_one_line_naming(&["/etc/group"]);
    assert!(start.elapsed() < START_LIMIT, "took {:?}", start.elapsed());
    exec(&["m", "sh", "-c", "rm /etc/passwd; ln -s /dev/zero /etc/passwd"]).assert_status(0);
    exec(&["-u", "daemon", "m", "true"]).assert_status(125).assert_one_line_naming(&["/etc/passwd"]);
    exec(&["m", "sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd"]).assert_status(0);
    wait_for_health(&dir, "healthy");
    let asked = Instant::now();
    run.signal(Signal::TERM);
    run.finish().assert_status(3).assert_reason("stopped");
    assert!(asked.elapsed() < SLACK, "the end took {:?}", asked.elapsed());
}

/// Mounts a FUSE file system on /etc that reads every request and answers only the first, the kernel's greeting.
const HANGING_FUSE: &str = "
import ctypes, os, signal, struct
fuse = os.open('/dev/fuse', os.O_RDWR)
options = f'fd={fuse},rootmode=40000,user_id=0,group_id=0'.encode()
assert ctypes.CDLL(None).mount(b'x', b'/etc', b'fuse', 0, options) == 0
unique = struct.unpack_from('=IIQ', os.read(fuse, 1 << 18))[2]
greeting = struct.pack('=IIIIHHIIHHI28x', 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, 0)
os.write(fuse, struct.pack('=IiQ', 16 + len(greeting), 0, unique) + greeting)
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
print('up', flush=True)
while True:
    os.read(fuse, 1 << 18)
";

fn file_system_that_hangs_delays_nothing_beyond_its_deadline() {
    let dir = TestDir::new().keeping_machines();
    let times = ["--health-interval", "500ms", "--health-timeout", "1s", "--health-retries", "1"];
    let options = ["--id", "m", "-u", "0", "--entrypoint", "python3", "--health-cmd", "true"];
    let python = image("python");
    let mut run = dir.start(&[&options[..], &times, &[&python, "-c", HANGING_FUSE]].concat());
    run.wait_for_stdout("up\n");
    let start = Instant::now();
    let exec = dir.verb("exec", &["m", "true"]).start();
    let health = wait_for_health(&dir, "unhealthy");
    assert!(health["output"].as_str().is_some_and(|output| output.contains("timeout")), "{health}");
    exec.finish().assert_status(125).assert_one_line_naming(&["not executed within 30 s"]);
    assert!(start.elapsed() < START_LIMIT + SLACK, "exec took {:?}", start.elapsed());
    let asked = Instant::now();
    run.signal(Signal::TERM);
    run.finish().assert_status(3).assert_reason("stopped");
    assert!(asked.elapsed() < SLACK, "the end took {:?}", asked.elapsed());
}
