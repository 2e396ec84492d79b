// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench images`: from layers or from a registry to a machine that can be started (`coracle create`), beside the tools
//! that do the same. No guest is started. Each round takes all of them in turns, and the ratios are of one round.

mod registry;
mod sample;

use super::product::Product;
use super::report::{Goal, Measure, Report};
use super::unit::{Unit, children_cpu_time_us, elapsed_us};
use anyhow::{Context, Result, bail, ensure};
use registry::Registry;
use sample::Sample;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// Rounds by default: one takes minutes.
pub(super) const ROUNDS: usize = 3;
/// What a machine has changed before it becomes an image.
const CHANGED_BYTES: usize = 100 << 20;

// Goals. Ratios and shares are in thousandths.
const AGAINST_UMOCI: Goal = Goal::AtLeast(4000);
const AGAINST_MKSQUASHFS: Goal = Goal::AtLeast(1500);
const AGAINST_SKOPEO: Goal = Goal::AtLeast(1000);
const SHARE_OF_THE_FIRST: Goal = Goal::AtMost(150);
const COMMIT: Goal = Goal::AtMost(1_000_000);
const CACHED_BYTES: Goal = Goal::AtMost(0);

type Samples = BTreeMap<&'static str, Vec<u64>>;

pub(super) fn run(rounds: usize) -> Result<ExitCode> {
    let product = Product::find()?;
    let sample = Sample::find_or_make()?;
    let mut samples = Samples::new();
    let mut skipped = BTreeMap::new();
    for round in 0..rounds {
        eprintln!("images: round {}", round + 1);
        let steps: [(&str, Step, &[&str]); 6] = [
            ("layers", layers, &[]),
            ("umoci", umoci, &["umoci", "mkfs.erofs"]),
            ("mksquashfs", mksquashfs, &["mksquashfs"]),
            ("registry", pull, &["docker-registry", "skopeo"]),
            ("commit", commit, &["debugfs", "gzip"]),
            ("cached", cached, &["strace"]),
        ];
        for (name, step, tools) in steps {
            match tools.iter().find(|tool| !is_installed(tool)) {
                Some(tool) => drop(skipped.insert(name, *tool)),
                None => step(&product, &sample, &mut samples).context(name)?,
            }
        }
    }
    let mut report = Report::new(&product, rounds);
    for (name, unit, goal) in ROWS {
        if let Some(samples) = samples.remove(name) {
            report.add(Measure::new(name, samples, goal, unit));
        }
    }
    ensure!(samples.is_empty(), "no row for {samples:?}");
    println!("{}", report.markdown());
    for (name, tool) in skipped {
        println!("{name}: left out, {tool} is not installed");
    }
    let path = super::out_directory().join("bench-images.json");
    fs::write(&path, report.json()).with_context(|| path.display().to_string())?;
    eprintln!("also written to {}", path.display());
    Ok(ExitCode::SUCCESS)
}

type Step = fn(&Product, &Sample, &mut Samples) -> Result<()>;

const GZIP: &str = "layers in gzip to a machine";
const ZSTD: &str = "layers in zstd to a machine";
const UMOCI: &str = "`umoci unpack` and `mkfs.erofs`";
const UMOCI_RATIO: &str = "`umoci unpack` and `mkfs.erofs` / layers in gzip to a machine";
const SQUASHFS: &str = "`mksquashfs - -tar` of the uncompressed layers";
const SQUASHFS_RATIO: &str = "`mksquashfs - -tar` / layers in gzip to a machine";
const PLAIN_SQUASHFS: &str = "the same without compression (`-noI -noD -noF -noX`)";
const SECOND: &str = "a second image, of which 90 % is in the first one";
const SECOND_RATIO: &str = "its time / that of the first one";
const FIRST_SPACE: &str = "space of the first one's layers and root disk";
const SECOND_SPACE: &str = "what the second one adds / that";
const PULL: &str = "`coracle pull` and `coracle create`, from a registry on loopback";
const PULL_ALONE: &str = "of that, `coracle pull`";
const SKOPEO: &str = "`skopeo copy` to a layout";
const SKOPEO_RATIO: &str = "`skopeo copy` / `coracle pull` and `coracle create`";
const SKOPEO_PULL_RATIO: &str = "`skopeo copy` / `coracle pull`";
const COMMIT_TIME: &str = "`coracle commit` of 100 MiB that do not compress";
const COMMIT_GZIP: &str = "`gzip -6` of the same";
const COMMIT_REST: &str = "processor time of the commit less that of `gzip -6`";
const CACHED: &str = "a machine of an image that is in the cache";
const CACHED_READ: &str = "bytes that this reads of layers and root disk";

const ROWS: [(&str, Unit, Goal); 21] = [
    (GZIP, Unit::Microseconds, Goal::None),
    (UMOCI, Unit::Microseconds, Goal::None),
    (UMOCI_RATIO, Unit::Thousandths, AGAINST_UMOCI),
    (SQUASHFS, Unit::Microseconds, Goal::None),
    (SQUASHFS_RATIO, Unit::Thousandths, AGAINST_MKSQUASHFS),
    (PLAIN_SQUASHFS, Unit::Microseconds, Goal::None),
    (ZSTD, Unit::Microseconds, Goal::None),
    (SECOND, Unit::Microseconds, Goal::None),
    (SECOND_RATIO, Unit::Thousandths, SHARE_OF_THE_FIRST),
    (FIRST_SPACE, Unit::Bytes, Goal::None),
    (SECOND_SPACE, Unit::Thousandths, SHARE_OF_THE_FIRST),
    (PULL, Unit::Microseconds, Goal::None),
    (PULL_ALONE, Unit::Microseconds, Goal::None),
    (SKOPEO, Unit::Microseconds, Goal::None),
    (SKOPEO_RATIO, Unit::Thousandths, AGAINST_SKOPEO),
    (SKOPEO_PULL_RATIO, Unit::Thousandths, Goal::None),
    (COMMIT_TIME, Unit::Microseconds, Goal::None),
    (COMMIT_GZIP, Unit::Microseconds, Goal::None),
    (COMMIT_REST, Unit::Microseconds, COMMIT),
    (CACHED, Unit::Microseconds, Goal::None),
    (CACHED_READ, Unit::Bytes, CACHED_BYTES),
];

/// Directories of a user who has neither images nor machines.
struct Home {
    directory: TempDir,
    product: PathBuf,
}

impl Home {
    fn new(product: &Product) -> Result<Home> {
        Ok(Home { directory: tempfile::tempdir()?, product: product.binary().to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn verb(&self, verb: &[&str]) -> Command {
        let mut command = silent(&self.product);
        command.args(verb).env("XDG_CACHE_HOME", self.path("cache")).env("XDG_DATA_HOME", self.path("data"));
        command
    }

    /// Makes a machine that can be started.
    fn create(&self, machine: &str, image: &str) -> Command {
        let mut command = self.verb(&["create", "--network", "none", "--name", machine, "--run-dir"]);
        command.arg(self.path("run")).args([image, "true"]);
        command
    }
}

fn layers(product: &Product, sample: &Sample, samples: &mut Samples) -> Result<()> {
    let home = Home::new(product)?;
    let first = time(&mut home.create("first", &reference(&sample.first())))?;
    let space = disk_usage(&home.path("cache"))?;
    let second = time(&mut home.create("second", &reference(&sample.second())))?;
    let added = disk_usage(&home.path("cache"))? - space;
    drop(home);
    let zstd = time(&mut Home::new(product)?.create("zstd", &reference(&sample.zstd())))?;
    add(samples, GZIP, first);
    add(samples, ZSTD, zstd);
    add(samples, SECOND, second);
    add(samples, SECOND_RATIO, thousandths(second, first));
    add(samples, FIRST_SPACE, space);
    add(samples, SECOND_SPACE, thousandths(added, space));
    Ok(())
}

fn umoci(_: &Product, sample: &Sample, samples: &mut Samples) -> Result<()> {
    let work = tempfile::tempdir()?;
    let bundle = work.path().join("bundle");
    let mut unpack = silent("umoci");
    unpack.args(["unpack", "--image"]).arg(format!("{}:latest", sample.first().display())).arg(&bundle);
    let mut make = silent("mkfs.erofs");
    make.arg(work.path().join("root.erofs")).arg(bundle.join("rootfs"));
    let taken = time(&mut unpack)? + time(&mut make)?;
    add(samples, UMOCI, taken);
    add(samples, UMOCI_RATIO, thousandths(taken, last(samples, GZIP)?));
    Ok(())
}

fn mksquashfs(_: &Product, sample: &Sample, samples: &mut Samples) -> Result<()> {
    let work = tempfile::tempdir()?;
    let run = |name: &str, options: &[&str]| {
        let mut make = silent("mksquashfs");
        make.arg("-").arg(work.path().join(name)).args(["-tar", "-quiet", "-no-progress"]).args(options);
        time(make.stdin(File::open(sample.archive())?))
    };
    let taken = run("compressed", &[])?;
    add(samples, SQUASHFS, taken);
    add(samples, SQUASHFS_RATIO, thousandths(taken, last(samples, GZIP)?));
    add(samples, PLAIN_SQUASHFS, run("plain", &["-noI", "-noD", "-noF", "-noX"])?);
    Ok(())
}

fn pull(product: &Product, sample: &Sample, samples: &mut Samples) -> Result<()> {
    let home = Home::new(product)?;
    let registry = Registry::start(&home.path("registry"))?;
    let name = format!("{}/bench/first:1", registry.authority());
    registry.push(&sample.first(), &name)?;
    let pull = time(&mut home.verb(&["pull", "-q", &name]))?;
    let create = time(&mut home.create("first", &name))?;
    let mut copy = silent("skopeo");
    copy.args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}")]);
    let skopeo = time(copy.arg(format!("oci:{}:1", home.path("layout").display())))?;
    add(samples, PULL, pull + create);
    add(samples, PULL_ALONE, pull);
    add(samples, SKOPEO, skopeo);
    add(samples, SKOPEO_RATIO, thousandths(skopeo, pull + create));
    add(samples, SKOPEO_PULL_RATIO, thousandths(skopeo, pull));
    Ok(())
}

/// Of a machine whose layer got one file, as a guest writes it.
fn commit(product: &Product, sample: &Sample, samples: &mut Samples) -> Result<()> {
    let home = Home::new(product)?;
    run_quietly(&mut home.create("changed", &reference(&sample.second())))?;
    let changed = home.path("changed");
    let mut random = File::open("/dev/urandom")?;
    std::io::copy(&mut std::io::Read::take(&mut random, CHANGED_BYTES as u64), &mut File::create(&changed)?)?;
    let script = home.path("script");
    fs::write(&script, format!("mkdir overlay\nmkdir overlay/upper\nwrite {} overlay/upper/new\n", changed.display()))?;
    let layer = home.path("run/.machines/changed/layer.ext4");
    run_quietly(silent("debugfs").arg("-w").arg("-f").arg(script).arg(layer))?;
    let mut command = home.verb(&["commit", "--run-dir"]);
    let before = children_cpu_time_us()?;
    let taken = time(command.arg(home.path("run")).args(["changed", "bench:changed"]))?;
    let between = children_cpu_time_us()?;
    let compressed = File::create(home.path("compressed"))?;
    let gzip = time(silent("gzip").args(["-6", "-c"]).arg(changed).stdout(compressed))?;
    let after = children_cpu_time_us()?;
    add(samples, COMMIT_TIME, taken);
    add(samples, COMMIT_GZIP, gzip);
    add(samples, COMMIT_REST, (between - before).saturating_sub(after - between));
    Ok(())
}

fn cached(product: &Product, sample: &Sample, samples: &mut Samples) -> Result<()> {
    let home = Home::new(product)?;
    let image = reference(&sample.second());
    run_quietly(&mut home.create("first", &image))?;
    add(samples, CACHED, time(&mut home.create("second", &image))?);
    let log = home.path("calls");
    let create = home.create("third", &image);
    let mut traced = silent("strace");
    traced.args(["-f", "-y", "-e", "trace=read,pread64,preadv,readv,mmap,sendfile,copy_file_range", "-o"]).arg(&log);
    traced.arg(create.get_program()).args(create.get_args());
    traced.envs(create.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run_quietly(&mut traced)?;
    let text = fs::read_to_string(log)?;
    ensure!(text.contains("index.json"), "the calls of `coracle create` were not traced");
    add(samples, CACHED_READ, text.lines().filter_map(bytes_of_images).sum());
    Ok(())
}

/// What a line of strace's output says was read of a layer or of a root disk.
fn bytes_of_images(line: &str) -> Option<u64> {
    let is_image = ["/coracle/layers/", "/root.erofs"].iter().any(|part| line.contains(part)) || {
        // A compressed layer; documents are short.
        line.contains("/blobs/sha256/") && line.rsplit("= ").next()?.trim().parse::<u64>().ok()? > 16 << 10
    };
    match line.rsplit("= ").next()?.trim() {
        address if address.starts_with("0x") => is_image.then_some(4096),
        count => is_image.then(|| count.parse().ok()).flatten(),
    }
}

fn add(samples: &mut Samples, name: &'static str, sample: u64) {
    samples.entry(name).or_default().push(sample);
}

fn last(samples: &Samples, name: &str) -> Result<u64> {
    samples.get(name).and_then(|samples| samples.last()).copied().with_context(|| format!("no sample of: {name}"))
}

fn thousandths(part: u64, whole: u64) -> u64 {
    part * 1000 / whole.max(1)
}

fn reference(layout: &Path) -> String {
    format!("oci:{}", layout.display())
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

/// Bytes that a directory takes on its disk; names of one file count once.
fn disk_usage(directory: &Path) -> Result<u64> {
    let mut files = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            files.insert((metadata.dev(), metadata.ino()), metadata.blocks() * 512);
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(files.values().sum())
}

/// A command whose output is not shown.
fn silent(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Microseconds that a command takes.
fn time(command: &mut Command) -> Result<u64> {
    let started = Instant::now();
    run_quietly(command)?;
    elapsed_us(started)
}

/// Runs a command, whose messages are shown if it fails.
fn run_quietly(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let child = command.stderr(Stdio::piped()).spawn().with_context(|| name.clone())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::bytes_of_images;

    #[test]
    fn reads_of_layers_are_counted() {
        let read =
            |file: &str, result: &str| bytes_of_images(&format!("7 pread64(5<{file}>, \"\"..., 99, 0) = {result}"));
        assert_eq!(read("/c/coracle/layers/v1/sha256-ab/entries", "300"), Some(300));
        assert_eq!(read("/c/coracle/images/v3/sha256-ab/root.erofs", "4096"), Some(4096));
        assert_eq!(read("/c/coracle/images/v3/sha256-ab/disk.json", "300"), None);
        assert_eq!(read("/l/blobs/sha256/ab", "500"), None);
        assert_eq!(read("/l/blobs/sha256/ab", "262144"), Some(262_144));
        assert_eq!(read("/c/coracle/layers/v1/sha256-ab/data", "-1 EIO (Input/output error)"), None);
        assert_eq!(read("/c/coracle/layers/v1/sha256-ab/data", "0x7f0000000000"), Some(4096));
    }
}
