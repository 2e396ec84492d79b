// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `start`: the delegate starts the container's process, which is the machine's. It returns once the workload is executed, or fails if
//! it could not be: engines send signals and commands right after.

use super::MACHINE;
use super::call::Call;
use super::delegate::{Delegate, State};
use super::error::OciError;
use crate::state::machines::MachineInfo;
use crate::state::status::State as MachineState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A start takes a fraction of a second, or some where KVM emulates guest kernel mode.
const LIMIT: Duration = Duration::from_secs(300);
/// From a look at the status to the next. The run directory may not be there yet, so that there is nothing to watch.
const INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

pub(super) fn start(call: &Call, delegate: &Delegate) -> Result<u8, OciError> {
    let id = call.positional().ok_or(OciError::NoId)?;
    let state = delegate.state(call, id)?;
    if !state.is_machine() {
        return Err(delegate.become_it(&call.words));
    }
    let process = Pid::from_raw(state.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let status = delegate.run(&call.words)?;
    if status != 0 {
        return Ok(status);
    }
    wait_for_workload(&state, process.as_ref(), &id.to_string_lossy())?;
    Ok(0)
}

fn wait_for_workload(state: &State, process: Option<&OwnedFd>, id: &str) -> Result<(), OciError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        // Before the status, so that a status which is read after the end of the process is the last one.
        let has_ended = process.is_none_or(has_ended);
        let machine = MachineInfo::read(&state.run_directory(), MACHINE);
        let status = machine.and_then(|machine| machine.status);
        match status.as_ref().map(|status| (status.state, status.end.as_ref())) {
            Some((MachineState::Failed, Some(end))) if end.is_failure() && !end.summary().is_empty() => {
                return Err(OciError::Workload(end.summary().to_owned()));
            }
            Some((MachineState::Starting, _)) | None if has_ended => {
                return Err(OciError::Workload(format!("{id}: the machine ended before its workload was executed")));
            }
            Some((MachineState::Starting, _)) | None => {}
            Some(_) => return Ok(()),
        }
        if Instant::now() >= deadline {
            return Err(OciError::Slow(id.to_owned(), LIMIT.as_secs()));
        }
        if let Some(process) = process {
            ends_within(process, &INTERVAL);
        }
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    ends_within(process, &Timespec::default())
}

fn ends_within(process: &OwnedFd, time: &Timespec) -> bool {
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(time)) == Ok(1)
}
