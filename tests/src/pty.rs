// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A pseudoterminal for the binary.

use crate::capture::Capture;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Both ends of a pseudoterminal. The test writes and reads through the controller.
pub struct Pty {
    controller: File,
    terminal: OwnedFd,
    screen: Capture,
}

impl Pty {
    #[must_use]
    pub fn open(rows: u16, columns: u16) -> Pty {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).expect("/dev/ptmx opens");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("a new terminal can be unlocked");
        let name = ptsname(&controller, Vec::new()).expect("a terminal has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name, flags, Mode::empty()).expect("a new terminal opens");
        let controller = File::from(controller);
        let screen = Capture::start(controller.try_clone().expect("a descriptor can be copied"));
        let pty = Pty { controller, terminal, screen };
        pty.resize(rows, columns);
        pty
    }

    /// Changes the size; the foreground process group gets WINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.controller, size).expect("a terminal has a size");
    }

    /// The terminal as a standard stream of the binary.
    #[must_use]
    pub fn terminal(&self) -> File {
        self.terminal.try_clone().expect("a descriptor can be copied").into()
    }

    pub fn type_text(&mut self, text: &str) {
        self.controller.write_all(text.as_bytes()).expect("a terminal takes input");
    }

    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.bytes()).into_owned()
    }

    /// Waits until `text` is on the screen; fails the test if it does not come.
    pub fn wait_for(&self, text: &str) {
        let seen = self.screen.wait_for(text.as_bytes(), Duration::from_secs(600));
        assert!(seen, "`{text}` did not come. The screen:\n{}", self.screen());
    }

    /// Its modes, to be compared.
    #[must_use]
    pub fn modes(&self) -> String {
        format!("{:?}", tcgetattr(&self.terminal).expect("it is a terminal"))
    }
}
