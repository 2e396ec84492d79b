// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An ISO 9660 image with one file.

const SECTOR: usize = 2048;
const ROOT: u32 = 18;
const FILE: u32 = 19;

/// An image whose root directory has a file with this name of its own (`NAME.EXT;1`).
#[must_use]
pub fn iso_image(name: &str, content: &[u8]) -> Vec<u8> {
    let directory = record(ROOT, SECTOR, 2, &[0]);
    let mut image = vec![0; ROOT as usize * SECTOR];
    // A primary volume descriptor, and the end of the set.
    for (sector, kind) in [(16, 1), (17, 255)] {
        image[sector * SECTOR] = kind;
        image[sector * SECTOR + 1..][..5].copy_from_slice(b"CD001");
    }
    image[16 * SECTOR + 156..][..directory.len()].copy_from_slice(&directory);
    image.extend([directory, record(FILE, content.len(), 0, name.as_bytes())].concat());
    image.resize(FILE as usize * SECTOR, 0);
    image.extend_from_slice(content);
    image
}

/// A directory record, ECMA-119, 9.1.
fn record(sector: u32, bytes: usize, flags: u8, name: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2..6].copy_from_slice(&sector.to_le_bytes());
    record[10..14].copy_from_slice(&u32::try_from(bytes).expect("it is small").to_le_bytes());
    (record[25], record[32]) = (flags, u8::try_from(name.len()).expect("it is short"));
    record.extend_from_slice(name);
    record.resize(record.len() + record.len() % 2, 0);
    record[0] = u8::try_from(record.len()).expect("it is short");
    record
}
