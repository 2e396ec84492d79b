// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Queries of names by TCP (RFC 7766), for answers that are too long for a datagram. Each connection has a thread, which answers
//! one query after the other: from the leases, or from the host's name servers, by TCP, too.

use super::connections::Connections;
use super::dns::{MAX_TCP_ANSWERS, Query, is_answer};
use super::name_server::{MAX_ANSWER_TIME, MAX_QUERY_BYTES, Names, PORT};
use super::stoppable_thread::Stop;
use crate::host::forbidden_call::name_thread;
use std::io::{Error, ErrorKind, Read, Result, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Any more are closed at once. They are all of one machine.
const MAX_CONNECTIONS: usize = 16;
/// From the end of one query to the end of the next one. Clients open another connection.
const MAX_QUERY_TIME: Duration = Duration::from_secs(10);
const STACK_SIZE: usize = 128 << 10;

/// The listener for the connections of one machine, and how many there are.
#[derive(Debug)]
pub(super) struct NameConnections {
    pub(super) listener: TcpListener,
    names: Arc<Names>,
    connections: Connections,
}

impl NameConnections {
    pub(super) fn new(listener: TcpListener, names: Arc<Names>) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, names, connections: Connections::at_most(MAX_CONNECTIONS) })
    }

    /// Accepts one connection, which its thread then serves. Those that there are at the machine's end go on until its process ends.
    pub(super) fn accept(&self, stop: &Stop) {
        let Some((stream, peer, counted)) = self.connections.accept(&self.listener, stop) else { return };
        let names = Arc::clone(&self.names);
        if peer.ip() == names.client {
            // Without a thread the connection is closed.
            let thread = Builder::new().name("name".to_owned()).stack_size(STACK_SIZE);
            let _ = thread.spawn(move || {
                let _counted = counted;
                name_thread("name");
                let _ = serve(stream, &names);
            });
        }
    }
}

/// Answers until the client closes the connection, is silent, or sends what is not a query.
fn serve(mut stream: TcpStream, names: &Names) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(MAX_QUERY_TIME))?;
    loop {
        let packet = receive(&mut stream, MAX_QUERY_BYTES, Instant::now() + MAX_QUERY_TIME)?;
        let query = Query::parse(&packet).ok_or(ErrorKind::InvalidData)?;
        let addresses = names.addresses_of(&query);
        let answer = match addresses.is_empty() {
            true => names.servers.iter().find_map(|server| forward(&packet, (*server, PORT).into()).ok()),
            false => Some(query.answer(&addresses, MAX_TCP_ANSWERS)),
        };
        send(&mut stream, &answer.unwrap_or_else(|| query.failure()))?;
    }
}

/// Asks one of the host's servers.
fn forward(query: &[u8], server: SocketAddr) -> Result<Vec<u8>> {
    let deadline = Instant::now() + MAX_ANSWER_TIME;
    let mut stream = TcpStream::connect_timeout(&server, MAX_ANSWER_TIME)?;
    stream.set_write_timeout(Some(MAX_ANSWER_TIME))?;
    send(&mut stream, query)?;
    let answer = receive(&mut stream, usize::from(u16::MAX), deadline)?;
    if is_answer(&answer, query) { Ok(answer) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Sends a message behind its length (RFC 1035, 4.2.2), in one segment if it fits.
fn send(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    let length = u16::try_from(message.len()).map_err(Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

/// Receives a message of at most `max` bytes until `deadline`, however slowly it comes.
fn receive(stream: &mut TcpStream, max: usize, deadline: Instant) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    fill(stream, &mut length, deadline)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > max {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    fill(stream, &mut message, deadline)?;
    Ok(message)
}

fn fill(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = &mut buffer[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
