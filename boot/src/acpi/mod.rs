// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine in ACPI's words (specification 6.5), for kernels that do not take their devices from the command line. Pure.
//!
//! | table | holds |
//! |---|---|
//! | RSDP | where the XSDT is; the start info points here |
//! | XSDT | where the others are |
//! | FADT | hardware-reduced: no timer, no fixed events, no legacy devices; how to sleep and to reset |
//! | MADT | a local APIC for each processor, and the I/O APIC |
//! | DSDT | the virtio devices, the serial port, and which sleep is "off" |
//!
//! The MADT overrides no interrupt: line n is pin n of the I/O APIC, as ACPI has it without a word, and every device says
//! itself that its line is edge-triggered and active high, as the MP table says of all of them.

mod dsdt;

use crate::description::MmioDevice;
use crate::layout;
use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

const OEM: [u8; 6] = *b"CORACL";
const OEM_TABLE: [u8; 8] = *b"MICROVM ";
const OEM_REVISION: u32 = 1;

/// Tables start at multiples of it, which is more than any of them needs.
const ALIGNMENT: usize = 16;

/// `IAPC_BOOT_ARCH` (table 5.10): a kernel need not look for a VGA card, for message-signalled interrupts, or for a CMOS
/// clock; nor, as their bits are not set, for a keyboard controller and other legacy devices.
const NO_VGA: u16 = 1 << 2;
const NO_MSI: u16 = 1 << 3;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// All tables, to be written to [`layout::ACPI_TABLES`]; the RSDP comes first.
pub(crate) fn tables(cpus: u8, devices: &[MmioDevice]) -> Vec<u8> {
    let mut tables = Tables { bytes: vec![0; Rsdp::len()] };
    let dsdt = tables.add(&dsdt::table(devices));
    let fadt = tables.add(&fadt(dsdt));
    let madt = tables.add(&madt(cpus));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.add(&xsdt);
    let mut rsdp = Vec::with_capacity(Rsdp::len());
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    tables.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    tables.bytes
}

/// Tables, one behind the other.
struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Adds a table and returns its guest-physical address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let start = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(start, 0);
        table.to_aml_bytes(&mut self.bytes);
        layout::ACPI_TABLES.0 + start as u64
    }
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::Headless)
        // Buttons, if there are any, are devices. There are none.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = (NO_VGA | NO_MSI | NO_CMOS_CLOCK).into();
    fadt.sleep_control_reg = port(layout::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(layout::SLEEP_STATUS);
    fadt.reset_reg = port(layout::ACPI_RESET);
    fadt.reset_value = layout::ACPI_RESET_VALUE;
    fadt.finalize()
}

/// A register of one byte.
fn port(number: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(number))
}

fn madt(cpus: u8) -> MADT {
    let mut madt =
        MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(layout::LOCAL_APIC.0 as u32));
    for index in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(index, index, EnabledStatus::Enabled));
    }
    // Its id follows the processors', as in the MP table.
    madt.add_structure(IoApic::new(cpus, layout::IO_APIC.0 as u32, 0));
    madt
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
