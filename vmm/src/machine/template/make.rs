// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes a template: runs a machine until PID 1 waits for its run specification, and saves it. On `main` of a process of its own.

use super::super::build::Machine;
use super::super::run::{StartError, confine_loops, stop_loops};
use super::super::snapshot::{SaveError, SavedMachine, write_memory};
use super::super::supervisor::SupervisorState;
use super::super::threads::VcpuThreads;
use crate::host::system_error::{Cannot as _, SystemError};
use crate::sandbox::Confinement;
use guest_protocol::protocol::{self, FrameReader, ToHost};
use kvm::ExitReason;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// For the guest's kernel to start, at a low priority on a busy host that emulates guest kernel mode.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const LOOP_STOP_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error(transparent)]
    Start(StartError),
    #[error("the guest's init did not start within {} s", BOOT_LIMIT.as_secs())]
    Timeout,
    #[error("the guest ended: {0:?}")]
    Ended(ExitReason),
    #[error("the guest's init sent no valid first message")]
    Protocol,
    #[error(transparent)]
    Save(SaveError),
    #[error(transparent)]
    System(#[from] SystemError),
}

impl Machine {
    /// Runs the guest until PID 1 waits for its run specification, writes the memory to the empty file `memory`, and returns the rest
    /// of the state.
    ///
    /// # Errors
    /// The guest does not get there, or cannot be saved.
    pub(crate) fn make_template(
        mut self,
        confinement: &Arc<Confinement>,
        memory: &File,
    ) -> Result<SavedMachine, MakeError> {
        let vcpus = std::mem::take(&mut self.vcpus);
        let threads = confine_loops(&self.loops, confinement)
            .and_then(|()| VcpuThreads::start(vcpus, &self.buses, confinement))
            .map_err(MakeError::Start)?;
        threads.resume();
        let saved = self.wait_for_init(&threads).and_then(|()| self.save_template(&threads, memory));
        drop(threads);
        stop_loops(std::mem::take(&mut self.loops), LOOP_STOP_LIMIT);
        saved
    }

    /// Returns once PID 1 has sent its first message.
    fn wait_for_init(&self, threads: &VcpuThreads) -> Result<(), MakeError> {
        let deadline = Instant::now() + BOOT_LIMIT;
        let epoll = Epoll::new().cannot("wait for the guest's init")?;
        for descriptor in [self.ports.control.as_raw_fd(), threads.ended().as_raw_fd()] {
            let added = epoll.ctl(ControlOperation::Add, descriptor, EpollEvent::new(EventSet::IN, 0));
            added.cannot("wait for the guest's init")?;
        }
        let mut reader = FrameReader::new(protocol::MAX_TO_HOST);
        let mut bytes = [0; 256];
        loop {
            if let Some(reason) = threads.take_end() {
                return Err(MakeError::Ended(reason));
            }
            match (&self.ports.control).read(&mut bytes) {
                Ok(0) => return Err(MakeError::Protocol),
                Ok(length) => reader.push(&bytes[..length]),
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(error) => return Err(error).cannot("read from the guest's init")?,
            }
            match reader.next() {
                Ok(None) => {}
                Ok(Some(ToHost::Hello { version: protocol::VERSION })) => return Ok(()),
                Ok(Some(_)) | Err(_) => return Err(MakeError::Protocol),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(MakeError::Timeout);
            }
            // EINTR is a turn without an event.
            let _ = epoll.wait(i32::try_from(left.as_millis()).unwrap_or(i32::MAX), &mut [EpollEvent::default(); 2]);
        }
    }

    fn save_template(&self, threads: &VcpuThreads, memory: &File) -> Result<SavedMachine, MakeError> {
        if !threads.pause() {
            return Err(MakeError::Save(SaveError::Hangs));
        }
        let state = self.take_state(threads, SupervisorState::default(), &mut Vec::new()).map_err(MakeError::Save)?;
        write_memory(self.vm.memory(), memory).and_then(|_| memory.sync_data()).cannot("write the memory")?;
        Ok(state)
    }
}
