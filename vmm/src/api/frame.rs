// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The framing of `exec`, `attach` and `logs`: docker's multiplexed streams. A frame is a header of
//! eight bytes, `[stream, 0, 0, 0, length]` with the length in big-endian order, and the payload.
//!
//! | stream | from | payload |
//! |---|---|---|
//! | 0 | client | standard input; an empty payload is its end |
//! | 1, 2 | coracle | standard output, standard error |
//! | 3 | client | [`ControlMessage`], one JSON object |
//! | 3 | coracle | [`Exit`], one JSON object, the last frame |
//!
//! Docker uses stream 3 for its own errors, and separate requests for signals, sizes and the exit
//! status. Here one connection carries all of them, in order, and its end is the client's end.
//! `events` and `stats` are lines of JSON in the same kind of channel.

use guest_protocol::run_spec::WindowSize;
use serde::{Deserialize, Serialize};

/// Media type of a stream of frames.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.docker.multiplexed-stream";
pub(crate) const HEADER_SIZE: usize = 8;
/// Bound of the payload of a frame that is read.
pub(crate) const MAX_PAYLOAD_SIZE: usize = 64 << 10;
pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
const CONTROL: u8 = 3;
const MAX_SIGNAL: u8 = 64;

/// From a client, about its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum ControlMessage {
    /// Deliver this signal number.
    Signal(u8),
    /// New size of the terminal.
    Resize { rows: u16, columns: u16 },
}

/// A client's frame, decoded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientFrame {
    /// Standard input; empty at its end.
    Input(Vec<u8>),
    /// From 1 to 64.
    Signal(u8),
    Resize(WindowSize),
}

/// The last frame to a client: how its process ended, or why it gets no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Exit status, 128 + n after signal n.
    pub(crate) status: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<u8>,
    /// For the user, one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

#[must_use]
pub(crate) fn encode(stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are read from buffers far below 4 GiB");
    let mut frame = Vec::with_capacity(HEADER_SIZE + payload.len());
    frame.extend_from_slice(&[stream, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Encodes a [`ControlMessage`] or an [`Exit`].
#[must_use]
pub(crate) fn encode_json(message: &impl Serialize) -> Vec<u8> {
    encode(CONTROL, &serde_json::to_vec(message).expect("messages are plain data"))
}

/// The connection cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {0} bytes exceeds the limit of {MAX_PAYLOAD_SIZE}")]
pub(crate) struct FrameTooLong(usize);

/// A frame that a client must not send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFrameError {
    #[error(transparent)]
    TooLong(#[from] FrameTooLong),
    #[error("stream {0} is not for clients")]
    Stream(u8),
    #[error("invalid control message")]
    Control(#[from] serde_json::Error),
    #[error("signal {0} is not from 1 to {MAX_SIGNAL}")]
    Signal(u8),
}

/// Assembles frames from the bytes of a connection.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
}

impl FrameReader {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.start));
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the stream and the payload of the next complete frame.
    ///
    /// # Errors
    /// The frame is too long.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, FrameTooLong> {
        let rest = &self.bytes[self.start..];
        let Some(header) = rest.first_chunk::<HEADER_SIZE>() else { return Ok(None) };
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > MAX_PAYLOAD_SIZE {
            return Err(FrameTooLong(length));
        }
        let Some(payload) = rest[HEADER_SIZE..].get(..length) else { return Ok(None) };
        let frame = (header[0], payload.to_vec());
        self.start += HEADER_SIZE + length;
        Ok(Some(frame))
    }

    /// Returns the next complete frame of a client.
    ///
    /// # Errors
    /// The frame is invalid, and the connection cannot be read further.
    pub(crate) fn next_client_frame(&mut self) -> Result<Option<ClientFrame>, ClientFrameError> {
        let Some((stream, payload)) = self.next_frame()? else { return Ok(None) };
        let frame = match stream {
            STDIN => ClientFrame::Input(payload),
            CONTROL => match serde_json::from_slice(&payload)? {
                ControlMessage::Signal(signal @ 1..=MAX_SIGNAL) => ClientFrame::Signal(signal),
                ControlMessage::Signal(signal) => return Err(ClientFrameError::Signal(signal)),
                ControlMessage::Resize { rows, columns } => ClientFrame::Resize(WindowSize { rows, columns }),
            },
            other => return Err(ClientFrameError::Stream(other)),
        };
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_however_the_stream_is_cut() {
        let mut bytes = encode(STDOUT, b"hello");
        bytes.extend(encode(STDIN, b""));
        bytes.extend(encode_json(&ControlMessage::Signal(15)));
        let expected = [(STDOUT, b"hello".to_vec()), (STDIN, vec![]), (CONTROL, br#"{"signal":15}"#.to_vec())];
        for size in [1, 5, bytes.len()] {
            let (mut frames, mut seen) = (FrameReader::default(), Vec::new());
            for part in bytes.chunks(size) {
                frames.push(part);
                while let Some(frame) = frames.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn frame_layout_is_that_of_docker() {
        assert_eq!(encode(STDERR, b"x"), [2, 0, 0, 0, 0, 0, 0, 1, b'x']);
    }

    #[test]
    fn frame_above_the_limit_is_rejected_by_its_header() {
        let mut frames = FrameReader::default();
        frames.push(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.next_frame(), Err(FrameTooLong(u32::MAX as usize)));
    }

    #[test]
    fn client_frames_are_input_signals_and_sizes() {
        let decoded = |bytes: Vec<u8>| {
            let mut frames = FrameReader::default();
            frames.push(&bytes);
            frames.next_client_frame().map_err(|error| error.to_string())
        };
        let control = |message| decoded(encode_json(&message));
        assert_eq!(decoded(encode(STDIN, b"x")), Ok(Some(ClientFrame::Input(b"x".to_vec()))));
        assert_eq!(control(ControlMessage::Signal(64)), Ok(Some(ClientFrame::Signal(64))));
        let size = WindowSize { rows: 24, columns: 80 };
        assert_eq!(control(ControlMessage::Resize { rows: 24, columns: 80 }), Ok(Some(ClientFrame::Resize(size))));
        assert_eq!(decoded(Vec::new()), Ok(None));
        assert_eq!(control(ControlMessage::Signal(0)), Err("signal 0 is not from 1 to 64".to_owned()));
        assert_eq!(control(ControlMessage::Signal(65)), Err("signal 65 is not from 1 to 64".to_owned()));
        assert_eq!(decoded(encode(STDOUT, b"x")), Err("stream 1 is not for clients".to_owned()));
        assert_eq!(decoded(encode(CONTROL, b"{}")), Err("invalid control message".to_owned()));
    }

    #[test]
    fn control_messages_and_exits_are_json() {
        let resize = ControlMessage::Resize { rows: 24, columns: 80 };
        assert_eq!(serde_json::to_string(&resize).unwrap(), r#"{"resize":{"rows":24,"columns":80}}"#);
        let exit = Exit { status: 3, signal: None, message: None };
        assert_eq!(serde_json::to_string(&exit).unwrap(), r#"{"status":3}"#);
    }
}
