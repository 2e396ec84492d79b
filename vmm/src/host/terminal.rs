// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The terminal of the user: raw while the guest's terminal does the work (`-t`), and given back as it was. Runs on
//! `main`.
//!
//! Restoring hangs on `drop`, which unwinding reaches too. No signal ends the process in between but KILL, because
//! [`super::signals`] blocks the others.

use guest_protocol::run_spec::WindowSize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A terminal in raw mode.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Makes `terminal` raw: every byte goes through as it is, and no key makes a signal.
    ///
    /// # Errors
    /// It is no terminal.
    pub(crate) fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let entered = Self { terminal, before };
        entered.reapply()?;
        Ok(entered)
    }

    /// Makes it raw again, after somebody else may have had it (CONT: a shell that had stopped this process has restored
    /// its own modes).
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn reapply(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        Ok(tcsetattr(&self.terminal, OptionalActions::Now, &raw)?)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Without waiting for the output: somebody may have stopped it. A terminal that is gone has no modes.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Size of `terminal` in characters.
///
/// # Errors
/// It is no terminal.
pub(crate) fn window_size(terminal: impl AsFd) -> io::Result<WindowSize> {
    let size = tcgetwinsize(terminal)?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Whether `file` is a terminal.
#[must_use]
pub(crate) fn is_terminal(file: impl AsFd) -> bool {
    isatty(file)
}

/// Size of the first of the standard streams that is a terminal and knows it; else that of a terminal of old.
#[must_use]
pub(crate) fn standard_window_size() -> WindowSize {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let known = streams.into_iter().filter_map(|stream| window_size(stream).ok());
    known.into_iter().find(|size| size.rows > 0 && size.columns > 0).unwrap_or(WindowSize { rows: 24, columns: 80 })
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
