// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket that hold a process beside the workload: what they send goes to it, what it writes goes to
//! them, as far as either side takes it. Part of `main`'s event loop.

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

/// The clients, at most as many as the server has.
#[derive(Debug, Default)]
pub(super) struct ExecClients(Vec<ExecClient>);

#[derive(Debug)]
struct ExecClient {
    client: ClientId,
    exec: ExecId,
    detached: bool,
    frames: Frames,
    /// What the process has no room for yet. While there is any, nothing is read from the client.
    input: VecDeque<u8>,
    input_ended: bool,
    /// Frames that the client has no room for yet, at most a window of output.
    output: VecDeque<Vec<u8>>,
    /// The last frame is among them.
    over: bool,
}

impl ExecClients {
    fn position(&self, is_it: impl Fn(&ExecClient) -> bool) -> Option<usize> {
        self.0.iter().position(is_it)
    }
}

impl Monitor<'_> {
    /// A client asks for a process.
    pub(super) fn on_exec(&mut self, client: ClientId, spec: ExecSpec) {
        let detached = spec.detached;
        let started = match self.context.lifecycle.status().state {
            State::Paused => Err(conflict(State::Paused, "execute a command")),
            _ => self.supervisor.exec(spec).map_err(|refusal| Response::refusal(409, &refusal.to_string())),
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
                    over: false,
                });
                self.act(actions);
            }
        }
    }

    /// Something happened to a process.
    pub(super) fn on_exec_event(&mut self, exec: ExecId, event: ExecEvent) {
        let Some(index) = self.exec_clients.position(|other| other.exec == exec) else { return };
        let client = &mut self.exec_clients.0[index];
        match event {
            ExecEvent::Started if client.detached => {
                client.output.push_back(frame::encode_json(&Over { status: 0, signal: None, message: None }));
                client.over = true;
            }
            ExecEvent::Started | ExecEvent::Room => {}
            ExecEvent::Output { stderr, bytes } => {
                let stream = if stderr { frame::STDERR } else { frame::STDOUT };
                client.output.push_back(frame::encode(stream, &bytes));
            }
            ExecEvent::Ended(end) => {
                client.output.push_back(frame::encode_json(&over(&end)));
                client.over = true;
            }
        }
        let client = client.client;
        self.pump_exec_client(client);
    }

    /// A client that holds a process sent something.
    pub(super) fn on_exec_data(&mut self, client: ClientId, bytes: &[u8]) {
        let Some(index) = self.exec_clients.position(|other| other.client == client) else { return };
        let holder = &mut self.exec_clients.0[index];
        let exec = holder.exec;
        holder.frames.push(bytes);
        let mut commands = Vec::new();
        let intact = loop {
            match holder.frames.next_from_client() {
                Ok(None) => break true,
                Ok(Some(FromClient::Input(bytes))) if bytes.is_empty() => holder.input_ended = true,
                Ok(Some(FromClient::Input(bytes))) => holder.input.extend(bytes),
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
            // Who does not keep to the protocol is as good as gone.
            if let Some(socket) = &mut self.context.socket {
                socket.server.close(client);
            }
            self.on_exec_client_gone(client);
        }
    }

    /// It will send no more.
    pub(super) fn on_exec_input_ended(&mut self, client: ClientId) {
        if let Some(index) = self.exec_clients.position(|other| other.client == client) {
            self.exec_clients.0[index].input_ended = true;
            self.pump_exec_client(client);
        }
    }

    /// It is gone, and the process is told so.
    pub(super) fn on_exec_client_gone(&mut self, client: ClientId) {
        if let Some(index) = self.exec_clients.position(|other| other.client == client) {
            let gone = self.exec_clients.0.swap_remove(index);
            if !gone.over {
                self.feed(Event::Exec(gone.exec, ExecCommand::HangUp));
            }
        }
    }

    /// Moves what either side takes: a client has taken something, or there is something new for it or from it.
    pub(super) fn pump_exec_client(&mut self, client: ClientId) {
        let Some(socket) = &mut self.context.socket else { return };
        let Some(index) = self.exec_clients.position(|other| other.client == client) else { return };
        let holder = &mut self.exec_clients.0[index];
        let exec = holder.exec;
        let mut taken = 0;
        while let Some(frame) = holder.output.front() {
            if socket.server.room(client) < frame.len() {
                break;
            }
            taken += (frame.len() - frame::HEADER) as u32;
            socket.server.send(client, frame);
            holder.output.pop_front();
        }
        let mut commands = Vec::new();
        if taken > 0 {
            commands.push(ExecCommand::Taken(taken));
        }
        let room = self.supervisor.exec_room(exec).min(holder.input.len());
        if room > 0 {
            commands.push(ExecCommand::Input(holder.input.drain(..room).collect()));
        }
        if holder.input_ended && holder.input.is_empty() {
            holder.input_ended = false;
            commands.push(ExecCommand::InputEnd);
        }
        socket.server.welcome_input(client, holder.input.is_empty());
        let finished = holder.over && holder.output.is_empty();
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
            (Some(*signal), out_of_memory.then(|| "the guest's kernel killed it for want of memory".to_owned()))
        }
        ExecEnd::Exited(_) => (None, None),
        ExecEnd::Failed { message, .. } => (None, Some(message.clone())),
        ExecEnd::MachineEnded => (None, Some("the machine has ended".to_owned())),
    };
    Over { status: end.status(), signal, message }
}
