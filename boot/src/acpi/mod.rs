// SPDX-License-Identifier: Apache-2.0 OR MIT
//! ACPI tables of the machine (specification 6.5), for kernels that do not take their devices from
//! the command line. Pure.
//!
//! | table | holds |
//! |---|---|
//! | RSDP | the address of the XSDT; the start info points here |
//! | XSDT | the addresses of FADT and MADT |
//! | FADT | hardware-reduced: no timer, no fixed events, no legacy devices; how to sleep and to reset |
//! | MADT | a local APIC per processor, and the I/O APIC |
//! | DSDT | the virtio devices, the serial port, and the sleep type of "off" |
//!
//! The MADT has no interrupt override: line n is pin n of the I/O APIC, ACPI's default, and every
//! device declares its line edge-triggered and active high, as in the MP table.

mod dsdt;

use crate::hardware_description::MmioDevice;
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

/// Of each table; none needs more.
const ALIGNMENT: usize = 16;

/// `IAPC_BOOT_ARCH` (table 5.10): no VGA card, message-signalled interrupts or CMOS clock. The bits
/// of a keyboard controller and other legacy devices are not set either.
const NO_VGA: u16 = 1 << 2;
const NO_MSI: u16 = 1 << 3;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// Returns all tables, for [`layout::ACPI_TABLES`]. The RSDP comes first.
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
        // Buttons would be devices of the DSDT; there are none.
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
