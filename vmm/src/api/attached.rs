// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The client's side of a connection that holds a process: this process's streams, terminal and signals stand for its own. Runs
//! on the main thread of the verbs `exec` and `attach`, which have nothing else to do and may wait.

use super::detach_keys::{DetachKeys, Typed};
use crate::api::frame::{self, Control, FrameTooLong, Frames, Over};
use crate::host::signals::Signals;
use crate::host::terminal::{RawTerminal, window_size};
use guest_protocol::run_spec::WindowSize;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachedError {
    /// The run ended, or broke.
    #[error("the connection ended before the process did")]
    Connection(#[source] io::Error),
    /// Not what was agreed.
    #[error("the control socket sent what is no frame")]
    Frame(#[from] FrameTooLong),
    /// Not what was agreed.
    #[error("the control socket sent an end that is none")]
    Over(#[source] serde_json::Error),
    /// Nobody takes what the process writes.
    #[error("cannot write what the process wrote")]
    Output(#[source] io::Error),
}

/// What stands for the process's streams here.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Standard input is relayed.
    pub(crate) input: bool,
    /// The terminal, if it is the process's own.
    pub(crate) terminal: Option<RawTerminal>,
    /// The process has a terminal that may have been shown elsewhere before: it gets our size, and is to draw everything anew.
    pub(crate) shows_terminal: bool,
    /// Typed, they end the relay.
    pub(crate) detach_keys: Option<DetachKeys>,
    /// Signals are the process's; otherwise they end the relay.
    pub(crate) signals_go_on: bool,
}

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// With the process.
    Over(Over),
    /// By [`Streams::detach_keys`].
    Detached,
    /// By this signal.
    Signalled(u8),
}

/// Relays until the process has ended, or it is left to itself.
///
/// # Errors
/// See [`AttachedError`].
pub(crate) fn relay(
    stream: BufReader<UnixStream>,
    streams: &mut Streams,
    signals: &Signals,
) -> Result<Left, AttachedError> {
    let mut frames = Frames::default();
    frames.push(stream.buffer());
    let mut socket = stream.into_inner();
    // A process may read its input only when its output was taken: neither direction may wait for the other.
    socket.set_nonblocking(true).map_err(AttachedError::Connection)?;
    let mut outgoing = if streams.shows_terminal { redraw() } else { Vec::new() };
    let mut input = streams.input;
    loop {
        while let Some((kind, bytes)) = frames.next_frame()? {
            match kind {
                frame::STDOUT => write(io::stdout(), &bytes)?,
                frame::STDERR => write(io::stderr(), &bytes)?,
                _ => return serde_json::from_slice(&bytes).map(Left::Over).map_err(AttachedError::Over),
            }
        }
        send(&mut socket, &mut outgoing)?;
        let ready = wait(&socket, !outgoing.is_empty(), input, signals).map_err(AttachedError::Connection)?;
        if ready.signal {
            while let Some(signal) = signals.read() {
                match (signal, u8::try_from(signal)) {
                    (libc::SIGWINCH | libc::SIGCONT, _) => outgoing.extend(follow_terminal(signal, streams)),
                    (_, Ok(signal)) if streams.signals_go_on => {
                        outgoing.extend(frame::encode_json(&Control::Signal(signal)));
                    }
                    (_, Ok(signal)) => return Ok(Left::Signalled(signal)),
                    (_, Err(_)) => {}
                }
            }
        }
        let mut bytes = [0; PIECE];
        if ready.input {
            // An end, or nothing that can be read, is an empty frame: the end.
            let length = io::stdin().read(&mut bytes).unwrap_or(0);
            input = length > 0;
            match streams.detach_keys.as_mut().filter(|_| input).map(|keys| keys.take(&bytes[..length])) {
                None => outgoing.extend(frame::encode(frame::STDIN, &bytes[..length])),
                Some(Typed::Text(text)) => outgoing.extend(piece_of_input(&text)),
                Some(Typed::Detach(text)) => {
                    outgoing.extend(piece_of_input(&text));
                    return send(&mut socket, &mut outgoing).map(|()| Left::Detached);
                }
            }
        }
        if ready.socket {
            match socket.read(&mut bytes) {
                Ok(0) => return Err(AttachedError::Connection(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => frames.push(&bytes[..length]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(AttachedError::Connection(error)),
            }
        }
    }
}

/// None at all is no frame: an empty one would be the end.
fn piece_of_input(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() { Vec::new() } else { frame::encode(frame::STDIN, bytes) }
}

struct Ready {
    socket: bool,
    input: bool,
    signal: bool,
}

/// Waits for something to come. More input is taken only when what was taken is on its way.
fn wait(socket: &UnixStream, sending: bool, input: bool, signals: &Signals) -> io::Result<Ready> {
    let stdin = io::stdin();
    let of_socket = if sending { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut descriptors = vec![PollFd::new(socket, of_socket), PollFd::new(signals, PollFlags::IN)];
    if input && !sending {
        descriptors.push(PollFd::new(&stdin, PollFlags::IN));
    }
    rustix::io::retry_on_intr(|| poll(&mut descriptors, None))?;
    let is_ready = |index: usize| descriptors.get(index).is_some_and(|descriptor| !descriptor.revents().is_empty());
    Ok(Ready { socket: is_ready(0), signal: is_ready(1), input: is_ready(2) })
}

/// What a signal about our terminal means for the process.
fn follow_terminal(signal: i32, streams: &Streams) -> Vec<u8> {
    match (signal, &streams.terminal) {
        (libc::SIGWINCH, terminal) if terminal.is_some() || streams.shows_terminal => {
            own_size().map(resize).unwrap_or_default()
        }
        (libc::SIGCONT, Some(terminal)) => {
            // A terminal that is gone needs no modes.
            let _ = terminal.reapply();
            Vec::new()
        }
        _ => Vec::new(),
    }
}

/// Our size after another one: a program on a terminal draws everything when the size changes, and only then.
fn redraw() -> Vec<u8> {
    let Some(size) = own_size() else { return Vec::new() };
    let other = WindowSize { rows: size.rows.saturating_add(1), ..size };
    [resize(other), resize(size)].concat()
}

fn resize(size: WindowSize) -> Vec<u8> {
    frame::encode_json(&Control::Resize { rows: size.rows, columns: size.columns })
}

/// Of the terminal that we read from, or write to.
fn own_size() -> Option<WindowSize> {
    window_size(io::stdin()).or_else(|_| window_size(io::stdout())).ok()
}

/// Sends what the other side takes. What it does not take any more it does not need: its last word is still to be read.
fn send(socket: &mut UnixStream, outgoing: &mut Vec<u8>) -> Result<(), AttachedError> {
    while !outgoing.is_empty() {
        match socket.write(outgoing) {
            Ok(length) => drop(outgoing.drain(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => outgoing.clear(),
            Err(error) => return Err(AttachedError::Connection(error)),
        }
    }
    Ok(())
}

fn write(mut stream: impl io::Write, bytes: &[u8]) -> Result<(), AttachedError> {
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(AttachedError::Output)
}
