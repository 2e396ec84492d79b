// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The client's side of a duplex channel: relays this process's streams, terminal and signals to a
//! process in the machine. Runs on the main thread of the verbs `exec` and `attach`, and waits.

use super::detach_keys::{DetachKeys, Typed};
use super::frame::{self, ControlMessage, Exit, FrameReader, FrameTooLong};
use super::outbox::Outbox;
use crate::host::signals::{ReceivedSignal, Signals};
use crate::host::terminal::{RawTerminal, window_size};
use guest_protocol::run_spec::WindowSize;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

const READ_BUF_SIZE: usize = 16 << 10;

/// The relay broke, and how the process ended is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("exit status unknown: connection closed")]
    Closed,
    #[error("exit status unknown: connection failed")]
    Connection(#[source] io::Error),
    #[error("exit status unknown: invalid frame")]
    Frame(#[from] FrameTooLong),
    #[error("exit status unknown: invalid last frame")]
    Exit(#[source] serde_json::Error),
    #[error("cannot write output")]
    Output(#[source] io::Error),
}

#[derive(Debug)]
pub(crate) struct Streams {
    /// Standard input of this process.
    pub(crate) input: bool,
    /// The terminal of this process, if it is raw.
    pub(crate) terminal: Option<RawTerminal>,
    /// The process has a terminal that was shown elsewhere: it gets the size of this one, and
    /// redraws.
    pub(crate) redraw: bool,
    /// End the relay when typed.
    pub(crate) detach_keys: Option<DetachKeys>,
    /// Signals go to the process; otherwise they end the relay.
    pub(crate) forward_signals: bool,
}

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RelayEnd {
    Exited(Exit),
    /// By [`Streams::detach_keys`].
    Detached,
    /// By this signal to this process.
    Signalled(u8),
    /// The reader of this process's output closed it.
    OutputClosed,
}

/// Relays until the process ends, or this process leaves it.
///
/// # Errors
/// See [`RelayError`].
pub(crate) fn relay(
    stream: BufReader<UnixStream>,
    streams: &mut Streams,
    signals: &Signals,
) -> Result<RelayEnd, RelayError> {
    match try_relay(stream, streams, signals) {
        Err(RelayError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(RelayEnd::OutputClosed),
        outcome => outcome,
    }
}

fn try_relay(stream: BufReader<UnixStream>, streams: &mut Streams, signals: &Signals) -> Result<RelayEnd, RelayError> {
    let mut frames = FrameReader::default();
    frames.push(stream.buffer());
    let mut socket = stream.into_inner();
    // The process may read its input only after its output was read: neither direction may block
    // the other.
    socket.set_nonblocking(true).map_err(RelayError::Connection)?;
    let mut outbox = Outbox::default();
    if streams.redraw {
        send_redraw(&mut outbox);
    }
    let mut has_input = streams.input;
    loop {
        while let Some((stream, payload)) = frames.next_frame()? {
            match stream {
                frame::STDOUT => write(io::stdout(), &payload)?,
                frame::STDERR => write(io::stderr(), &payload)?,
                _ => return serde_json::from_slice(&payload).map(RelayEnd::Exited).map_err(RelayError::Exit),
            }
        }
        flush(&mut outbox, &mut socket)?;
        let ready = wait(&socket, !outbox.is_empty(), has_input, signals).map_err(RelayError::Connection)?;
        if ready.signal
            && let Some(signal) = relay_signals(signals, streams, &mut outbox)
        {
            return Ok(RelayEnd::Signalled(signal));
        }
        let mut bytes = [0; READ_BUF_SIZE];
        if ready.input {
            // End of file, and input that cannot be read, are an empty frame.
            let length = io::stdin().read(&mut bytes).unwrap_or(0);
            has_input = length > 0;
            match streams.detach_keys.as_mut().filter(|_| has_input).map(|keys| keys.take(&bytes[..length])) {
                None => push(&mut outbox, &frame::encode(frame::STDIN, &bytes[..length])),
                Some(Typed::Text(text)) => push_text(&mut outbox, &text),
                Some(Typed::Detach(text)) => {
                    push_text(&mut outbox, &text);
                    return flush(&mut outbox, &mut socket).map(|()| RelayEnd::Detached);
                }
            }
        }
        if ready.socket {
            match socket.read(&mut bytes) {
                // The server sends an exit before it closes.
                Ok(0) => return Err(RelayError::Closed),
                Ok(length) => frames.push(&bytes[..length]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(RelayError::Closed),
                Err(error) => return Err(RelayError::Connection(error)),
            }
        }
    }
}

/// Input is read with an empty outbox only, so there is room for it. What does not fit is one of
/// thousands of signals or sizes that wait: it is lost, as the kernel merges pending signals.
fn push(outbox: &mut Outbox, frame: &[u8]) {
    let _ = outbox.push(frame, Instant::now());
}

/// An empty frame would be the end of the input.
fn push_text(outbox: &mut Outbox, text: &[u8]) {
    if !text.is_empty() {
        push(outbox, &frame::encode(frame::STDIN, text));
    }
}

struct Ready {
    socket: bool,
    input: bool,
    signal: bool,
}

/// Waits for an event. Input is read only when the outbox is empty.
fn wait(socket: &UnixStream, is_sending: bool, has_input: bool, signals: &Signals) -> io::Result<Ready> {
    let stdin = io::stdin();
    let of_socket = if is_sending { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut descriptors = vec![PollFd::new(socket, of_socket), PollFd::new(signals, PollFlags::IN)];
    if has_input && !is_sending {
        descriptors.push(PollFd::new(&stdin, PollFlags::IN));
    }
    rustix::io::retry_on_intr(|| poll(&mut descriptors, None))?;
    let is_ready = |index: usize| descriptors.get(index).is_some_and(|descriptor| !descriptor.revents().is_empty());
    Ok(Ready { socket: is_ready(0), signal: is_ready(1), input: is_ready(2) })
}

/// Forwards pending signals. Returns one that ends the relay instead.
fn relay_signals(signals: &Signals, streams: &Streams, outbox: &mut Outbox) -> Option<u8> {
    while let Some(ReceivedSignal { number, by_kernel }) = signals.read() {
        match (number.into(), &streams.terminal) {
            (libc::SIGWINCH, terminal) => {
                if (terminal.is_some() || streams.redraw)
                    && let Some(size) = own_size()
                {
                    push(outbox, &resize(size));
                }
                if by_kernel {
                    continue;
                }
            }
            // A terminal that is gone needs no modes.
            (libc::SIGCONT, Some(terminal)) => drop(terminal.reapply()),
            _ => {}
        }
        match i32::from(number) {
            _ if streams.forward_signals => push(outbox, &frame::encode_json(&ControlMessage::Signal(number))),
            // Without a handler they do not end a process.
            libc::SIGWINCH | libc::SIGCONT | libc::SIGCHLD | libc::SIGURG => {}
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {}
            _ => return Some(number),
        }
    }
    None
}

/// A program on a terminal redraws when the size changes, and only then: send another size first.
fn send_redraw(outbox: &mut Outbox) {
    if let Some(size) = own_size() {
        let other = WindowSize { rows: size.rows.saturating_add(1), ..size };
        push(outbox, &resize(other));
        push(outbox, &resize(size));
    }
}

fn resize(size: WindowSize) -> Vec<u8> {
    frame::encode_json(&ControlMessage::Resize { rows: size.rows, columns: size.columns })
}

/// The size of the terminal on standard input or output.
fn own_size() -> Option<WindowSize> {
    window_size(io::stdin()).or_else(|_| window_size(io::stdout())).ok()
}

/// A server that closed the connection takes no more, but its last frame is still to be read.
fn flush(outbox: &mut Outbox, socket: &mut UnixStream) -> Result<(), RelayError> {
    match outbox.write_to(socket, Instant::now()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            outbox.clear();
            Ok(())
        }
        outcome => outcome.map(drop).map_err(RelayError::Connection),
    }
}

fn write(mut stream: impl Write, bytes: &[u8]) -> Result<(), RelayError> {
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(RelayError::Output)
}
