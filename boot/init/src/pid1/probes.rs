// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What PID 1 observes of the running workload: readiness, health, and its notifications to a
//! service manager. Part of the event loop (`relay.rs`), which waits no longer than
//! [`Probes::due`].

use super::exec::{ExecContext, Execs, Owner};
use super::failure::{Failure, Step};
use super::files::read_listing;
use super::mounts::open_socket_tables;
use super::relay::Control;
use super::workload;
use crate::freestanding::system_call::milliseconds_since_boot;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use guest_init::health::{HealthAction, HealthMonitor};
use guest_init::{listening, sd_notify};
use guest_protocol::exec::{ExecReport, ExecRequest, ExecSpec, output_cost};
use guest_protocol::health::MAX_OUTPUT_BYTES;
use guest_protocol::notification::{Notification, Reload, SOCKET};
use guest_protocol::protocol::{ToHost, WorkloadEnd};
use guest_protocol::run_spec::{Readiness, RunSpec};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

/// Between two looks at the listening sockets.
const LISTENING_INTERVAL_MS: u64 = 50;
/// A workload is idle that needs less processor time than `IDLE_CPU_US` in this time.
const IDLE_INTERVAL_MS: u64 = 2_000;
const IDLE_CPU_US: u64 = 100_000;
/// The longest wait for a listener or for an idle workload, since the workload was executed.
const MAX_BUSY_MS: u64 = 60_000;
/// Of the kernel's table of TCP sockets, where those that listen come first.
const MAX_TABLE_SIZE: usize = 64 << 10;
/// From the end of a failed readiness command to the next one.
const COMMAND_INTERVAL_MS: u64 = 500;
/// A readiness command that runs longer is killed.
const COMMAND_TIMEOUT_MS: u64 = 30_000;
/// Between two `Notification` messages. Datagrams in between are merged.
const NOTIFICATION_INTERVAL_MS: u64 = 50;
/// Datagrams per turn of the event loop. The workload may send faster than they are read.
const MAX_DATAGRAMS_PER_TURN: usize = 16;
/// Longer datagrams are cut off.
const DATAGRAM_BUF_SIZE: usize = 4096;

#[derive(Default)]
pub(crate) struct Probes {
    readiness: Option<ReadinessProbe>,
    health: Option<HealthMonitor>,
    /// Output of the running health check.
    output: Vec<u8>,
    notify: Option<Notify>,
}

/// Exists until the workload is ready.
struct ReadinessProbe {
    readiness: Readiness,
    due: u64,
    /// Of TCP sockets, for [`Readiness::Listening`].
    tables: Vec<OwnedFd>,
    idle: Option<IdleWatch>,
    running: bool,
}

/// Tells a workload that serves nothing from one that is about to listen.
struct IdleWatch {
    deadline: u64,
    /// Of the current interval.
    since: u64,
    cpu_us: Option<u64>,
}

/// The socket of `NOTIFY_SOCKET`.
struct Notify {
    socket: OwnedFd,
    pending: Notification,
    /// The earliest time of the next message.
    due: u64,
}

/// Opens the socket of `NOTIFY_SOCKET`, before the workload exists, if `spec` asks for it.
pub(crate) fn open_notify_socket(spec: &RunSpec) -> Result<Option<OwnedFd>, Failure> {
    const STEP: &str = "open notification socket";
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
    /// Called right after the workload of `spec` was executed. Events of `notify` carry `token`.
    pub(crate) fn new(spec: &RunSpec, notify: Option<OwnedFd>, token: u64, epoll: &OwnedFd) -> Result<Self, Errno> {
        let mut probes = Self::default();
        let now = milliseconds_since_boot();
        if matches!(spec.readiness, Readiness::Listening { .. } | Readiness::Command(_)) {
            let readiness = spec.readiness.clone();
            let is_listening = matches!(readiness, Readiness::Listening { .. });
            let tables = if is_listening { open_socket_tables()? } else { Vec::new() };
            let idle = matches!(readiness, Readiness::Listening { or_idle: true, .. }).then(|| IdleWatch::new(now));
            probes.readiness = Some(ReadinessProbe { readiness, due: now, tables, idle, running: false });
        }
        if let Some(check) = &spec.health {
            probes.health = Some(HealthMonitor::new(check.clone(), now));
        }
        if let Some(socket) = notify {
            epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN)?;
            probes.notify = Some(Notify { socket, pending: Notification::default(), due: 0 });
        }
        Ok(probes)
    }

    /// When [`poll`](Self::poll) has something to do; `None` if that does not depend on time.
    pub(crate) fn due(&self) -> Option<u64> {
        let readiness = self.readiness.as_ref().map(|probe| probe.due);
        let health = self.health.as_ref().map(HealthMonitor::due);
        let notify = self.notify.as_ref().filter(|notify| notify.has_pending()).map(|notify| notify.due);
        readiness.into_iter().chain(health).chain(notify).filter(|&due| due != u64::MAX).min()
    }

    /// Runs what is due.
    pub(crate) fn poll(
        &mut self,
        execs: &mut Execs,
        context: &ExecContext<'_>,
        control: &mut Control,
    ) -> Result<(), Failure> {
        if self.readiness.is_none() && self.health.is_none() && self.notify.is_none() {
            return Ok(());
        }
        let now = milliseconds_since_boot();
        self.poll_readiness(now, execs, context, control)?;
        self.poll_health(now, execs, context, control)?;
        if let Some(notify) = self.notify.as_mut().filter(|notify| notify.has_pending() && now >= notify.due) {
            let notification = core::mem::take(&mut notify.pending);
            notify.due = now + NOTIFICATION_INTERVAL_MS;
            if notification.ready || notification.reload == Some(Reload::Done) {
                control.send(&ToHost::Ready)?;
            }
            control.send(&ToHost::Notification(notification))?;
        }
        Ok(())
    }

    fn poll_readiness(
        &mut self,
        now: u64,
        execs: &mut Execs,
        context: &ExecContext<'_>,
        control: &mut Control,
    ) -> Result<(), Failure> {
        let Some(probe) = self.readiness.as_mut().filter(|probe| now >= probe.due) else { return Ok(()) };
        match &probe.readiness {
            Readiness::Listening { ports, .. } => {
                if listens(&probe.tables, ports) || probe.idle.as_mut().is_some_and(|idle| idle.is_over(now)) {
                    self.readiness = None;
                    return control.send(&ToHost::Ready);
                }
                probe.due = now + LISTENING_INTERVAL_MS;
            }
            Readiness::Command(_) if probe.running => {
                execs.abandon(Owner::Readiness);
                (probe.running, probe.due) = (false, now + COMMAND_INTERVAL_MS);
            }
            Readiness::Command(arguments) => {
                // A command that cannot be started may be there later.
                let spec = ExecSpec { arguments: arguments.clone(), detached: true, ..ExecSpec::default() };
                probe.running = execs.start(Owner::Readiness, &spec, context).is_ok();
                probe.due = now + if probe.running { COMMAND_TIMEOUT_MS } else { COMMAND_INTERVAL_MS };
            }
            Readiness::Executed | Readiness::Notified => self.readiness = None,
        }
        Ok(())
    }

    fn poll_health(
        &mut self,
        now: u64,
        execs: &mut Execs,
        context: &ExecContext<'_>,
        control: &mut Control,
    ) -> Result<(), Failure> {
        let Some(health) = &mut self.health else { return Ok(()) };
        match health.poll(now) {
            None => Ok(()),
            Some(HealthAction::TimeOut) => {
                // Not waited for: a process in an uninterruptible system call cannot be killed.
                execs.abandon(Owner::Health);
                let output = "the check took longer than its timeout".to_owned();
                control.send(&ToHost::Health(health.finish(now, None, output)))
            }
            Some(HealthAction::Run) => {
                self.output = Vec::new();
                let spec = ExecSpec { arguments: health.arguments().to_owned(), ..ExecSpec::default() };
                match execs.start(Owner::Health, &spec, context) {
                    Ok(()) => Ok(()),
                    Err(failure) => control.send(&ToHost::Health(health.finish(now, None, format!("{failure}")))),
                }
            }
        }
    }

    /// Handles a report on a process that was started here.
    pub(crate) fn on_report(
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
            (Owner::Readiness, ExecReport::Ended(_) | ExecReport::Failed { .. }) => {
                if let Some(probe) = &mut self.readiness {
                    (probe.running, probe.due) = (false, milliseconds_since_boot() + COMMAND_INTERVAL_MS);
                }
                Ok(())
            }
            (Owner::Health, ExecReport::Output { bytes, .. }) => {
                let free = MAX_OUTPUT_BYTES - self.output.len();
                self.output.extend_from_slice(&bytes[..bytes.len().min(free)]);
                // The rest is read and discarded, so that the check can end.
                execs.handle_request(owner, ExecRequest::Credit(output_cost(bytes.len())));
                Ok(())
            }
            (Owner::Health, ExecReport::Failed { step, detail, errno, .. }) => {
                self.finish_health(None, format!("{step}: {detail} (errno {errno})"), control)
            }
            (Owner::Health, ExecReport::Ended(end)) => {
                let exit = match end {
                    WorkloadEnd::Exited(status) => Some(status.into()),
                    _ => None,
                };
                let output = String::from_utf8_lossy(&self.output).into_owned();
                self.finish_health(exit, output, control)
            }
            _ => Ok(()),
        }
    }

    fn finish_health(&mut self, exit: Option<i32>, output: String, control: &mut Control) -> Result<(), Failure> {
        let Some(health) = &mut self.health else { return Ok(()) };
        control.send(&ToHost::Health(health.finish(milliseconds_since_boot(), exit, output)))
    }

    /// Reads the workload's datagrams. The event repeats while there are more.
    pub(crate) fn read_notifications(&mut self) {
        let Some(notify) = &mut self.notify else { return };
        let mut datagram = [MaybeUninit::<u8>::uninit(); DATAGRAM_BUF_SIZE];
        for _ in 0..MAX_DATAGRAMS_PER_TURN {
            let Ok((datagram, _)) = read(&notify.socket, &mut datagram) else { return };
            sd_notify::merge(&mut notify.pending, datagram);
        }
    }
}

impl IdleWatch {
    fn new(now: u64) -> Self {
        Self { deadline: now + MAX_BUSY_MS, since: now, cpu_us: workload::cpu_time_us() }
    }

    /// Whether the wait ends without a listener.
    fn is_over(&mut self, now: u64) -> bool {
        if now < self.since + IDLE_INTERVAL_MS {
            return false;
        }
        let last = core::mem::replace(&mut self.cpu_us, workload::cpu_time_us());
        self.since = now;
        // Without control groups nothing is known, and two seconds have to do.
        let spent = last.zip(self.cpu_us).map_or(0, |(last, now)| now.saturating_sub(last));
        spent < IDLE_CPU_US || now >= self.deadline
    }
}

impl Notify {
    fn has_pending(&self) -> bool {
        self.pending != Notification::default()
    }
}

/// Whether a socket of `tables` listens on one of `ports`. A connection would tell as well, but the service would take it for a client's.
fn listens(tables: &[OwnedFd], ports: &[u16]) -> bool {
    tables.iter().any(|table| read_listing(table, MAX_TABLE_SIZE).is_ok_and(|table| listening::listens(&table, ports)))
}
