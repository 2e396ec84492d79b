// SPDX-License-Identifier: Apache-2.0 OR MIT
//! TCP connections to a listener, of which there is a limited number.

use super::stoppable_thread::Stop;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many connections there are, and may be.
#[derive(Debug)]
pub(super) struct Connections {
    count: Arc<AtomicUsize>,
    max: usize,
}

/// One of the connections that count.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Connections {
    pub(super) fn at_most(max: usize) -> Self {
        Self { count: Arc::default(), max }
    }

    /// Accepts a connection of `listener`, which does not block, with its peer. `None` if there is none; one too many is closed.
    pub(super) fn accept(&self, listener: &TcpListener, stop: &Stop) -> Option<(TcpStream, SocketAddr, Counted)> {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::ConnectionAborted].contains(&error.kind()) => return None,
            Err(_) => {
                // No descriptor is left. The connection waits, and poll(2) would return at once.
                stop.pause();
                return None;
            }
        };
        let counted = Counted(Arc::clone(&self.count));
        (self.count.fetch_add(1, Ordering::Relaxed) < self.max).then_some((stream, peer, counted))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
