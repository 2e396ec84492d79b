// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the PVH entry among a kernel's ELF notes: name `Xen`, type 18 (`XEN_ELFNOTE_PHYS32_ENTRY`
//! of Xen's `public/elfnote.h`), with a physical address of 4 or 8 bytes. Pure.
//!
//! Notes are padded to 4 bytes, whatever alignment their program header declares: Linux pads to 4
//! even where a property note raises the header's alignment to 8.

use crate::elf::NoteHeader;
use zerocopy::FromBytes as _;

const OWNER: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u32 = 18;
const PADDING: usize = 4;

/// The address in a PVH note has an unknown size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadDescriptor {
    pub(crate) size: usize,
}

/// Returns the entry of the PVH note in `notes`, or `None` without such a note. A note that reaches
/// past the end of `notes` ends the search.
pub(crate) fn pvh_entry(mut notes: &[u8]) -> Result<Option<u64>, BadDescriptor> {
    while let Ok((header, rest)) = NoteHeader::read_from_prefix(notes) {
        let Some((name, rest)) = take_padded(rest, header.name_size.get()) else { break };
        let Some((descriptor, rest)) = take_padded(rest, header.descriptor_size.get()) else { break };
        if name == OWNER && header.kind.get() == PHYS32_ENTRY {
            return address(descriptor).map(Some);
        }
        notes = rest;
    }
    Ok(None)
}

fn address(descriptor: &[u8]) -> Result<u64, BadDescriptor> {
    if let Ok(bytes) = <[u8; 4]>::try_from(descriptor) {
        return Ok(u64::from(u32::from_le_bytes(bytes)));
    }
    let bytes = <[u8; 8]>::try_from(descriptor).map_err(|_| BadDescriptor { size: descriptor.len() })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Returns the first `size` bytes, and the rest after their padding. The last note may lack its
/// padding.
fn take_padded(bytes: &[u8], size: u32) -> Option<(&[u8], &[u8])> {
    let size = size as usize;
    let taken = bytes.get(..size)?;
    let next = size.next_multiple_of(PADDING).min(bytes.len());
    Some((taken, &bytes[next..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_kernel::note;
    use proptest::prelude::*;

    #[test]
    fn entry_is_read_from_a_descriptor_of_4_or_8_bytes() {
        assert_eq!(pvh_entry(&note(b"Xen\0", 18, &0x0100_0000u32.to_le_bytes())), Ok(Some(0x0100_0000)));
        assert_eq!(pvh_entry(&note(b"Xen\0", 18, &0x0100_0000u64.to_le_bytes())), Ok(Some(0x0100_0000)));
    }

    #[test]
    fn descriptor_of_another_size_is_an_error() {
        for size in [0, 3, 5, 7, 9] {
            assert_eq!(pvh_entry(&note(b"Xen\0", 18, &vec![1; size])), Err(BadDescriptor { size }));
        }
    }

    #[test]
    fn notes_of_other_owners_and_types_are_ignored() {
        let mut notes = note(b"GNU\0", 18, &[1; 20]);
        notes.extend(note(b"Xen\0", 6, b"linux\0"));
        notes.extend(note(b"Xen", 18, &[2; 4]));
        assert_eq!(pvh_entry(&notes), Ok(None));
        notes.extend(note(b"Xen\0", 18, &[3, 0, 0, 0]));
        assert_eq!(pvh_entry(&notes), Ok(Some(3)));
    }

    #[test]
    fn truncated_note_is_not_found() {
        let complete = note(b"Xen\0", 18, &[3, 0, 0, 0]);
        for length in 0..complete.len() {
            assert_eq!(pvh_entry(&complete[..length]), Ok(None), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn search_ends_for_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pvh_entry(&bytes);
        }
    }
}
