// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes beside the workload: `coracle exec`, health checks, readiness commands. Part of PID
//! 1's event loop (`relay.rs`), which passes requests and events to them.

mod process;
mod write_files;

use super::failure::{Failure, Step};
use super::files::{make_directory, read_file};
use super::relay::Control;
use alloc::format;
use alloc::vec::Vec;
use guest_init::flat_keyed;
use guest_protocol::exec::{ExecReport, ExecRequest, ExecSpec, MAX_PROCESSES};
use guest_protocol::protocol::{ToHost, WorkloadEnd};
use guest_protocol::run_spec::RunSpec;
use process::{Process, TOKEN_BITS};
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};

const STEP: &str = "start process";
/// One control group for all of them, beside the workload's: a process killed here does not count
/// there.
const CGROUP: &str = "/sys/fs/cgroup/exec";
/// Health check and readiness command, besides the host's processes.
const MAX_OWN_PROCESSES: usize = 2;
const SIGKILL: u8 = 9;

#[derive(Default)]
pub(crate) struct Execs {
    list: Vec<Exec>,
    last_serial: u64,
    cgroup: Option<OwnedFd>,
}

/// Who started a process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The host, with its number for the process.
    Host(u32),
    Health,
    Readiness,
}

/// What a process inherits from the workload.
pub(crate) struct ExecContext<'a> {
    pub(crate) spec: &'a RunSpec,
    /// The workload's pidfd, `None` once it has ended.
    pub(crate) workload: Option<BorrowedFd<'a>>,
    pub(crate) epoll: &'a OwnedFd,
}

struct Exec {
    /// `None` once its end was reported. It is kept until it is reaped.
    owner: Option<Owner>,
    serial: u64,
    process: Process,
    /// The control group's count of out-of-memory kills at the start.
    oom_kills: u64,
}

impl Execs {
    /// The lowest token of these processes' events.
    pub(crate) const FIRST_TOKEN: u64 = 1 << 8;

    /// Passes a request to the process of `owner`. It may have ended already.
    pub(crate) fn handle_request(&mut self, owner: Owner, request: ExecRequest) {
        if let Some(exec) = self.list.iter_mut().find(|exec| exec.owner == Some(owner)) {
            exec.process.handle_request(request);
        }
    }

    /// Forks a process for `owner`. Whether it was executed is reported later.
    pub(crate) fn start(&mut self, owner: Owner, spec: &ExecSpec, context: &ExecContext<'_>) -> Result<(), Failure> {
        // The host keeps numbers and limit. Processes that were killed and cannot die count as
        // well.
        let is_full = self.list.len() >= MAX_PROCESSES + MAX_OWN_PROCESSES;
        if is_full || self.list.iter().any(|exec| exec.owner == Some(owner)) {
            return Err(Failure::configuration(STEP, format!("{MAX_PROCESSES} processes run beside the workload")));
        }
        if self.cgroup.is_none() && read_file("/sys/fs/cgroup/cgroup.procs").is_ok() {
            make_directory(CGROUP).step(STEP, CGROUP)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.cgroup = Some(openat(CWD, CGROUP, flags, Mode::empty()).step(STEP, CGROUP)?);
        }
        let oom_kills = self.oom_kills();
        self.last_serial += 1;
        let token = Self::FIRST_TOKEN + (self.last_serial << TOKEN_BITS);
        let process = Process::start(spec, context, self.cgroup.as_ref().map(AsFd::as_fd), token)?;
        self.list.push(Exec { owner: Some(owner), serial: self.last_serial, process, oom_kills });
        Ok(())
    }

    /// Kills the process of `owner`, which gets no further reports of it.
    pub(crate) fn abandon(&mut self, owner: Owner) {
        if let Some(exec) = self.list.iter_mut().find(|exec| exec.owner == Some(owner)) {
            exec.owner = None;
            exec.process.abandon();
        }
    }

    /// Out-of-memory kills in the control group.
    fn oom_kills(&self) -> u64 {
        read_file("/sys/fs/cgroup/exec/memory.events")
            .ok()
            .and_then(|events| flat_keyed::value(&events, "oom_kill"))
            .unwrap_or(0)
    }

    pub(crate) fn on_event(&mut self, token: u64, flags: EventFlags, epoll: &OwnedFd) -> Result<(), Failure> {
        let serial = (token - Self::FIRST_TOKEN) >> TOKEN_BITS;
        match self.list.iter_mut().find(|exec| exec.serial == serial) {
            Some(exec) => {
                exec.process.on_event(token, flags, epoll).step("relay streams", "process beside the workload")
            }
            // The descriptor was closed earlier in this turn.
            None => Ok(()),
        }
    }

    /// The earliest deadline of a start.
    pub(crate) fn due(&self) -> Option<u64> {
        self.list.iter().filter_map(|exec| exec.process.deadline()).min()
    }

    /// Moves streams, and sends the host its reports. The other reports are returned.
    pub(crate) fn pump(&mut self, epoll: &OwnedFd, control: &mut Control) -> Result<Vec<(Owner, ExecReport)>, Failure> {
        let mut own_reports = Vec::new();
        let mut index = 0;
        while let Some(exec) = self.list.get_mut(index) {
            if let Some(owner) = exec.owner {
                let mut reports = Vec::new();
                exec.process
                    .pump(epoll, |report| reports.push(report))
                    .step("relay streams", "process beside the workload")?;
                let oom_kills = exec.oom_kills;
                if matches!(reports.last(), Some(ExecReport::Failed { .. } | ExecReport::Ended(_))) {
                    exec.owner = None;
                }
                for mut report in reports {
                    if let ExecReport::Ended(end) = &mut report {
                        self.detect_oom_kill(end, oom_kills);
                    }
                    match owner {
                        Owner::Host(id) => control.send(&ToHost::Exec { id, report })?,
                        Owner::Health | Owner::Readiness => own_reports.push((owner, report)),
                    }
                }
            }
            let exec = &self.list[index];
            if exec.owner.is_none() && exec.process.is_reaped() {
                drop(self.list.swap_remove(index));
            } else {
                index += 1;
            }
        }
        Ok(own_reports)
    }

    /// A process that was killed while the kernel counted an out-of-memory kill in the group died
    /// of that.
    fn detect_oom_kill(&self, end: &mut WorkloadEnd, oom_kills: u64) {
        if let WorkloadEnd::Signalled { signal: SIGKILL, out_of_memory } = end {
            *out_of_memory = self.oom_kills() > oom_kills;
        }
    }

    /// The workload has ended, and all of these with its namespace: sends the remaining reports,
    /// without waiting for credit.
    pub(crate) fn finish(&mut self, epoll: &OwnedFd, control: &mut Control) -> Result<(), Failure> {
        self.pump(epoll, control)?;
        self.list.iter_mut().filter(|exec| exec.process.is_reaped()).for_each(|exec| exec.process.discard_output());
        self.pump(epoll, control).map(drop)
    }
}
