// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What clients of the control socket want of a running machine, and what everybody is told of it. Part of `main`'s event
//! loop.

use super::Monitor;
use crate::api::server::{ClientEvent, ClientId, Command, Kill, Response, Stop};
use crate::host::resident;
use crate::machine::supervisor::Event;
use crate::state::lifecycle::Lifecycle;
use crate::state::stages::Stage;
use crate::state::status::State;
use guest_protocol::health::HealthReport;
use std::time::{Duration, Instant};

const SIGKILL: u8 = 9;

impl Monitor<'_> {
    /// Does what clients ask for, if there is anything to do.
    pub(super) fn on_socket(&mut self, ready: bool) {
        let Self { machine, threads, totals, context, .. } = self;
        let Some(socket) = &mut context.socket else { return };
        if !ready && socket.until_next(Instant::now()).is_none_or(|wait| !wait.is_zero()) {
            return;
        }
        let counters = || machine.counters(totals.cpu_time + threads.cpu_time());
        for (client, event) in socket.serve(context.lifecycle, counters) {
            match event {
                ClientEvent::Command(command) => self.on_command(client, command),
                ClientEvent::Frame(frame) if self.attached_clients.holds(client) => {
                    self.on_attached_frame(frame);
                }
                ClientEvent::Frame(frame) => self.on_exec_frame(client, frame),
                ClientEvent::InputEnded => self.on_exec_input_ended(client),
                ClientEvent::Writable => self.pump_exec_client(client),
                ClientEvent::Gone => {
                    self.attached_clients.remove(client);
                    self.on_exec_client_gone(client);
                }
            }
        }
    }

    fn on_command(&mut self, client: ClientId, command: Command) {
        let state = self.context.lifecycle.status().state;
        let done = match command {
            // These two answer with a channel.
            Command::Exec(spec) => return self.on_exec(client, spec),
            Command::Attach => return self.on_attach(client),
            Command::Stop(Stop { timeout, signal }) => {
                let grace = timeout.map(|seconds| Duration::from_secs(seconds.into()));
                self.release();
                self.feed(Event::Stop { grace, signal: signal.map(|signal| signal.get()) });
                Ok(())
            }
            Command::Kill(Kill { signal }) => match signal.map_or(SIGKILL, |signal| signal.get()) {
                signal if signal != SIGKILL && state == State::Starting => Err(conflict(state, "take a signal")),
                signal => {
                    self.feed(Event::Kill(signal));
                    Ok(())
                }
            },
            Command::Pause => self.pause(state),
            Command::Resume if matches!(state, State::Running | State::Paused) => {
                self.release();
                Ok(())
            }
            Command::Resume => Err(conflict(state, "be resumed")),
        };
        let response = done.map_or_else(|error| error, |()| Response::json(self.context.lifecycle.status()));
        if let Some(socket) = &mut self.context.socket {
            socket.server.respond(client, &response);
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
    fn release(&mut self) {
        if self.context.lifecycle.status().state == State::Paused {
            self.threads.resume();
            self.enter(State::Running);
        }
    }

    pub(super) fn on_stage(&mut self, stage: Stage) {
        self.context.stages.mark(stage);
        if stage != Stage::WorkloadExecuted {
            return;
        }
        self.enter(State::Running);
        self.tell_starter();
        resident::give_back_code();
    }

    pub(super) fn on_ready(&mut self) {
        self.context.notifier.ready();
        self.tell(Lifecycle::be_ready);
        self.tell_starter();
    }

    /// Whoever wanted the machine waits until it runs and is ready, as both are usually one.
    fn tell_starter(&mut self) {
        let status = self.context.lifecycle.status();
        if status.state != State::Running || !status.ready {
            return;
        }
        if let Some(parent) = self.context.parent.take()
            && parent.notify_parent(&self.context.lifecycle.status().id).is_err()
        {
            // He was interrupted, and will not come back for it.
            self.feed(Event::Stop { grace: None, signal: None });
        }
    }

    pub(super) fn on_health(&mut self, report: HealthReport) {
        self.tell(|lifecycle| lifecycle.be_healthy(report));
    }

    /// The workload was asked to end, by whatever way: a paused one must be able to.
    pub(super) fn on_stopping(&mut self) {
        self.context.notifier.stopping();
        self.release();
        self.enter(State::Stopping);
    }

    fn enter(&mut self, state: State) {
        let counters = self.machine.counters(self.totals.cpu_time + self.threads.cpu_time());
        self.tell(|lifecycle| lifecycle.enter(state, counters));
    }

    /// Changes what others are told, and tells them. What is to be told with the next change is not told yet.
    fn tell(&mut self, change: impl FnOnce(&mut Lifecycle)) {
        let context = &mut self.context;
        let told = context.lifecycle.status().sequence;
        change(context.lifecycle);
        let status = context.lifecycle.status();
        if status.sequence != told
            && let Some(socket) = &mut context.socket
        {
            socket.publish(status);
        }
    }
}

pub(super) fn conflict(state: State, wish: &str) -> Response {
    Response::error(409, &format!("a machine that is {state} cannot {wish}"))
}
