// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket that run a process beside the workload: their frames go to it and its output to them, as
//! far as either side takes it. Part of `main`'s event loop.

use super::Monitor;
use super::operations::conflict;
use crate::api::frame::{self, ClientFrame, Exit};
use crate::api::outbox::MAX_OUTBOX_BYTES;
use crate::api::server::{Channel, ClientId, Response};
use crate::machine::supervisor::Event;
use crate::machine::supervisor::exec::{ExecCommand, ExecEnd, ExecEvent, ExecId};
use crate::state::status::State;
use guest_protocol::exec::{ExecSpec, OUTPUT_OVERHEAD, OUTPUT_WINDOW};
use guest_protocol::protocol::WorkloadEnd;
use std::collections::VecDeque;

/// What PID 1 may send without more credit fits into the client's outbox, however short the frames
/// are: a frame costs its header, too. The other half is for the last frame.
const _: () = assert!(OUTPUT_WINDOW as usize <= MAX_OUTBOX_BYTES / 2);
const _: () = assert!(OUTPUT_OVERHEAD as usize == frame::HEADER_SIZE);

/// At most as many as the server has clients.
#[derive(Debug, Default)]
pub(super) struct ExecClients(Vec<ExecClient>);

#[derive(Debug)]
struct ExecClient {
    client: ClientId,
    exec: ExecId,
    detached: bool,
    /// Bytes that the process has no room for yet. While there are any, the client is not read.
    input: VecDeque<u8>,
    input_ended: bool,
    /// Bytes of output frames that were sent, and not yet credited to PID 1 as taken by the client.
    uncredited: usize,
}

impl ExecClients {
    fn position(&self, matches: impl Fn(&ExecClient) -> bool) -> Option<usize> {
        self.0.iter().position(matches)
    }
}

impl Monitor<'_> {
    /// A client requests a process.
    pub(super) fn on_exec(&mut self, client: ClientId, spec: ExecSpec) {
        let detached = spec.detached;
        let started = match self.context.lifecycle.status().state {
            State::Paused => Err(conflict(State::Paused, "execute a command")),
            _ => self.supervisor.exec(spec).map_err(|error| Response::error(409, &error.to_string())),
        };
        let Some(socket) = &mut self.context.socket else { return };
        match started {
            Err(error) => socket.server.respond(client, &error),
            Ok((exec, actions)) => {
                socket.server.open(client, Channel::Duplex);
                self.exec_clients.0.push(ExecClient {
                    client,
                    exec,
                    detached,
                    input: VecDeque::new(),
                    input_ended: false,
                    uncredited: 0,
                });
                self.act(actions);
            }
        }
    }

    pub(super) fn on_exec_event(&mut self, exec: ExecId, event: ExecEvent) {
        let Some(socket) = &mut self.context.socket else { return };
        let Some(index) = self.exec_clients.position(|other| other.exec == exec) else { return };
        let exec_client = &mut self.exec_clients.0[index];
        let client = exec_client.client;
        let exit = match event {
            ExecEvent::Started if exec_client.detached => Exit { status: 0, signal: None, message: None },
            ExecEvent::Ended(end) => exit(&end),
            ExecEvent::Output { stderr, bytes } => {
                let frame = frame::encode(if stderr { frame::STDERR } else { frame::STDOUT }, &bytes);
                exec_client.uncredited += frame.len();
                socket.server.send(client, &frame);
                return self.pump_exec_client(client);
            }
            ExecEvent::Started | ExecEvent::Room => return self.pump_exec_client(client),
        };
        socket.server.send(client, &frame::encode_json(&exit));
        socket.server.close(client);
        self.exec_clients.0.swap_remove(index);
    }

    pub(super) fn on_exec_frame(&mut self, client: ClientId, frame: ClientFrame) {
        let Some(index) = self.exec_clients.position(|other| other.client == client) else { return };
        let exec_client = &mut self.exec_clients.0[index];
        let command = match frame {
            ClientFrame::Input(bytes) => {
                exec_client.input_ended |= bytes.is_empty();
                exec_client.input.extend(bytes);
                return self.pump_exec_client(client);
            }
            ClientFrame::Signal(signal) => ExecCommand::Signal(signal),
            ClientFrame::Resize(size) => ExecCommand::Resize(size),
        };
        let exec = exec_client.exec;
        self.feed(Event::Exec(exec, command));
    }

    pub(super) fn on_exec_input_ended(&mut self, client: ClientId) {
        if let Some(index) = self.exec_clients.position(|other| other.client == client) {
            self.exec_clients.0[index].input_ended = true;
            self.pump_exec_client(client);
        }
    }

    /// The process is hung up.
    pub(super) fn on_exec_client_gone(&mut self, client: ClientId) {
        if let Some(index) = self.exec_clients.position(|other| other.client == client) {
            let gone = self.exec_clients.0.swap_remove(index);
            self.feed(Event::Exec(gone.exec, ExecCommand::HangUp));
        }
    }

    /// Sends input as far as the process has room, and credits output as far as the client took it.
    pub(super) fn pump_exec_client(&mut self, client: ClientId) {
        let Some(socket) = &mut self.context.socket else { return };
        let Some(index) = self.exec_clients.position(|other| other.client == client) else { return };
        let exec_client = &mut self.exec_clients.0[index];
        let exec = exec_client.exec;
        let mut commands = Vec::new();
        let taken = exec_client.uncredited.saturating_sub(socket.server.unsent(client));
        if taken > 0 {
            exec_client.uncredited -= taken;
            commands.push(ExecCommand::Taken(taken as u32));
        }
        let room = self.supervisor.exec_room(exec).min(exec_client.input.len());
        if room > 0 {
            commands.push(ExecCommand::Input(exec_client.input.drain(..room).collect()));
        }
        if exec_client.input_ended && exec_client.input.is_empty() {
            exec_client.input_ended = false;
            commands.push(ExecCommand::InputEnd);
        }
        socket.server.set_read_enabled(client, exec_client.input.is_empty());
        for command in commands {
            self.feed(Event::Exec(exec, command));
        }
    }
}

fn exit(end: &ExecEnd) -> Exit {
    let (signal, message) = match end {
        ExecEnd::Exited(WorkloadEnd::Signalled { signal, out_of_memory }) => {
            (Some(*signal), out_of_memory.then(|| "killed by the guest's kernel: out of memory".to_owned()))
        }
        ExecEnd::Exited(_) => (None, None),
        ExecEnd::Failed { message, .. } => (None, Some(message.clone())),
        ExecEnd::MachineEnded => (None, Some("the machine has ended".to_owned())),
    };
    Exit { status: end.status(), signal, message }
}
