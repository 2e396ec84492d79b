// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A control socket that a service manager passes to coracle (`LISTEN_FDS`). A shell takes the place of the manager and passes a
//! socket of the test as descriptor 3.

use coracle_tests::{Case, Elf, Invocation, Stdin, TestDir, case, image};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], socket_unit_can_own_the_control_socket),
        case!(Quick, inherited_socket_of_another_kind_is_rejected),
        case!(Quick[Kvm], inherited_socket_of_another_process_is_left_alone),
        case!(Quick, inherited_socket_and_detach_are_rejected),
    ]
}

/// Starts it like a service manager with `socket`.
fn activated(run: Invocation, socket: impl Into<OwnedFd>, names: &str) -> Invocation {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null";
    let run = run.wrapped(&["sh", "-c", script, "sh"]).env("LISTEN_FDNAMES", names);
    run.stdin(Stdin::File(File::from(socket.into())))
}

/// The response to `request` on `stream`.
fn ask(mut stream: UnixStream, request: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket has timeouts");
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}

fn socket_unit_can_own_the_control_socket() {
    let dir = TestDir::new().keeping_machines();
    let path = dir.file("socket");
    let listener = UnixListener::bind(&path).expect("the test's directory is writable");
    // A client may connect before coracle is started: a service manager starts it for the client.
    let early = UnixStream::connect(&path).expect("it listens");
    let kernel = dir.write("kernel", Elf::default().to_bytes()).display().to_string();
    let run = dir.invocation(&["--name", "served", "--kernel", &kernel, &image("busybox"), "true"]);
    let run = activated(run, listener.try_clone().expect("a descriptor can be copied"), "control").start();
    assert!(ask(early, "GET /v1/status").contains("\"id\":\"served\""));
    let shown = dir.verb("status", &["--json", "served"]).finish();
    shown.assert_status(0);
    assert!(shown.stdout_text().contains("\"starting\""), "{}", shown.report());
    let killed = ask(UnixStream::connect(&path).expect("it listens"), "POST /v1/kill");
    assert!(killed.starts_with("HTTP/1.1 200"), "{killed}");
    run.finish().assert_status(137).assert_reason("killed");
    // It is the manager's: there it stays.
    assert!(UnixStream::connect(&path).is_ok());
    drop(listener);
}

fn inherited_socket_of_another_kind_is_rejected() {
    let dir = TestDir::new();
    let run = || dir.invocation(&[&image("busybox"), "true"]);
    let refused = |socket: OwnedFd, names: &str, objects: &[&str]| {
        let run = activated(run(), socket, names).finish();
        run.assert_status(125).assert_reason("config-error").assert_one_line_naming(objects);
    };
    let listening = || OwnedFd::from(UnixListener::bind_addr(&abstract_address()).expect("the name is free"));
    refused(listening(), "web.socket", &["`web.socket`", "FileDescriptorName=control"]);
    refused(listening(), "control:http", &["LISTEN_FDNAMES=control:http", "LISTEN_FDS=1"]);
    let kind = ["`control`", "ListenStream="];
    refused(TcpListener::bind("127.0.0.1:0").expect("a free port").into(), "control", &kind);
    refused(UnixStream::pair().expect("the host has sockets").0.into(), "control", &kind);
    refused(UnixDatagram::unbound().expect("the host has sockets").into(), "control", &kind);
    refused(File::open("/dev/null").expect("it opens").into(), "control", &kind);
    let nothing = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=control; exec \"$@\" 3<&-";
    let run = run().wrapped(&["sh", "-c", nothing, "sh"]).finish();
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["`control`", "descriptor 3"]);
}

/// A name that no other test of this process has.
fn abstract_address() -> std::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("coracle-test-{}-control", std::process::id());
    std::os::unix::net::SocketAddr::from_abstract_name(name).expect("the name is short")
}

fn inherited_socket_of_another_process_is_left_alone() {
    let dir = TestDir::new();
    let run = dir.invocation(&["oci:/nowhere", "true"]).env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    run.finish().assert_status(125).assert_reason("image-error").assert_one_line_naming(&["/nowhere"]);
}

fn inherited_socket_and_detach_are_rejected() {
    let dir = TestDir::new();
    let run = dir.verb("run", &["-d", &image("busybox"), "true"]);
    let listener = UnixListener::bind(dir.file("socket")).expect("the test's directory is writable");
    activated(run, listener, "control").finish().assert_status(125).assert_one_line_naming(&["--detach", "LISTEN_FDS"]);
}
