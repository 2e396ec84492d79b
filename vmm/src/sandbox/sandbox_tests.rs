// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::host::signals::Signals;
use std::fs;

#[test]
fn sandbox_that_is_off_reports_each_layer_as_off() {
    let report = Sandbox::new(SandboxMode::Off).unwrap().report();
    let names: Vec<_> = report.keys().map(String::as_str).collect();
    assert_eq!(names, ["capabilities", "landlock", "limits", "no-new-privileges", "seccomp"]);
    assert!(report.values().all(|state| state == "off"), "{report:?}");
}

#[test]
fn refused_layer_is_an_error_only_if_it_is_required() {
    let error = std::io::Error::from_raw_os_error(libc::EPERM);
    let auto = Sandbox { mode: SandboxMode::Auto, ..Sandbox::default() };
    auto.refused(Layer::Seccomp, &error).unwrap();
    assert_eq!(auto.report()["seccomp"], "unavailable: Operation not permitted (os error 1)");
    let require = Sandbox { mode: SandboxMode::Require, ..Sandbox::default() };
    let message = require.refused(Layer::Landlock, &error).unwrap_err().to_string();
    assert_eq!(message, "--sandbox require: landlock: Operation not permitted (os error 1)");
}

#[test]
fn main_that_executes_programs_is_exempt_and_that_is_reported() {
    let needs = Needs { executes_programs: true, ..Needs::default() };
    let sandbox = Sandbox::new(SandboxMode::Auto).unwrap();
    // The limits of the process are those of the other tests, too.
    sandbox.set(Layer::Limits, State::Off);
    sandbox.confine(Thread::Main, "main", &needs).unwrap();
    assert_eq!((&*sandbox.report()["capabilities"], &*sandbox.report()["limits"]), ("on, without main", "off"));
    assert_eq!(rustix::thread::no_new_privs(), Ok(false));
}

#[test]
fn calls_are_described_by_name() {
    let line = |number| describe(&forbidden_call::ForbiddenCall { thread: "vcpu-0".into(), number });
    assert_eq!(
        line(libc::SYS_execve),
        "the thread vcpu-0 made the system call execve, which its filter does not allow"
    );
    assert!(line(99_999).contains("number 99999"));
}

/// One test, because the first forbidden call of the process is the one that is reported.
#[test]
fn confined_thread_reaches_its_grants_and_nothing_else() {
    // On a thread of its own, whose mask and filters end with it. The handler stays, and changes nothing for others.
    let confined = std::thread::spawn(|| {
        let _signals = Signals::block().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        let grant = Grant::new(directory.path(), Right::Change).unwrap();
        let needs = Needs { of_event_loops: [("io".to_owned(), vec![grant])].into(), ..Needs::default() };
        let sandbox = Sandbox::new(SandboxMode::Auto).unwrap();
        sandbox.confine(Thread::Io, "io", &needs).unwrap();
        let landlock = sandbox.report()["landlock"] == "on";
        let within = fs::write(&file, "x").is_ok() && fs::rename(&file, directory.path().join("g")).is_ok();
        let outside = fs::write("/tmp/coracle-outside-the-sandbox", "x").is_ok();
        assert_eq!((within, outside), (true, !landlock));
        let refused = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        assert_eq!(refused.map(drop), Err(rustix::io::Errno::PERM));
        fs::remove_file(directory.path().join("g")).unwrap();
        // What is left of the directory is not this thread's to remove.
        directory.keep()
    });
    fs::remove_dir(confined.join().unwrap()).unwrap();
    let call = forbidden_call::take_unreported().unwrap();
    assert_eq!((call.thread.as_str(), call.number), ("io", libc::SYS_socket));
    assert_eq!(forbidden_call::take_unreported(), None);
}
