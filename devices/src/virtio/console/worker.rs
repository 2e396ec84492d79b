// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves bytes between the ports' queues and the host, and answers the driver's control messages. Runs on the `io` event
//! loop.

use super::super::queue::{Served, Virtqueue};
use super::super::{Activation, Worker};
use super::control::{
    CONSOLE_PORT, DEVICE_READY, FEATURE_MULTIPORT, Message, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY,
};
use super::port::{PortConfig, PortInput, PortOutput};
use super::transfer::Port;
use crate::GuestMemory;
use crate::event_loop::Source;
use crate::guest_warn;
use std::collections::VecDeque;
use vmm_sys_util::epoll::EventSet;
use zerocopy::IntoBytes;

/// Queues of the control messages.
const CONTROL_TO_DRIVER: u32 = 2;
const CONTROL_FROM_DRIVER: u32 = 3;
/// Tokens of host descriptors: this, plus twice the port's number, plus one for an output.
const STREAM_TOKENS: u32 = 1 << 16;
/// Control messages that wait for a buffer of the driver's. It needs less than five a port.
const MESSAGES_LIMIT: usize = 256;

pub(super) struct ConsoleWorker {
    memory: GuestMemory,
    ports: Vec<Port>,
    to_driver: Virtqueue,
    from_driver: Virtqueue,
    /// Messages for the driver, with the names that follow them.
    messages: VecDeque<Vec<u8>>,
}

impl ConsoleWorker {
    pub(super) fn new(activation: Activation, configs: Vec<PortConfig>) -> Self {
        let multiport = activation.has_feature(FEATURE_MULTIPORT);
        let mut queues = activation.queues.into_iter();
        let mut next = || queues.next().expect("the identity lists two queues a port and two for control");
        let mut control = None;
        let mut ports = Vec::new();
        for config in configs {
            let (receive, transmit) = (next(), next());
            // Without the feature, port 0 is all there is, and nobody says that it is open.
            ports.push(Port::new(config, receive, transmit, !multiport && ports.is_empty()));
            control.get_or_insert_with(|| (next(), next()));
        }
        let (to_driver, from_driver) = control.expect("a console has a port");
        Self { memory: activation.memory, ports, to_driver, from_driver, messages: VecDeque::new() }
    }

    /// Takes the driver's messages, and sends the answers to them.
    fn exchange_messages(&mut self) {
        let mut received = Vec::new();
        self.from_driver.serve(&self.memory, |chain| {
            let mut message = Message::default();
            if chain.readable.read_exact(message.as_mut_bytes()).is_ok() {
                received.push(message);
            }
            Served::Done(0)
        });
        received.into_iter().for_each(|message| self.take_message(message));
        let messages = &mut self.messages;
        self.to_driver.serve(&self.memory, |chain| {
            let Some(message) = messages.pop_front() else { return Served::Later };
            match chain.writable.write_all(&message) {
                Ok(()) => Served::Done(message.len() as u32),
                Err(_) => {
                    guest_warn!("console: a buffer for control messages is too short");
                    Served::Done(0)
                }
            }
        });
    }

    fn take_message(&mut self, message: Message) {
        let (number, event, value) = (message.port.get(), message.event.get(), message.value.get());
        if (event, value) == (DEVICE_READY, 1) {
            (0..self.ports.len() as u32).for_each(|number| self.send(Message::new(number, PORT_ADD, 1), ""));
            return;
        }
        let Some(port) = self.ports.get_mut(number as usize) else { return };
        match (event, value) {
            (PORT_READY, 1) => {
                let (is_console, name) = (port.is_console, port.name);
                if is_console {
                    self.send(Message::new(number, CONSOLE_PORT, 1), "");
                }
                self.send(Message::new(number, PORT_NAME, 1), name);
                // The host's side is open from the start: what the guest sends is never refused.
                self.send(Message::new(number, PORT_OPEN, 1), "");
            }
            (PORT_OPEN, open) => {
                port.guest_open = open == 1;
                port.receive(&self.memory);
            }
            _ => {}
        }
    }

    fn send(&mut self, message: Message, name: &str) {
        if self.messages.len() < MESSAGES_LIMIT {
            self.messages.push_back([message.as_bytes(), name.as_bytes()].concat());
        } else {
            guest_warn!("console: the driver asks for more than it takes; a control message was dropped");
        }
    }

    fn serve_queue(&mut self, queue: u32) {
        match queue {
            CONTROL_TO_DRIVER | CONTROL_FROM_DRIVER => self.exchange_messages(),
            _ => {
                let number = if queue < CONTROL_TO_DRIVER { 0 } else { queue / 2 - 1 };
                let Some(port) = self.ports.get_mut(number as usize) else { return };
                if queue.is_multiple_of(2) { port.receive(&self.memory) } else { port.transmit(&self.memory) }
            }
        }
    }
}

/// Number of the queue to the driver of a port; the one from it comes next.
fn first_queue(port: u32) -> u32 {
    if port == 0 { 0 } else { 2 * port + 2 }
}

impl Worker for ConsoleWorker {
    fn sources(&self) -> Vec<Source> {
        let mut sources = vec![
            Source::kick(self.to_driver.kick(), CONTROL_TO_DRIVER),
            Source::kick(self.from_driver.kick(), CONTROL_FROM_DRIVER),
        ];
        for (number, port) in (0..).zip(&self.ports) {
            let (kicks, streams) = (first_queue(number), STREAM_TOKENS + 2 * number);
            sources.push(Source::kick(port.receive.kick(), kicks));
            sources.push(Source::kick(port.transmit.kick(), kicks + 1));
            if let Some(PortInput(input)) = &port.input {
                sources.push(Source::changes(input, streams));
            }
            if let Some(PortOutput::Stream(output)) = &port.output {
                sources.push(Source::changes(&output.0, streams + 1));
            }
        }
        sources
    }

    fn start(&mut self) {
        self.exchange_messages();
        for port in &mut self.ports {
            port.transmit(&self.memory);
            port.receive(&self.memory);
        }
    }

    fn process(&mut self, token: u32, ready: EventSet) {
        let Some(stream) = token.checked_sub(STREAM_TOKENS) else { return self.serve_queue(token) };
        let Some(port) = self.ports.get_mut(stream as usize / 2) else { return };
        if stream.is_multiple_of(2) {
            port.input_changed(&self.memory);
        } else {
            port.output_changed(&self.memory, ready);
        }
    }

    /// What the guest has sent is passed on, as far as it can be without waiting.
    fn retire(&mut self) {
        self.ports.iter_mut().for_each(|port| port.transmit(&self.memory));
    }
}
