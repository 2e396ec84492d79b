// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Host descriptors of each type: none blocks, and no open file that is shared is changed.

use super::*;
use crate::testing::{Buffer, Driver};
use crate::turn::Turn;
use crate::virtio::queue::Served;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::io::{Read, Write, pipe};

/// Sends `length` bytes, and returns how many `stream` accepted before it would have blocked.
fn write_until_full(stream: &HostStream, length: usize) -> usize {
    let mut driver = Driver::new(&[8]);
    let mut queue = driver.virtqueue(0, 0);
    driver.offer(0, &[Buffer::Readable(&vec![0; length])]);
    let mut taken = 0;
    queue.serve(&mut Turn::unlimited(), |chain| {
        loop {
            match stream.write(&mut chain.readable) {
                Ok(count) => taken += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return Served::Later;
                }
            }
        }
    });
    taken
}

#[test]
fn pipe_that_cannot_be_reopened_is_filled_without_blocking() {
    let (_reader, writer) = pipe().unwrap();
    let stream = HostStream { descriptor: writer.into(), channel: Channel::Stream, max_bytes: Some(MAX_PIPE_BYTES) };
    assert_eq!(write_until_full(&stream, 200_000), 65536);
}

#[test]
fn pipes_are_reopened_and_sockets_are_used_unchanged() {
    let (reader, writer) = pipe().unwrap();
    let stream = HostStream::for_writing(writer.into()).unwrap();
    assert!(stream.max_bytes.is_none());
    assert!(fcntl_getfl(&stream.descriptor).unwrap().contains(OFlags::NONBLOCK));
    assert_eq!(write_until_full(&stream, 200_000), 65536);
    assert!(HostStream::for_reading(reader.into()).unwrap().max_bytes.is_none());
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let stream = HostStream::for_writing(socket.into()).unwrap();
    assert_eq!((stream.channel, stream.max_bytes), (Channel::Socket, None));
    assert!(!fcntl_getfl(&stream.descriptor).unwrap().contains(OFlags::NONBLOCK));
    assert!(write_until_full(&stream, 1_000_000) > 0);
}

/// A terminal: its master, and the end that programs use.
fn terminal() -> (std::fs::File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let terminal = open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (master.into(), terminal)
}

#[test]
fn terminal_without_a_reader_is_filled_without_blocking() {
    for step in [None, Some(MAX_TERMINAL_BYTES)] {
        let (mut master, terminal) = terminal();
        let original = terminal.try_clone().unwrap();
        let stream = match step {
            None => HostStream::for_writing(terminal).unwrap(),
            Some(_) => HostStream { descriptor: terminal, channel: Channel::Stream, max_bytes: step },
        };
        assert_eq!(stream.max_bytes, step);
        let taken = write_until_full(&stream, 200_000);
        assert!((1..200_000).contains(&taken), "{taken}");
        let mut shown = vec![0xff; taken];
        master.read_exact(&mut shown).unwrap();
        assert!(shown.iter().all(|&byte| byte == 0));
        assert!(!fcntl_getfl(&original).unwrap().contains(OFlags::NONBLOCK));
    }
}

#[test]
fn terminal_is_read_and_does_not_block_without_input() {
    for step in [None, Some(MAX_TERMINAL_BYTES)] {
        let (mut master, terminal) = terminal();
        let stream = match step {
            None => HostStream::for_reading(terminal).unwrap(),
            Some(_) => HostStream { descriptor: terminal, channel: Channel::Stream, max_bytes: step },
        };
        let mut driver = Driver::new(&[8]);
        let mut queue = driver.virtqueue(0, 0);
        let offered = driver.offer(0, &[Buffer::Writable(64)]);
        let mut read = || {
            let mut result = None;
            queue.serve(&mut Turn::unlimited(), |chain| {
                result = Some(stream.read(&mut chain.writable));
                Served::Later
            });
            result.unwrap()
        };
        assert_eq!(read().unwrap_err().kind(), ErrorKind::WouldBlock);
        master.write_all(b"ls\n").unwrap();
        assert_eq!(read().unwrap(), 3);
        assert_eq!(driver.contents(&offered, 0)[..3], *b"ls\n");
    }
}

#[test]
fn terminal_master_is_not_reopened() {
    let (master, _terminal) = terminal();
    let stream = HostStream::for_writing(master.into()).unwrap();
    assert_eq!(stream.max_bytes, Some(MAX_TERMINAL_BYTES));
}

#[test]
fn pipe_without_a_reader_returns_broken_pipe() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let stream = HostStream::for_writing(writer.into()).unwrap();
    let mut driver = Driver::new(&[8]);
    let mut queue = driver.virtqueue(0, 0);
    driver.offer(0, &[Buffer::Readable(b"x")]);
    queue.serve(&mut Turn::unlimited(), |chain| {
        assert_eq!(stream.write(&mut chain.readable).unwrap_err().kind(), ErrorKind::BrokenPipe);
        Served::Done(0)
    });
    assert!(driver.returned(0).is_some());
}
