// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket while the machine is prepared: queries are answered, a stop or a kill ends the run, and what is for
//! the machine waits for it. Used by `main`.

use super::report::Recorder;
use crate::api::control_socket::ControlSocket;
use crate::api::server::{ClientEvent, ClientId, Command, Response};
use crate::config::signal::SignalNumber;
use crate::host::interruptible::Meanwhile;
use crate::state::counters::Counters;
use crate::state::end::End;
use crate::state::lifecycle::Lifecycle;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

pub(super) struct EarlyClients<'a> {
    socket: Option<&'a mut ControlSocket>,
    lifecycle: &'a mut Lifecycle,
}

impl<'a> EarlyClients<'a> {
    pub(super) fn new(recorder: &'a mut Recorder) -> Self {
        Self { socket: recorder.socket.as_mut(), lifecycle: &mut recorder.lifecycle }
    }
}

impl Meanwhile for EarlyClients<'_> {
    type End = End;

    fn descriptor(&self) -> Option<RawFd> {
        self.socket.as_ref().map(|socket| socket.as_raw_fd())
    }

    fn until_next(&self) -> Option<Duration> {
        self.socket.as_ref()?.until_next(Instant::now())
    }

    fn serve(&mut self) -> Option<End> {
        let Self { socket: Some(socket), lifecycle } = self else { return None };
        let mut ended = None;
        for (client, event) in socket.serve(lifecycle, Counters::default) {
            if let ClientEvent::Command(command) = event {
                ended = ended.or(on_command(socket, lifecycle, client, command));
            }
        }
        ended
    }
}

fn on_command(socket: &mut ControlSocket, lifecycle: &Lifecycle, client: ClientId, command: Command) -> Option<End> {
    let end = match command {
        Command::Stop(_) => End::signalled_before_workload(SignalNumber::TERM.get()),
        Command::Kill(kill) if kill.cuts_power() => End::killed("a kill was asked for before the machine ran"),
        Command::Resume => {
            socket.server.respond(client, &Response::error(409, "a machine that is starting cannot be resumed"));
            return None;
        }
        Command::Kill(_)
        | Command::Exec(_)
        | Command::Pause
        | Command::Limits(_)
        | Command::Resize(_)
        | Command::Snapshot(_)
        | Command::Layer { .. }
        | Command::Attach => {
            socket.hold(client, command);
            return None;
        }
    };
    socket.server.respond(client, &Response::json(lifecycle.status()));
    Some(end)
}
