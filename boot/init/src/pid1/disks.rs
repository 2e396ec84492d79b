// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtio disks by their serial. A serial is asked of the device each time, so every disk is asked once.

use super::failure::Failure;
use super::files::read_file;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Disks that have been asked so far, in the order of their names.
#[derive(Default)]
pub(crate) struct Disks {
    serials: Vec<Vec<u8>>,
}

impl Disks {
    /// Path of the device node of the disk with `serial`; `step` is what it is wanted for.
    pub(crate) fn find(&mut self, serial: &str, step: &'static str) -> Result<String, Failure> {
        for (index, letter) in ('a'..='z').enumerate() {
            if index == self.serials.len() {
                let Ok(found) = read_file(&format!("/sys/block/vd{letter}/serial")) else { break };
                self.serials.push(found);
            }
            if self.serials[index].trim_ascii() == serial.as_bytes() {
                return Ok(format!("/dev/vd{letter}"));
            }
        }
        Err(Failure::configuration(step, format!("the machine has no disk with the serial {serial}")))
    }
}
