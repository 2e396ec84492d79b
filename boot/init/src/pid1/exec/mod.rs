// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes beside the workload: `coracle exec`. Part of PID 1's one event loop (`relay.rs`), which hands over the host's
//! requests and the events that are theirs.

mod process;
mod start;

use super::control::Control;
use super::failure::{Failure, Step};
use super::files::{make_folder, read_file};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;
use guest_init::memory_events;
use guest_protocol::exec::{ExecReport, ExecRequest, ExecSpec, MAX_PROCESSES};
use guest_protocol::protocol::{ToHost, WorkloadEnd};
use guest_protocol::run_spec::RunSpec;
use process::{Process, TOKEN_BITS};
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};

const STEP: &str = "start process";
/// One group for all of them, next to the workload's: what the kernel kills here is not counted there.
const CGROUP: &str = "/sys/fs/cgroup/exec";
const SIGKILL: u8 = 9;

/// The processes that are running.
#[derive(Default)]
pub(crate) struct Execs {
    list: Vec<Exec>,
    /// How many there were.
    serial: u64,
    cgroup: Option<OwnedFd>,
}

/// Whose a process is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The host's, with its number.
    Host(u32),
    /// The health check.
    Health,
    /// The command that says whether the workload is ready.
    Readiness,
}

struct Exec {
    owner: Owner,
    serial: u64,
    process: Process,
    /// How many the kernel had killed for want of memory in the group when it was started.
    kills: u64,
}

impl Execs {
    /// The first token that is not the event loop's own.
    pub(crate) const FIRST_TOKEN: u64 = 1 << 8;

    /// Does what is asked of the process of `owner`; a process that ended a moment ago needs no more.
    pub(crate) fn obey(&mut self, owner: Owner, request: ExecRequest) {
        if let Some(exec) = self.list.iter_mut().find(|exec| exec.owner == owner) {
            exec.process.obey(request);
        }
    }

    /// Starts a process for `owner`. `workload` is the workload's pidfd, `None` once it has ended.
    pub(crate) fn start(
        &mut self,
        owner: Owner,
        spec: &ExecSpec,
        defaults: &RunSpec,
        workload: Option<BorrowedFd<'_>>,
        epoll: &OwnedFd,
    ) -> Result<(), Failure> {
        let workload = workload.ok_or_else(|| Failure::configuration(STEP, "the workload has ended"))?;
        // The number is the host's to choose, and the limit its to keep: this is against a host that does neither.
        if self.list.len() > MAX_PROCESSES + 1 || self.list.iter().any(|exec| exec.owner == owner) {
            return Err(Failure::configuration(
                STEP,
                format!("{MAX_PROCESSES} processes are running beside the workload"),
            ));
        }
        if self.cgroup.is_none() && read_file("/sys/fs/cgroup/cgroup.procs").is_ok() {
            make_folder(CGROUP).step(STEP, CGROUP)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.cgroup = Some(openat(CWD, CGROUP, flags, Mode::empty()).step(STEP, CGROUP)?);
        }
        let kills = self.kills();
        let started = start::start(spec, defaults, workload, self.cgroup.as_ref().map(AsFd::as_fd))?;
        self.serial += 1;
        let token = Self::FIRST_TOKEN + (self.serial << TOKEN_BITS);
        let process = Process::new(started, token, epoll).step(STEP, "streams")?;
        self.list.push(Exec { owner, serial: self.serial, process, kills });
        Ok(())
    }

    /// How many the kernel has killed for want of memory.
    fn kills(&self) -> u64 {
        read_file("/sys/fs/cgroup/exec/memory.events").map_or(0, |events| memory_events::kills(&events))
    }

    /// Takes note of an event of the loop.
    pub(crate) fn note(&mut self, token: u64, flags: EventFlags, epoll: &OwnedFd) -> Result<(), Failure> {
        let serial = (token - Self::FIRST_TOKEN) >> TOKEN_BITS;
        match self.list.iter_mut().find(|exec| exec.serial == serial) {
            Some(exec) => exec.process.note(token, flags, epoll).step("relay streams", "process beside the workload"),
            // Of a descriptor that was closed in this round.
            None => Ok(()),
        }
    }

    /// Moves what can be moved. Reports for the host go there; the others are returned.
    pub(crate) fn pump(&mut self, epoll: &OwnedFd, control: &mut Control) -> Result<Vec<(Owner, ExecReport)>, Failure> {
        let mut own = Vec::new();
        let mut index = 0;
        while let Some(exec) = self.list.get_mut(index) {
            let mut reports = Vec::new();
            let pumped = exec.process.pump(epoll, |report| reports.push(report));
            pumped.step("relay streams", "process beside the workload")?;
            let (owner, kills) = (exec.owner, exec.kills);
            let mut ended = false;
            for mut report in reports {
                if let ExecReport::Ended(end) = &mut report {
                    self.blame_memory(end, kills);
                    ended = true;
                }
                match owner {
                    Owner::Host(id) => control.send(&ToHost::Exec { id, report })?,
                    Owner::Health | Owner::Readiness => own.push((owner, report)),
                }
            }
            if ended {
                drop(self.list.swap_remove(index));
            } else {
                index += 1;
            }
        }
        Ok(own)
    }

    /// A process that died of SIGKILL while the kernel killed one of the group was killed for want of memory.
    fn blame_memory(&self, end: &mut WorkloadEnd, kills: u64) {
        if let WorkloadEnd::Signalled { signal: SIGKILL, out_of_memory } = end {
            *out_of_memory = self.kills() > kills;
        }
    }

    /// The workload has ended, and with its namespace all of these: what was not told yet is told now, without waiting for
    /// readers on the host.
    pub(crate) fn finish(&mut self, epoll: &OwnedFd, control: &mut Control) -> Result<(), Failure> {
        self.pump(epoll, control)?;
        self.list.iter_mut().filter(|exec| exec.process.has_ended()).for_each(|exec| exec.process.abandon_output());
        self.pump(epoll, control).map(drop)
    }
}

impl From<Failure> for ExecReport {
    fn from(failure: Failure) -> Self {
        let Failure { kind, step, detail, errno } = failure;
        Self::Failed { kind, step: step.to_owned(), detail, errno }
    }
}
