// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guide's table of docker's defaults, as far as it can be read inside a machine: what is stated to be the same is the same.
//! One machine, whose workload prints files and attributes; the tables here say what they hold.

use coracle_tests::{Case, Finished, TestDir, case, image};
use std::collections::HashMap;
use std::os::unix::net::UnixListener;

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(Full, defaults_are_dockers), case!(Full, privileged_opens_what_docker_protects)]
}

const RESTRICTED: &str = "nosuid,nodev,noexec,relatime";

/// Mount point, file system, options that it has among others.
const MOUNTS: [(&str, &str, &[&str]); 13] = [
    ("/", "overlay", &["rw", "relatime"]),
    ("/proc", "proc", &["rw", RESTRICTED]),
    ("/sys", "sysfs", &["ro", RESTRICTED]),
    ("/sys/fs/cgroup", "cgroup2", &["ro", RESTRICTED]),
    ("/dev", "devtmpfs", &["rw", "nosuid", "mode=755"]),
    ("/dev/pts", "devpts", &["rw", "nosuid,noexec,relatime", "gid=5", "mode=620", "ptmxmode=666"]),
    ("/dev/shm", "tmpfs", &["rw", RESTRICTED]),
    ("/dev/mqueue", "mqueue", &["rw", RESTRICTED]),
    ("/proc/bus", "proc", &["ro", RESTRICTED]),
    ("/proc/fs", "proc", &["ro", RESTRICTED]),
    ("/proc/irq", "proc", &["ro", RESTRICTED]),
    ("/proc/sys", "proc", &["ro", RESTRICTED]),
    ("/sys/firmware", "tmpfs", &["ro", RESTRICTED]),
];

/// File and its content.
const FILES: [(&str, &str); 12] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647"),
    ("/proc/sys/kernel/threads-max", "4194304"),
    ("/proc/sys/kernel/pid_max", "4194304"),
    ("/proc/sys/fs/file-max", "9223372036854775807"),
    ("/proc/sys/fs/inotify/max_user_watches", "1048576"),
    ("/proc/sys/fs/epoll/max_user_watches", "4194304"),
    ("/proc/self/oom_score_adj", "0"),
    ("/proc/self/cgroup", "0::/"),
    ("/proc/sys/kernel/hostname", "box"),
    ("/etc/hostname", "box"),
    (
        "/etc/hosts",
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.9.0.2\tbox\n10.9.0.9\tdb",
    ),
];

/// Resource, soft and hard limit.
const LIMITS: [(&str, &str, &str); 11] = [
    ("Max cpu time", "unlimited", "unlimited"),
    ("Max file size", "unlimited", "unlimited"),
    ("Max data size", "unlimited", "unlimited"),
    ("Max stack size", "8388608", "unlimited"),
    ("Max core file size", "0", "unlimited"),
    ("Max processes", "unlimited", "unlimited"),
    ("Max open files", "1024", "524288"),
    ("Max locked memory", "8388608", "8388608"),
    ("Max address space", "unlimited", "unlimited"),
    ("Max pending signals", "unlimited", "unlimited"),
    ("Max msgqueue size", "819200", "819200"),
];

/// Field of `/proc/self/status` and its value.
const STATUS: [(&str, &str); 7] = [
    ("Umask", "0022"),
    ("Uid", "0\t0\t0\t0"),
    ("CapInh", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    ("NoNewPrivs", "0"),
    ("SigBlk", "0000000000000000"),
    ("SigIgn", "0000000000000000"),
];

/// Path; its type, mode, owner and group, or the target of a link.
const ATTRIBUTES: [(&str, &str); 20] = [
    ("/dev/null", "character special file 666 0:0"),
    ("/dev/zero", "character special file 666 0:0"),
    ("/dev/full", "character special file 666 0:0"),
    ("/dev/random", "character special file 666 0:0"),
    ("/dev/urandom", "character special file 666 0:0"),
    ("/dev/tty", "character special file 666 0:0"),
    ("/dev/ptmx", "character special file 666 0:0"),
    ("/dev/shm", "directory 1777 0:0"),
    ("/dev/mqueue", "directory 1777 0:0"),
    ("/dev/pts", "directory 755 0:0"),
    ("/etc/hosts", "regular file 644 0:0"),
    ("/etc/hostname", "regular file 644 0:0"),
    ("/etc/resolv.conf", "regular file 644 0:0"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/etc/mtab", "/proc/mounts"),
    // Masked: every read is empty.
    ("/proc/keys", "character special file 666 0:0"),
    ("/proc/timer_list", "character special file 666 0:0"),
];

/// What `grep -H '' FILES` printed: the lines of each file.
fn files(run: &Finished) -> HashMap<String, Vec<String>> {
    let mut files: HashMap<String, Vec<String>> = HashMap::new();
    for line in run.stdout_text().lines() {
        if let Some((path, text)) = line.split_once(':') {
            files.entry(path.to_owned()).or_default().push(text.to_owned());
        }
    }
    files
}

fn defaults_are_dockers() {
    let dir = TestDir::new();
    let peer = dir.file("peer");
    let _listener = UnixListener::bind(&peer).expect("a socket");
    let network = format!("socket={},ip=10.9.0.2/24,gw=10.9.0.1", peer.display());
    let read = ["/proc/mounts", "/proc/self/limits", "/proc/self/status", "/etc/resolv.conf"];
    let read = read.into_iter().chain(FILES.map(|(path, _)| path)).collect::<Vec<_>>().join(" ");
    let (links, nodes): (Vec<_>, Vec<_>) = ATTRIBUTES.iter().partition(|(_, expected)| expected.starts_with('/'));
    let paths = |rows: &[&(&str, &str)]| rows.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(" ");
    let script = format!(
        "grep -H '' {read}; stat -c 'attributes of %n:%F %a %u:%g' {}; for link in {}; do echo \"attributes of $link:$(readlink $link)\"; done; \
         env | sed s/^/environment:/; echo workdir:$(pwd); echo leader:$(cut -d' ' -f6 /proc/$$/stat)",
        paths(&nodes),
        paths(&links)
    );
    let options = ["--network", &network, "--add-host", "db:10.9.0.9", "-h", "box", "-e", "SET=1"];
    let run = dir.run(&[&options[..], &[&image("busybox"), "sh", "-c", &script]].concat());
    run.assert_status(0).assert_stderr("");
    let files = files(&run);
    let mut wrong: Vec<String> = Vec::new();
    let mut expect = |what: &str, expected: &str, found: Option<String>| {
        if found.as_deref() != Some(expected) {
            wrong.push(format!("{what}: {found:?}, expected {expected:?}"));
        }
    };
    let lines = |path: &str| files.get(path).cloned().unwrap_or_default();
    for (path, expected) in FILES {
        expect(path, expected, files.get(path).map(|lines| lines.join("\n")));
    }
    for (path, expected) in ATTRIBUTES {
        let name = format!("attributes of {path}");
        // A host without name servers gives an empty file.
        let found = files.get(&name).map(|lines| lines.join("\n").replace("regular empty file", "regular file"));
        expect(&name, expected, found);
    }
    for (point, file_system, options) in MOUNTS {
        let mounts = lines("/proc/mounts");
        let mount = mounts.iter().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[1] == point);
        expect(point, file_system, mount.as_ref().map(|fields| fields[2].to_owned()));
        let found = mount.map_or_else(String::new, |fields| format!(",{},", fields[3]));
        for option in options.iter().filter(|option| !found.contains(&format!(",{option},"))) {
            expect(point, option, Some(found.clone()));
        }
    }
    for (name, soft, hard) in LIMITS {
        let limits = lines("/proc/self/limits");
        let line = limits.iter().find_map(|line| line.strip_prefix(name));
        let found = line.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        expect(name, &format!("{soft} {hard}"), found);
    }
    for (name, value) in STATUS {
        let status = lines("/proc/self/status");
        expect(
            name,
            value,
            status.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t").map(str::to_owned)),
        );
    }
    expect("workdir", "/", files.get("workdir").map(|lines| lines.concat()));
    expect("leader", "1", files.get("leader").map(|lines| lines.concat()));
    let mut environment = lines("environment");
    // The shell's own.
    environment.retain(|variable| !["SHLVL=", "PWD=", "OLDPWD=", "_="].iter().any(|own| variable.starts_with(own)));
    environment.sort_unstable();
    let expected = ["HOME=/root", "HOSTNAME=box", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SET=1"];
    expect("environment", &expected.join(" "), Some(environment.join(" ")));
    expect("/etc/resolv.conf", &host_servers().join("\n"), Some(name_servers(&lines("/etc/resolv.conf")).join("\n")));
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), run.report());
}

fn name_servers(lines: &[String]) -> Vec<String> {
    lines.iter().filter_map(|line| line.strip_prefix("nameserver ")).map(|server| server.trim().to_owned()).collect()
}

/// Of this host, but for those on its loopback addresses and those with an interface of the host.
fn host_servers() -> Vec<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let usable = |path| {
        let mut servers = name_servers(&read(path));
        servers.retain(|server| server.parse::<std::net::IpAddr>().is_ok_and(|address| !address.is_loopback()));
        servers
    };
    let servers = usable("/etc/resolv.conf");
    if servers.is_empty() { usable("/run/systemd/resolve/resolv.conf") } else { servers }
}

fn privileged_opens_what_docker_protects() {
    let dir = TestDir::new();
    let script = "grep -H '' /proc/mounts; mkdir /sys/fs/cgroup/made && echo made:1; [ -c /proc/keys ] || echo keys:1";
    let run = dir.run(&["--privileged", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stderr("");
    let files = files(&run);
    let read_only: Vec<_> = files["/proc/mounts"].iter().filter(|line| line.contains(" ro,")).collect();
    assert!(read_only.is_empty(), "{read_only:?}");
    assert!(files.contains_key("made") && files.contains_key("keys"), "{}", run.report());
}
