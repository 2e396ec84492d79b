// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`], on a pseudoterminal.

use super::*;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcsetwinsize};

/// Both ends of a new pseudoterminal; the second is the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outer = openpt(flags).unwrap();
    unlockpt(&outer).unwrap();
    let inner = ioctl_tiocgptpeer(&outer, flags).unwrap();
    (outer, inner)
}

fn is_raw(terminal: &OwnedFd) -> bool {
    !tcgetattr(terminal).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
}

#[test]
fn a_terminal_is_raw_until_the_value_is_dropped() {
    let (_outer, inner) = terminal();
    let raw = RawTerminal::enter(&inner).unwrap();
    assert!(is_raw(&inner));
    drop(raw);
    assert!(!is_raw(&inner));
}

#[test]
fn a_panic_restores_the_terminal() {
    let (_outer, inner) = terminal();
    let panicked = std::panic::catch_unwind(|| {
        let _raw = RawTerminal::enter(&inner).unwrap();
        assert!(!is_raw(&inner), "it is raw");
    });
    assert!(panicked.is_err() && !is_raw(&inner));
}

#[test]
fn reapply_keeps_the_original_modes() {
    let (_outer, inner) = terminal();
    let raw = RawTerminal::enter(&inner).unwrap();
    tcsetattr(&inner, OptionalActions::Now, &raw.before).unwrap();
    raw.reapply().unwrap();
    assert!(is_raw(&inner));
    drop(raw);
    assert!(!is_raw(&inner));
}

#[test]
fn window_size_is_rows_by_columns() {
    let (outer, inner) = terminal();
    tcsetwinsize(&outer, Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    assert_eq!(window_size(&inner).unwrap(), WindowSize { rows: 50, columns: 132 });
}

#[test]
fn a_file_is_not_a_terminal() {
    let file = tempfile::tempfile().unwrap();
    assert!(RawTerminal::enter(&file).is_err());
    assert!(window_size(&file).is_err());
}
