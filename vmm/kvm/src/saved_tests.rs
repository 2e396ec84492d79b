// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::run_control::RunControl;
use crate::{EntryState, GuestMemory, ReservedPages, Segment, create_vcpus};
use std::cell::{Cell, RefCell};
use vm_memory::{Bytes as _, GuestAddress};

const CODE: u64 = 0x8000;
const INPUT: u16 = 0x500;
/// `in eax, dx; inc edx; out dx, eax; dec edx; jmp` to the start, with DX at the input port.
const PROGRAM: [u8; 10] = [0x66, 0xba, 0x00, 0x05, 0xed, 0x42, 0xef, 0x4a, 0xeb, 0xfa];

/// Counts reads, and requests a stop while one is under way.
struct Counter {
    reads: Cell<u32>,
    stop_at: u32,
    control: RunControl,
    written: RefCell<Vec<u32>>,
}

impl Counter {
    fn new(stop_at: u32) -> Self {
        Self { reads: Cell::new(0), stop_at, control: RunControl::default(), written: RefCell::default() }
    }
}

impl IoBus for Counter {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        assert_eq!(port, INPUT);
        self.reads.set(self.reads.get() + 1);
        data.copy_from_slice(&(1000 + self.reads.get()).to_le_bytes());
        if self.reads.get() == self.stop_at {
            self.control.stop();
        }
    }
    fn port_write(&self, port: u16, data: &[u8]) -> Option<ExitReason> {
        assert_eq!(port, INPUT + 1);
        self.written.borrow_mut().push(u32::from_le_bytes(data.try_into().unwrap()));
        None
    }
    fn mmio_read(&self, _: u64, _: &mut [u8]) {}
    fn mmio_write(&self, _: u64, _: &[u8]) -> Option<ExitReason> {
        None
    }
}

fn vm(host: &KvmHost) -> KvmVm {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    memory.write_slice(&PROGRAM, GuestAddress(CODE)).unwrap();
    let reserved = ReservedPages {
        identity_map: GuestAddress(0xfffb_c000),
        tss: GuestAddress(0xfffb_d000),
        syscall_gate: GuestAddress(0x97000),
        syscall_gate_mmio: GuestAddress(0xd0ff_f000),
    };
    KvmVm::create(host, memory, reserved).unwrap()
}

fn entry() -> EntryState {
    let segment = |selector, descriptor| Segment { selector, descriptor };
    EntryState {
        rip: CODE,
        rbx: 0,
        rflags: 2,
        cr0: 0x11,
        cr4: 0,
        code: segment(0x08, 0x00cf_9b00_0000_ffff),
        data: segment(0x10, 0x00cf_9300_0000_ffff),
        task: segment(0x18, 0x0000_8b00_0000_0067),
        gdt_base: 0,
        gdt_limit: 0,
        external_interrupts: false,
    }
}

/// A state whose vCPU was stopped with its third read under way.
fn saved(host: &KvmHost) -> (SavedVm, SavedVcpu) {
    let (vm, bus) = (vm(host), Counter::new(3));
    let mut vcpu = create_vcpus(host, &vm, 1, &entry()).unwrap().remove(0);
    assert!(vcpu.run(&bus, &bus.control).is_none());
    let state = vcpu.save(&bus).unwrap();
    assert_eq!(*bus.written.borrow(), [1001, 1002]);
    (vm.save().unwrap(), state)
}

#[test]
fn restored_vcpu_continues_after_the_access_under_way() {
    let host = KvmHost::open().unwrap();
    let (machine, vcpu) = saved(&host);
    let text = serde_json::to_vec(&(machine, vcpu)).unwrap();
    let (machine, vcpu): (SavedVm, SavedVcpu) = serde_json::from_slice(&text).unwrap();
    let (vm, bus) = (vm(&host), Counter::new(2));
    vm.restore(&machine).unwrap();
    let mut vcpu = restore_vcpus(&host, &vm, &[vcpu]).unwrap().remove(0);
    assert!(vcpu.run(&bus, &bus.control).is_none());
    assert_eq!(*bus.written.borrow(), [1003, 1001]);
}

#[test]
fn restore_rejects_another_cpu_unknown_msrs_and_other_sizes() {
    let host = KvmHost::open().unwrap();
    let (_, good) = saved(&host);
    let restore = |change: fn(&mut SavedVcpu)| {
        let mut state = good.clone();
        change(&mut state);
        restore_vcpus(&host, &vm(&host), &[state]).unwrap_err()
    };
    assert!(matches!(restore(|state| state.cpuid[0].ebx ^= 1), StateError::Cpuid { .. }));
    assert!(matches!(restore(|state| state.cpuid.truncate(1)), StateError::Cpuid { .. }));
    assert!(matches!(restore(|state| state.msrs[0].index = 0xdead_beef), StateError::Msr(0xdead_beef)));
    assert!(matches!(restore(|state| state.extended.truncate(1)), StateError::ExtendedState { .. }));
    assert!(matches!(restore_vcpus(&host, &vm(&host), &[]).unwrap_err(), StateError::Cpus(0)));
}

#[test]
fn processor_name_is_that_of_three_leaves() {
    let register = |text: &[u8]| u32::from_le_bytes(*text.first_chunk().unwrap());
    let leaf = |function: u32, text: &[u8; 16]| kvm_cpuid_entry2 {
        function,
        eax: register(text),
        ebx: register(&text[4..]),
        ecx: register(&text[8..]),
        edx: register(&text[12..]),
        ..Default::default()
    };
    let third = leaf(0x8000_0004, b" 9\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let leaves = [
        third,
        leaf(0, b"GenuineProcessor"),
        leaf(0x8000_0002, b"  Some Processor"),
        leaf(0x8000_0003, b" of one company,"),
    ];
    assert_eq!(processor_name(&leaves), "Some Processor of one company, 9");
    assert_eq!(processor_name(&leaves[1..2]), "");
}
