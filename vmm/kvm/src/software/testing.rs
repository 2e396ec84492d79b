// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vCPU in memory, for tests and the fuzzer: it remembers what was set and what was raised.

use std::io;
use std::sync::Arc;

use kvm_bindings::{kvm_regs, kvm_sregs};

use super::processor::Processor;
use super::state::{Exception, VcpuState};

/// A virtual CPU without KVM.
#[derive(Clone, Debug)]
pub struct MemoryVcpu {
    /// What is fixed about it.
    pub processor: Arc<Processor>,
    /// General registers.
    pub registers: kvm_regs,
    /// Segments and control registers.
    pub special: kvm_sregs,
    /// XCR0.
    pub enabled_components: u64,
    /// IA32_XSS.
    pub supervisor_components: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// The guest's time stamp counter.
    pub time_stamp_counter: u64,
    /// How often all translations were forgotten.
    pub flushes: u64,
    /// The extended state, in standard format.
    pub extended_state: Vec<u8>,
    /// A copy of `extended_state` on loan.
    loan: Vec<u8>,
    /// The last exception raised.
    pub raised: Option<Exception>,
    /// The guest is in the shadow of STI or MOV SS.
    pub interrupt_shadow: bool,
    /// An interrupt was taken from its controller.
    pub interrupt_is_on_its_way: bool,
}

impl MemoryVcpu {
    /// All registers zero, all extended state initial.
    pub fn new(processor: Arc<Processor>) -> Self {
        let size = processor.xstate.standard_size();
        Self {
            processor,
            registers: kvm_regs::default(),
            special: kvm_sregs::default(),
            enabled_components: 1,
            supervisor_components: 0,
            tsc_aux: 0,
            time_stamp_counter: 0,
            flushes: 0,
            extended_state: vec![0; size],
            loan: Vec::new(),
            raised: None,
            interrupt_shadow: false,
            interrupt_is_on_its_way: false,
        }
    }
}

impl VcpuState for MemoryVcpu {
    fn processor(&self) -> Arc<Processor> {
        Arc::clone(&self.processor)
    }

    fn registers(&mut self) -> io::Result<kvm_regs> {
        Ok(self.registers)
    }

    fn set_registers(&mut self, registers: &kvm_regs) -> io::Result<()> {
        self.registers = *registers;
        Ok(())
    }

    fn special_registers(&mut self) -> io::Result<kvm_sregs> {
        Ok(self.special)
    }

    fn set_special_registers(&mut self, special: &kvm_sregs) -> io::Result<()> {
        self.special = *special;
        Ok(())
    }

    fn enabled_components(&mut self) -> io::Result<u64> {
        Ok(self.enabled_components)
    }

    fn supervisor_components(&mut self) -> io::Result<u64> {
        Ok(self.supervisor_components)
    }

    fn tsc_aux(&mut self) -> io::Result<u64> {
        Ok(self.tsc_aux)
    }

    fn time_stamp_counter(&mut self) -> io::Result<u64> {
        Ok(self.time_stamp_counter)
    }

    fn flush_translations(&mut self) -> io::Result<()> {
        self.flushes += 1;
        Ok(())
    }

    fn load_extended_state(&mut self) -> io::Result<&mut [u8]> {
        self.loan.clone_from(&self.extended_state);
        Ok(&mut self.loan)
    }

    fn store_extended_state(&mut self) -> io::Result<()> {
        self.extended_state.clone_from(&self.loan);
        Ok(())
    }

    fn interrupt_is_on_its_way(&mut self) -> io::Result<bool> {
        Ok(self.interrupt_is_on_its_way)
    }

    fn raise(&mut self, exception: Exception) -> io::Result<()> {
        self.raised = Some(exception);
        self.interrupt_shadow = false;
        Ok(())
    }

    fn begin_interrupt_shadow(&mut self) -> io::Result<()> {
        self.interrupt_shadow = true;
        Ok(())
    }

    fn end_interrupt_shadow(&mut self) -> io::Result<()> {
        self.interrupt_shadow = false;
        Ok(())
    }
}
