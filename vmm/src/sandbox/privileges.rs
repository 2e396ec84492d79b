// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the process is allowed beyond its user's rights: capabilities, `no_new_privs`, resource limits.

use super::thread::Thread;
use crate::host::thread_directory::become_root;
use rustix::io::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// To act on files for the guest's users as root does.
const OF_SHARES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);
/// To read files of all users as root does.
const OF_READ_ONLY_SHARES: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;
/// To connect to sockets of other users.
const OF_SOCKETS: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// To replace files in directories of other users.
const OF_FOREIGN_FILES: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::FOWNER);

/// Drops the calling thread's capabilities but for those that its kind needs and `extra`. `main` keeps two more if `files_are_usable`,
/// which is asked without any, is false. With its capabilities the thread `vsock` first makes the directory of its sockets, in which it
/// works, its root directory.
pub(super) fn drop_capabilities(
    thread: Thread,
    extra: CapabilitySet,
    files_are_usable: impl FnOnce() -> bool,
) -> Result<()> {
    let before = capabilities(None)?;
    if before.permitted.is_empty() && before.inheritable.is_empty() {
        return Ok(());
    }
    let may_change_root = thread == Thread::Vsock && before.effective.contains(CapabilitySet::SYS_CHROOT);
    let changed_root = if may_change_root { become_root() } else { Ok(()) };
    let kept = match thread {
        Thread::Share => OF_SHARES,
        Thread::ReadOnlyShare => OF_READ_ONLY_SHARES,
        Thread::Vsock | Thread::NetSocket => OF_SOCKETS,
        Thread::Main | Thread::Digest => {
            set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..before })?;
            if files_are_usable() { CapabilitySet::empty() } else { OF_FOREIGN_FILES }
        }
        Thread::Vcpu | Thread::Io | Thread::Tap | Thread::PacketSocket | Thread::Stream | Thread::Disk => {
            CapabilitySet::empty()
        }
        Thread::Names | Thread::Ports | Thread::Datagrams => CapabilitySet::empty(),
    };
    let kept = (kept | extra) & before.permitted;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    changed_root
}

pub(super) fn forbid_new_privileges() -> Result<()> {
    rustix::thread::set_no_new_privs(true)
}

/// No core file, and no more descriptors than now, for the whole process. Processes are not limited: KVM's first `KVM_RUN` makes a thread
/// of the kernel's own in this process, and filters refuse others.
pub(super) fn limit_resources() -> Result<()> {
    let descriptors = getrlimit(Resource::Nofile).current;
    for (resource, limit) in [(Resource::Core, Some(0)), (Resource::Nofile, descriptors)] {
        setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}
