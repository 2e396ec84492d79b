// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A registry in this process that answers as a test wants it to, right or wrong. One thread for each
//! connection; every answer closes it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request: method, path with query, headers with their names in lower case, and the body.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    /// As much of it as the server reads.
    pub body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// First byte of the range that is asked for.
    pub(crate) fn start(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |start| start.parse().expect("a range is a number"))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// In place of the body's length.
    pub declared: Option<u64>,
    /// Repeats the body until the client closes the connection.
    pub endless: bool,
    /// Closes the connection in place of an answer.
    pub silent: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn redirect(location: impl Into<String>) -> Self {
        Self::new(307, "").header("location", location)
    }

    /// The rest of `blob` that a request asks for.
    pub(crate) fn part(blob: &[u8], request: &Received) -> Self {
        match request.start() {
            0 => Self::new(200, blob),
            start if start >= blob.len() => Self::new(416, ""),
            start => Self::new(206, &blob[start..])
                .header("content-range", format!("bytes {start}-{}/{}", blob.len() - 1, blob.len())),
        }
    }
}

pub(crate) struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Answers each request with `answer`, until the test process ends.
    pub(crate) fn start(answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_reading(|_| u64::MAX, answer)
    }

    /// Reads at most `limit` bytes of a request's body, which `limit` does not see.
    pub(crate) fn start_reading(
        limit: impl Fn(&Received) -> u64 + Send + Sync + 'static,
        answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = listener.local_addr().expect("it is bound");
        let received = Arc::new(Mutex::new(Vec::new()));
        let (limit, answer, log) = (Arc::new(limit), Arc::new(answer), received.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (limit, answer, log) = (limit.clone(), answer.clone(), log.clone());
                // The client closes connections as it likes.
                std::thread::spawn(move || drop(serve(&connection, &*limit, &*answer, &log)));
            }
        });
        Self { address, received }
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no thread panics with it").clone()
    }
}

fn serve(
    mut connection: &TcpStream,
    limit: &(dyn Fn(&Received) -> u64 + Send + Sync),
    answer: &(dyn Fn(&Received) -> Answer + Send + Sync),
    log: &Mutex<Vec<Received>>,
) -> std::io::Result<()> {
    let mut input = BufReader::new(connection);
    let mut lines = input.by_ref().lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next().filter(|path| path.starts_with('/'))) else {
        // A client that tries TLS.
        return connection.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    };
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Received { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length is a number"));
    input.take(limit(&request).min(length)).read_to_end(&mut request.body)?;
    log.lock().expect("no thread panics with it").push(request.clone());
    let Answer { status, headers, body, declared, endless, silent } = answer(&request);
    if silent {
        return Ok(());
    }
    let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n");
    if !endless {
        head += &format!("Content-Length: {}\r\n", declared.unwrap_or(body.len() as u64));
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    connection.write_all(&body)?;
    if !endless {
        return Ok(());
    }
    loop {
        connection.write_all(&body)?;
    }
}
