// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest writes numbered records to a volume, syncs them and reports each, until its monitor is killed. No record that was
//! reported may be lost, and the file system is sound once its journal is replayed.

use super::{Report, random};
use crate::{Invocation, Running, TestDir, compile, image};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Waited for before a machine is killed, at most.
const MAX_RECORDS: u64 = 100;
/// After the report of a record: within the next ones.
const MAX_DELAY: Duration = Duration::from_millis(20);
/// So many machines, one after the other, write to a volume of this size before another one takes its place.
const MACHINES: usize = 16;
const VOLUME_SIZE: &str = "16m";
/// As in `tests/guest/record_writer.c`.
const WORDS: u64 = 64;
const FILES: u64 = 8;

/// Kills `count` monitors. All machines of a volume depend on one another: a failure is repeated with all that were before it.
#[must_use]
pub fn durability(count: usize, seed: u64) -> Report {
    let mut report = Report::default();
    let mut moments = Moments::new(seed);
    let mut volume: Option<RecordVolume> = None;
    for number in 1..=count {
        let mut used = volume.take().unwrap_or_else(RecordVolume::new);
        report.add(&format!("durability {number} --seed {seed}"), || {
            let outcome = used.kill_writer(&mut moments);
            volume = (number % MACHINES != 0).then_some(used);
            outcome
        });
    }
    report
}

/// When machines are killed.
#[derive(Debug)]
pub struct Moments {
    state: u64,
    /// From the start of the last machine that wrote to its first record.
    start: Duration,
}

impl Moments {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, start: Duration::ZERO }
    }

    /// Waits for the next moment. One of eight is before the first record, which is the one after `last`.
    fn wait(&mut self, writer: &mut Running, last: u64) {
        let [kind, records, time] = std::array::from_fn(|_| random(&mut self.state));
        let time = time as f64 / u64::MAX as f64;
        // The moment is the input of the campaign. It does not wait for an event.
        if kind % 8 == 0 && !self.start.is_zero() {
            return std::thread::sleep(self.start.mul_f64(time));
        }
        let started = Instant::now();
        writer.wait_for_stdout("record ");
        self.start = started.elapsed();
        writer.wait_for_stdout(&format!("record {}\n", last + 1 + records % MAX_RECORDS));
        std::thread::sleep(MAX_DELAY.mul_f64(time));
    }
}

/// A volume with records, in a directory of its own.
pub struct RecordVolume {
    dir: TestDir,
    /// The last record that was reported.
    last: u64,
}

impl RecordVolume {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default creates no volumes")]
    pub fn new() -> Self {
        let volume = Self { dir: TestDir::new().keeping_machines(), last: 0 };
        let program = volume.dir.file("programs");
        fs::create_dir(&program).expect("the test's directory is writable");
        fs::copy(compile("record_writer"), program.join("record_writer")).expect("the program is readable");
        volume.verb("volume", &["create", "--size", VOLUME_SIZE, "data"]).finish().assert_status(0);
        volume
    }

    /// A verb with the volume `data`.
    #[must_use]
    pub fn verb(&self, verb: &'static str, words: &[&str]) -> Invocation {
        self.dir.invocation(words).verb(verb).env("XDG_DATA_HOME", self.dir.file("data-home"))
    }

    /// Boots a machine that checks the records and writes more, kills its monitor at a random moment, and checks the volume.
    /// Returns what the kill met.
    pub fn kill_writer(&mut self, moments: &mut Moments) -> String {
        let before = self.last;
        let (programs, last) = (format!("{}:/programs:ro", self.dir.file("programs").display()), before.to_string());
        let image = image("busybox");
        let options = ["-v", "data:/data", "-v", &programs, &image, "/programs/record_writer", "/data", &last];
        let mut writer = self.verb("run", &options).start();
        moments.wait(&mut writer, before);
        writer.signal(Signal::KILL);
        let killed = writer.finish();
        assert_eq!(killed.status.code(), None, "ended before the kill\n{}", killed.report());
        let text = killed.stdout_text();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        for (line, number) in whole.lines().zip(before + 1..) {
            assert_eq!(line, format!("record {number}"), "{}", killed.report());
            self.last = number;
        }
        let replayed = self.check();
        let journal = if replayed { "the journal was replayed" } else { "the journal was empty" };
        format!("{} records reported, {journal}", if self.last > before { "some" } else { "no" })
    }

    /// Checks a copy of the volume, without a machine: the next machine replays the journal itself. Returns whether there was
    /// something to replay.
    fn check(&self) -> bool {
        let (copy, files) = (self.dir.file("copy.ext4"), self.dir.file("files"));
        let volume = self.dir.file("data-home").join("coracle/volumes/data.ext4");
        succeed(Command::new("cp").arg("--sparse=always").arg(volume).arg(&copy));
        let replay = output(Command::new("e2fsck").args(["-y", "-E", "journal_only"]).arg(&copy));
        let replayed = text(&replay).contains("recovering journal");
        let check = output(Command::new("e2fsck").arg("-fn").arg(&copy));
        assert!(check.status.success(), "not clean: {}\nafter {}", text(&check), text(&replay));
        let _ = fs::remove_dir_all(&files);
        fs::create_dir(&files).expect("the test's directory is writable");
        succeed(Command::new("debugfs").arg("-R").arg(format!("rdump / {}", files.display())).arg(&copy));
        // The directory that the machine has mounted.
        let files = files.join("_data");
        let records = if self.last == 0 { Vec::new() } else { read(&files.join("records")) };
        let size = usize::try_from(WORDS * 8).expect("a record is small");
        for (number, found) in (1..=self.last).zip(records.chunks(size).map(Some).chain(std::iter::repeat(None))) {
            let expected = record(number);
            assert!(found == Some(&expected), "lost: record {number} of {}, which was reported", self.last);
            let is_file = number % FILES == 0;
            assert!(!is_file || read(&files.join(number.to_string())) == expected, "lost: the file {number}");
        }
        replayed
    }
}

fn record(number: u64) -> Vec<u8> {
    (1..=WORDS).flat_map(|place| number.wrapping_mul(place).to_le_bytes()).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("lost: {}: {error}", path.display()))
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

fn succeed(command: &mut Command) {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &output.stderr].concat()).into_owned()
}
