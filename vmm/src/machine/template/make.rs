// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes a template: runs a machine until PID 1 waits for its run specification, and saves it. The machine is a new one, or one from a
//! template without an image, in which PID 1 gets the message to mount the root. On `main` of a process of its own.

use super::super::build::Machine;
use super::super::run::{StartError, confine_loops, restore_devices, stop_loops};
use super::super::snapshot::{SaveError, SavedMachine, write_memory, write_scratch};
use super::super::supervisor::{SupervisorState, nanoseconds};
use super::super::threads::VcpuThreads;
use super::TemplateFiles;
use crate::host::system_error::{Cannot as _, SystemError};
use crate::sandbox::Confinement;
use crate::state::end::End;
use guest_protocol::identity::TemplateStart;
use guest_protocol::protocol::{self, FrameReader, ToGuest, ToHost, encode};
use guest_protocol::run_spec::RootPreparation;
use kvm::ExitReason;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
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
    #[error("the guest's init sent no valid message")]
    Protocol,
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Save(SaveError),
    #[error(transparent)]
    System(#[from] SystemError),
}

/// What is done in a machine from a template without an image.
#[derive(Debug)]
pub(crate) struct Preparation {
    pub(crate) own: TemplateStart,
    pub(crate) root: RootPreparation,
}

impl Machine {
    /// Runs the guest until PID 1 waits for its run specification, after the `preparation` if there is one. Writes memory and scratch
    /// disk to the empty `files`, and returns the rest of the state.
    ///
    /// # Errors
    /// The guest does not get there, or cannot be saved.
    pub(crate) fn make_template(
        mut self,
        confinement: &Arc<Confinement>,
        preparation: Option<Preparation>,
        files: &TemplateFiles,
    ) -> Result<SavedMachine, MakeError> {
        let vcpus = std::mem::take(&mut self.vcpus);
        let restored = std::mem::take(&mut self.restored);
        let threads = confine_loops(&self.loops, confinement)
            .and_then(|()| restore_devices(&self.transports, &restored, self.has_other_devices))
            .and_then(|()| VcpuThreads::start(vcpus, &self.buses, confinement))
            .map_err(MakeError::Start)?;
        threads.resume();
        let begun = match preparation {
            None => Ok(ToHost::Hello { version: protocol::VERSION }),
            Some(preparation) => self.send(preparation).map(|()| ToHost::RootPrepared),
        };
        let saved = begun
            .and_then(|awaited| self.wait_for(&awaited, &threads))
            .and_then(|()| self.save_template(&threads, files));
        drop(threads);
        stop_loops(std::mem::take(&mut self.loops), LOOP_STOP_LIMIT);
        saved
    }

    /// Sends the preparation to PID 1, which waits. The messages are much smaller than the buffer of the socket.
    fn send(&self, Preparation { own, root }: Preparation) -> Result<(), MakeError> {
        let own = TemplateStart { realtime_ns: nanoseconds(SystemTime::now()), ..own };
        let messages = [ToGuest::TemplateStart(own), ToGuest::PrepareRoot(root)];
        let frames = messages.iter().flat_map(encode).collect::<Vec<_>>();
        Ok((&self.ports.control).write_all(&frames).cannot("write to the guest's init")?)
    }

    /// Returns once PID 1 has sent the message `awaited`.
    fn wait_for(&self, awaited: &ToHost, threads: &VcpuThreads) -> Result<(), MakeError> {
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
                Ok(Some(message)) if message == *awaited => return Ok(()),
                Ok(Some(ToHost::Failed { kind, step, detail, errno })) => {
                    return Err(MakeError::Failed(End::of_failure(kind, &step, &detail, errno).detail));
                }
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

    fn save_template(&self, threads: &VcpuThreads, files: &TemplateFiles) -> Result<SavedMachine, MakeError> {
        if !threads.pause() {
            return Err(MakeError::Save(SaveError::Hangs));
        }
        let state = self.take_state(threads, SupervisorState::default(), &mut Vec::new()).map_err(MakeError::Save)?;
        let memory = &files.memory;
        write_memory(self.vm.memory(), memory).and_then(|_| memory.sync_data()).cannot("write the memory")?;
        if let (Some(disk), Some(scratch)) = (&self.savable.scratch, &files.scratch) {
            write_scratch(disk, scratch).and_then(|_| scratch.sync_data()).cannot("write the scratch disk")?;
        }
        Ok(state)
    }
}
