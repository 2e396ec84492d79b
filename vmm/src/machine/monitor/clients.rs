// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket: their commands, the processes that they run beside the workload,
//! the input that they attach to it, and the changes of the status that they see. Part of `main`'s
//! event loop.

use super::Monitor;
use crate::api::frame::{self, ClientFrame, Exit};
use crate::api::outbox::MAX_OUTBOX_BYTES;
use crate::api::server::{Channel, ClientEvent, ClientId, Command, Kill, Resize, Response, Stop};
use crate::config::signal::SignalNumber;
use crate::host::resident;
use crate::host::system_error::chain;
use crate::machine::disks::DiskError;
use crate::machine::supervisor::Event;
use crate::machine::supervisor::exec::{ExecCommand, ExecEnd, ExecEvent, ExecId};
use crate::state::lifecycle::Lifecycle;
use crate::state::stages::Stage;
use crate::state::status::State;
use guest_protocol::exec::{ExecSpec, OUTPUT_OVERHEAD, OUTPUT_WINDOW};
use guest_protocol::protocol::WorkloadEnd;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What PID 1 may send without more credit fits into the client's outbox, however short the frames
/// are: a frame costs its header, too. The other half is for the last frame.
const _: () = assert!(OUTPUT_WINDOW as usize <= MAX_OUTBOX_BYTES / 2);
const _: () = assert!(OUTPUT_OVERHEAD as usize == frame::HEADER_SIZE);

/// Clients with a channel; at most as many as the server has clients.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Each runs a process.
    exec: Vec<ExecClient>,
    /// Each writes the input of a detached workload. Its output reaches them from the logs
    /// (`vmm/src/api/log_streams.rs`).
    attached: BTreeSet<ClientId>,
}

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

impl Clients {
    fn exec_of(&self, client: ClientId) -> Option<usize> {
        self.exec.iter().position(|other| other.client == client)
    }
}

impl Monitor<'_> {
    /// Serves the control socket if it is `ready` or has a deadline.
    pub(super) fn on_socket(&mut self, ready: bool) {
        self.serve_held();
        let Self { machine, threads, totals, context, .. } = self;
        let Some(socket) = &mut context.socket else { return };
        if !ready && socket.until_next(Instant::now()).is_none_or(|wait| !wait.is_zero()) {
            return;
        }
        let counters = || machine.counters(totals.cpu_time + threads.cpu_time());
        for (client, event) in socket.serve(context.lifecycle, counters) {
            match event {
                ClientEvent::Command(command) => self.on_command(client, command),
                ClientEvent::Frame(frame) if self.clients.attached.contains(&client) => self.on_attached_frame(frame),
                ClientEvent::Frame(frame) => self.on_exec_frame(client, frame),
                ClientEvent::InputEnded => self.on_exec_input_ended(client),
                ClientEvent::Writable => self.pump_exec_client(client),
                ClientEvent::Gone => {
                    self.clients.attached.remove(&client);
                    self.on_exec_client_gone(client);
                    self.on_layer_client_gone(client);
                }
            }
        }
    }

    /// Handles the commands that waited for this state of the machine.
    fn serve_held(&mut self) {
        let waits = self.waits();
        let Some(socket) = &mut self.context.socket else { return };
        for (client, command) in socket.release(|command| !waits(command)) {
            self.on_command(client, command);
        }
    }

    /// Which commands wait for another state of the machine.
    fn waits(&self) -> impl Fn(&Command) -> bool + use<> {
        let is_starting = self.context.lifecycle.status().state == State::Starting;
        let all = is_starting || self.snapshot.is_some() || self.is_held_by_copy();
        let is_copied = self.layer.is_some();
        move |command| command.needs_workload() && (all || is_copied && command.needs_whole_machine())
    }

    fn on_command(&mut self, client: ClientId, command: Command) {
        let state = self.context.lifecycle.status().state;
        if self.waits()(&command) {
            if let Some(socket) = &mut self.context.socket {
                socket.hold(client, command);
            }
            return;
        }
        let done = match command {
            // These two respond with a channel, the next two when they are written, the last two with what has changed.
            Command::Exec(spec) => return self.on_exec(client, spec),
            Command::Attach => return self.on_attach(client),
            Command::Snapshot(descriptors) => return self.on_snapshot(client, &descriptors),
            Command::Layer { pauses, descriptors } => return self.on_layer(client, pauses, &descriptors),
            Command::Limits(limits) => {
                let changed = self.machine.rates.change(&limits);
                let response = match changed {
                    Ok(()) => Response::json(&self.machine.rates.all()),
                    Err(error) => Response::error(400, &error.to_string()),
                };
                return self.respond(client, &response);
            }
            Command::Resize(resize) => {
                let response = match state {
                    State::Running | State::Paused => self.resize(resize),
                    _ => conflict(state, "have a disk resized"),
                };
                return self.respond(client, &response);
            }
            Command::Stop(Stop { timeout, signal }) => {
                let grace = timeout.map(|seconds| Duration::from_secs(seconds.into()));
                self.resume();
                self.feed(Event::Stop { grace, signal: signal.map(|signal| signal.get()) });
                Ok(())
            }
            Command::Kill(Kill { signal }) => {
                self.feed(Event::Kill(signal.unwrap_or(SignalNumber::KILL).get()));
                Ok(())
            }
            Command::Pause => self.pause(state),
            Command::Resume if matches!(state, State::Running | State::Paused) => {
                self.resume();
                Ok(())
            }
            Command::Resume => Err(conflict(state, "be resumed")),
        };
        let response = done.map_or_else(|error| error, |()| Response::json(self.context.lifecycle.status()));
        self.respond(client, &response);
    }

    fn resize(&self, Resize { disk, size }: Resize) -> Response {
        match self.machine.disks.resize(&disk, size) {
            Ok(bytes) => Response::json(&Resize { disk, size: Some(bytes) }),
            Err(error) => {
                let status = match &error {
                    DiskError::Unknown(_) => 400,
                    DiskError::Fixed(_) => 409,
                    DiskError::Resize { source, .. } if source.is_host() => 500,
                    DiskError::Resize { .. } => 409,
                };
                Response::error(status, &chain(&error))
            }
        }
    }

    pub(super) fn respond(&mut self, client: ClientId, response: &Response) {
        if let Some(socket) = &mut self.context.socket {
            socket.server.respond(client, response);
        }
    }

    fn pause(&mut self, state: State) -> Result<(), Response> {
        match state {
            State::Paused => Ok(()),
            State::Running if self.threads.pause() => {
                self.enter(State::Paused);
                Ok(())
            }
            State::Running => Err(Response::error(503, "a vCPU waits for a device that hangs")),
            _ => Err(conflict(state, "be paused")),
        }
    }

    /// Ends a pause, if there is one.
    fn resume(&mut self) {
        if self.context.lifecycle.status().state == State::Paused {
            self.threads.resume();
            self.enter(State::Running);
        }
    }
}

pub(super) fn conflict(state: State, action: &str) -> Response {
    Response::error(409, &format!("a machine that is {state} cannot {action}"))
}

/// `exec`: frames of the client go to the process and its output to the client, as far as either
/// side takes them.
impl Monitor<'_> {
    fn on_exec(&mut self, client: ClientId, spec: ExecSpec) {
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
                let (input, input_ended, uncredited) = (VecDeque::new(), false, 0);
                self.clients.exec.push(ExecClient { client, exec, detached, input, input_ended, uncredited });
                self.act(actions);
            }
        }
    }

    pub(super) fn on_exec_event(&mut self, exec: ExecId, event: ExecEvent) {
        let Some(socket) = &mut self.context.socket else { return };
        let Some(index) = self.clients.exec.iter().position(|other| other.exec == exec) else { return };
        let exec_client = &mut self.clients.exec[index];
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
        self.clients.exec.swap_remove(index);
    }

    fn on_exec_frame(&mut self, client: ClientId, frame: ClientFrame) {
        let Some(index) = self.clients.exec_of(client) else { return };
        let exec_client = &mut self.clients.exec[index];
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

    fn on_exec_input_ended(&mut self, client: ClientId) {
        if let Some(index) = self.clients.exec_of(client) {
            self.clients.exec[index].input_ended = true;
            self.pump_exec_client(client);
        }
    }

    fn on_exec_client_gone(&mut self, client: ClientId) {
        if let Some(index) = self.clients.exec_of(client) {
            let gone = self.clients.exec.swap_remove(index);
            self.feed(Event::Exec(gone.exec, ExecCommand::HangUp));
        }
    }

    /// Sends input as far as the process has room, and credits output as far as the client took it.
    fn pump_exec_client(&mut self, client: ClientId) {
        let Some(socket) = &mut self.context.socket else { return };
        let Some(index) = self.clients.exec_of(client) else { return };
        let exec_client = &mut self.clients.exec[index];
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

/// `attach`: frames of the clients are the input, signals and size of a detached workload.
impl Monitor<'_> {
    fn on_attach(&mut self, client: ClientId) {
        let Some(socket) = &mut self.context.socket else { return };
        if socket.attach(client) {
            socket.server.set_read_enabled(client, self.input.wants_input());
            self.clients.attached.insert(client);
        }
    }

    fn on_attached_frame(&mut self, frame: ClientFrame) {
        match frame {
            // An empty frame, the end of one client's input, is not the workload's: another client
            // may come.
            ClientFrame::Input(bytes) => {
                self.input.push(&bytes);
                self.feed_input();
            }
            ClientFrame::Signal(_) if self.control_port.has_backlog() => {}
            ClientFrame::Signal(signal) => self.feed(Event::Kill(signal)),
            ClientFrame::Resize(size) => self.feed(Event::WindowSize(size)),
        }
    }

    /// Passes on input of attached clients as far as the workload takes it. Clients are read while
    /// no input is pending.
    pub(super) fn feed_input(&mut self) {
        self.input.flush(&self.epoll);
        let Some(socket) = &mut self.context.socket else { return };
        for client in &self.clients.attached {
            socket.server.set_read_enabled(*client, self.input.wants_input());
        }
    }
}

impl Monitor<'_> {
    pub(super) fn on_stage(&mut self, stage: Stage) {
        self.context.stages.mark(stage);
        if stage != Stage::WorkloadExecuted {
            return;
        }
        self.enter(State::Running);
        self.notify_parent();
        self.context.maker = None;
        resident::drop_code_pages();
    }

    pub(super) fn on_ready(&mut self) {
        self.context.notifier.ready();
        self.update(Lifecycle::set_ready);
        self.notify_parent();
    }

    /// The workload was asked to end. A paused one must be able to.
    pub(super) fn on_stopping(&mut self) {
        self.context.notifier.stopping();
        self.abandon_layer("the machine is being stopped");
        self.resume();
        self.enter(State::Stopping);
    }

    /// The parent of a detached machine waits until it runs and is ready.
    fn notify_parent(&mut self) {
        let status = self.context.lifecycle.status();
        if status.state != State::Running || !status.ready {
            return;
        }
        if let Some(parent) = self.context.parent.take()
            && parent.notify_parent(&self.context.lifecycle.status().id).is_err()
        {
            // The parent was interrupted, so no user knows of this machine.
            self.feed(Event::Stop { grace: None, signal: None });
        }
    }

    pub(super) fn enter(&mut self, state: State) {
        let counters = self.machine.counters(self.totals.cpu_time + self.threads.cpu_time());
        self.update(|lifecycle| lifecycle.enter(state, counters));
    }

    /// Changes the status. Clients see it, unless it waits for the next change.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Lifecycle)) {
        let context = &mut self.context;
        let sequence = context.lifecycle.status().sequence;
        change(context.lifecycle);
        let status = context.lifecycle.status();
        if status.sequence != sequence
            && let Some(socket) = &mut context.socket
        {
            socket.publish(status);
        }
    }
}
