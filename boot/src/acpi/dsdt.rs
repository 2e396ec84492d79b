// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The DSDT: devices below `\_SB`, and `\_S5`. Pure.
//!
//! | object | is |
//! |---|---|
//! | `\_SB.V000` and on | a virtio-mmio device: `_HID` LNRO0005, its number as `_UID`, register window and interrupt as `_CRS` |
//! | `\_SB.COM1` | the serial port: `_HID` PNP0501 |
//! | `\_S5` | the value of the sleep control register that switches the machine off |

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::hardware_description::MmioDevice;
use crate::layout;
use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope};
use acpi_tables::sdt::Sdt;

/// Size of a table without content.
const HEADER_SIZE: u32 = 36;
/// From 2 on, integers have 64 bits.
const REVISION: u8 = 2;

/// ACPI id of a virtio-mmio device.
const VIRTIO_MMIO: &str = "LNRO0005";
/// A 16550A.
const SERIAL_PORT: &str = "PNP0501";

/// Returns the table for `devices`, numbered in their order.
pub(super) fn table(devices: &[MmioDevice]) -> impl Aml + use<> {
    let mut table = Sdt::new(*b"DSDT", HEADER_SIZE, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    let virtio: Vec<Bytes> = devices.iter().enumerate().map(|(number, device)| virtio_mmio(number, device)).collect();
    let serial = serial_port();
    let devices = virtio.iter().chain([&serial]).map(|device| device as &dyn Aml).collect();
    Scope::new("\\_SB_".into(), devices).to_aml_bytes(&mut table);
    // SLP_TYPx for both registers of machines with fixed hardware.
    let off = &layout::SLEEP_TYPE_OFF;
    Name::new("\\_S5_".into(), &Package::new(vec![off, off])).to_aml_bytes(&mut table);
    table.update_checksum();
    Bytes(table.as_slice().to_vec())
}

fn virtio_mmio(number: usize, device: &MmioDevice) -> Bytes {
    let window = Memory32Fixed::new(true, device.window.0 as u32, layout::VIRTIO_MMIO_WINDOW as u32);
    let interrupt = interrupt(device.line);
    let resources = ResourceTemplate::new(vec![&window, &interrupt]);
    let (hid, uid) = (Name::new("_HID".into(), &VIRTIO_MMIO), Name::new("_UID".into(), &number));
    // Devices are cache-coherent (_CCA): some kernels reject a device without it.
    let coherent = Name::new("_CCA".into(), &acpi_tables::aml::ONE);
    let crs = Name::new("_CRS".into(), &resources);
    bytes(&Device::new(format!("V{number:03}").as_str().into(), vec![&hid, &uid, &coherent, &crs]))
}

fn serial_port() -> Bytes {
    let ports = IO::new(layout::COM1, layout::COM1, 1, layout::COM1_PORTS as u8);
    let interrupt = interrupt(layout::COM1_IRQ);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let (hid, uid) =
        (Name::new("_HID".into(), &EISAName::new(SERIAL_PORT)), Name::new("_UID".into(), &acpi_tables::aml::ZERO));
    let crs = Name::new("_CRS".into(), &resources);
    bytes(&Device::new("COM1".into(), vec![&hid, &uid, &crs]))
}

/// Not shared, edge-triggered, active high.
fn interrupt(line: u32) -> Interrupt {
    let (consumer, edge_triggered, active_low, shared) = (true, true, false, false);
    Interrupt::new(consumer, edge_triggered, active_low, shared, line)
}

/// An encoded object, which no longer borrows its parts.
struct Bytes(Vec<u8>);

impl Aml for Bytes {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn bytes(object: &dyn Aml) -> Bytes {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    Bytes(bytes)
}
