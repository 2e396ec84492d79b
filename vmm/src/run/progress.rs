// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far work on images and kernels is, for a person who waits: on a terminal one line with a bar, gone when the work is done, so
//! that the terminal is the workload's; elsewhere a plain line now and then, but only of what takes long. `--log-level error` and
//! `off` silence both. Runs on the thread that prepares the machine, and is cleared by whoever else writes to stderr.

use crate::host::terminal::window_size;
use oci_image::Progress;
use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two changes of the line; what is quicker than this is not shown at all.
const INTERVAL: Duration = Duration::from_millis(200);
/// The same for plain lines, which stay.
const PLAIN_INTERVAL: Duration = Duration::from_secs(60);
/// Characters of a terminal that does not know its size.
const COLUMNS: u16 = 80;
/// Characters of a bar, if there is room for so many; one of less than the second is not drawn.
const BAR: usize = 30;
const SHORTEST_BAR: usize = 8;
const ERASE: &str = "\r\x1b[K";

/// What is on the terminal.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Line,
    /// Nothing, and nothing more may come: the process ends while the work goes on.
    Over,
}

static SHOWN: Mutex<Shown> = Mutex::new(Shown::Nothing);

/// Says how far it is.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    /// `None` if nothing is to be said.
    interval: Option<Duration>,
    terminal: bool,
    last: Cell<Instant>,
}

impl ProgressLine {
    /// For work that begins now.
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let interval = if terminal { INTERVAL } else { PLAIN_INTERVAL };
        let wanted = log::max_level() >= log::LevelFilter::Warn;
        Self { interval: wanted.then_some(interval), terminal, last: Cell::new(Instant::now()) }
    }

    /// An image's conversion has come to `step`.
    pub(crate) fn show_image(&self, step: Progress) {
        match step {
            // Nothing more is heard until the wait is over.
            Progress::Waiting if self.terminal => {
                self.put("waiting for another coracle that converts this image", None)
            }
            Progress::Waiting => {}
            Progress::Layers { number, count, bytes, total } => {
                let what = format!("converting the image, layer {number} of {count}");
                self.show(&what, total.map(|total| (bytes, total)));
            }
            Progress::Writing { bytes, total } => self.show("writing the image's root disk", Some((bytes, total))),
        }
    }

    /// Work has done so many bytes of so many, if both are known.
    pub(crate) fn show(&self, what: &str, done: Option<(u64, u64)>) {
        if self.interval.is_some_and(|interval| self.last.get().elapsed() >= interval) {
            self.put(what, done);
        }
    }

    fn put(&self, what: &str, done: Option<(u64, u64)>) {
        if self.interval.is_none() {
            return;
        }
        self.last.set(Instant::now());
        if !self.terminal {
            return super::failure::say(&plain(what, done));
        }
        let columns = window_size(std::io::stderr()).ok().map(|size| size.columns).filter(|&columns| columns > 0);
        let line = with_bar(what, done, columns.unwrap_or(COLUMNS).into());
        let mut shown = shown();
        if *shown != Shown::Over {
            *shown = Shown::Line;
            write(&format!("{ERASE}{line}"));
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        clear();
    }
}

/// Takes the line away, if there is one; work that goes on draws it again.
pub(crate) fn clear() {
    let mut shown = shown();
    if *shown == Shown::Line {
        *shown = Shown::Nothing;
        write(ERASE);
    }
}

/// Takes the line away for good.
pub(crate) fn end() {
    clear();
    *shown() = Shown::Over;
}

fn shown() -> MutexGuard<'static, Shown> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(text: &str) {
    // Whoever closed stderr does not want to read it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// For those who cannot see a line change.
fn plain(what: &str, done: Option<(u64, u64)>) -> String {
    done.map_or_else(|| what.to_owned(), |(bytes, total)| format!("{what}: {}", of(bytes, total)))
}

/// One line of at most `columns` characters, with a bar if it has room.
fn with_bar(what: &str, done: Option<(u64, u64)>, columns: usize) -> String {
    let words = format!("coracle: {what}");
    let Some((bytes, total)) = done else { return cut(words, columns) };
    let numbers = of(bytes, total);
    // Two blanks, two brackets, and one column that stays free: a full line would move the cursor.
    let room = columns.saturating_sub(words.len() + numbers.len() + 5).min(BAR);
    if room < SHORTEST_BAR {
        return cut(format!("{words} {numbers}"), columns);
    }
    let full = u64::try_from(room).unwrap_or_default() * bytes.min(total) / total.max(1);
    let full = usize::try_from(full).unwrap_or(room);
    format!("{words} [{}{}] {numbers}", "#".repeat(full), "-".repeat(room - full))
}

fn of(bytes: u64, total: u64) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{:.1} of {:.1} MiB", mebibytes(bytes), mebibytes(total))
}

fn cut(mut line: String, columns: usize) -> String {
    // What is said here is ASCII, so that a byte is a column.
    line.truncate(columns.saturating_sub(1));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done_and_fits_the_terminal() {
        let bar = |bytes, columns| with_bar("unpacking", Some((bytes, 40 * MIB)), columns);
        let full = |line: &str| line.matches('#').count();
        assert_eq!(
            bar(10 * MIB, 80),
            format!("coracle: unpacking [{}{}] 10.0 of 40.0 MiB", "#".repeat(7), "-".repeat(23))
        );
        assert_eq!((full(&bar(0, 80)), full(&bar(40 * MIB, 80)), full(&bar(99 * MIB, 80))), (0, BAR, BAR));
        for columns in 0..100 {
            assert!(bar(39 * MIB, columns).len() < columns.max(1), "{columns}");
        }
        assert_eq!(bar(MIB, 45), "coracle: unpacking 1.0 of 40.0 MiB");
        assert_eq!(bar(MIB, 20), "coracle: unpacking ");
    }

    #[test]
    fn work_of_unknown_or_no_size_has_no_bar_to_fill() {
        assert_eq!(with_bar("waiting", None, 80), "coracle: waiting");
        assert_eq!(with_bar("writing", Some((0, 0)), 80).matches('#').count(), 0);
        assert_eq!(plain("waiting", None), "waiting");
        assert_eq!(plain("writing", Some((MIB / 2, MIB))), "writing: 0.5 of 1.0 MiB");
    }
}
