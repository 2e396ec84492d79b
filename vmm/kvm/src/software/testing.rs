// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vCPU in memory and the properties of several CPUs, for tests and the fuzzer.

use super::processor::Processor;
use super::vcpu_state::{Exception, VcpuState};
use super::xsave_layout::XstateLayout;
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::io;
use std::sync::Arc;

/// CPUID leaf 0xD of a CPU, and the rest of its properties.
struct Model {
    name: &'static str,
    mxcsr_mask: u32,
    physical_address_bits: u32,
    /// Number, size, offset in the standard format, flags (ECX).
    components: &'static [(u32, u32, u32, u32)],
}

const INTEL_MXCSR_MASK: u32 = 0xffff;
/// With bit 17, misaligned SSE.
const AMD_MXCSR_MASK: u32 = 0x2_ffff;
/// Flags of a component.
const SUPERVISOR: u32 = 1;
const ALIGNED: u32 = 2;

/// CPUs that differ in everything that completions depend on.
const MODELS: [Model; 8] = [
    Model {
        name: "Intel Skylake-SP, with MPX, AVX-512 and PKRU",
        mxcsr_mask: INTEL_MXCSR_MASK,
        physical_address_bits: 46,
        components: &[
            (2, 256, 576, 0),
            (3, 64, 960, 0),
            (4, 64, 1024, 0),
            (5, 64, 1088, 0),
            (6, 512, 1152, 0),
            (7, 1024, 1664, 0),
            (8, 128, 0, SUPERVISOR),
            (9, 8, 2688, 0),
        ],
    },
    Model { name: "Intel without AVX", mxcsr_mask: INTEL_MXCSR_MASK, physical_address_bits: 36, components: &[] },
    Model {
        name: "Intel Sandy Bridge",
        mxcsr_mask: INTEL_MXCSR_MASK,
        physical_address_bits: 46,
        components: &[(2, 256, 576, 0)],
    },
    Model {
        name: "Intel Sapphire Rapids, with AMX",
        mxcsr_mask: INTEL_MXCSR_MASK,
        physical_address_bits: 52,
        components: &[
            (2, 256, 576, 0),
            (5, 64, 1088, 0),
            (6, 512, 1152, 0),
            (7, 1024, 1664, 0),
            (9, 8, 2688, 0),
            (11, 16, 0, SUPERVISOR),
            (12, 24, 0, SUPERVISOR),
            (17, 64, 2752, ALIGNED),
            (18, 8192, 2816, ALIGNED | 4),
        ],
    },
    Model {
        name: "AMD Bulldozer, with LWP",
        mxcsr_mask: AMD_MXCSR_MASK,
        physical_address_bits: 48,
        components: &[(2, 256, 576, 0), (62, 128, 832, 0)],
    },
    Model {
        name: "AMD EPYC, Zen 3, with PKRU",
        mxcsr_mask: AMD_MXCSR_MASK,
        physical_address_bits: 48,
        components: &[(2, 256, 576, 0), (9, 8, 832, 0), (11, 16, 0, SUPERVISOR), (12, 24, 0, SUPERVISOR)],
    },
    Model {
        name: "AMD EPYC, Zen 4, with AVX-512 and PKRU",
        mxcsr_mask: AMD_MXCSR_MASK,
        physical_address_bits: 52,
        components: &[
            (2, 256, 576, 0),
            (5, 64, 832, 0),
            (6, 512, 896, 0),
            (7, 1024, 1408, 0),
            (9, 8, 2432, 0),
            (11, 16, 0, SUPERVISOR),
            (12, 24, 0, SUPERVISOR),
        ],
    },
    Model {
        name: "AMD EPYC, Zen 4, in a VM without PKRU",
        mxcsr_mask: AMD_MXCSR_MASK,
        physical_address_bits: 48,
        components: &[(2, 256, 576, 0), (5, 64, 832, 0), (6, 512, 896, 0), (7, 1024, 1408, 0)],
    },
];

/// CPUs of both vendors, and the host's own last, each with a name.
pub fn processors() -> Vec<(&'static str, Processor)> {
    let known = MODELS.iter().map(|model| {
        let component = |number| model.components.iter().find(|component| component.0 == number);
        let xstate = XstateLayout::new(|number| component(number).map_or((0, 0, 0), |c| (c.1, c.2, c.3)));
        let (mxcsr_mask, physical_address_bits) = (model.mxcsr_mask, model.physical_address_bits);
        (model.name, Processor { xstate, mxcsr_mask, physical_address_bits })
    });
    known.chain([("the host's", Processor::host())]).collect()
}

/// A virtual CPU without KVM. It records what was set and raised.
#[derive(Clone, Debug)]
pub struct MemoryVcpu {
    /// The CPU that it has.
    pub processor: Arc<Processor>,
    pub registers: kvm_regs,
    /// Segments and control registers.
    pub special: kvm_sregs,
    /// XCR0.
    pub enabled_components: u64,
    /// IA32_XSS.
    pub supervisor_components: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    pub time_stamp_counter: u64,
    /// How often all translations were invalidated.
    pub flushes: u64,
    /// The extended state, in standard format.
    pub extended_state: Vec<u8>,
    /// The copy of `extended_state` that callers change.
    buffer: Vec<u8>,
    /// The last exception raised.
    pub raised: Option<Exception>,
    /// The guest is in the shadow of STI or MOV SS.
    pub interrupt_shadow: bool,
    /// An interrupt was taken from its controller.
    pub interrupt_is_injected: bool,
}

impl MemoryVcpu {
    /// All registers are zero, all extended state is initial and enabled.
    pub fn new(processor: Arc<Processor>) -> Self {
        let (size, enabled_components) = (processor.xstate.standard_size(), processor.xstate.user_components());
        Self {
            processor,
            registers: kvm_regs::default(),
            special: kvm_sregs::default(),
            enabled_components,
            supervisor_components: 0,
            tsc_aux: 0,
            time_stamp_counter: 0,
            flushes: 0,
            extended_state: vec![0; size],
            buffer: Vec::new(),
            raised: None,
            interrupt_shadow: false,
            interrupt_is_injected: false,
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
        self.buffer.clone_from(&self.extended_state);
        Ok(&mut self.buffer)
    }

    fn store_extended_state(&mut self) -> io::Result<()> {
        self.extended_state.clone_from(&self.buffer);
        Ok(())
    }

    fn interrupt_is_injected(&mut self) -> io::Result<bool> {
        Ok(self.interrupt_is_injected)
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
