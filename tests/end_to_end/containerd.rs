// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle-oci` under containerd, which `ctr` and Docker use: daemons of the test's own, with directories of their own.

use crate::engines::{Client, layers, text};
use coracle_tests::{Case, TestDir, case, coracle, image};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full[Root, Containerd], ctr_runs_a_container_as_a_machine),
        case!(Full[Root, Docker], docker_runs_a_container_as_a_machine),
        case!(Quick[Kvm, Root, Docker], docker_shows_why_a_container_cannot_be_a_machine),
    ]
}

/// A daemon has this long until it is ready.
const START_TIME: Duration = Duration::from_secs(60);

/// A process that notifies its service manager, and ends by TERM.
struct Daemon(Child);

impl Daemon {
    /// Returns once `command` is ready. Its messages are in the file `name` of `dir`.
    fn start(dir: &TestDir, name: &str, command: &mut Command) -> Daemon {
        let path = dir.file(&format!("{name}.notify"));
        let socket = UnixDatagram::bind(&path).expect("the test's directory is writable");
        socket.set_read_timeout(Some(START_TIME)).expect("it is not zero");
        let log = dir.file(&format!("{name}.log"));
        let file = File::create(&log).expect("the test's directory is writable");
        let output = file.try_clone().expect("a descriptor is left");
        let daemon = command.env("NOTIFY_SOCKET", &path).stdin(Stdio::null()).stdout(output).stderr(file).spawn();
        let daemon = Daemon(daemon.expect("it is installed"));
        let mut message = [0; 1024];
        loop {
            let length = socket.recv(&mut message).unwrap_or_else(|error| {
                panic!("{name} is not ready: {error}\n{}", fs::read_to_string(&log).unwrap_or_default())
            });
            if text(&message[..length]).lines().any(|line| line == "READY=1") {
                return daemon;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

struct Containerd {
    // Ends before its files go.
    _daemon: Daemon,
    dir: TestDir,
}

impl Containerd {
    fn start() -> Containerd {
        let dir = TestDir::new();
        symlink(coracle(), dir.file("coracle-oci")).expect("the test's directory is writable");
        let config = dir.write("containerd.toml", "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(config).arg("--address").arg(dir.file("containerd.sock"));
        command.arg("--root").arg(dir.file("containerd-root")).arg("--state").arg(dir.file("containerd-state"));
        Containerd { _daemon: Daemon::start(&dir, "containerd", &mut command), dir }
    }

    fn ctr(&self, words: &[&str]) -> Output {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.file("containerd.sock")).args(words).stdin(Stdio::null());
        command.output().expect("ctr is installed")
    }
}

fn ctr_runs_a_container_as_a_machine() {
    let containerd = Containerd::start();
    let archive = containerd.dir.file("busybox.tar").display().to_string();
    let layout = image("busybox");
    let layout = layout.strip_prefix("oci:").expect("it is a layout");
    let packed = Command::new("tar").args(["-C", layout, "-cf", &archive, "."]).status();
    assert!(packed.expect("tar is installed").success());
    let import = ["image", "import", "--snapshotter", "native", "--index-name", "busybox:test", &archive];
    let imported = containerd.ctr(&import);
    assert!(imported.status.success(), "{imported:?}");
    let runtime = containerd.dir.file("coracle-oci").display().to_string();
    let run = ["run", "--snapshotter", "native", "--runc-binary", &runtime, "--memory-limit", "167772160", "--rm"];
    let run = |id: &str, command: &[&str]| containerd.ctr(&[&run[..], &["busybox:test", id], command].concat());

    let script =
        "echo out; echo apart >&2; cat /proc/version; sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status; exit 7";
    let output = run("a", &["sh", "-c", script]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(7), "apart\n".into()), "{output:?}");
    let out = text(&output.stdout);
    let [first, version, capabilities] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert_eq!((first, capabilities), ("out", "00000000a80425fb"));
    assert_ne!(Some(version), fs::read_to_string("/proc/version").expect("it is there").lines().next());
    let missing = run("b", &["/nowhere/command"]);
    let reason = text(&missing.stderr);
    assert!(!missing.status.success() && reason.contains("\"/nowhere/command\": no such file"), "{reason}");
    assert_eq!(text(&containerd.ctr(&["container", "list", "--quiet"]).stdout), "");
}

/// Docker with an image `busybox`.
struct Docker {
    _daemon: Daemon,
    containerd: Containerd,
}

impl Docker {
    fn start() -> Docker {
        let containerd = Containerd::start();
        let dir = &containerd.dir;
        let mut command = Command::new("dockerd");
        command.arg("--host").arg(format!("unix://{}", dir.file("docker.sock").display()));
        command.arg("--containerd").arg(dir.file("containerd.sock"));
        command.arg("--data-root").arg(dir.file("docker-root")).arg("--exec-root").arg(dir.file("docker-run"));
        command.arg("--pidfile").arg(dir.file("docker.pid")).args(["--storage-driver", "vfs"]);
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        command.arg("--add-runtime").arg(format!("coracle={}", dir.file("coracle-oci").display()));
        let daemon = Daemon::start(dir, "dockerd", &mut command);
        let docker = Docker { _daemon: daemon, containerd };
        let layers = layers("busybox");
        let [layer] = &*layers else { panic!("the image has one layer") };
        docker.succeed(&["import", &layer.display().to_string(), "busybox"]);
        docker
    }

    fn file(&self, name: &str) -> PathBuf {
        self.containerd.dir.file(name)
    }
}

impl Client for Docker {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.file("docker-config"));
        command.arg("--host").arg(format!("unix://{}", self.file("docker.sock").display())).args(words);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = text(&self.output(&["ps", "--all", "--quiet"]).stdout);
        containers.lines().for_each(|id| drop(self.output(&["rm", "--force", id])));
    }
}

fn docker_runs_a_container_as_a_machine() {
    let docker = Docker::start();
    let (shared, file) =
        (docker.file("shared"), docker.containerd.dir.write("file", "of the host\n").display().to_string());
    fs::create_dir(&shared).expect("the test's directory is writable");
    let volumes = [format!("{}:/shared", shared.display()), format!("{file}:/etc/single:ro")];
    let script = "cat /etc/single; echo of the guest >/shared/new; echo kept >/volume/file; \
                  trap 'echo stopped; exit 5' TERM; sleep 1000 & wait";
    let options = ["run", "--detach", "--name", "web", "--runtime", "coracle", "--network", "none", "--memory", "160m"];
    let attributes = ["--ulimit", "nofile=100:2000", "--group-add", "4711", "--env", "SECRET=s3cret"];
    let volumes = ["-v", &volumes[0], "-v", &volumes[1], "-v", "named:/volume"];
    docker.succeed(&[&options[..], &attributes, &volumes, &["busybox", "sh", "-c", script]].concat());

    let script = "cat /proc/version; sed -nE 's/^(Groups|CapEff):[[:space:]]*//p' /proc/self/status; ulimit -n; echo $SECRET; exit 9";
    let exec = docker.output(&["exec", "web", "sh", "-c", script]);
    let out = text(&exec.stdout);
    let (version, rest) = out.split_once('\n').expect("it has several lines");
    assert_eq!((exec.status.code(), rest), (Some(9), "0 4711 \n00000000a80425fb\n100\ns3cret\n"), "{exec:?}");
    assert_ne!(Some(version), fs::read_to_string("/proc/version").expect("it is there").lines().next());
    let mut piped = docker.command(&["exec", "--interactive", "web", "cat"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("docker is installed");
    piped.stdin.take().expect("it is piped").write_all(b"through\n").expect("it reads");
    assert_eq!(text(&piped.wait_with_output().expect("it ends").stdout), "through\n");
    assert_eq!(docker.output(&["exec", "web", "nosuch"]).status.code(), Some(127));

    docker.succeed(&["cp", &file, "web:/copied"]);
    assert_eq!(docker.succeed(&["exec", "web", "sh", "-c", "cat /copied; echo made >/made"]), "of the host\n");
    let changes = docker.succeed(&["diff", "web"]);
    assert!(changes.contains("A /made") && changes.contains("A /copied") && !changes.contains("coracle"), "{changes}");
    docker.succeed(&["pause", "web"]);
    assert_eq!(docker.succeed(&["inspect", "--format", "{{.State.Status}}", "web"]), "paused\n");
    docker.succeed(&["unpause", "web"]);
    assert!(docker.succeed(&["top", "web"]).contains("oci-monitor"));
    docker.succeed(&["commit", "web", "changed"]);
    docker.succeed(&["stop", "--time", "60", "web"]);
    assert_eq!(docker.succeed(&["inspect", "--format", "{{.State.ExitCode}}", "web"]), "5\n");
    assert_eq!(docker.succeed(&["logs", "web"]), "of the host\nstopped\n");
    assert_eq!(fs::read_to_string(shared.join("new")).expect("the guest made it"), "of the guest\n");
    docker.succeed(&["rm", "web"]);
    let volume = docker.succeed(&["volume", "inspect", "--format", "{{.Mountpoint}}", "named"]);
    assert_eq!(fs::read_to_string(format!("{}/file", volume.trim())).expect("the guest made it"), "kept\n");
}

fn docker_shows_why_a_container_cannot_be_a_machine() {
    let docker = Docker::start();
    for (options, command, status, reason) in [
        (&["--network", "none"][..], "/nowhere/command", 127, "no such file or directory"),
        (&["--network", "none"], "nosuch", 127, "executable file not found in $PATH"),
        (&["--network", "none"], "/etc/passwd", 126, "permission denied"),
        (&["--network", "host"], "true", 125, "--network host"),
        (&["--network", "none", "--pid", "host"], "true", 125, "--pid host"),
    ] {
        let run = docker.output(&[&["run", "--rm", "--runtime", "coracle"], options, &["busybox", command]].concat());
        assert_eq!(run.status.code(), Some(status), "{run:?}");
        assert!(text(&run.stderr).contains(reason), "{run:?}");
    }
    assert_eq!(docker.succeed(&["ps", "--all", "--quiet"]), "");
}
