// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The user's terminal: in raw mode while the guest has a terminal (`-t`), and restored afterwards. Runs on `main`.
//!
//! `drop` restores it, after a panic, too. Only SIGKILL can end the process in between, because [`super::signals`] blocks the other
//! signals.

use super::system_error::{Cannot as _, SystemError};
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
    /// Puts `terminal` into raw mode: every byte is passed on, and no key sends a signal.
    ///
    /// # Errors
    /// It is not a terminal.
    pub(crate) fn enter(terminal: impl AsFd) -> Result<Self, SystemError> {
        Self::try_enter(terminal).cannot("set the terminal to raw mode")
    }

    fn try_enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let entered = Self { terminal, before };
        entered.reapply()?;
        Ok(entered)
    }

    /// Sets raw mode again after CONT: the shell that stopped this process has restored its own modes.
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
        // Without waiting for output, which a user may have stopped. A terminal that is gone has no modes.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Size of `terminal` in characters.
///
/// # Errors
/// It is not a terminal.
pub(crate) fn window_size(terminal: impl AsFd) -> io::Result<WindowSize> {
    let size = tcgetwinsize(terminal)?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

#[must_use]
pub(crate) fn is_terminal(file: impl AsFd) -> bool {
    isatty(file)
}

/// Size of the first standard stream that is a terminal with a size; else 24 rows by 80 columns.
#[must_use]
pub(crate) fn standard_window_size() -> WindowSize {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let known = streams.into_iter().filter_map(|stream| window_size(stream).ok());
    known.into_iter().find(|size| size.rows > 0 && size.columns > 0).unwrap_or(WindowSize { rows: 24, columns: 80 })
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
