// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What PID 1 itself wants to know of the workload while it runs: whether it is ready, whether it is well, and what it says to
//! a service manager. Part of the one event loop (`relay.rs`), which waits no longer than [`Probes::due`].

use super::control::Control;
use super::exec::{Execs, Owner};
use super::failure::{Failure, Step};
use crate::freestanding::system_call::milliseconds_since_boot;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use guest_init::health::{HealthAction, HealthMonitor};
use guest_init::sd_notify;
use guest_protocol::exec::{ExecReport, ExecRequest, ExecSpec, output_cost};
use guest_protocol::health::MAX_OUTPUT_BYTES;
use guest_protocol::notification::{Notification, Reload, SOCKET};
use guest_protocol::protocol::{ToHost, WorkloadEnd};
use guest_protocol::run_spec::{Readiness, RunSpec};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, read};
use rustix::net::{
    AddressFamily, Ipv4Addr, SocketAddrUnix, SocketAddrV4, SocketFlags, SocketType, bind, connect, getpeername,
    socket_with,
};

/// Between two looks at a port.
const PORT_INTERVAL_MS: u64 = 50;
/// From the end of a command that said no to the next one.
const COMMAND_INTERVAL_MS: u64 = 500;
/// Longest run of such a command.
const COMMAND_TIMEOUT_MS: u64 = 30_000;
/// What a workload says goes to the host no more often than this.
const NOTIFICATION_INTERVAL_MS: u64 = 50;
const SIGKILL: u8 = 9;

/// See the module.
#[derive(Default)]
pub(crate) struct Probes {
    readiness: Option<Probe>,
    health: Option<HealthMonitor>,
    /// What the running health check wrote.
    output: Vec<u8>,
    late: bool,
    notify: Option<Notify>,
}

/// The question whether the workload is ready, until it is answered.
struct Probe {
    readiness: Readiness,
    due: u64,
    /// A connection that was not refused at once.
    pending: Option<OwnedFd>,
    running: bool,
}

/// The workload's way to its service manager.
struct Notify {
    socket: OwnedFd,
    heard: Notification,
    /// Not before this time.
    due: u64,
}

/// What a process beside the workload needs.
pub(crate) struct Surroundings<'a> {
    pub(crate) spec: &'a RunSpec,
    /// The workload's pidfd, `None` once it has ended.
    pub(crate) workload: Option<BorrowedFd<'a>>,
    pub(crate) epoll: &'a OwnedFd,
}

/// The socket that the workload of `spec` is told of, if it is; made before the workload is.
pub(crate) fn open_notify_socket(spec: &RunSpec) -> Result<Option<OwnedFd>, Failure> {
    const STEP: &str = "listen for notifications";
    if spec.readiness != Readiness::Notified {
        return Ok(None);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).step(STEP, "socket")?;
    let address = SocketAddrUnix::new_abstract_name(&SOCKET.as_bytes()[1..]).step(STEP, SOCKET)?;
    bind(&socket, &address).step(STEP, SOCKET)?;
    Ok(Some(socket))
}

impl Probes {
    /// The workload of `spec` was executed just now. `token` is what events of `notify` carry.
    pub(crate) fn new(spec: &RunSpec, notify: Option<OwnedFd>, token: u64, epoll: &OwnedFd) -> Result<Self, Errno> {
        let mut probes = Self::default();
        let now = milliseconds_since_boot();
        if matches!(spec.readiness, Readiness::Port(_) | Readiness::Command(_)) {
            let readiness = spec.readiness.clone();
            probes.readiness = Some(Probe { readiness, due: now, pending: None, running: false });
        }
        if let Some(check) = &spec.health {
            probes.health = Some(HealthMonitor::new(check.clone(), now));
        }
        if let Some(socket) = notify {
            epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN)?;
            probes.notify = Some(Notify { socket, heard: Notification::default(), due: 0 });
        }
        Ok(probes)
    }

    /// Milliseconds from now until [`turn`](Self::turn) has something to do; `None` if time alone brings nothing.
    pub(crate) fn due(&self) -> Option<u64> {
        let readiness = self.readiness.as_ref().map(|probe| probe.due);
        let health = self.health.as_ref().map(HealthMonitor::due);
        let notify =
            self.notify.as_ref().filter(|notify| notify.heard != Notification::default()).map(|notify| notify.due);
        let due = readiness.into_iter().chain(health).chain(notify).filter(|&due| due != u64::MAX).min()?;
        Some(due.saturating_sub(milliseconds_since_boot()))
    }

    /// Does what is due.
    pub(crate) fn turn(
        &mut self,
        execs: &mut Execs,
        surroundings: &Surroundings<'_>,
        control: &mut Control,
    ) -> Result<(), Failure> {
        if self.readiness.is_none() && self.health.is_none() && self.notify.is_none() {
            return Ok(());
        }
        let now = milliseconds_since_boot();
        self.turn_readiness(now, execs, surroundings, control)?;
        self.turn_health(now, execs, surroundings, control)?;
        if let Some(notify) = &mut self.notify
            && notify.heard != Notification::default()
            && now >= notify.due
        {
            let heard = core::mem::take(&mut notify.heard);
            notify.due = now + NOTIFICATION_INTERVAL_MS;
            if heard.ready || heard.reload == Some(Reload::Done) {
                control.send(&ToHost::Ready)?;
            }
            control.send(&ToHost::Notification(heard))?;
        }
        Ok(())
    }

    fn turn_readiness(
        &mut self,
        now: u64,
        execs: &mut Execs,
        surroundings: &Surroundings<'_>,
        control: &mut Control,
    ) -> Result<(), Failure> {
        let Some(probe) = self.readiness.as_mut().filter(|probe| now >= probe.due) else { return Ok(()) };
        match &probe.readiness {
            Readiness::Port(port) => {
                if takes_connections(*port, &mut probe.pending) {
                    self.readiness = None;
                    return control.send(&ToHost::Ready);
                }
                probe.due = now + PORT_INTERVAL_MS;
            }
            Readiness::Command(_) if probe.running => {
                execs.obey(Owner::Readiness, ExecRequest::Signal(SIGKILL));
                probe.due = u64::MAX;
            }
            Readiness::Command(arguments) => {
                // One that cannot be started may be there later.
                let spec = ExecSpec { arguments: arguments.clone(), detached: true, ..ExecSpec::default() };
                probe.running = start(execs, Owner::Readiness, &spec, surroundings).is_ok();
                probe.due = now + if probe.running { COMMAND_TIMEOUT_MS } else { COMMAND_INTERVAL_MS };
            }
            Readiness::Executed | Readiness::Notified => self.readiness = None,
        }
        Ok(())
    }

    fn turn_health(
        &mut self,
        now: u64,
        execs: &mut Execs,
        surroundings: &Surroundings<'_>,
        control: &mut Control,
    ) -> Result<(), Failure> {
        let Some(health) = &mut self.health else { return Ok(()) };
        match health.poll(now) {
            None => Ok(()),
            Some(HealthAction::TimeOut) => {
                self.late = true;
                execs.obey(Owner::Health, ExecRequest::Signal(SIGKILL));
                Ok(())
            }
            Some(HealthAction::Run) => {
                (self.late, self.output) = (false, Vec::new());
                let spec = ExecSpec { arguments: health.arguments().to_owned(), ..ExecSpec::default() };
                match start(execs, Owner::Health, &spec, surroundings) {
                    Ok(()) => Ok(()),
                    Err(failure) => control.send(&ToHost::Health(health.finish(now, None, format!("{failure}")))),
                }
            }
        }
    }

    /// What became of a process that was started here.
    pub(crate) fn hear(
        &mut self,
        owner: Owner,
        report: ExecReport,
        execs: &mut Execs,
        control: &mut Control,
    ) -> Result<(), Failure> {
        match (owner, report) {
            (Owner::Readiness, ExecReport::Ended(WorkloadEnd::Exited(0))) => {
                self.readiness = None;
                control.send(&ToHost::Ready)
            }
            (Owner::Readiness, ExecReport::Ended(_)) => {
                if let Some(probe) = &mut self.readiness {
                    (probe.running, probe.due) = (false, milliseconds_since_boot() + COMMAND_INTERVAL_MS);
                }
                Ok(())
            }
            (Owner::Health, ExecReport::Output { bytes, .. }) => {
                let room = MAX_OUTPUT_BYTES - self.output.len();
                self.output.extend_from_slice(&bytes[..bytes.len().min(room)]);
                // The rest is read and lost, so that the check can end.
                execs.obey(owner, ExecRequest::Credit(output_cost(bytes.len())));
                Ok(())
            }
            (Owner::Health, ExecReport::Ended(end)) => {
                let Some(health) = &mut self.health else { return Ok(()) };
                let mut output = String::from_utf8_lossy(&self.output).into_owned();
                let exit = match end {
                    WorkloadEnd::Exited(status) => Some(status.into()),
                    _ => None,
                };
                if self.late {
                    output = "the check took longer than its timeout".to_owned();
                }
                control.send(&ToHost::Health(health.finish(milliseconds_since_boot(), exit, output)))
            }
            _ => Ok(()),
        }
    }

    /// Takes what the workload said.
    pub(crate) fn hear_workload(&mut self) {
        let Some(notify) = &mut self.notify else { return };
        let mut datagram = [MaybeUninit::<u8>::uninit(); 4096];
        while let Ok((datagram, _)) = read(&notify.socket, &mut datagram) {
            sd_notify::merge(&mut notify.heard, datagram);
        }
    }
}

fn start(execs: &mut Execs, owner: Owner, spec: &ExecSpec, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
    let Surroundings { spec: defaults, workload, epoll } = surroundings;
    execs.start(owner, spec, defaults, *workload, epoll)
}

/// Whether `port` takes a connection. On the loopback device that is known at once, but for a full queue of the listener.
fn takes_connections(port: u16, pending: &mut Option<OwnedFd>) -> bool {
    if let Some(socket) = pending.take() {
        return getpeername(&socket).is_ok();
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(socket) = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None) else { return false };
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) => true,
        Err(Errno::INPROGRESS) => {
            *pending = Some(socket);
            false
        }
        Err(_) => false,
    }
}
