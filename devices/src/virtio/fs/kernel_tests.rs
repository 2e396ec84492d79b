// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file server behind the FUSE driver of this machine's kernel, which is the guest's in other respects: thousands of system
//! calls without a machine. Needs root, `/dev/fuse` and gcc.

use super::tests::Share;
use super::wire::{InHeader, OutHeader};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zerocopy::FromBytes;

/// More than the longest request, as the driver asks for.
const REQUEST_SIZE: usize = (1 << 20) + 8192;

/// Answers requests until the file system is no longer mounted.
fn serve(share: &mut Share, mut fuse: &File) {
    let mut request = vec![0; REQUEST_SIZE];
    loop {
        let length = match fuse.read(&mut request) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => return,
            // Not mounted yet, or the process that asked is gone.
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                std::thread::yield_now();
                continue;
            }
            Err(_) => continue,
        };
        let answer = share.raw(&request[..length], REQUEST_SIZE as u32);
        if answer.is_empty() {
            continue;
        }
        // A request that was interrupted takes no answer.
        if let Err(error) = fuse.write_all(&answer) {
            let (header, _) = InHeader::read_from_prefix(&request).unwrap();
            let (out, _) = OutHeader::read_from_prefix(&answer).unwrap();
            assert_eq!(error.raw_os_error(), Some(Errno::NOENT.raw_os_error()), "{header:?} {out:?}");
        }
    }
}

/// Runs `script` with `words` and a share at `$1`, in a mount namespace of its own. Returns its output, and the directory that
/// was shared.
fn on_a_share(script: &str, words: &[&str]) -> (String, Share) {
    let mut share = Share::new();
    let mount_point = share.path("../mounted");
    std::fs::create_dir(&mount_point).unwrap();
    let fuse = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other";
    let script = format!("mount -i -t fuse -o {options} share \"$1\" || exit; exec </dev/null\n{script}");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(&mount_point).args(words);
    command.stdin(fuse.try_clone().unwrap()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    let output = std::thread::scope(|scope| {
        let child = scope.spawn(move || child.wait_with_output().unwrap());
        serve(&mut share, &fuse);
        child.join().unwrap()
    });
    assert!(output.status.success(), "{}", output.status);
    (String::from_utf8(output.stdout).unwrap(), share)
}

fn compiled(directory: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guest").join(name).with_extension("c");
    let binary = directory.join(name);
    let status = Command::new("gcc").args(["-std=gnu17", "-O2", "-o"]).arg(&binary).arg(source).status().unwrap();
    assert!(status.success());
    binary
}

/// Whether the host lacks what these tests need; says what.
#[allow(clippy::disallowed_macros, reason = "a skipped test prints its reason")]
fn is_skipped() -> bool {
    missing().inspect(|reason| eprintln!("skipped: {reason}")).is_some()
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root");
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return Some("no /dev/fuse");
    }
    Command::new("gcc").arg("--version").output().is_err().then_some("no gcc")
}

/// What a share answers in its own way, in the order of the program: it makes no device nodes; the driver of FUSE passes on no
/// whiteout, which is one; and attributes other than `user.` would be the host's.
const DIFFERENCES: [(&str, &str); 3] =
    [("mknod", "= -1 EPERM"), ("renameat2", "= -1 EINVAL"), ("setxattr", "= -1 EOPNOTSUPP")];

#[test]
fn calls_have_the_results_that_they_have_on_the_host() {
    if is_skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "file_operations");
    let output = |words: &[&str]| {
        let output = Command::new(&program).args(words).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    for seed in ["1", "2"] {
        let host = tempfile::tempdir().unwrap();
        let expected = output(&["run", host.path().to_str().unwrap(), seed, "2500"]);
        let words = [program.to_str().unwrap(), seed];
        let (found, share) = on_a_share("exec \"$2\" run \"$1\" \"$3\" 2500", &words);
        let mut differences = DIFFERENCES.iter();
        for (host, share) in expected.lines().zip(found.lines()) {
            if host.starts_with("differs ") {
                let (call, result) = differences.next().unwrap();
                assert!(host.contains(call) && share.ends_with(result), "{share}");
            } else {
                assert_eq!(share, host, "seed {seed}");
            }
        }
        assert_eq!(found.lines().count(), expected.lines().count());
        assert_eq!(differences.next(), None);
        let tree = |path: &Path| output(&["list", path.to_str().unwrap()]);
        assert_eq!(tree(&share.path(".")), tree(host.path()));
    }
}

#[test]
fn file_holds_what_calls_and_mappings_write() {
    if is_skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "file_model");
    for seed in ["1", "2"] {
        let words = [program.to_str().unwrap(), seed];
        let (found, share) = on_a_share("exec \"$2\" \"$1/file\" \"$3\" 1500", &words);
        let bytes = std::fs::read(share.path("file")).unwrap();
        let digest = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        assert_eq!(found, format!("{} {digest:016x}\n", bytes.len()));
    }
}
