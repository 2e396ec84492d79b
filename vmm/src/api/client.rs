// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The other side of the control socket: a client of one run, used by the verbs. It waits, but not for ever for what is
//! answered at once.

use super::server;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an operation may take that is done at once.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Longest head or line of an answer.
const LINE_BYTES: u64 = 1 << 20;

/// The run did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens: it does not run yet, or no more.
    #[error("cannot reach the control socket")]
    Connect(#[source] io::Error),
    /// The connection ended, or nothing came in time.
    #[error("no answer from the control socket")]
    Answer(#[source] io::Error),
    /// It says why.
    #[error("{1}")]
    Refused(u16, String),
}

/// A connection to one run.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

/// How long the body of an answer is.
enum Body {
    Length(u64),
    Chunks,
    ToTheEnd,
}

impl Client {
    /// Connects to the run of `entry`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(crate) fn connect(entry: &Path) -> Result<Self, ClientError> {
        let stream = server::connect(entry).map_err(ClientError::Connect)?;
        stream.set_read_timeout(Some(AT_ONCE)).map_err(ClientError::Connect)?;
        stream.set_write_timeout(Some(AT_ONCE)).map_err(ClientError::Connect)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks for what is answered at once.
    ///
    /// # Errors
    /// It was refused, or the run is gone.
    pub(crate) fn ask<T: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let length = self.begin(method, path, body, "")?;
        let bytes = self.body(length).map_err(ClientError::Answer)?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer(error.into()))
    }

    /// Asks for what is answered in its own time.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn wait<T: DeserializeOwned>(mut self, path: &str) -> Result<T, ClientError> {
        self.stream.get_ref().set_read_timeout(None).map_err(ClientError::Answer)?;
        self.ask("GET", path, &())
    }

    /// Asks for an operation that takes the connection over; what comes is read through the result's buffer first.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn upgrade(mut self, path: &str, body: &impl Serialize) -> Result<BufReader<UnixStream>, ClientError> {
        self.begin("POST", path, body, "Connection: Upgrade\r\nUpgrade: tcp\r\n")?;
        let stream = self.stream.get_ref();
        stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).map_err(ClientError::Answer)?;
        Ok(self.stream)
    }

    /// Sends a request and reads the head of its answer.
    fn begin(&mut self, method: &str, path: &str, body: &impl Serialize, fields: &str) -> Result<Body, ClientError> {
        let body = serde_json::to_string(body).map_err(|error| ClientError::Answer(error.into()))?;
        let body = if body == "null" { "" } else { &body };
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: coracle\r\nContent-Length: {length}\r\n{fields}\r\n{body}");
        // Who refuses at once may have closed already: the answer says why.
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        let (status, length) = self.head().map_err(|error| ClientError::Answer(sent.err().unwrap_or(error)))?;
        if matches!(status, 101 | 200) {
            return Ok(length);
        }
        let bytes = self.body(length).map_err(ClientError::Answer)?;
        let message = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let message = message.as_ref().and_then(|value| value["message"].as_str()).unwrap_or("refused without a word");
        Err(ClientError::Refused(status, message.to_owned()))
    }

    fn head(&mut self) -> io::Result<(u16, Body)> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let before = text.len();
            self.stream.by_ref().take(LINE_BYTES).read_until(b'\n', &mut text)?;
            if text.len() == before || text.len() as u64 > LINE_BYTES {
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
            (None, None) => Body::ToTheEnd,
        };
        Ok((head.code.unwrap_or_default(), length))
    }

    fn body(&mut self, length: Body) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match length {
            Body::Length(length) => {
                self.stream.by_ref().take(length.min(LINE_BYTES)).read_to_end(&mut bytes)?;
                if (bytes.len() as u64) < length {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            Body::Chunks => {
                while let Some(chunk) = self.chunk()? {
                    bytes.extend(chunk);
                }
            }
            Body::ToTheEnd => drop(self.stream.by_ref().take(LINE_BYTES).read_to_end(&mut bytes)?),
        }
        Ok(bytes)
    }

    /// The next chunk; none at the end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.stream.by_ref().take(LINE_BYTES).read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16).map_err(|_| io::Error::from(ErrorKind::UnexpectedEof))?;
        // With the line end behind it.
        let mut bytes = vec![0; length.min(LINE_BYTES) as usize + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(bytes.len() - 2);
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
