// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first line of a program of the host, `CONNECT PORT\n`, and its answer: what Firecracker and
//! Cloud Hypervisor use. Runs on the event loop of the device.
//!
//! The line is looked at in the socket's buffer and taken out of it when it is complete, so that
//! what follows it waits there.

use super::host::receive;
use rustix::net::RecvFlags;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsFd;

/// `CONNECT`, a space, a port of ten digits, and a line break, with some more spaces.
const MAX_LINE_BYTES: usize = 32;

/// The port that the line names. `WouldBlock` until the line is complete.
pub(super) fn read_connect(socket: impl AsFd) -> Result<u32> {
    let mut bytes = [0; MAX_LINE_BYTES];
    let count = receive(&socket, &mut bytes, RecvFlags::PEEK)?;
    let Some(end) = bytes[..count].iter().position(|byte| *byte == b'\n') else {
        let is_over = count == 0 || count == MAX_LINE_BYTES;
        return Err(if is_over { ErrorKind::InvalidData } else { ErrorKind::WouldBlock }.into());
    };
    receive(&socket, &mut bytes[..=end], RecvFlags::empty())?;
    parse(&bytes[..end]).ok_or_else(|| Error::from(ErrorKind::InvalidData))
}

fn parse(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (Some(verb), Some(port), None) = (words.next(), words.next(), words.next()) else { return None };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|_| verb.eq_ignore_ascii_case("connect") && is_number)
}

/// The answer when the guest has accepted. `port` is that of the host's end.
pub(super) fn accepted(port: u32) -> String {
    format!("OK {port}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn line_names_a_port() {
        for (line, port) in [
            ("CONNECT 5000", Some(5000)),
            ("connect 0\r", Some(0)),
            ("CONNECT 4294967295", Some(u32::MAX)),
            ("CONNECT 4294967296", None),
            ("CONNECT +1", None),
            ("CONNECT -1", None),
            ("CONNECT", None),
            ("CONNECT 1 2", None),
            ("GET / HTTP/1.1", None),
            ("", None),
        ] {
            assert_eq!(parse(line.as_bytes()), port, "{line}");
        }
        assert_eq!(parse(b"CONNECT \xff"), None);
    }

    #[test]
    fn line_may_come_in_parts_and_what_follows_it_stays() {
        let (socket, mut client) = UnixStream::pair().unwrap();
        let kind = |result: Result<u32>| result.unwrap_err().kind();
        assert_eq!(kind(read_connect(&socket)), ErrorKind::WouldBlock);
        client.write_all(b"CONNECT 50").unwrap();
        assert_eq!(kind(read_connect(&socket)), ErrorKind::WouldBlock);
        client.write_all(b"00\nmore").unwrap();
        assert_eq!(read_connect(&socket).unwrap(), 5000);
        let mut rest = [0; 4];
        (&socket).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"more");
    }

    #[test]
    fn long_line_and_end_of_input_are_invalid() {
        let (socket, mut client) = UnixStream::pair().unwrap();
        client.write_all(&[b'x'; MAX_LINE_BYTES]).unwrap();
        assert_eq!(read_connect(&socket).unwrap_err().kind(), ErrorKind::InvalidData);
        let (socket, _) = UnixStream::pair().unwrap();
        assert_eq!(read_connect(&socket).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
