// SPDX-License-Identifier: Apache-2.0 OR MIT
//! podman's own system tests, from Debian's source of the podman that is installed: each file with runc and with `coracle-oci`, in
//! namespaces, storage and run directories of its own.

use super::tap::{self, Verdict};
use crate::user_cache;
use anyhow::{Context, Result, ensure};
use coracle_tests::{blob, document, image};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The life cycle, as far as the suite has it.
const FILES: [&str; 7] = ["045-start", "050-stop", "055-rm", "075-exec", "080-pause", "130-kill", "030-run"];
/// A file takes a minute with runc. Where guest kernel mode is emulated, it has dozens of boots of a minute.
const LIMIT: &str = "3600";
/// The name that the suite expects: it removes every other image.
const IMAGE: &str = "quay.io/libpod/testimage:20220615";
/// Tests that pass with runc and cannot pass with a machine: file, name, why.
const EXPLAINED: [(&str, &str, &str); 0] = [];

/// Arguments: directory of this run, runtime, image archive, image name, test file. The namespaces end with it, and with them what
/// it started.
const RUN: &str = r#"set -eu
work=$1 runtime=$2 archive=$3 image=$4 file=$5
mount -t tmpfs tmpfs /run
mkdir -p /run/lock "$work/tmp" "$work/home" "$work/net"
ip link set lo up
network=bridge
[ -x /usr/lib/podman/netavark ] || network=none
cat > "$work/containers.conf" <<END
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
netns = "$network"
[engine]
events_logger = "file"
lock_type = "file"
cgroup_manager = "cgroupfs"
[network]
network_config_dir = "$work/net"
END
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "/run/podman-run"\n' "$work/root" > "$work/storage.conf"
export CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf" TMPDIR="$work/tmp" HOME="$work/home"
export PODMAN="podman --tmpdir /run/podman-tmp --runtime $runtime" PODMAN_TIMEOUT=600
$PODMAN import --quiet -c 'WORKDIR /home/podman' -c 'LABEL created_by=coracle' \
    -c 'CMD ["/bin/echo", "This container is intended for podman CI testing"]' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$archive" "$image" > "$work/import"
cd "$(dirname "$file")"
exec bats --tap "$file"
"#;

/// Downloads into the directory $1 the source of podman in version $2, with Debian sources that $3 finds, and unpacks the tests.
const FETCH: &str = r#"set -eu
cd "$1"
mkdir -p lists/partial
for list in $("$3" "$1"); do
    sed -i 's/^deb /deb-src /; s/^Types:.*/Types: deb-src/' "$list"
    apt() { apt-get -q -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$1/lists" "${@:2}"; }
    apt "$1" update && apt "$1" source --download-only "libpod=$2" && break
done
tar -xf libpod_*.orig.tar.* --strip-components=1 --wildcards '*/test/system'
rm -rf lists
"#;

/// `/home/podman` of the suite's own image, which holds busybox as well.
const MAKE_IMAGE: &str = r#"set -eu
mkdir -p "$1/tree"
tar -xzf "$2" -C "$1/tree"
mkdir -p "$1/tree/home/podman"
cd "$1/tree/home/podman"
echo 20220615 > testimage-id
touch --date=@1600000000 testimage-id
printf '#!/bin/sh\necho Confirmed: testimage pause invoked as $0\nwhile :; do sleep 0.1; done\n' > pause
chmod 755 pause
tar -cf "$1/image.tar" -C "$1/tree" .
"#;

pub(super) fn run(files: &[String]) -> Result<ExitCode> {
    let names: Vec<&str> = match files {
        [] => FILES.to_vec(),
        files => files.iter().map(|file| file.trim_end_matches(".bats")).collect(),
    };
    let tests = source()?;
    for name in &names {
        ensure!(tests.join(name).with_extension("bats").is_file(), "{name}: not a file of {}", tests.display());
    }
    let work = tempfile::Builder::new().prefix("coracle-podman-tests-").tempdir_in("/var/tmp")?;
    let archive = make_image(work.path())?;
    let coracle = work.path().join("coracle-oci");
    std::os::unix::fs::symlink(coracle_tests::coracle(), &coracle)?;
    let mut is_below = false;
    println!("| file | runc | coracle-oci |\n|---|---|---|");
    for name in names {
        let file = tests.join(name).with_extension("bats");
        let runc = run_file(&work.path().join(format!("{name}-runc")), Path::new("runc"), &archive, &file)?;
        let ours = run_file(&work.path().join(format!("{name}-coracle")), &coracle, &archive, &file)?;
        println!("| {name} | {} | {} |", passed(&runc), passed(&ours));
        for (test, _) in runc.iter().filter(|(_, verdict)| **verdict == Verdict::Passed) {
            let reason = match ours.get(test) {
                Some(Verdict::Passed) => continue,
                Some(Verdict::Failed(reason)) => reason.as_str(),
                Some(Verdict::Skipped) => "skipped",
                None => "not run",
            };

            let explained = EXPLAINED.iter().find(|(file, explained, _)| *file == name && explained == test);
            is_below |= explained.is_none();
            println!("    {test}: {reason}{}", explained.map_or_else(String::new, |(_, _, why)| format!(" ({why})")));
        }
    }
    Ok(if is_below { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Those that passed, of those that ran.
fn passed(verdicts: &BTreeMap<String, Verdict>) -> String {
    let passed = verdicts.values().filter(|verdict| **verdict == Verdict::Passed).count();
    let skipped = verdicts.values().filter(|verdict| **verdict == Verdict::Skipped).count();
    format!("{passed}/{}", verdicts.len() - skipped)
}

/// The directory of the tests, in the cache.
fn source() -> Result<PathBuf> {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${source:Version}", "podman"]).output();
    let query = query.context("dpkg-query")?;
    ensure!(query.status.success(), "podman is not installed: guest-kernel-config/packages.sh engines podman-tests");
    let version = String::from_utf8(query.stdout).context("version of podman")?;
    let source = user_cache::find_or_make("podman-tests", &version, |directory| {
        let sources = crate::repository::root().join("tests/images/debian_sources.sh");
        let mut fetch = Command::new("bash");
        fetch.args(["-c", FETCH, "fetch"]).arg(directory).arg(&version).arg(sources).stdout(Stdio::null());
        let fetched = fetch.status().context("bash")?;
        ensure!(fetched.success(), "apt-get source libpod={version}: {fetched}");
        Ok(())
    })?;
    Ok(source.join("test/system"))
}

fn make_image(work: &Path) -> Result<PathBuf> {
    let layout = image("busybox");
    let layout = Path::new(layout.strip_prefix("oci:").context("the test images are layouts")?);
    let manifest = document(&blob(layout, &document(&layout.join("index.json"))["manifests"][0]));
    let layer = blob(layout, &manifest["layers"][0]);
    let made = Command::new("bash").args(["-c", MAKE_IMAGE, "image"]).arg(work).arg(layer).status().context("bash")?;
    ensure!(made.success(), "the suite's image: {made}");
    Ok(work.join("image.tar"))
}

fn run_file(work: &Path, runtime: &Path, archive: &Path, file: &Path) -> Result<BTreeMap<String, Verdict>> {
    fs::create_dir(work)?;
    let mut command = Command::new("timeout");
    command.args([LIMIT, "unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--propagation", "private", "bash", "-c", RUN, "run"]);
    command.arg(work).arg(runtime).arg(archive).arg(IMAGE).arg(file).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("timeout")?;
    let verdicts = tap::parse(&String::from_utf8_lossy(&output.stdout));
    ensure!(!verdicts.is_empty(), "{} with {}: no test was run", file.display(), runtime.display());
    Ok(verdicts)
}
