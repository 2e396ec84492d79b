// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;

#[test]
fn a_blocked_signal_is_read_once() {
    let signals = Signals::block().unwrap();
    assert_eq!(signals.read(), None);
    raise(libc::SIGUSR1);
    raise(libc::SIGWINCH);
    let mut read = [signals.read(), signals.read()];
    read.sort_unstable();
    assert_eq!(read, [Some(libc::SIGUSR1), Some(libc::SIGWINCH)]);
    assert_eq!(signals.read(), None);
}

#[test]
fn signals_that_do_not_end_a_run_stay_pending() {
    let signals = Signals::block().unwrap();
    let ending = signals.ending().unwrap();
    raise(libc::SIGUSR2);
    raise(libc::SIGTERM);
    assert_eq!((ending.read(), ending.read()), (Some(libc::SIGTERM), None));
    assert_eq!((signals.read(), signals.read()), (Some(libc::SIGUSR2), None));
}
