// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;

fn number(received: Option<ReceivedSignal>) -> Option<i32> {
    received.map(|received| received.number.into())
}

#[test]
fn a_blocked_signal_is_read_once() {
    let signals = Signals::block().unwrap();
    assert_eq!(signals.read(), None);
    raise(libc::SIGUSR1);
    raise(libc::SIGWINCH);
    let mut read = [(); 2].map(|()| number(signals.read()));
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
    assert_eq!((number(ending.read()), ending.read()), (Some(libc::SIGTERM), None));
    assert_eq!((number(signals.read()), signals.read()), (Some(libc::SIGUSR2), None));
}

/// Every number but KILL, STOP, those with a handler.
#[test]
fn every_blocked_signal_is_read_in_the_name_of_its_sender() {
    let signals = Signals::block().unwrap();
    let unblocked = |number: &i32| NOT_BLOCKED.contains(number) || OF_THE_C_LIBRARY.contains(number);
    for sent in (1..=64).filter(|sent| !unblocked(sent)) {
        raise(sent);
        let expected = ReceivedSignal { number: sent as u8, by_kernel: false };
        assert_eq!((signals.read(), signals.read()), (Some(expected), None), "signal {sent}");
    }
}

/// Each row: number, code, whether this process is the sender, value; what is read.
#[test]
fn own_signals_are_not_read() {
    let signals = Signals::block().unwrap();
    let process = |number, by_kernel| Some(ReceivedSignal { number, by_kernel });
    let table = [
        (libc::SIGPIPE, libc::SI_USER, true, 0, None),
        (libc::SIGPIPE, libc::SI_USER, false, 0, process(13, false)),
        (libc::SIGXFSZ, libc::SI_USER, true, 0, None),
        (libc::SIGCHLD, libc::CLD_EXITED, false, 0, None),
        (libc::SIGCHLD, libc::SI_USER, false, 0, process(17, false)),
        (libc::SIGWINCH, libc::SI_KERNEL, false, 0, process(28, true)),
        (libc::SIGTSTP, libc::SI_USER, false, 0, process(20, false)),
        (carrier(), libc::SI_QUEUE, true, 21, process(21, false)),
        (carrier(), libc::SI_QUEUE, true, 32, process(32, false)),
        (carrier(), libc::SI_QUEUE, false, 21, process(64, false)),
        (34, libc::SI_TKILL, true, 0, process(34, false)),
    ];
    for (number, code, is_own, value, expected) in table {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let own = if is_own { std::process::id() as i32 } else { 1 };
        for (offset, member) in [
            (offset_of!(libc::signalfd_siginfo, ssi_signo), number),
            (offset_of!(libc::signalfd_siginfo, ssi_code), code),
            (offset_of!(libc::signalfd_siginfo, ssi_pid), own),
            (offset_of!(libc::signalfd_siginfo, ssi_int), value),
        ] {
            info[offset..offset + 4].copy_from_slice(&member.to_ne_bytes());
        }
        assert_eq!(signals.examine(&info), expected, "signal {number}, code {code}");
    }
}
