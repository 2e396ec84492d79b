// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's status register as a transition table. Virtio 1.3, 2.1 and 3.1.1.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK,
};

pub(super) const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
pub(super) const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
pub(super) const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
pub(super) const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
pub(super) const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;

/// The steps that a driver may take: from, to.
const STEPS: [(u32, u32); 4] = [
    (0, ACKNOWLEDGE),
    (ACKNOWLEDGE, ACKNOWLEDGE | DRIVER),
    (ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | FEATURES_OK),
    (ACKNOWLEDGE | DRIVER | FEATURES_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK),
];

/// Effect of a write to the status register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// Zero was written: reset the device.
    Reset,
    /// The driver found the device; no other effect.
    Advance,
    /// The driver asks for its features to be accepted.
    CheckFeatures,
    /// The driver is ready: activate the device.
    Activate,
    /// The driver gave up.
    Fail,
    /// Nothing new was written.
    Same,
    /// The driver must not do that; the status stays.
    Rejected,
}

/// The meaning of writing `written` while the status is `status`, without needs-reset, which only
/// the device sets.
pub(super) fn transition(status: u32, written: u32) -> Transition {
    if written == 0 {
        return Transition::Reset;
    }
    if written == status {
        return Transition::Same;
    }
    if status & FAILED != 0 {
        return Transition::Rejected;
    }
    if written == status | FAILED {
        return Transition::Fail;
    }
    match STEPS.contains(&(status, written)).then_some(written & !status) {
        Some(FEATURES_OK) => Transition::CheckFeatures,
        Some(DRIVER_OK) => Transition::Activate,
        Some(_) => Transition::Advance,
        None => Transition::Rejected,
    }
}

/// Whether a driver can have brought the status to `status`, without needs-reset.
pub(super) fn is_reachable(status: u32) -> bool {
    let step = status & !FAILED;
    step == 0 || STEPS.iter().any(|&(_, to)| to == step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_reachable_by_the_steps_with_or_without_failure() {
        let reachable: Vec<u32> = (0..512).filter(|&status| is_reachable(status)).collect();
        assert_eq!(reachable, [0, 1, 3, 11, 15, 128, 129, 131, 139, 143]);
    }

    #[test]
    fn status_accepts_only_the_four_steps_failure_and_reset() {
        for status in 0..=255 {
            for written in 0..=255 {
                let expected = match (status, written) {
                    (_, 0) => Transition::Reset,
                    (s, w) if s == w => Transition::Same,
                    (0, 1) | (1, 3) => Transition::Advance,
                    (3, 11) => Transition::CheckFeatures,
                    (11, 15) => Transition::Activate,
                    (s, w) if s < 128 && w == s + 128 => Transition::Fail,
                    _ => Transition::Rejected,
                };
                assert_eq!(transition(status, written), expected, "{status} -> {written}");
            }
        }
    }
}
