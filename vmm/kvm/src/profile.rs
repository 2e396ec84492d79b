// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the guest spends its time (`--profile`): each time a vCPU is kicked, its call chain is
//! recorded. `main` kicks at a steady rate; the vCPU threads record; `main` writes the profile when
//! they have ended.
//!
//! The chain follows frame pointers, so it is complete only for kernels built with
//! `CONFIG_FRAME_POINTER`. For any other kernel only the innermost function is right.

use crate::GuestMemory;
use kvm_ioctls::VcpuFd;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use vm_memory::{Bytes as _, GuestAddress};

/// Frames of one sample.
const MAX_FRAMES: usize = 32;
/// Start of the kernel's half of the address space.
const KERNEL_HALF: u64 = 1 << 63;

/// Samples of all vCPUs: the number of samples with each call chain, innermost frame first.
#[derive(Debug, Default)]
pub struct Profile(Mutex<BTreeMap<Vec<u64>, u64>>);

impl Profile {
    /// Records the call chain of `vcpu`. Runs on its thread, between two runs.
    pub(super) fn record(&self, vcpu: &VcpuFd, memory: &GuestMemory) {
        let Ok(registers) = vcpu.get_regs() else { return };
        let mut frames = vec![registers.rip];
        let mut pointer = registers.rbp;
        while registers.rip >= KERNEL_HALF && frames.len() < MAX_FRAMES && pointer >= KERNEL_HALF {
            let Some([next, caller]) = frame(vcpu, memory, pointer) else { break };
            if caller < KERNEL_HALF || next <= pointer {
                break;
            }
            frames.push(caller);
            pointer = next;
        }
        self.add(frames);
    }

    fn add(&self, frames: Vec<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(frames).or_default() += 1;
    }

    /// Writes the samples as folded stacks for flame-graph tools: one `outer;...;inner count` per
    /// line. `system_map` is the text of the kernel's `System.map`; without it frames are
    /// addresses.
    ///
    /// # Errors
    /// Writing to `to` failed.
    pub fn write(&self, system_map: Option<&str>, to: &mut dyn Write) -> std::io::Result<()> {
        let symbols = symbols(system_map.unwrap_or_default());
        let mut folded: BTreeMap<String, u64> = BTreeMap::new();
        for (frames, count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let names: Vec<String> = frames.iter().rev().map(|address| name(&symbols, *address)).collect();
            *folded.entry(names.join(";")).or_default() += count;
        }
        folded.iter().try_for_each(|(stack, count)| writeln!(to, "{stack} {count}"))
    }
}

/// The saved frame pointer and the return address at `pointer`.
fn frame(vcpu: &VcpuFd, memory: &GuestMemory, pointer: u64) -> Option<[u64; 2]> {
    let translation = vcpu.translate_gva(pointer).ok().filter(|translation| translation.valid != 0)?;
    memory.read_obj(GuestAddress(translation.physical_address)).ok()
}

/// Addresses and names in a `System.map`, ascending.
fn symbols(system_map: &str) -> Vec<(u64, &str)> {
    let mut all: Vec<(u64, &str)> = system_map
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let _kind = words.next()?;
            Some((address, words.next()?))
        })
        .collect();
    all.sort_unstable();
    all
}

fn name(symbols: &[(u64, &str)], address: u64) -> String {
    match symbols.partition_point(|(start, _)| *start <= address) {
        _ if address < KERNEL_HALF => "(user)".to_owned(),
        0 => format!("{address:#x}"),
        after => symbols[after - 1].1.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted_by_the_symbol_before_their_address() {
        let profile = Profile::default();
        profile.add(vec![0xffff_ffff_8100_0010, 0xffff_ffff_8100_0025]);
        profile.add(vec![0xffff_ffff_8100_001f, 0xffff_ffff_8100_0020]);
        profile.add(vec![0x7f00_0000_0000]);
        let map = "ffffffff81000020 T second\nffffffff81000010 T first\n";
        let mut text = Vec::new();
        profile.write(Some(map), &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "(user) 1\nsecond;first 2\n");
    }
}
