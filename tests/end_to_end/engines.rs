// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle-oci` under a real engine: podman with directories of its own, so that nothing of the host's podman is touched.

use coracle_tests::{Case, TestDir, blob, case, coracle, document, image};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full[Root, Podman], podman_runs_a_container_as_a_machine),
        case!(Quick[Kvm, Root, Podman], podman_create_fails_where_the_command_is_missing),
        case!(Full[Root, Podman], podman_start_fails_where_the_interpreter_is_missing),
        case!(Quick[Kvm, Root, Podman], podman_shows_why_a_container_cannot_be_a_machine),
        case!(Quick, malformed_bundles_are_one_line_and_status_1),
    ]
}

/// The client program of an engine.
pub(crate) trait Client {
    /// The program with `words` after the options that name the test's directories.
    fn command(&self, words: &[&str]) -> Command;

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().expect("the engine is installed")
    }

    /// The standard output of a command that succeeds.
    fn succeed(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        text(&output.stdout)
    }
}

/// podman with an image `busybox`.
struct Podman {
    dir: TestDir,
}

impl Podman {
    fn new() -> Podman {
        let dir = TestDir::new();
        let write = |name: &str, text: String| dir.write(name, text);
        let [root, run] = ["root", "run"].map(|name| dir.file(&format!("podman-{name}")));
        write(
            "containers.conf",
            "[containers]\ndefault_ulimits = [\"nofile=1024:4096\"]\n[engine]\nevents_logger = \"file\"\nlock_type = \"file\"\n".into(),
        );
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            root.display(),
            run.display()
        );
        write("storage.conf", storage);
        symlink(coracle(), dir.file("coracle-oci")).expect("the test's directory is writable");
        let podman = Podman { dir };
        let layers = layers("busybox");
        let [layer] = &*layers else { panic!("the image has one layer") };
        podman.succeed(&["import", "--quiet", &layer.display().to_string(), "busybox"]);
        podman
    }
}

impl Client for Podman {
    fn command(&self, words: &[&str]) -> Command {
        let file = |name: &str| self.dir.file(name);
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", file("containers.conf")).env("CONTAINERS_STORAGE_CONF", file("storage.conf"));
        command.arg("--root").arg(file("podman-root")).arg("--runroot").arg(file("podman-run"));
        command.arg("--tmpdir").arg(file("podman-tmp")).args(["--cgroup-manager", "cgroupfs"]);
        command.arg("--runtime").arg(file("coracle-oci")).args(words);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.output(&["rm", "--all", "--force", "--time", "0"]);
        let _ = Command::new("umount").arg("-R").arg(self.dir.file("podman-root")).stderr(Stdio::null()).status();
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Files of the layers of an image.
pub(crate) fn layers(name: &str) -> Vec<PathBuf> {
    let image = image(name);
    let image = Path::new(image.strip_prefix("oci:").expect("it is a layout"));
    let manifest = document(&blob(image, &document(&image.join("index.json"))["manifests"][0]));
    manifest["layers"].as_array().expect("an image has layers").iter().map(|layer| blob(image, layer)).collect()
}

fn podman_runs_a_container_as_a_machine() {
    let podman = Podman::new();
    let (shared, file) = (podman.dir.file("shared"), podman.dir.write("file", "of the host\n"));
    fs::create_dir(&shared).expect("the test's directory is writable");
    let volumes = [format!("{}:/shared", shared.display()), format!("{}:/etc/single:ro", file.display())];
    let script = "echo started; echo apart >&2; cat /etc/single; echo of the guest >/shared/new; echo x >/etc/single; \
                  grep -c ' / virtiofs' /proc/mounts; grep MemTotal /proc/meminfo; hostname; umask; \
                  trap 'echo stopped; exit 5' TERM; trap 'echo taken' USR1; sleep 1000 & while :; do wait; done";
    let options = ["run", "--detach", "--name", "w", "--network", "none", "--hostname", "box", "--memory", "160m"];
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mknod", "mknodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    let profile = format!("seccomp={}", podman.dir.write("profile.json", profile).display());
    let attributes = ["--ulimit", "nofile=100:2000", "--group-add", "4711", "--umask", "027", "--cap-drop", "CHOWN"];
    let security =
        ["--security-opt", "no-new-privileges", "--security-opt", &profile, "--security-opt", "mask=/proc/uptime"];
    let volumes = ["-v", &volumes[0], "-v", &volumes[1]];
    let others = ["--env", "SECRET=s3cret", "--sysctl", "kernel.msgmax=9000"];
    let options = [&options[..], &attributes, &security, &volumes, &others].concat();
    podman.succeed(&[&options[..], &["busybox", "sh", "-c", script]].concat());
    // A machine, which has a kernel of its own; an exec directly after `run` is for the workload that runs.
    let version = podman.succeed(&["exec", "w", "sh", "-c", "cat /proc/version; echo $SECRET; id -u"]);
    assert_ne!(version.lines().next(), fs::read_to_string("/proc/version").expect("it is there").lines().next());
    assert!(version.ends_with("s3cret\n0\n"), "{version}");
    let status = podman.output(&["exec", "--user", "7:8", "--workdir", "/shared", "w", "sh", "-c", "pwd; id; exit 9"]);
    assert_eq!(
        (status.status.code(), text(&status.stdout)),
        (Some(9), "/shared\nuid=7 gid=8 groups=8\n".into()),
        "{status:?}"
    );
    // Limits, groups and capabilities, here of the workload and of a process beside it, which has no capabilities.
    let script = "for process in 1 self; do sed -nE 's/^(Groups|Cap(Eff|Bnd)|NoNewPrivs|Seccomp):[[:space:]]*//p' /proc/$process/status; \
                  sed -nE 's/^Max open files *([0-9]+) *([0-9]+).*/\\1 \\2/p' /proc/$process/limits; done";
    let attributes = podman.succeed(&["exec", "w", "sh", "-c", script]);
    let bounding = "00000000a80425fa";
    let of_root = format!("0 4711 \n{bounding}\n{bounding}\n1\n2\n100 2000\n");
    assert_eq!(attributes, of_root.repeat(2));
    assert_eq!(podman.succeed(&["exec", "w", "cat", "/proc/uptime", "/proc/sys/kernel/msgmax"]), "9000\n");
    let denied = podman.output(&["exec", "w", "mknod", "/node", "p"]);
    assert!(text(&denied.stderr).contains("not supported"), "{denied:?}");
    for (command, status) in [("/nowhere/command", 127), ("nosuch", 127), ("/etc/single", 126)] {
        let output = podman.output(&["exec", "w", command]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
    }
    let mut piped = podman.command(&["exec", "--interactive", "w", "cat"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("podman is installed");
    piped.stdin.take().expect("it is piped").write_all(b"through\n").expect("it reads");
    assert_eq!(text(&piped.wait_with_output().expect("it ends").stdout), "through\n");
    // The environment is in no arguments, and the monitor is confined by the delegate.
    let pid = podman.succeed(&["inspect", "--format", "{{.State.Pid}}", "w"]);
    let pid = pid.trim();
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert!(arguments.contains("oci-monitor") && !arguments.contains("s3cret"), "{arguments}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Files of the container are the engine's.
    let copied = podman.dir.write("copied", "by podman\n");
    podman.succeed(&["cp", &copied.display().to_string(), "w:/copied"]);
    assert_eq!(podman.succeed(&["exec", "w", "sh", "-c", "cat /copied; echo made >/made"]), "by podman\n");
    let changes = podman.succeed(&["diff", "w"]);
    assert!(changes.contains("A /made") && changes.contains("A /copied") && !changes.contains("coracle"), "{changes}");
    let back = podman.dir.file("back");
    podman.succeed(&["cp", "w:/made", &back.display().to_string()]);
    assert_eq!(fs::read_to_string(&back).expect("podman made it"), "made\n");
    let memory = podman.succeed(&["stats", "--no-stream", "--no-reset", "--format", "{{.MemUsage}}", "w"]);
    assert!(memory.ends_with("/ 167.8MB\n"), "{memory}");
    podman.succeed(&["pause", "w"]);
    assert_eq!(podman.succeed(&["inspect", "--format", "{{.State.Status}}", "w"]), "paused\n");
    podman.succeed(&["unpause", "w"]);
    podman.succeed(&["kill", "--signal", "USR1", "w"]);
    podman.succeed(&["stop", "--time", "60", "w"]);
    assert_eq!(podman.succeed(&["inspect", "--format", "{{.State.ExitCode}}", "w"]), "5\n");
    let logs = podman.output(&["logs", "w"]);
    let out = text(&logs.stdout);
    assert!(
        out.starts_with("started\nof the host\n1\nMemTotal:") && out.ends_with("box\n0027\ntaken\nstopped\n"),
        "{out}"
    );
    assert!(
        text(&logs.stderr).starts_with("apart\n") && text(&logs.stderr).contains("Read-only file system"),
        "{logs:?}"
    );
    assert_eq!(fs::read_to_string(shared.join("new")).expect("the guest made it"), "of the guest\n");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "of the host\n");
    podman.succeed(&["rm", "w"]);
}

fn podman_create_fails_where_the_command_is_missing() {
    let podman = Podman::new();
    for (command, status, reason) in [
        ("/nowhere/command", 127, "no such file or directory"),
        ("nosuch", 127, "executable file not found in $PATH"),
        ("/etc", 126, "permission denied"),
    ] {
        let run = podman.output(&["run", "--rm", "--network", "none", "busybox", command]);
        assert_eq!(run.status.code(), Some(status), "{run:?}");
        assert!(text(&run.stderr).contains(&format!("exec: \"{command}\": {reason}")), "{run:?}");
    }
    assert_eq!(podman.succeed(&["ps", "--all", "--quiet"]), "");
}

/// Only the guest finds that out. podman has one status for all of `start`.
fn podman_start_fails_where_the_interpreter_is_missing() {
    let podman = Podman::new();
    let script = podman.dir.write("script", "#!/nowhere/interpreter\n");
    make_executable(&script);
    let volume = format!("{}:/script", script.display());
    let run = podman.output(&["run", "--network", "none", "--name", "m", "-v", &volume, "busybox", "/script"]);
    assert_eq!(run.status.code(), Some(126), "{run:?}");
    assert!(text(&run.stderr).contains("/script: no such file, or its interpreter is missing"), "{run:?}");
}

fn podman_shows_why_a_container_cannot_be_a_machine() {
    let podman = Podman::new();
    for (options, object) in [
        (&["--network", "host"][..], "--network host"),
        (&["--network", "none", "--pid", "host"], "--pid host"),
        (&["--network", "none", "--annotation", "io.coracle.color=red"], "io.coracle.color"),
        (&["--network", "none", "--annotation", "io.coracle.memory=1m"], "the minimum is 64m"),
    ] {
        let run = podman.output(&[&["run", "--rm"], options, &["busybox", "true"]].concat());
        assert!(!run.status.success() && text(&run.stderr).contains(object), "{options:?}: {run:?}");
    }
    assert_eq!(podman.succeed(&["ps", "--all", "--quiet"]), "");
}

fn malformed_bundles_are_one_line_and_status_1() {
    let dir = TestDir::new();
    let deep = "[".repeat(100_000);
    let bundle = dir.file("bundle");
    fs::create_dir(&bundle).expect("the test's directory is writable");
    let log = dir.file("log.json");
    // A delegate that must not be reached.
    let delegate = dir.write("crun", "#!/bin/sh\necho reached\n");
    make_executable(&delegate);
    for (text, object) in
        [(None, "No such file"), (Some("{"), "EOF"), (Some(&*deep), "recursion limit"), (Some("{}"), "process")]
    {
        if let Some(text) = text {
            fs::write(bundle.join("config.json"), text).expect("it is writable");
        }
        let mut command = Command::new(coracle());
        command
            .args(["oci", "--log-format", "json", "--log"])
            .arg(&log)
            .args(["create", "--bundle"])
            .arg(&bundle)
            .arg("id");
        let output = command.env("PATH", delegate.parent().expect("it is in a directory")).output().expect("it starts");
        let line = self::text(&output.stderr);
        assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{output:?}");
        assert!(line.contains("config.json") && line.contains(object) && output.stdout.is_empty(), "{output:?}");
        let logged = fs::read_to_string(&log).expect("the log was written");
        assert!(
            logged.lines().last().is_some_and(|line| line.contains(r#""level":"error""#) && line.contains(object)),
            "{logged}"
        );
        assert!(!bundle.join("coracle").exists());
    }
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is the test's");
}
