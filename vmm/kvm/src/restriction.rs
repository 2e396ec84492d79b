// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Capabilities of the host's KVM that take something from the guest, used where the host has them:
//! no performance counters, an exit for each bus lock, and an exit after a time in which the
//! processor took no interrupt (KVM API, `KVM_ENABLE_CAP`). Runs on `main`, before the first vCPU.

use crate::vm::{VmError, failed};
use kvm_bindings::{
    KVM_BUS_LOCK_DETECTION_EXIT, KVM_CAP_PMU_CAPABILITY, KVM_CAP_X86_BUS_LOCK_EXIT, KVM_CAP_X86_NOTIFY_VMEXIT,
    KVM_PMU_CAP_DISABLE, KVM_X86_NOTIFY_VMEXIT_ENABLED, KVM_X86_NOTIFY_VMEXIT_USER, kvm_enable_cap,
};
use kvm_ioctls::VmFd;
use std::ffi::c_ulong;
use std::time::Duration;

/// How long the vCPU waits after a bus lock or a notify exit: it bounds their rate to a thousand a
/// second for each vCPU. What a guest that does nothing else still costs its neighbours was not
/// measured.
pub(crate) const THROTTLE: Duration = Duration::from_millis(1);

/// Cycles of the TSC without an interrupt window after which a guest leaves the processor, on top
/// of the processor's own threshold: 0.3 ms to 0.5 ms.
const NOTIFY_WINDOW: u64 = 1 << 20;

/// Enables on `vm` what the host has.
///
/// # Errors
/// KVM rejects a capability that it listed.
pub(crate) fn apply(vm: &VmFd) -> Result<(), VmError> {
    for (capability, name) in choose(|capability| vm.check_extension_raw(c_ulong::from(capability))) {
        vm.enable_cap(&capability).map_err(failed(name))?;
    }
    Ok(())
}

/// What to enable. `check` returns what `KVM_CHECK_EXTENSION` says of a capability: the flags that
/// it takes; 0 or less where it is missing.
fn choose(check: impl Fn(u32) -> i32) -> Vec<(kvm_enable_cap, &'static str)> {
    const NOTIFY_FLAGS: u32 = KVM_X86_NOTIFY_VMEXIT_ENABLED | KVM_X86_NOTIFY_VMEXIT_USER;
    let known = [
        (KVM_CAP_PMU_CAPABILITY, "KVM_CAP_PMU_CAPABILITY", KVM_PMU_CAP_DISABLE, 0),
        (KVM_CAP_X86_BUS_LOCK_EXIT, "KVM_CAP_X86_BUS_LOCK_EXIT", KVM_BUS_LOCK_DETECTION_EXIT, 0),
        (KVM_CAP_X86_NOTIFY_VMEXIT, "KVM_CAP_X86_NOTIFY_VMEXIT", NOTIFY_FLAGS, NOTIFY_WINDOW),
    ];
    known
        .into_iter()
        .filter(|(cap, _, flags, _)| {
            let listed = u32::try_from(check(*cap)).unwrap_or(0);
            // Answered with 1, not with its flags.
            let takes = if *cap == KVM_CAP_X86_NOTIFY_VMEXIT && listed != 0 { NOTIFY_FLAGS } else { listed };
            takes & flags == *flags
        })
        .map(|(cap, name, flags, window)| {
            (kvm_enable_cap { cap, args: [window << 32 | u64::from(flags), 0, 0, 0], ..Default::default() }, name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(answers: &[(u32, i32)]) -> Vec<(u32, u64)> {
        let answer = |cap| answers.iter().find(|(listed, _)| *listed == cap).map_or(0, |(_, answer)| *answer);
        choose(answer).into_iter().map(|(capability, _)| (capability.cap, capability.args[0])).collect()
    }

    #[test]
    fn host_without_the_capabilities_gets_none() {
        assert_eq!(chosen(&[]), []);
        assert_eq!(chosen(&[(KVM_CAP_PMU_CAPABILITY, -1), (KVM_CAP_X86_BUS_LOCK_EXIT, -1)]), []);
        // KVM on a processor without the exit lists the mode "off" alone.
        assert_eq!(chosen(&[(KVM_CAP_X86_BUS_LOCK_EXIT, 1)]), []);
    }

    #[test]
    fn host_with_the_capabilities_gets_their_flags() {
        let answers = [(KVM_CAP_PMU_CAPABILITY, 1), (KVM_CAP_X86_BUS_LOCK_EXIT, 3), (KVM_CAP_X86_NOTIFY_VMEXIT, 1)];
        let expected =
            [(KVM_CAP_PMU_CAPABILITY, 1), (KVM_CAP_X86_BUS_LOCK_EXIT, 2), (KVM_CAP_X86_NOTIFY_VMEXIT, 1 << 52 | 3)];
        assert_eq!(chosen(&answers), expected);
        assert_eq!(chosen(&answers[1..2]), expected[1..2]);
    }

    #[test]
    fn this_host_accepts_what_it_lists() {
        let vm = kvm_ioctls::Kvm::new().unwrap().create_vm().unwrap();
        apply(&vm).unwrap();
    }
}
