// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The last steps of a process before `execve`: limits, groups, user, capabilities, seccomp filter.
//!
//! Their order is given by what each needs. Limits, the bounding set and groups need capabilities of
//! root, so they come before the user. A filter needs `CAP_SYS_ADMIN`, unless the process can gain
//! no privileges, and the calls after it must be among those that it allows: so it comes directly
//! before the capabilities are given up, which is one call.

use super::failure::{Failure, Step};
use super::files::write_file;
use crate::freestanding::system_call::install_filter;
use alloc::format;
use alloc::vec::Vec;
use guest_init::defaults::{MAX_OPEN_FILES, OPEN_FILES};
use guest_init::user::Identity;
use guest_protocol::attributes::{Capabilities, CapabilitySets as GivenSets, ProcessAttributes, ResourceLimit};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_gid,
    set_thread_groups, set_thread_uid,
};

const STEP: &str = "become user";
const UMASK: u32 = 0o022;
/// Bits of a capability set.
const MAX_CAPABILITIES: u32 = 64;
/// By their numbers in `setrlimit(2)`.
const LIMITED: [Resource; ResourceLimit::NAMES.len()] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// Sets limits and umask, drops to the user with its groups and `attributes`, and installs `filter`.
pub(super) fn become_user(identity: &Identity, attributes: &ProcessAttributes, filter: &[u64]) -> Result<(), Failure> {
    set_limits(&attributes.limits)?;
    umask(Mode::from_raw_mode(attributes.umask.unwrap_or(UMASK)));
    if let Some(adjustment) = attributes.oom_score_adj {
        const FILE: &str = "/proc/self/oom_score_adj";
        write_file(FILE, format!("{adjustment}").as_bytes()).step(STEP, FILE)?;
    }
    match attributes.capabilities {
        Capabilities::All => {}
        Capabilities::Bounded(bounding) | Capabilities::Sets(GivenSets { bounding, .. }) => bound(bounding)?,
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    set_thread_groups(&groups).step(STEP, "groups")?;
    if identity.group != 0 {
        set_thread_gid(Gid::from_raw(identity.group)).step(STEP, "group")?;
    }
    if attributes.no_new_privileges {
        set_no_new_privs(true).step(STEP, "no new privileges")?;
    }
    let has_sets = matches!(attributes.capabilities, Capabilities::Sets(_));
    let keeps = identity.user != 0 && (has_sets || !filter.is_empty());
    if keeps {
        let all = capabilities(None).step(STEP, "capabilities")?;
        set_keep_capabilities(true).step(STEP, "capabilities")?;
        set_thread_uid(Uid::from_raw(identity.user)).step(STEP, "user")?;
        // The change of the user made them ineffective.
        set_capabilities(None, all).step(STEP, "capabilities")?;
    } else if identity.user != 0 {
        set_thread_uid(Uid::from_raw(identity.user)).step(STEP, "user")?;
    }
    if !filter.is_empty() {
        install_filter(filter).step(STEP, "seccomp filter")?;
    }
    match attributes.capabilities {
        Capabilities::Sets(given) => set_given(&given),
        Capabilities::All | Capabilities::Bounded(_) if keeps => {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
                .step(STEP, "capabilities")
        }
        Capabilities::All | Capabilities::Bounded(_) => Ok(()),
    }
}

fn set_limits(given: &[ResourceLimit]) -> Result<(), Failure> {
    // The kernel's default of the last two is a function of memory. As in a container, only memory
    // itself and the control group bound them.
    let defaults = [
        (Resource::Nofile, Some(OPEN_FILES), Some(MAX_OPEN_FILES)),
        (Resource::Nproc, None, None),
        (Resource::Sigpending, None, None),
    ];
    for (resource, current, maximum) in defaults {
        setrlimit(resource, Rlimit { current, maximum }).step(STEP, "resource limits")?;
    }
    for limit in given {
        let index = usize::from(limit.resource);
        let resource = LIMITED.get(index).copied().ok_or(Errno::INVAL);
        let set =
            resource.and_then(|resource| setrlimit(resource, Rlimit { current: limit.soft, maximum: limit.hard }));
        set.map_err(|errno| {
            let name = ResourceLimit::NAMES.get(index).copied().unwrap_or("unknown");
            Failure::configuration("set resource limit", name).with_errno(errno)
        })?;
    }
    Ok(())
}

/// Removes everything else from the bounding set.
fn bound(bounding: u64) -> Result<(), Failure> {
    for bit in (0..MAX_CAPABILITIES).map(|number| 1 << number).filter(|bit| bounding & bit == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
            // The kernel has no more.
            Err(Errno::INVAL) => break,
            removed => removed.step(STEP, "capabilities")?,
        }
    }
    Ok(())
}

/// Takes what is given, as far as the kernel has it and the bounding set allows.
fn set_given(given: &GivenSets) -> Result<(), Failure> {
    let had = capabilities(None).step(STEP, "capabilities")?;
    let set = |bits| CapabilitySet::from_bits_retain(bits) & had.permitted;
    let sets = CapabilitySets {
        effective: set(given.effective & given.permitted),
        permitted: set(given.permitted),
        inheritable: set(given.inheritable & given.bounding),
    };
    set_capabilities(None, sets).step(STEP, "capabilities")?;
    clear_ambient_capability_set().step(STEP, "capabilities")?;
    // Others cannot be ambient.
    let ambient = set(given.ambient) & sets.permitted & sets.inheritable;
    ambient.iter().try_for_each(|capability| {
        configure_capability_in_ambient_set(capability, true).step(STEP, "ambient capabilities")
    })
}
