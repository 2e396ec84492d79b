// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The escape drill: each kind of thread of a confined machine tries everything in the table of attempts, as code of a guest could
//! that had taken the thread over. What an attempt would have done is shown by the same attempt without the sandbox.
//!
//! The calls are made from outside (`tests/inject/remote_calls.c`), so that it is the binary under test whose threads are confined.
//! The guest is a kernel of three bytes that halts.

mod attempts;
mod remote;

pub use attempts::Attempt;
pub use remote::Refusal;

use crate::{Elf, Invocation, NetworkNamespace, Running, TestDir};
use attempts::{ATTEMPTS, Outcome, Targets};
use remote::Remote;
use rustix::io::Errno;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who starts the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Root,
    Unprivileged,
}

impl User {
    pub const ALL: [Self; 2] = [Self::Root, Self::Unprivileged];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Unprivileged => "an unprivileged user",
        }
    }
}

/// A kind of thread each. `fs-share1` cannot be changed by the guest; `net-0` is connected to a socket, `net-1` to passt.
pub const THREADS: [&str; 9] = ["main", "vcpu-0", "io", "disk-0", "fs-share0", "fs-share1", "vsock", "net-0", "net-1"];

/// What the host's kernel lets the threads of some users do, as `vmm/docs/security.md` says under "Not promised": Landlock has no rules
/// for a file's mode, owner, times and attributes, nor for sockets with a path.
const NOT_PROMISED: [(&[User], &str, &str); 6] = [
    (&User::ALL, "fs-share0", "change a file's mode"),
    (&[User::Root], "fs-share0", "change a file's owner"),
    (&User::ALL, "fs-share0", "change a file's times"),
    (&User::ALL, "fs-share0", "change a file's attributes"),
    (&[User::Unprivileged], "vsock", "connect to another machine's control socket"),
    (&User::ALL, "net-0", "connect to another machine's control socket"),
];

fn is_promised(user: User, thread: &str, attempt: &str) -> bool {
    let is_listed =
        NOT_PROMISED.iter().any(|(users, of, what)| users.contains(&user) && (*of, *what) == (thread, attempt));
    let is_abstract = attempt == "connect to an abstract socket";
    !is_listed && (!is_abstract || kernel_version() >= Some(ABSTRACT_SOCKETS))
}

/// The first Linux whose Landlock has a rule for abstract sockets.
const ABSTRACT_SOCKETS: (u32, u32) = (6, 12);

fn kernel_version() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What the attempts of one thread led to.
#[derive(Debug)]
pub struct ThreadReport {
    pub thread: &'static str,
    /// Refused by the filter; by Landlock, for want of a capability or by the file system.
    pub by_filter: usize,
    pub by_error: usize,
    /// Of [`NOT_PROMISED`].
    pub not_promised: Vec<&'static str>,
    pub failures: Vec<String>,
}

/// The machines of one user, and what they could reach.
pub struct Drill {
    dir: TestDir,
    user: User,
    network: NetworkNamespace,
    targets: Targets,
    _listeners: (TcpListener, UnixListener, UnixListener),
    process: Option<Killed>,
    other: Option<Running>,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Drill {
    /// Helper processes of machines that were killed end soon after them.
    fn drop(&mut self) {
        (self.process, self.other) = (None, None);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.dir.residue().iter().any(|left| left.starts_with("process ")) && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

impl Drill {
    /// Starts what the machines could reach: a process, another machine, sockets.
    #[must_use]
    pub fn new(user: User) -> Self {
        let dir = TestDir::new().keeping_machines();
        dir.copy_product();
        dir.write("kernel", Elf { code: vec![0xf4, 0xeb, 0xfd], ..Elf::default() }.to_bytes());
        // Not where the result is: `main` replaces files there.
        let outside = dir.path().join("outside");
        for path in [&dir.file("share"), &outside] {
            fs::create_dir(path).expect("the test's directory is writable");
        }
        let switch = UnixListener::bind(dir.file("switch")).expect("the test's directory is writable");
        let abstract_socket = format!("coracle-drill-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_socket).expect("the name is short");
        let network = NetworkNamespace::new(&dir, "nameserver 10.9.9.9\n");
        let (listener, tcp) = network.enter(|| (UnixListener::bind_addr(&address), TcpListener::bind("127.0.0.1:0")));
        let (listener, tcp) = (listener.expect("the name is unused"), tcp.expect("a port is free"));
        let process = process_of(user);
        let targets = Targets {
            outside,
            process: process.0.id(),
            address: writable_address(process.0.id()),
            control_socket: dir.run_directory().join("other/control.sock"),
            abstract_socket,
            port: tcp.local_addr().expect("it is bound").port(),
        };
        let other = run(&dir, user, &network, &["--name", "other"]).start();
        let drill = Self {
            dir,
            user,
            network,
            targets,
            _listeners: (tcp, listener, switch),
            process: Some(process),
            other: Some(other),
        };
        wait_for("the control socket of another machine", || drill.targets.control_socket.exists().then_some(()));
        drill
    }

    /// Those of `attempts` that succeed without the sandbox.
    #[must_use]
    pub fn possible(&self, attempts: &[Attempt]) -> Vec<Attempt> {
        let mut thread = None;
        let mut possible = Vec::new();
        for attempt in attempts {
            let remote = thread.get_or_insert_with(|| self.attach("disk-0", &["--sandbox", "off"], |_| true));
            let outcome = self.make(remote, attempt);
            if outcome.is_ok() {
                possible.push(*attempt);
            }
            if attempt.is_lasting || outcome == Err(Refusal::Ended) {
                thread = None;
            }
        }
        possible
    }

    /// As [`possible`](Self::possible), without a machine for each of the attempts that are the end of one: of these a filter has to
    /// refuse the first call.
    #[must_use]
    pub fn possible_or_lasting(&self, attempts: &[Attempt]) -> Vec<Attempt> {
        let (lasting, others): (Vec<Attempt>, Vec<Attempt>) = attempts.iter().partition(|attempt| attempt.is_lasting);
        [self.possible(&others), lasting].concat()
    }

    /// Makes `attempts` on the thread of a confined machine.
    #[must_use]
    pub fn attack(&self, name: &'static str, attempts: &[Attempt]) -> ThreadReport {
        let mut report =
            ThreadReport { thread: name, by_filter: 0, by_error: 0, not_promised: Vec::new(), failures: Vec::new() };
        let mut remote = self.attach(name, &["--sandbox", "require"], |seccomp| seccomp == "2");
        for attempt in attempts {
            match self.make(&mut remote, attempt) {
                Err(Refusal::Filter) => report.by_filter += 1,
                Err(Refusal::Error(Errno::ACCESS | Errno::PERM)) => report.by_error += 1,
                // It is not below the thread's root directory.
                Err(Refusal::Error(Errno::NOENT)) if (self.user, name) == (User::Root, "vsock") => report.by_error += 1,
                Ok(_) if !is_promised(self.user, name, attempt.name) => report.not_promised.push(attempt.name),
                Ok(_) => report.failures.push(format!("{name}: {}: succeeded", attempt.name)),
                Err(why) => report.failures.push(format!("{name}: {}: failed for another reason: {why}", attempt.name)),
            }
        }
        report
    }

    fn make(&self, remote: &mut Remote, attempt: &Attempt) -> Outcome {
        let outside = &self.targets.outside;
        fs::remove_dir_all(outside).and_then(|()| fs::create_dir_all(outside.join("empty"))).expect("it is writable");
        for name in ["file", "other"] {
            fs::write(outside.join(name), "text").expect("the directory is writable");
        }
        if self.user == User::Unprivileged {
            for path in [outside.clone(), outside.join("empty"), outside.join("file"), outside.join("other")] {
                std::os::unix::fs::chown(path, Some(1000), Some(1000)).expect("the test runs as root");
            }
        }
        remote.clear();
        (attempt.make)(remote, &self.targets)
    }

    /// A thread of a new machine, once the value of `Seccomp` of each thread is one that is wanted.
    fn attach(&self, name: &str, options: &[&str], is_confined: fn(&str) -> bool) -> Remote {
        let path = |name: &str| self.dir.file(name).display().to_string();
        let [share, read_only] = ["data", "read-only:ro"].map(|place| format!("{}:/{place}", path("share")));
        let (vsock, switch) = (path("v.sock"), format!("socket={}", path("switch")));
        let networks = ["--network", &switch, "--network", "user"];
        let devices = [&["-v", &share, "-v", &read_only, "--vsock", &vsock][..], &networks].concat();
        let run = run(&self.dir, self.user, &self.network, &[options, &devices].concat()).start();
        wait_for("a machine of the drill", || {
            assert!(!run.has_ended(), "the machine has ended");
            let threads = threads(run.pid());
            let runs = threads.iter().any(|(name, _)| name == "vcpu-0");
            (runs && threads.iter().all(|(_, seccomp)| is_confined(seccomp))).then_some(())
        });
        Remote::attach(run, name)
    }
}

/// Every attempt of the table.
#[must_use]
pub fn attempts() -> &'static [Attempt] {
    ATTEMPTS
}

fn run(dir: &TestDir, user: User, network: &NetworkNamespace, options: &[&str]) -> Invocation {
    let (kernel, image) = (dir.file("kernel").display().to_string(), dir.copied_image());
    let run = dir.invocation(&[&["--kernel", &kernel][..], options, &[&image, "true"]].concat()).of_copy(dir);
    // What an attempt changes without the sandbox is the machine's alone.
    let namespaces = ["unshare", "--mount", "--ipc", "--uts"];
    let run = match user {
        User::Root => run.wrapped(&namespaces),
        User::Unprivileged => {
            let as_user = dir.as_user();
            run.wrapped(&namespaces.into_iter().chain(as_user.iter().map(String::as_str)).collect::<Vec<_>>())
        }
    };
    run.in_network(network)
}

fn process_of(user: User) -> Killed {
    let mut command = match user {
        User::Root => Command::new("sleep"),
        User::Unprivileged => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "sleep"]);
            command
        }
    };
    let child = command.arg("10000").stdin(Stdio::null()).spawn().expect("sleep can be started");
    let process = Killed(child);
    let name = || fs::read_to_string(format!("/proc/{}/comm", process.0.id())).unwrap_or_default();
    wait_for("sleep", || (name() == "sleep\n").then_some(()));
    process
}

/// The stack of the process.
fn writable_address(process: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("the process runs");
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).and_then(|line| line.split(['-', ' ']).nth(1));
    u64::from_str_radix(stack.expect("a process has a stack"), 16).expect("the kernel writes hexadecimal") - 64
}

/// Name and `Seccomp` of each thread of this process's own code.
fn threads(process: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let read = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        Some((field("Name:")?, field("Seccomp:")?))
    };
    tasks.filter_map(read).filter(|(name, _)| !name.starts_with("kvm-")).collect()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
}
