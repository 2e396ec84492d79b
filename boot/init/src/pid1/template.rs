// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The start from a template: a machine that was saved while PID 1 waited for its run specification. Its kernel is the template's,
//! its disks, interfaces, random numbers and wall clock are its own.

use super::failure::{Failure, Step};
use super::files::read_file;
use super::uevents::Uevents;
use super::{network, snapshot};
use alloc::format;
use guest_protocol::identity::TemplateStart;

const STEP: &str = "start from a template";

/// Makes this machine the one of `own`. The only other process waits for its run specification.
pub(crate) fn take_on(own: TemplateStart) -> Result<(), Failure> {
    let TemplateStart { entropy, realtime_ns, disk_sectors, macs } = own;
    snapshot::renew(&entropy, realtime_ns, STEP)?;
    network::set_hardware_addresses(&macs)?;
    wait_for_disks(&disk_sectors)
}

/// The driver reads the sizes again when the device asks it to. Its last step is a uevent.
fn wait_for_disks(sectors: &[u64]) -> Result<(), Failure> {
    let mut uevents = Uevents::default();
    for (letter, sectors) in ('a'..='z').zip(sectors) {
        let path = format!("/sys/block/vd{letter}/size");
        while read_number(&path)? != *sectors {
            uevents.wait(STEP)?;
        }
    }
    Ok(())
}

fn read_number(path: &str) -> Result<u64, Failure> {
    let text = read_file(path).step(STEP, path)?;
    let number = core::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Failure::configuration(STEP, path))
}
