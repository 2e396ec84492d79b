// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Progress of work on images and kernels. On a terminal: one line with a bar, erased when the work is done, because the
//! terminal belongs to the workload. Elsewhere: a line a minute, only for what takes long. `--log-level error` and `off` silence
//! both. Runs on the thread that prepares the machine, and on those that pull; every other writer to stderr erases the line first.

use super::failure;
use crate::host::terminal::window_size;
use oci_image::Progress;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two updates of the line. Work that is done sooner is not shown at all.
const INTERVAL: Duration = Duration::from_millis(200);
/// Between two lines where they are not erased.
const PLAIN_INTERVAL: Duration = Duration::from_secs(60);
/// Width of a terminal that does not report one.
const DEFAULT_COLUMNS: u16 = 80;
const MAX_BAR_COLUMNS: usize = 30;
/// A shorter bar is not drawn.
const MIN_BAR_COLUMNS: usize = 8;
const ERASE: &str = "\r\x1b[K";

/// What is on the terminal.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Line,
    /// Nothing, for good: the process ends while the work goes on.
    Ended,
}

static SHOWN: Mutex<Shown> = Mutex::new(Shown::Nothing);

/// The progress of one piece of work.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    /// `None` shows nothing.
    interval: Option<Duration>,
    terminal: bool,
    last: Mutex<Instant>,
}

impl ProgressLine {
    /// For work that begins now.
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let interval = if terminal { INTERVAL } else { PLAIN_INTERVAL };
        let wanted = log::max_level() >= log::LevelFilter::Warn;
        Self { interval: wanted.then_some(interval), terminal, last: Mutex::new(Instant::now()) }
    }

    /// Shows the step that an image's conversion has reached.
    pub(crate) fn show_image(&self, step: Progress) {
        match step {
            // At once: there is no second report until the wait is over.
            Progress::Waiting if self.terminal => {
                self.print("waiting for another coracle that converts this image", None)
            }
            Progress::Waiting => {}
            Progress::Layers { number, count, bytes, total } => {
                let what = format!("converting the image, layer {number} of {count}");
                self.show(&what, total.map(|total| (bytes, total)));
            }
            Progress::Writing { bytes, total } => self.show("writing the image's root disk", Some((bytes, total))),
        }
    }

    /// Shows how many bytes of how many are done, if both are known.
    pub(crate) fn show(&self, what: &str, done: Option<(u64, u64)>) {
        let Some(interval) = self.interval else { return };
        let elapsed = self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if elapsed >= interval {
            self.print(what, done);
        }
    }

    fn print(&self, what: &str, done: Option<(u64, u64)>) {
        if self.interval.is_none() {
            return;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if !self.terminal {
            return failure::print_error(&plain(what, done));
        }
        let columns = window_size(std::io::stderr()).ok().map(|size| size.columns).filter(|&columns| columns > 0);
        let line = with_bar(what, done, columns.unwrap_or(DEFAULT_COLUMNS).into());
        let mut shown = shown();
        if *shown != Shown::Ended {
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

/// Erases the line, if there is one; work that goes on draws it again.
pub(crate) fn clear() {
    let mut shown = shown();
    if *shown == Shown::Line {
        *shown = Shown::Nothing;
        write(ERASE);
    }
}

/// Erases the line for good.
pub(crate) fn end() {
    clear();
    *shown() = Shown::Ended;
}

fn shown() -> MutexGuard<'static, Shown> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(text: &str) {
    // A closed stderr is not an error.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn plain(what: &str, done: Option<(u64, u64)>) -> String {
    done.map_or_else(|| what.to_owned(), |(bytes, total)| format!("{what}: {}", amount(bytes, total)))
}

/// One line that fits `columns`, with a bar if there is room for it.
fn with_bar(what: &str, done: Option<(u64, u64)>, columns: usize) -> String {
    let label = format!("coracle: {what}");
    let Some((bytes, total)) = done else { return cut(label, columns) };
    let amount = amount(bytes, total);
    // Two blanks, two brackets, and one free column: a full line would move the cursor.
    let bar = columns.saturating_sub(label.len() + amount.len() + 5).min(MAX_BAR_COLUMNS);
    if bar < MIN_BAR_COLUMNS {
        return cut(format!("{label} {amount}"), columns);
    }
    let full = u64::try_from(bar).unwrap_or_default() * bytes.min(total) / total.max(1);
    let full = usize::try_from(full).unwrap_or(bar);
    format!("{label} [{}{}] {amount}", "#".repeat(full), "-".repeat(bar - full))
}

fn amount(bytes: u64, total: u64) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{:.1} of {:.1} MiB", mebibytes(bytes), mebibytes(total))
}

/// `line` must be ASCII: a byte is a column.
fn cut(mut line: String, columns: usize) -> String {
    line.truncate(columns.saturating_sub(1));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn bar_shows_the_share_done_and_fits_the_terminal() {
        let bar = |bytes, columns| with_bar("unpacking", Some((bytes, 40 * MIB)), columns);
        let full = |line: &str| line.matches('#').count();
        assert_eq!(
            bar(10 * MIB, 80),
            format!("coracle: unpacking [{}{}] 10.0 of 40.0 MiB", "#".repeat(7), "-".repeat(23))
        );
        assert_eq!(
            (full(&bar(0, 80)), full(&bar(40 * MIB, 80)), full(&bar(99 * MIB, 80))),
            (0, MAX_BAR_COLUMNS, MAX_BAR_COLUMNS)
        );
        for columns in 0..100 {
            assert!(bar(39 * MIB, columns).len() < columns.max(1), "{columns}");
        }
        assert_eq!(bar(MIB, 45), "coracle: unpacking 1.0 of 40.0 MiB");
        assert_eq!(bar(MIB, 20), "coracle: unpacking ");
    }

    #[test]
    fn work_of_unknown_size_has_no_bar() {
        assert_eq!(with_bar("waiting", None, 80), "coracle: waiting");
        assert_eq!(with_bar("writing", Some((0, 0)), 80).matches('#').count(), 0);
        assert_eq!(plain("waiting", None), "waiting");
        assert_eq!(plain("writing", Some((MIB / 2, MIB))), "writing: 0.5 of 1.0 MiB");
    }
}
