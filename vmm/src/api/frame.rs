// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What travels between a client and `coracle` after an upgrade for exec or attach: docker's frames, in both directions; and
//! from `coracle` where logs are read. Eight bytes, `[stream, 0, 0, 0, length]` with the length in big-endian order, then the bytes.
//!
//! | stream | from | holds |
//! |---|---|---|
//! | 0 | the client | standard input; a frame without bytes ends it |
//! | 1, 2 | coracle | standard output, standard error |
//! | 3 | the client | [`Control`]: one JSON object |
//! | 3 | coracle | [`Over`]: one JSON object, the last frame |
//!
//! Docker has the third stream for errors of its own, and separate requests for what [`Control`] and [`Over`] say. Here one
//! connection holds all of it, in order, and its end is the client's end.

use guest_protocol::run_spec::WindowSize;
use serde::{Deserialize, Serialize};

/// What such a stream is called.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.docker.multiplexed-stream";
/// Bytes in front of each frame.
pub(crate) const HEADER: usize = 8;
/// Longest frame of a client.
pub(crate) const LONGEST: usize = 64 << 10;
/// Standard input.
pub(crate) const STDIN: u8 = 0;
/// Standard output.
pub(crate) const STDOUT: u8 = 1;
/// Standard error.
pub(crate) const STDERR: u8 = 2;
/// What is about the process.
pub(crate) const CONTROL: u8 = 3;
/// Highest signal number.
const SIGRTMAX: u8 = 64;

/// From a client, about the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Control {
    /// Send it this signal number.
    Signal(u8),
    /// Its terminal has a new size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
}

/// A client's frame, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FromClient {
    /// Standard input; nothing is its end.
    Input(Vec<u8>),
    /// Send this signal, from 1 to 64.
    Signal(u8),
    /// The terminal has a new size.
    Resize(WindowSize),
}

/// The last word to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Over {
    /// Exit status, 128 + n after signal n.
    pub(crate) status: u8,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<u8>,
    /// What else there is to say, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// `bytes` as one frame.
#[must_use]
pub(crate) fn encode(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("frames are made of pieces that are read at once");
    let mut frame = Vec::with_capacity(HEADER + bytes.len());
    frame.extend_from_slice(&[stream, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// `message` as one frame.
#[must_use]
pub(crate) fn encode_json(message: &impl Serialize) -> Vec<u8> {
    encode(CONTROL, &serde_json::to_vec(message).expect("messages are plain data"))
}

/// A client sends what is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes; {LONGEST} are allowed")]
pub(crate) struct FrameTooLong(usize);

/// What arrived is nothing that a client may send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFrameError {
    /// It is too long.
    #[error(transparent)]
    TooLong(#[from] FrameTooLong),
    /// Its stream is `coracle`'s.
    #[error("stream {0} is not for clients")]
    Stream(u8),
    /// It should be a [`Control`].
    #[error("not a control message")]
    Control(#[from] serde_json::Error),
    /// There is no such signal.
    #[error("signal {0} is not from 1 to {SIGRTMAX}")]
    Signal(u8),
}

/// Collects bytes and gives out whole frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Adds bytes that arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame: its stream and its bytes.
    ///
    /// # Errors
    /// It is too long, and the connection is of no more use.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, FrameTooLong> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > LONGEST {
            return Err(FrameTooLong(length));
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        let stream = header[0];
        let frame = self.bytes[HEADER..HEADER + length].to_vec();
        self.bytes.drain(..HEADER + length);
        Ok(Some((stream, frame)))
    }

    /// The next whole frame of a client.
    ///
    /// # Errors
    /// It is none, and the connection is of no more use.
    pub(crate) fn next_from_client(&mut self) -> Result<Option<FromClient>, ClientFrameError> {
        let Some((stream, bytes)) = self.next_frame()? else { return Ok(None) };
        let decoded = match stream {
            STDIN => FromClient::Input(bytes),
            CONTROL => match serde_json::from_slice(&bytes)? {
                Control::Signal(signal @ 1..=SIGRTMAX) => FromClient::Signal(signal),
                Control::Signal(signal) => return Err(ClientFrameError::Signal(signal)),
                Control::Resize { rows, columns } => FromClient::Resize(WindowSize { rows, columns }),
            },
            other => return Err(ClientFrameError::Stream(other)),
        };
        Ok(Some(decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_however_the_stream_is_cut() {
        let mut bytes = encode(STDOUT, b"hello");
        bytes.extend(encode(STDIN, b""));
        bytes.extend(encode_json(&Control::Signal(15)));
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for byte in bytes {
            frames.push(&[byte]);
            seen.extend(frames.next_frame().unwrap());
        }
        let expected = [(STDOUT, b"hello".to_vec()), (STDIN, vec![]), (CONTROL, br#"{"signal":15}"#.to_vec())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_layout_is_dockers() {
        assert_eq!(encode(STDERR, b"x"), [2, 0, 0, 0, 0, 0, 0, 1, b'x']);
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_it_comes() {
        let mut frames = Frames::default();
        frames.push(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.next_frame(), Err(FrameTooLong(u32::MAX as usize)));
    }

    #[test]
    fn a_client_may_send_input_signals_and_sizes() {
        let decoded = |bytes: Vec<u8>| {
            let mut frames = Frames::default();
            frames.push(&bytes);
            frames.next_from_client().map_err(|error| error.to_string())
        };
        let control = |message| decoded(encode_json(&message));
        assert_eq!(decoded(encode(STDIN, b"x")), Ok(Some(FromClient::Input(b"x".to_vec()))));
        assert_eq!(control(Control::Signal(64)), Ok(Some(FromClient::Signal(64))));
        let size = WindowSize { rows: 24, columns: 80 };
        assert_eq!(control(Control::Resize { rows: 24, columns: 80 }), Ok(Some(FromClient::Resize(size))));
        assert_eq!(decoded(Vec::new()), Ok(None));
        assert_eq!(control(Control::Signal(0)), Err("signal 0 is not from 1 to 64".to_owned()));
        assert_eq!(control(Control::Signal(65)), Err("signal 65 is not from 1 to 64".to_owned()));
        assert_eq!(decoded(encode(STDOUT, b"x")), Err("stream 1 is not for clients".to_owned()));
        assert_eq!(decoded(encode(CONTROL, b"{}")), Err("not a control message".to_owned()));
    }

    #[test]
    fn what_is_said_about_a_process_reads_as_json() {
        let resize = Control::Resize { rows: 24, columns: 80 };
        assert_eq!(serde_json::to_string(&resize).unwrap(), r#"{"resize":{"rows":24,"columns":80}}"#);
        let over = Over { status: 3, signal: None, message: None };
        assert_eq!(serde_json::to_string(&over).unwrap(), r#"{"status":3}"#);
    }
}
