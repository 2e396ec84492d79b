// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The Debian package: made, installed in a root of its own, used there, removed.

use coracle_tests::{Case, TestDir, case, coracle, workspace};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What people and engines look for.
const FILES: [&str; 19] = [
    "usr/bin/coracle",
    "usr/bin/coracle-oci",
    "usr/lib/coracle/coracle-init",
    "usr/lib/coracle/vmlinux",
    "usr/share/man/man1/coracle.1.gz",
    "usr/share/man/man1/coracle-run.1.gz",
    "usr/share/bash-completion/completions/coracle",
    "usr/share/zsh/site-functions/_coracle",
    "usr/share/fish/vendor_completions.d/coracle.fish",
    "etc/coracle",
    "etc/containers/containers.conf.d/coracle.conf",
    "lib/systemd/system/coracle@.service",
    "usr/share/doc/coracle/copyright",
    "usr/share/doc/coracle/changelog.gz",
    "usr/share/doc/coracle/guide.md",
    "usr/share/doc/coracle/engines.md",
    "usr/share/doc/coracle/openapi.json",
    "usr/share/doc/coracle/examples/daemon.json",
    "usr/share/doc/coracle/examples/containerd.toml",
];

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(Quick[Kvm, Root, Dpkg], package_is_installed_used_and_removed)]
}

/// The output of a command that succeeds.
fn done(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it is installed");
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("paths and listings are text")
}

fn dpkg(root: &Path, arguments: &[&str]) -> String {
    done(Command::new("dpkg").arg("--root").arg(root).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn package_is_installed_used_and_removed() {
    let dir = TestDir::new();
    let (tree, root) = (dir.file("tree"), dir.file("root"));
    let release = coracle().parent().expect("it is in a directory");
    // Of the binary under test, and with the paths that a package has.
    done(Command::new("make").arg("-C").arg(workspace()).arg("install-files").args([
        &format!("release={}", release.display()),
        &format!("DESTDIR={}", tree.display()),
        "PREFIX=/usr",
    ]));
    let made = done(
        Command::new(workspace().join("vmm/package/deb.sh"))
            .arg(&tree)
            .arg(tree.parent().expect("it is in a directory"))
            .arg("none"),
    );
    let package = made.trim();
    assert!(package.ends_with("_amd64.deb"), "{package}");

    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "dev", "proc"] {
        fs::create_dir_all(root.join(directory)).expect("the directory is writable");
    }
    fs::write(root.join("var/lib/dpkg/status"), "").expect("the directory is writable");
    dpkg(&root, &["--install", package]);
    assert!(dpkg(&root, &["--status", "coracle"]).contains("Status: install ok installed\n"));

    // There is no library in this root, and nothing beside the binary: it is static, and finds what the package has.
    mknodat(CWD, root.join("dev/kvm"), FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(10, 232))
        .expect("root may make a device");
    let check = Command::new("chroot").arg(&root).args(["/usr/bin/coracle", "check"]).output().expect("a coreutil");
    let shown = String::from_utf8_lossy(&check.stdout);
    for line in ["ok    kvm ", "ok    kernel         /usr/lib/coracle/vmlinux, ", "ok    PID 1 "] {
        assert!(shown.contains(line), "`{line}` is missing\n{shown}{}", String::from_utf8_lossy(&check.stderr));
    }
    let runtime = root.join("usr/bin/coracle-oci").canonicalize().expect("the package has the runtime of engines");
    assert_eq!(runtime, root.join("usr/bin/coracle").canonicalize().expect("it has the binary"));
    let missing: Vec<_> = FILES.into_iter().filter(|file| !root.join(file).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let daemon = fs::read(root.join("usr/share/doc/coracle/examples/daemon.json")).expect("it is there");
    let daemon: serde_json::Value = serde_json::from_slice(&daemon).expect("it is JSON");
    assert_eq!(daemon["runtimes"]["coracle"]["path"], "/usr/bin/coracle-oci");
    let unit = fs::read_to_string(root.join("lib/systemd/system/coracle@.service")).expect("it has a unit");
    assert!(unit.contains("Type=notify") && unit.contains("/usr/bin/coracle run"), "{unit}");

    dpkg(&root, &["--purge", "coracle"]);
    assert!(!root.join("usr").exists() && !root.join("lib").exists(), "the package leaves files");
}
