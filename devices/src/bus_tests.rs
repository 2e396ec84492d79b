// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bus: which device gets an access, and what happens outside all of them.

use super::*;
use std::sync::Mutex;

/// Reads as its offset, and stores what was written.
#[derive(Default)]
struct Echo(Mutex<Vec<(u64, Vec<u8>)>>);

impl BusDevice for Echo {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        self.0.lock().unwrap().push((offset, data.to_vec()));
        Action::Reset
    }
}

fn bus_with_two() -> (Bus, Arc<Echo>) {
    let (first, second) = (Arc::new(Echo::default()), Arc::new(Echo::default()));
    let mut builder = BusBuilder::default();
    builder.insert(0x2000, 0x100, second).unwrap();
    builder.insert(0x1000, 0x1000, first.clone()).unwrap();
    (builder.build(), first)
}

#[test]
fn access_reaches_the_device_with_its_offset() {
    let (bus, first) = bus_with_two();
    let mut data = [0; 4];
    bus.read(0x1010, &mut data);
    assert_eq!(data, [0x10; 4]);
    assert_eq!(bus.write(0x1ffe, &[1, 2]), Action::Reset);
    assert_eq!(*first.0.lock().unwrap(), [(0xffe, vec![1, 2])]);
}

#[test]
fn holes_and_device_borders_read_all_ones_and_ignore_writes() {
    let (bus, first) = bus_with_two();
    for address in [0, 0xfff, 0x1ffd, 0x20fd, 0x2100, u64::MAX - 3, u64::MAX] {
        let mut data = [0; 4];
        bus.read(address, &mut data);
        assert_eq!(data, [0xff; 4], "{address:#x}");
        assert_eq!(bus.write(address, &data), Action::None, "{address:#x}");
    }
    assert!(first.0.lock().unwrap().is_empty());
}

#[test]
fn bus_rejects_overlapping_empty_and_wrapping_ranges() {
    let mut builder = BusBuilder::default();
    let device = Arc::new(Echo::default());
    builder.insert(0x1000, 0x100, device.clone()).unwrap();
    for (base, length) in [(0x1000, 0x100), (0xfff, 2), (0x10ff, 1), (0x1010, 1), (0, 0x2000)] {
        let result = builder.insert(base, length, device.clone());
        assert_eq!(result, Err(OverlapError::Overlap { base, length }));
    }
    for (base, length) in [(0x5000, 0), (u64::MAX, 2)] {
        assert_eq!(builder.insert(base, length, device.clone()), Err(OverlapError::Range { base, length }));
    }
    builder.insert(0x1100, 1, device.clone()).unwrap();
    builder.insert(0xfff, 1, device).unwrap();
}
