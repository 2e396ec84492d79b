// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--vsock`: stream sockets between the guest and programs of the host.

use crate::life_cycle::status;
use coracle_tests::{Case, TestDir, case, image, sha256, workspace};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Blocks of 64 KiB that the guest sends: 4 MiB.
const BLOCKS: usize = 64;
const BLOCK_SIZE: u64 = 64 << 10;
/// Through socat, in each direction. The variable replaces it.
const SOCAT_BYTES: u64 = 1 << 20;
const BYTES_VARIABLE: &str = "CORACLE_VSOCK_BYTES";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full[Socat], vsock_connects_both_sides_and_ends_with_the_machine),
        case!(Quick[Kvm], vsock_socket_in_use_or_another_file_is_one_line),
    ]
}

fn connect(path: &Path, port: u32) -> UnixStream {
    let mut stream = UnixStream::connect(path).expect("the machine listens");
    stream.set_read_timeout(Some(Duration::from_secs(300))).expect("a limit");
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).expect("a line fits");
    stream
}

/// The next line, and nothing behind it.
fn line(stream: &mut UnixStream) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') && stream.read(&mut byte).expect("an answer in time") == 1 {
        line.push(byte[0].into());
    }
    line
}

/// Sends `data` to the guest's port 5000 and returns what it answers when this side has shut down its half.
fn digest(path: &Path, data: &[u8]) -> String {
    let mut stream = connect(path, 5000);
    let ok = line(&mut stream);
    assert!(ok.starts_with("OK ") && ok.ends_with('\n'), "{ok:?}");
    stream.write_all(data).expect("the guest reads");
    stream.shutdown(Shutdown::Write).expect("connected");
    line(&mut stream)
}

fn expected(data: &[u8]) -> String {
    format!("{} {}\n", data.len(), sha256(data))
}

/// Copies socat and its libraries into `directory`, with the loader that starts it in any image.
fn copy_socat(directory: &Path) {
    const SCRIPT: &str = "socat=$(command -v socat); mkdir \"$1\"; cp -L \"$socat\" \"$1/socat\"
        ldd \"$socat\" | tr -s ' \\t' '\\n' | grep ^/ | while read -r file; do cp -L \"$file\" \"$1\"; done
        mv \"$1\"/ld-linux* \"$1/loader\"";
    let copied = Command::new("sh").args(["-ec", SCRIPT, "sh"]).arg(directory).status();
    assert!(copied.is_ok_and(|status| status.success()), "socat cannot be copied");
}

/// Part `number` of a stream, in which every 8 bytes are different.
fn block(number: u64) -> Vec<u8> {
    let first = number * BLOCK_SIZE / 8;
    (first..first + BLOCK_SIZE / 8).flat_map(u64::to_le_bytes).collect()
}

/// Sends `blocks` through socat to a socat in the guest, which sends them back at the same time, and compares them.
fn exchange_by_socat(path: &Path, blocks: u64) {
    let mut command = Command::new("socat");
    let address = format!("UNIX-CONNECT:{}", path.display());
    command.args(["-t", "600", "-b", "65536", "-", &address]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut socat = command.spawn().expect("socat is installed");
    let (mut input, output) = (socat.stdin.take().expect("a pipe"), socat.stdout.take().expect("a pipe"));
    let mut output = BufReader::new(output);
    let sent = std::thread::spawn(move || {
        input.write_all(b"CONNECT 5002\n")?;
        (0..blocks).try_for_each(|number| input.write_all(&block(number)))
    });
    let mut ok = String::new();
    output.read_line(&mut ok).expect("text");
    assert!(ok.starts_with("OK "), "{ok:?}");
    let mut received = vec![0; BLOCK_SIZE as usize];
    for number in 0..blocks {
        output.read_exact(&mut received).unwrap_or_else(|error| panic!("block {number}: {error}"));
        assert!(received == block(number), "block {number} is another one");
    }
    assert_eq!(output.read(&mut received).expect("the end"), 0);
    assert!(sent.join().expect("no panic").is_ok() && socat.wait().is_ok_and(|status| status.success()));
}

fn vsock_connects_both_sides_and_ends_with_the_machine() {
    let dir = TestDir::new().keeping_machines();
    let path = dir.file("v.sock");
    // A socket that no process listens on any more.
    drop(UnixListener::bind(&path).expect("a socket"));
    let listen = |port: u32| UnixListener::bind(dir.file(&format!("v.sock_{port}"))).expect("a socket");
    let (reader, _no_reader) = (listen(80), listen(82));
    let program = fs::read_to_string(workspace().join("tests/guest/stream_sockets.py")).expect("a program");
    let option = format!("{},cid=77", path.display());
    let blocks = BLOCKS.to_string();
    let tools = dir.file("tools");
    copy_socat(&tools);
    let tools = format!("{}:/tools:ro", tools.display());
    let arguments = ["-d", "--name", "v", "--vsock", &option, "-v", &tools, &image("python"), "-c", &program, &blocks];
    dir.verb("run", &arguments).finish().assert_status(0);
    assert_eq!(fs::metadata(&path).expect("the socket is there").permissions().mode() & 0o777, 0o600);

    // From the guest, which shuts down its half and reads the answer.
    let (mut stream, _) = reader.accept().expect("the guest connects");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("the guest shuts down its half");
    let block: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
    assert!(received == block.repeat(BLOCKS), "{} bytes", received.len());
    stream.write_all(b"thanks").expect("the guest reads");
    let mut following = dir.verb("logs", &["-f", "v"]).start();
    following.wait_for_stdout(&format!("sent {} thanks", sha256(&received)));
    following.wait_for_stdout("port 81: Connection reset by peer");
    following.wait_for_stdout("port 82 is full: True");
    following.wait_for_stdout("listening");

    // From the host: a few bytes behind the line, many bytes, many connections, a port without a listener.
    let mut early = UnixStream::connect(&path).expect("the machine listens");
    early.write_all(b"CONNECT 5000\nhi").expect("the line fits");
    early.shutdown(Shutdown::Write).expect("connected");
    assert!(line(&mut early).starts_with("OK ") && line(&mut early) == expected(b"hi"));
    let many = &received[..1 << 20];
    assert_eq!(digest(&path, many), expected(many));
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..20_u8).map(|number| (number, scope.spawn(|| digest(&path, b"one of many")))).collect();
        for (number, thread) in threads {
            assert_eq!(thread.join().expect("an answer"), expected(b"one of many"), "{number}");
        }
    });
    assert_eq!(line(&mut connect(&path, 5001)), "", "closed without an answer");

    let counters = &status(&dir, "v")["counters"]["vsocks"][0];
    // Those to ports 80, 82 and 5000; to 81 and 5001.
    assert_eq!((&counters["connections"], &counters["refused"]), (&24.into(), &2.into()), "{counters}");
    assert!(counters["tx_bytes"].as_u64() >= Some(4 << 20), "{counters}");
    assert_eq!(counters["tx_dropped"], 0, "{counters}");

    // socat on both sides. What the guest does not read stays with the host's socat.
    let server = ["exec", "-d", "v", "/tools/loader", "--library-path", "/tools", "/tools/socat", "-b", "65536"];
    dir.verb(server[0], &[&server[1..], &["VSOCK-LISTEN:5002,fork", "EXEC:cat"]].concat()).finish().assert_status(0);
    let limit = Instant::now() + Duration::from_secs(120);
    while line(&mut connect(&path, 5002)).is_empty() {
        assert!(Instant::now() < limit, "socat does not listen");
    }
    let bytes = std::env::var(BYTES_VARIABLE).map_or(SOCAT_BYTES, |text| text.parse().expect("a number of bytes"));
    exchange_by_socat(&path, bytes / BLOCK_SIZE);

    // Another machine cannot have the socket.
    let second = dir.run(&["--vsock", &path.display().to_string(), &image("busybox"), "true"]);
    second.assert_status(125).assert_one_line_naming(&["--vsock", "v.sock", "in use"]);
    dir.verb("stop", &["-t", "0", "v"]).finish().assert_status(0);
    assert!(!path.exists(), "the socket is removed");
}

fn vsock_socket_in_use_or_another_file_is_one_line() {
    let dir = TestDir::new();
    let file = dir.write("file", "mine");
    let live = dir.file("live");
    let _listener = UnixListener::bind(&live).expect("a socket");
    for (name, words) in [
        ("file", "file exists, and is not a socket"),
        ("live", "live is in use"),
        ("missing/v", "missing: No such file"),
    ] {
        dir.run(&["--vsock", &dir.file(name).display().to_string(), &image("busybox"), "true"])
            .assert_status(125)
            .assert_one_line_naming(&["--vsock", words]);
    }
    assert_eq!(fs::read(&file).expect("the file is there"), b"mine");
    assert!(UnixStream::connect(&live).is_ok());
}
