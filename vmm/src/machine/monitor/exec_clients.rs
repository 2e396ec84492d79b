// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket that run a process beside the workload: their frames go to it and its output to them, as
//! far as either side takes it. Part of `main`'s event loop.

use super::Monitor;
use super::operations::conflict;
use crate::api::frame::{self, Frames, FromClient, Over};
use crate::api::server::{ClientId, Response};
use crate::machine::supervisor::Event;
use crate::machine::supervisor::exec::{ExecCommand, ExecEnd, ExecEvent, ExecId};
use crate::state::status::State;
use guest_protocol::exec::ExecSpec;
use guest_protocol::protocol::WorkloadEnd;
use std::collections::VecDeque;

/// At most as many as the server has clients.
#[derive(Debug, Default)]
pub(super) struct ExecClients(Vec<ExecClient>);

#[derive(Debug)]
struct ExecClient {
    client: ClientId,
    exec: ExecId,
    detached: bool,
    frames: Frames,
    /// Bytes that the process has no room for yet. While there are any, the client is not read.
    input: VecDeque<u8>,
    input_ended: bool,
    /// Frames that the client has no room for yet, at most one window of output.
    output: VecDeque<Vec<u8>>,
    /// `output` includes the last frame.
    ended: bool,
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
            _ => self.supervisor.exec(spec).map_err(|error| Response::refusal(409, &error.to_string())),
        };
        let Some(socket) = &mut self.context.socket else { return };
        match started {
            Err(refusal) => socket.server.answer(client, &refusal),
            Ok((exec, actions)) => {
                socket.server.upgrade(client, frame::CONTENT_TYPE);
                self.exec_clients.0.push(ExecClient {
                    client,
                    exec,
                    detached,
                    frames: Frames::default(),
                    input: VecDeque::new(),
                    input_ended: false,
                    output: VecDeque::new(),
                    ended: false,
                });
                self.act(actions);
            }
        }
    }

    pub(super) fn on_exec_event(&mut self, exec: ExecId, event: ExecEvent) {
        let Some(index) = self.exec_clients.position(|other| other.exec == exec) else { return };
        let client = &mut self.exec_clients.0[index];
        match event {
            ExecEvent::Started if client.detached => {
                client.output.push_back(frame::encode_json(&Over { status: 0, signal: None, message: None }));
                client.ended = true;
            }
            ExecEvent::Started | ExecEvent::Room => {}
            ExecEvent::Output { stderr, bytes } => {
                let stream = if stderr { frame::STDERR } else { frame::STDOUT };
                client.output.push_back(frame::encode(stream, &bytes));
            }
            ExecEvent::Ended(end) => {
                client.output.push_back(frame::encode_json(&over(&end)));
                client.ended = true;
            }
        }
        let client = client.client;
        self.pump_exec_client(client);
    }

    pub(super) fn on_exec_data(&mut self, client: ClientId, bytes: &[u8]) {
        let Some(index) = self.exec_clients.position(|other| other.client == client) else { return };
        let exec_client = &mut self.exec_clients.0[index];
        let exec = exec_client.exec;
        exec_client.frames.push(bytes);
        let mut commands = Vec::new();
        let intact = loop {
            match exec_client.frames.next_from_client() {
                Ok(None) => break true,
                Ok(Some(FromClient::Input(bytes))) if bytes.is_empty() => exec_client.input_ended = true,
                Ok(Some(FromClient::Input(bytes))) => exec_client.input.extend(bytes),
                Ok(Some(FromClient::Signal(signal))) => commands.push(ExecCommand::Signal(signal)),
                Ok(Some(FromClient::Resize(size))) => commands.push(ExecCommand::Resize(size)),
                Err(_) => break false,
            }
        };
        for command in commands {
            self.feed(Event::Exec(exec, command));
        }
        if intact {
            self.pump_exec_client(client);
        } else {
            // A protocol error ends the connection.
            if let Some(socket) = &mut self.context.socket {
                socket.server.close(client);
            }
            self.on_exec_client_gone(client);
        }
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
            if !gone.ended {
                self.feed(Event::Exec(gone.exec, ExecCommand::HangUp));
            }
        }
    }

    /// Moves bytes both ways, as far as either side takes them.
    pub(super) fn pump_exec_client(&mut self, client: ClientId) {
        let Some(socket) = &mut self.context.socket else { return };
        let Some(index) = self.exec_clients.position(|other| other.client == client) else { return };
        let exec_client = &mut self.exec_clients.0[index];
        let exec = exec_client.exec;
        let mut taken = 0;
        while let Some(frame) = exec_client.output.front() {
            if socket.server.room(client) < frame.len() {
                break;
            }
            taken += (frame.len() - frame::HEADER) as u32;
            socket.server.send(client, frame);
            exec_client.output.pop_front();
        }
        let mut commands = Vec::new();
        if taken > 0 {
            commands.push(ExecCommand::Taken(taken));
        }
        let room = self.supervisor.exec_room(exec).min(exec_client.input.len());
        if room > 0 {
            commands.push(ExecCommand::Input(exec_client.input.drain(..room).collect()));
        }
        if exec_client.input_ended && exec_client.input.is_empty() {
            exec_client.input_ended = false;
            commands.push(ExecCommand::InputEnd);
        }
        socket.server.welcome_input(client, exec_client.input.is_empty());
        let finished = exec_client.ended && exec_client.output.is_empty();
        if finished {
            socket.server.close(client);
            self.exec_clients.0.swap_remove(index);
        }
        for command in commands {
            self.feed(Event::Exec(exec, command));
        }
    }
}

fn over(end: &ExecEnd) -> Over {
    let (signal, message) = match end {
        ExecEnd::Exited(WorkloadEnd::Signalled { signal, out_of_memory }) => {
            (Some(*signal), out_of_memory.then(|| "killed by the guest's kernel: out of memory".to_owned()))
        }
        ExecEnd::Exited(_) => (None, None),
        ExecEnd::Failed { message, .. } => (None, Some(message.clone())),
        ExecEnd::MachineEnded => (None, Some("the machine has ended".to_owned())),
    };
    Over { status: end.status(), signal, message }
}
