// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control socket: its server, its clients, and the frames that they exchange.

pub(crate) mod client;
pub(crate) mod control_socket;
pub(crate) mod detach_keys;
pub(crate) mod file_stream;
pub(crate) mod frame;
mod log_frames;
mod log_streams;
pub(crate) mod outbox;
pub(crate) mod relay;
pub(crate) mod server;
