// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far an image's conversion is, for a person who waits: one line on a terminal that is gone when it is done. Runs on
//! the thread that prepares the machine.

use oci_image::Progress;
use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two changes of the line; what is quicker than this is not shown at all.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line. Nothing is shown where stderr is no terminal.
#[derive(Debug)]
pub(super) struct ProgressLine {
    terminal: bool,
    last: Cell<Instant>,
    layer: Cell<(usize, usize)>,
    shown: Cell<bool>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, last: Cell::new(Instant::now()), layer: Cell::new((0, 0)), shown: Cell::new(false) }
    }

    pub(super) fn hear(&self, progress: Progress) {
        if let Progress::Layer { number, count } = progress {
            self.layer.set((number, count));
        }
        if !self.terminal || self.last.get().elapsed() < INTERVAL {
            return;
        }
        let (number, count) = self.layer.get();
        let text = match progress {
            Progress::Waiting => "waiting for another coracle that converts this image".to_owned(),
            Progress::Layer { .. } => format!("converting the image: layer {number} of {count}"),
            Progress::Merged { bytes } => {
                format!("converting the image: layer {number} of {count}, {} MiB", bytes >> 20)
            }
            Progress::Writing { bytes, total } => {
                format!("converting the image: writing, {} of {} MiB", bytes >> 20, total >> 20)
            }
        };
        self.last.set(Instant::now());
        self.shown.set(true);
        self.put(&format!("\r\x1b[Kcoracle: {text}"));
    }

    fn put(&self, text: &str) {
        // Whoever closed stderr does not want to read it.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown.get() {
            self.put("\r\x1b[K");
        }
    }
}
