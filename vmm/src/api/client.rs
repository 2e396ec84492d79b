// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client of one machine's control socket, used by the verbs. Calls wait; those that the server
//! answers at once have a timeout.

use super::control_socket::HOLD_LIMIT;
use super::server::{self, MAX_DESCRIPTORS};
use crate::host::signals::Signals;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead as _, BufReader, ErrorKind, IoSlice, Read, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// For requests that the server answers at once.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For requests that may wait for the workload: the server answers at its own limit.
const START_TIMEOUT: Duration = HOLD_LIMIT.saturating_add(RESPONSE_TIMEOUT);
/// Bound of the head, of a chunk and of a whole body.
const MAX_RESPONSE_SIZE: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No process listens: the machine does not run yet, or no more.
    #[error("cannot connect to the control socket")]
    Connect(#[source] io::Error),
    /// The connection ended, or no response came in time.
    #[error("no response from the control socket")]
    Response(#[source] io::Error),
    /// An error response: status and message.
    #[error("{1}")]
    Rejected(u16, String),
}

#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

/// The answer to [`Client::upgrade`].
pub(crate) enum Upgrade {
    /// The buffer of the reader may hold the first bytes.
    Channel(BufReader<UnixStream>),
    /// This signal came before.
    Signalled(u8),
}

/// How the end of a response's body is found.
enum Body {
    Length(u64),
    Chunks,
    UntilClose,
}

impl Client {
    /// Connects to the machine of `entry`.
    ///
    /// # Errors
    /// No process listens.
    pub(crate) fn connect(entry: &Path) -> Result<Self, ClientError> {
        let stream = server::connect(entry).map_err(ClientError::Connect)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).map_err(ClientError::Connect)?;
        stream.set_write_timeout(Some(RESPONSE_TIMEOUT)).map_err(ClientError::Connect)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request that the server answers at once.
    ///
    /// # Errors
    /// The machine rejects it, or is gone.
    pub(crate) fn request<T: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let length = self.begin(method, path, body, "")?;
        let bytes = self.body(length).map_err(ClientError::Response)?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Response(error.into()))
    }

    /// Sends a request that the server answers some time.
    ///
    /// # Errors
    /// As of [`request`](Self::request).
    pub(crate) fn wait<T: DeserializeOwned>(mut self, path: &str) -> Result<T, ClientError> {
        self.stream.get_ref().set_read_timeout(None).map_err(ClientError::Response)?;
        self.request("GET", path, &())
    }

    /// Sends a request for which the server waits until the workload runs, if the machine is
    /// starting.
    ///
    /// # Errors
    /// As of [`request`](Self::request).
    pub(crate) fn request_of_workload<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.stream.get_ref().set_read_timeout(Some(START_TIMEOUT)).map_err(ClientError::Response)?;
        self.request("POST", path, body)
    }

    /// Sends a request with open files, for which the server waits as for
    /// [`request_of_workload`](Self::request_of_workload) and then as long as it takes.
    ///
    /// # Errors
    /// As of [`request`](Self::request).
    pub(crate) fn request_with_files<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        files: &[BorrowedFd<'_>],
    ) -> Result<T, ClientError> {
        self.stream.get_ref().set_read_timeout(None).map_err(ClientError::Response)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)), "the server takes no more files");
        let request = request("POST", path, body, "")?;
        // Far less than a socket's buffer: it is sent at once.
        let sent =
            sendmsg(self.stream.get_ref(), &[IoSlice::new(request.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL);
        let length = self.receive(sent.map(drop).map_err(Into::into))?;
        let bytes = self.body(length).map_err(ClientError::Response)?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Response(error.into()))
    }

    /// Sends a request that makes the connection a duplex channel, once the workload runs. Until
    /// then a signal that ends a run ends the wait.
    ///
    /// # Errors
    /// As of [`request`](Self::request).
    pub(crate) fn upgrade(
        mut self,
        path: &str,
        body: &impl Serialize,
        signals: &Signals,
    ) -> Result<Upgrade, ClientError> {
        let sent = self.send("POST", path, body, "Connection: Upgrade\r\nUpgrade: tcp\r\n")?;
        if let Some(signal) = self.wait_for_response(signals).map_err(ClientError::Response)? {
            return Ok(Upgrade::Signalled(signal));
        }
        self.receive(sent)?;
        let stream = self.stream.get_ref();
        stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).map_err(ClientError::Response)?;
        Ok(Upgrade::Channel(self.stream))
    }

    /// Sends a request that makes the connection a duplex channel, once the workload runs.
    ///
    /// # Errors
    /// As of [`request`](Self::request).
    pub(crate) fn upgrade_of_workload(
        mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<BufReader<UnixStream>, ClientError> {
        self.stream.get_ref().set_read_timeout(Some(START_TIMEOUT)).map_err(ClientError::Response)?;
        self.begin("POST", path, body, "Connection: Upgrade\r\nUpgrade: tcp\r\n")?;
        let stream = self.stream.get_ref();
        stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).map_err(ClientError::Response)?;
        Ok(self.stream)
    }

    /// Waits until the response can be read. Returns a signal that comes before.
    fn wait_for_response(&self, signals: &Signals) -> io::Result<Option<u8>> {
        let ending = signals.ending().map_err(io::Error::other)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
            let stream = self.stream.get_ref();
            let mut sources = [PollFd::new(stream, PollFlags::IN), PollFd::new(&ending, PollFlags::IN)];
            match poll(&mut sources, Some(&timeout)) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) if !sources[0].revents().is_empty() => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(signal) = ending.read() {
                return Ok(Some(signal.number));
            }
        }
    }

    /// Sends a request and reads the head of its response.
    fn begin(&mut self, method: &str, path: &str, body: &impl Serialize, fields: &str) -> Result<Body, ClientError> {
        let sent = self.send(method, path, body, fields)?;
        self.receive(sent)
    }

    /// Sends a request. The server may reject it and close before everything is sent: that error is
    /// for [`receive`](Self::receive), which reads the response anyway.
    fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &impl Serialize,
        fields: &str,
    ) -> Result<io::Result<()>, ClientError> {
        let request = request(method, path, body, fields)?;
        Ok(self.stream.get_mut().write_all(request.as_bytes()))
    }

    /// Reads the head of a response.
    fn receive(&mut self, sent: io::Result<()>) -> Result<Body, ClientError> {
        let (status, length) = self.head().map_err(|error| ClientError::Response(sent.err().unwrap_or(error)))?;
        if matches!(status, 101 | 200) {
            return Ok(length);
        }
        let bytes = self.body(length).map_err(ClientError::Response)?;
        let message = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let message = message.as_ref().and_then(|value| value["message"].as_str()).map(str::to_owned);
        Err(ClientError::Rejected(status, message.unwrap_or_else(|| format!("HTTP status {status}"))))
    }

    fn head(&mut self) -> io::Result<(u16, Body)> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let before = text.len();
            self.stream.by_ref().take(MAX_RESPONSE_SIZE).read_until(b'\n', &mut text)?;
            if text.len() == before || text.len() as u64 > MAX_RESPONSE_SIZE {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut fields);
        head.parse(&text).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        let length = match (field("transfer-encoding"), field("content-length").map(str::parse)) {
            (Some(_), _) => Body::Chunks,
            (None, Some(Ok(length))) => Body::Length(length),
            (None, Some(Err(_))) => return Err(ErrorKind::InvalidData.into()),
            (None, None) => Body::UntilClose,
        };
        Ok((head.code.unwrap_or_default(), length))
    }

    fn body(&mut self, length: Body) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match length {
            Body::Length(length) => {
                self.stream.by_ref().take(length.min(MAX_RESPONSE_SIZE)).read_to_end(&mut bytes)?;
                if (bytes.len() as u64) < length {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            Body::Chunks => {
                while let Some(chunk) = self.chunk()? {
                    bytes.extend(chunk);
                }
            }
            Body::UntilClose => drop(self.stream.by_ref().take(MAX_RESPONSE_SIZE).read_to_end(&mut bytes)?),
        }
        Ok(bytes)
    }

    /// Returns the next chunk, or `None` at the end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.stream.by_ref().take(MAX_RESPONSE_SIZE).read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16).map_err(|_| io::Error::from(ErrorKind::UnexpectedEof))?;
        // A line end follows the payload.
        let mut bytes = vec![0; length.min(MAX_RESPONSE_SIZE) as usize + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(bytes.len() - 2);
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

/// The text of a request, with header `fields` besides those of every request.
fn request(method: &str, path: &str, body: &impl Serialize, fields: &str) -> Result<String, ClientError> {
    let body = serde_json::to_string(body).map_err(|error| ClientError::Response(error.into()))?;
    let body = if body == "null" { "" } else { &body };
    let length = body.len();
    Ok(format!("{method} {path} HTTP/1.1\r\nHost: coracle\r\nContent-Length: {length}\r\n{fields}\r\n{body}"))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
