// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves bytes between the ports' queues and the host, and answers the driver's control messages.
//! Runs on the `io` event loop.

use super::super::queue::{Served, Virtqueue};
use super::super::{Activation, Worker};
use super::control::{
    CONSOLE_PORT, DEVICE_READY, FEATURE_MULTIPORT, Message, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY,
};
use super::port::{PortConfig, PortInput, PortOutput};
use super::saved::{ConsoleState, PortState};
use super::transfer::Port;
use crate::event_loop::Source;
use crate::guest_warn;
use crate::slot::Borrowed;
use crate::turn::Turn;
use std::collections::VecDeque;
use vmm_sys_util::epoll::EventSet;
use zerocopy::IntoBytes;

/// Queues of the control messages.
const CONTROL_TO_DRIVER: u32 = 2;
const CONTROL_FROM_DRIVER: u32 = 3;
/// Tokens of host descriptors: this, plus twice the port's number, plus one for an output.
const STREAM_TOKENS: u32 = 1 << 16;
/// Control messages that wait for a buffer. A driver needs fewer than five for each port.
pub(super) const MAX_MESSAGES: usize = 256;

pub(super) struct ConsoleWorker {
    ports: Vec<Port>,
    to_driver: Virtqueue,
    from_driver: Virtqueue,
    /// Messages for the driver.
    messages: VecDeque<Message>,
    /// Filled when the worker is dropped.
    state: Borrowed<ConsoleState>,
}

impl ConsoleWorker {
    /// Continues with `state`, which is empty after a reset.
    pub(super) fn new(activation: Activation, configs: Vec<PortConfig>, mut state: Borrowed<ConsoleState>) -> Self {
        let ConsoleState { ports: port_states, messages } = std::mem::take(&mut *state);
        let multiport = activation.has_feature(FEATURE_MULTIPORT);
        let mut queues = activation.queues.into_iter();
        let mut next = || queues.next().expect("the identity lists two queues a port and two for control");
        let mut control = None;
        let mut ports = Vec::new();
        for config in configs {
            let (receive, transmit) = (next(), next());
            // Without the feature there is only port 0, and no message that it is open.
            let mut port = Port::new(config, receive, transmit, !multiport && ports.is_empty());
            if let Some(state) = port_states.get(ports.len()) {
                port.guest_open = state.guest_open.get() == 1;
                port.passed_on = state.passed_on.get() as usize;
            }
            ports.push(port);
            control.get_or_insert_with(|| (next(), next()));
        }
        let (to_driver, from_driver) = control.expect("a console has a port");
        Self { ports, to_driver, from_driver, messages, state }
    }

    /// Receives the driver's messages, and sends the answers.
    fn exchange_messages(&mut self, turn: &mut Turn<'_>) {
        let mut received = Vec::new();
        self.from_driver.serve(turn, |chain| {
            let mut message = Message::default();
            if chain.readable.read_exact(message.as_mut_bytes()).is_ok() {
                received.push(message);
            }
            Served::Done(0)
        });
        received.into_iter().for_each(|message| self.handle_message(message, turn));
        let (messages, ports) = (&mut self.messages, &self.ports);
        self.to_driver.serve(turn, |chain| {
            let Some(message) = messages.pop_front() else { return Served::Later };
            let name = match ports.get(message.port.get() as usize) {
                Some(port) if message.event.get() == PORT_NAME => port.name,
                _ => "",
            };
            let message = [message.as_bytes(), name.as_bytes()].concat();
            match chain.writable.write_all(&message) {
                Ok(()) => Served::Done(message.len() as u32),
                Err(_) => {
                    guest_warn!("console: a buffer for control messages is too short");
                    Served::Done(0)
                }
            }
        });
    }

    fn handle_message(&mut self, message: Message, turn: &mut Turn<'_>) {
        let (number, event, value) = (message.port.get(), message.event.get(), message.value.get());
        if (event, value) == (DEVICE_READY, 1) {
            (0..self.ports.len() as u32).for_each(|number| self.send(Message::new(number, PORT_ADD, 1)));
            return;
        }
        let Some(port) = self.ports.get_mut(number as usize) else { return };
        match (event, value) {
            (PORT_READY, 1) => {
                if port.is_console {
                    self.send(Message::new(number, CONSOLE_PORT, 1));
                }
                self.send(Message::new(number, PORT_NAME, 1));
                // The host's side is open from the start, so that the guest can always send.
                self.send(Message::new(number, PORT_OPEN, 1));
            }
            (PORT_OPEN, open) => {
                port.guest_open = open == 1;
                port.receive(turn);
            }
            _ => {}
        }
    }

    fn send(&mut self, message: Message) {
        if self.messages.len() < MAX_MESSAGES {
            self.messages.push_back(message);
        } else {
            guest_warn!("console: {MAX_MESSAGES} control messages wait for a buffer; one more was dropped");
        }
    }

    fn serve_queue(&mut self, queue: u32, turn: &mut Turn<'_>) {
        match queue {
            CONTROL_TO_DRIVER | CONTROL_FROM_DRIVER => self.exchange_messages(turn),
            _ => {
                let number = if queue < CONTROL_TO_DRIVER { 0 } else { queue / 2 - 1 };
                let Some(port) = self.ports.get_mut(number as usize) else { return };
                if queue.is_multiple_of(2) { port.receive(turn) } else { port.transmit(turn) }
            }
        }
    }
}

impl Drop for ConsoleWorker {
    fn drop(&mut self) {
        let state = |port: &Port| PortState {
            guest_open: u32::from(port.guest_open).into(),
            // A chain has less than 4 GiB.
            passed_on: (port.passed_on as u32).into(),
        };
        let ports = self.ports.iter().map(state).collect();
        *self.state = ConsoleState { ports, messages: std::mem::take(&mut self.messages) };
    }
}

/// Number of a port's queue to the driver. The one from the driver is next.
fn first_queue(port: u32) -> u32 {
    if port == 0 { 0 } else { 2 * port + 2 }
}

impl Worker for ConsoleWorker {
    fn sources(&self) -> Vec<Source> {
        let mut sources = vec![
            Source::event(self.to_driver.queue_event(), CONTROL_TO_DRIVER),
            Source::event(self.from_driver.queue_event(), CONTROL_FROM_DRIVER),
        ];
        for (number, port) in (0..).zip(&self.ports) {
            let (queue, stream) = (first_queue(number), STREAM_TOKENS + 2 * number);
            sources.push(Source::event(port.receive.queue_event(), queue));
            sources.push(Source::event(port.transmit.queue_event(), queue + 1));
            if let Some(PortInput(input)) = &port.input {
                sources.push(Source::changes(&**input, stream));
            }
            if let Some(PortOutput::Stream(output)) = &port.output {
                sources.push(Source::changes(&*output.0, stream + 1));
            }
        }
        sources
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.exchange_messages(turn);
        for port in &mut self.ports {
            port.transmit(turn);
            port.receive(turn);
        }
    }

    fn process(&mut self, token: u32, ready: EventSet, turn: &mut Turn<'_>) {
        let Some(stream) = token.checked_sub(STREAM_TOKENS) else { return self.serve_queue(token, turn) };
        let Some(port) = self.ports.get_mut(stream as usize / 2) else { return };
        if stream.is_multiple_of(2) {
            port.input_changed(turn);
        } else {
            port.output_changed(ready, turn);
        }
    }

    /// Passes on what the guest has sent, as far as that is possible without waiting.
    fn drain(&mut self) {
        self.ports.iter_mut().for_each(|port| port.transmit(&mut Turn::unlimited()));
    }
}
