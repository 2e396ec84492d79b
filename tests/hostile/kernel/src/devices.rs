// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine's virtio-mmio devices and its memory, for the table. Each register access is one instruction of its width.
// Reason for unsafe code: registers of devices, memory that they share.
#![allow(unsafe_code)]

use crate::start_info::StartInfo;
use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use core::cell::UnsafeCell;
use hostile_guest::{ARENA_SIZE, MAX_DEVICES, Machine, device_name, windows};

/// `MagicValue` of virtio-mmio, "virt", and the only version that is driven.
const MAGIC: u64 = 0x7472_6976;
const VERSION: u64 = 2;
/// By this string in the image a monitor knows that the kernel takes its devices from the command line.
#[used]
static PARAMETER: [u8; 19] = *b"virtio_mmio.device\0";
/// Until a chain counts as lost: some 10 s. A host with more threads than processors may let a device wait for long.
const MAX_WAIT_CYCLES: u64 = 1 << 35;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; ARENA_SIZE as usize]>);

// SAFETY: one thread.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_SIZE as usize]));

pub(crate) struct Devices {
    windows: [u64; MAX_DEVICES],
    count: usize,
    memory_end: u64,
    wait_started: u64,
}

impl Devices {
    /// Devices of the command line that the table knows, as many as it drives. `None` if there is none, or no memory map.
    pub(crate) fn find(start_info: &StartInfo) -> Option<Self> {
        let memory_end = start_info.memory_end(ARENA.0.get() as u64)?;
        let mut found = Self { windows: [0; MAX_DEVICES], count: 0, memory_end, wait_started: 0 };
        for window in windows(start_info.command_line()) {
            if found.count == MAX_DEVICES {
                break;
            }
            found.windows[found.count] = window;
            let is_driven = found.read(found.count, 0, 4) == MAGIC && found.read(found.count, 4, 4) == VERSION;
            if is_driven && device_name(found.read(found.count, 8, 4) as u32).is_some() {
                found.count += 1;
            }
        }
        (found.count > 0).then_some(found)
    }

    /// Number, address and device number of each.
    pub(crate) fn list(&mut self) -> impl Iterator<Item = (usize, u64, u32)> {
        (0..self.count).map(|number| (number, self.windows[number], self.read(number, 8, 4) as u32))
    }
}

impl Machine for Devices {
    fn devices(&self) -> usize {
        self.count
    }

    fn arena(&self) -> u64 {
        ARENA.0.get() as u64
    }

    fn memory_end(&self) -> u64 {
        self.memory_end
    }

    fn read(&mut self, device: usize, offset: u64, width: usize) -> u64 {
        load(self.windows[device] + offset, width)
    }

    fn write(&mut self, device: usize, offset: u64, width: usize, value: u64) {
        store(self.windows[device] + offset, width, value);
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        // An index of a ring is written as one.
        if let &[low, high] = bytes {
            return store(address, 2, u64::from(u16::from_le_bytes([low, high])));
        }
        // SAFETY: the table stays in the arena.
        unsafe {
            asm!("rep movsb", inout("rcx") bytes.len() => _, inout("rdi") address => _, inout("rsi") bytes.as_ptr() => _,
                options(nostack, preserves_flags));
        }
    }

    fn load(&mut self, address: u64, bytes: &mut [u8]) {
        if let [low, high] = bytes {
            [*low, *high] = (load(address, 2) as u16).to_le_bytes();
            return;
        }
        // SAFETY: the table stays in the arena.
        unsafe {
            asm!("rep movsb", inout("rcx") bytes.len() => _, inout("rdi") bytes.as_mut_ptr() => _, inout("rsi") address => _,
                options(nostack, preserves_flags));
        }
    }

    fn wait(&mut self, attempt: u32) -> bool {
        core::hint::spin_loop();
        // SAFETY: every x86-64 processor has the instruction.
        let now = unsafe { _rdtsc() };
        if attempt == 0 {
            self.wait_started = now;
        }
        now.wrapping_sub(self.wait_started) < MAX_WAIT_CYCLES
    }
}

/// Reads 1, 2, 4 or 8 bytes.
fn load(address: u64, width: usize) -> u64 {
    let value: u64;
    // SAFETY: a register of a device, or a part of the arena.
    unsafe {
        match width {
            1 => asm!("movzx {value:e}, byte ptr [{address}]", value = out(reg) value, address = in(reg) address),
            2 => asm!("movzx {value:e}, word ptr [{address}]", value = out(reg) value, address = in(reg) address),
            4 => asm!("mov {value:e}, dword ptr [{address}]", value = out(reg) value, address = in(reg) address),
            _ => asm!("mov {value}, qword ptr [{address}]", value = out(reg) value, address = in(reg) address),
        }
    }
    value
}

/// Writes 1, 2, 4 or 8 bytes.
fn store(address: u64, width: usize, value: u64) {
    // SAFETY: a register of a device, or a part of the arena.
    unsafe {
        match width {
            1 => asm!("mov byte ptr [{address}], {value}", value = in(reg_byte) value as u8, address = in(reg) address),
            2 => asm!("mov word ptr [{address}], {value:x}", value = in(reg) value, address = in(reg) address),
            4 => asm!("mov dword ptr [{address}], {value:e}", value = in(reg) value, address = in(reg) address),
            _ => asm!("mov qword ptr [{address}], {value}", value = in(reg) value, address = in(reg) address),
        }
    }
}
