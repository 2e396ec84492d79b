// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The client's side of `POST /v1/files`: sends files to the process that writes them in a machine, and receives its outcome. Waits, but
//! not for ever: the guest may take nothing.

use super::frame::{self, Exit, FrameReader, FrameTooLong};
use guest_protocol::files::{FileMessage, WriteFailure};
use guest_protocol::protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Bytes of messages that are sent in one frame.
const BATCH_SIZE: usize = 32 << 10;
const READ_BUF_SIZE: usize = 16 << 10;
/// In which the machine has to take something.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a failure, at most. A path has 4 KiB.
const MAX_FAILURE_SIZE: u32 = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileStreamError {
    #[error("connection closed, and the files may not be complete")]
    Closed,
    #[error("connection failed")]
    Connection(#[source] io::Error),
    #[error("the machine has taken nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("invalid frame")]
    Frame(#[from] FrameTooLong),
    #[error("invalid last frame")]
    Exit(#[source] serde_json::Error),
    #[error("{path}: {fault}")]
    Refused { path: String, fault: String },
    /// Of a guest, too, that broke off.
    #[error("{}", .0.message.clone().unwrap_or_else(|| format!("the files are not complete: status {}", .0.status)))]
    Ended(Exit),
}

/// The connection to a process that writes files.
#[derive(Debug)]
pub(crate) struct FileStream {
    socket: UnixStream,
    frames: FrameReader,
    /// Messages that are not sent yet.
    batch: Vec<u8>,
    /// What the process has written.
    output: Vec<u8>,
    exit: Option<Exit>,
    stall_limit: Duration,
}

impl FileStream {
    pub(crate) fn new(channel: BufReader<UnixStream>) -> Result<Self, FileStreamError> {
        let mut frames = FrameReader::default();
        frames.push(channel.buffer());
        let socket = channel.into_inner();
        socket.set_nonblocking(true).map_err(FileStreamError::Connection)?;
        let batch = Vec::with_capacity(2 * BATCH_SIZE);
        Ok(Self { socket, frames, batch, output: Vec::new(), exit: None, stall_limit: STALL_LIMIT })
    }

    /// Sends a message, with others.
    ///
    /// # Errors
    /// The process has failed, or the connection is closed.
    pub(crate) fn send(&mut self, message: &FileMessage) -> Result<(), FileStreamError> {
        self.batch.extend(protocol::encode(message));
        if self.batch.len() < BATCH_SIZE { Ok(()) } else { self.flush() }
    }

    /// Sends the end, and waits until all is written.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub(crate) fn finish(mut self) -> Result<(), FileStreamError> {
        self.send(&FileMessage::End)?;
        self.flush()?;
        self.write(&frame::encode(frame::STDIN, &[]))?;
        while self.exit.is_none() {
            self.wait(PollFlags::IN)?;
            self.read()?;
        }
        self.outcome()
    }

    fn flush(&mut self) -> Result<(), FileStreamError> {
        let batch = std::mem::take(&mut self.batch);
        batch.chunks(BATCH_SIZE).try_for_each(|bytes| self.write(&frame::encode(frame::STDIN, bytes)))
    }

    /// Reads meanwhile: the process may end at any time.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), FileStreamError> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN | PollFlags::OUT)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Its last frame is still to be read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    while self.exit.is_none() {
                        self.wait(PollFlags::IN)?;
                        self.read()?;
                    }
                }
                Err(error) => return Err(FileStreamError::Connection(error)),
            }
            if self.exit.is_none() {
                self.read()?;
            }
            match &self.exit {
                // It ends once it has the last message, which may be before it has the last frame.
                Some(Exit { status: 0, .. }) => return Ok(()),
                Some(_) => return self.outcome(),
                None => {}
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags) -> Result<(), FileStreamError> {
        let limit =
            Timespec::try_from(self.stall_limit).map_err(io::Error::other).map_err(FileStreamError::Connection)?;
        let wait = || poll(&mut [PollFd::new(&self.socket, flags)], Some(&limit));
        match rustix::io::retry_on_intr(wait).map_err(|error| FileStreamError::Connection(error.into()))? {
            0 => Err(FileStreamError::Stalled(self.stall_limit)),
            _ => Ok(()),
        }
    }

    /// Reads what has arrived.
    fn read(&mut self) -> Result<(), FileStreamError> {
        let mut bytes = [0; READ_BUF_SIZE];
        match self.socket.read(&mut bytes) {
            Ok(0) => return Err(FileStreamError::Closed),
            Ok(length) => self.frames.push(&bytes[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(FileStreamError::Closed),
            Err(error) => return Err(FileStreamError::Connection(error)),
        }
        while let Some((stream, payload)) = self.frames.next_frame()? {
            match stream {
                frame::STDOUT if self.output.len() + payload.len() <= MAX_FAILURE_SIZE as usize => {
                    self.output.extend(payload);
                }
                frame::STDOUT | frame::STDERR => {}
                _ => self.exit = Some(serde_json::from_slice(&payload).map_err(FileStreamError::Exit)?),
            }
        }
        Ok(())
    }

    /// Once there is an exit.
    fn outcome(&mut self) -> Result<(), FileStreamError> {
        let exit = self.exit.take().ok_or(FileStreamError::Closed)?;
        if exit.status == 0 {
            return Ok(());
        }
        let mut reader = protocol::FrameReader::new(MAX_FAILURE_SIZE);
        reader.push(&self.output);
        match reader.next::<WriteFailure>() {
            Ok(Some(WriteFailure { path, fault, errno })) => {
                let path = String::from_utf8_lossy(&path).into_owned();
                let fault = if fault.is_empty() { io::Error::from_raw_os_error(errno).to_string() } else { fault };
                Err(FileStreamError::Refused { path, fault })
            }
            _ => Err(FileStreamError::Ended(exit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn stream() -> (FileStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (FileStream::new(BufReader::new(near)).unwrap(), far)
    }

    fn exit(status: u8, message: Option<&str>) -> Vec<u8> {
        frame::encode_json(&Exit { status, signal: None, message: message.map(str::to_owned) })
    }

    #[test]
    fn messages_arrive_and_the_exit_is_awaited() {
        let (mut stream, far) = stream();
        let server = thread::spawn(move || {
            let (mut frames, mut messages, mut bytes) = (FrameReader::default(), Vec::new(), [0; 1000]);
            let mut reader = protocol::FrameReader::new(1 << 20);
            loop {
                let length = (&far).read(&mut bytes).unwrap();
                frames.push(&bytes[..length]);
                while let Some((stream, payload)) = frames.next_frame().unwrap() {
                    assert_eq!(stream, frame::STDIN);
                    if payload.is_empty() {
                        messages.extend(std::iter::from_fn(|| reader.next::<FileMessage>().unwrap()));
                        (&far).write_all(&exit(0, None)).unwrap();
                        return messages;
                    }
                    reader.push(&payload);
                }
            }
        });
        let sent: Vec<_> = (0..100).map(|index| FileMessage::Data(vec![index; 10_000])).collect();
        sent.iter().for_each(|message| stream.send(message).unwrap());
        stream.finish().unwrap();
        assert!(server.join().unwrap().into_iter().eq(sent.into_iter().chain([FileMessage::End])));
    }

    #[test]
    fn process_may_end_before_it_has_the_last_frame() {
        for is_closed in [false, true] {
            let (stream, mut far) = stream();
            far.write_all(&exit(0, None)).unwrap();
            let _open = Some(far).filter(|_| !is_closed);
            stream.finish().unwrap();
        }
    }

    #[test]
    fn failure_is_reported_while_more_is_sent() {
        let failure = WriteFailure { path: b"/a".to_vec(), fault: String::new(), errno: libc::ENOSPC };
        for (output, message, expected) in [
            (protocol::encode(&failure), None, "/a: No space left on device (os error 28)"),
            (Vec::new(), Some("the machine has ended"), "the machine has ended"),
            (b"\xff\xff\xff\xff".to_vec(), None, "the files are not complete: status 1"),
        ] {
            let (mut stream, mut far) = stream();
            far.write_all(&frame::encode(frame::STDOUT, &output)).unwrap();
            far.write_all(&exit(1, message)).unwrap();
            drop(far);
            let data = FileMessage::Data(vec![0; BATCH_SIZE]);
            let error = std::iter::from_fn(|| Some(stream.send(&data))).find_map(Result::err).unwrap();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn machine_that_takes_nothing_is_an_error() {
        let (mut stream, _far) = stream();
        stream.stall_limit = Duration::from_millis(10);
        let data = FileMessage::Data(vec![0; BATCH_SIZE]);
        let error = std::iter::from_fn(|| Some(stream.send(&data))).find_map(Result::err).unwrap();
        assert!(matches!(error, FileStreamError::Stalled(_)), "{error}");
    }

    #[test]
    fn closed_connection_is_an_error() {
        let (stream, far) = stream();
        drop(far);
        assert!(matches!(stream.finish(), Err(FileStreamError::Closed)));
    }
}
