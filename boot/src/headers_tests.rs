// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each test changes one thing of a valid kernel, and expects the error for it.

use super::*;
use crate::test_kernel::{ADDRESS, CODE, TestKernel, load, note, notes, pvh_note};
use proptest::prelude::*;
use std::io::Cursor;

const MIB: u64 = 1 << 20;

fn parse(bytes: &[u8]) -> Result<KernelHeaders, KernelProblem> {
    KernelHeaders::parse(&mut Cursor::new(bytes))
}

fn problem(bytes: &[u8]) -> KernelProblem {
    parse(bytes).expect_err("this kernel must be rejected")
}

macro_rules! assert_problem {
    ($bytes:expr, $pattern:pat $(if $guard:expr)?) => {{
        let problem = problem($bytes);
        assert!(matches!(problem, $pattern $(if $guard)?), "it is {problem:?}");
    }};
}

#[test]
fn parse_returns_segments_and_entry() {
    let headers = parse(&TestKernel::valid().bytes()).unwrap();
    assert_eq!(u64::from(headers.entry()), ADDRESS);
    let expected =
        Segment { address: ADDRESS, memory_size: 0x1000, file_offset: 64 + 2 * 56, file_size: CODE.len() as u64 };
    assert_eq!(headers.segments(), [expected]);
}

#[test]
fn truncated_kernel_is_rejected_at_every_length() {
    let whole = TestKernel::valid().bytes();
    for length in 0..whole.len() {
        match (length, problem(&whole[..length])) {
            (0, KernelProblem::Empty)
            | (1..4, KernelProblem::NotElf(FileFormat::Unknown))
            | (4.., KernelProblem::Truncated { .. }) => {}
            (_, problem) => panic!("{length} bytes: {problem:?}"),
        }
    }
}

#[test]
fn pvh_note_is_found_in_any_note_segment() {
    let other = || (notes(), note(b"GNU\0", 3, &[1; 20]));
    let code = || (load(ADDRESS, 0x1000), CODE.to_vec());
    let pvh = || (notes(), pvh_note(ADDRESS));
    for segments in [vec![pvh(), other(), code()], vec![other(), pvh(), code()], vec![code(), other(), pvh()]] {
        assert_eq!(u64::from(parse(&TestKernel::new(segments).bytes()).unwrap().entry()), ADDRESS);
    }
}

#[test]
fn kernel_without_a_pvh_note_is_rejected() {
    let code = || (load(ADDRESS, 0x1000), CODE.to_vec());
    assert_problem!(&TestKernel::new(vec![code()]).bytes(), KernelProblem::NoPvhNote);
    let near_misses = [note(b"Xen\0", 17, &[0; 8]), note(b"Xen", 18, &[0; 8]), note(b"xen\0", 18, &[0; 8])];
    for near_miss in near_misses {
        assert_problem!(&TestKernel::new(vec![code(), (notes(), near_miss)]).bytes(), KernelProblem::NoPvhNote);
    }
}

#[test]
fn pvh_note_of_another_size_is_rejected() {
    let kernel = TestKernel::new(vec![(load(ADDRESS, 1), CODE[..1].to_vec()), (notes(), note(b"Xen\0", 18, &[0; 3]))]);
    assert_problem!(&kernel.bytes(), KernelProblem::PvhNoteSize(3));
}

#[test]
fn entry_outside_of_segment_contents_is_rejected() {
    let last = ADDRESS + CODE.len() as u64 - 1;
    let entered_at =
        |entry| TestKernel::new(vec![(load(ADDRESS, 0x1000), CODE.to_vec()), (notes(), pvh_note(entry))]).bytes();
    assert!(parse(&entered_at(last)).is_ok());
    for entry in [0, layout::START_INFO.0, ADDRESS - 1, last + 1, 0xffff_ffff, layout::HOLE_START.0, u64::MAX] {
        assert_problem!(&entered_at(entry), KernelProblem::EntryOutside(it) if it == entry);
    }
}

#[test]
fn entry_above_4_gib_is_rejected_even_inside_a_segment() {
    let high = layout::HOLE_END.0;
    let kernel = TestKernel::new(vec![(load(high, 0x1000), CODE.to_vec()), (notes(), pvh_note(high))]);
    assert_problem!(&kernel.bytes(), KernelProblem::EntryOutside(it) if it == high);
}

#[test]
fn overlapping_segments_are_rejected_and_adjacent_are_not() {
    let with_second_at = |address| {
        let first = (load(ADDRESS, 0x1000), CODE.to_vec());
        TestKernel::new(vec![(load(address, 0x1000), vec![1]), first, (notes(), pvh_note(ADDRESS))]).bytes()
    };
    assert!(parse(&with_second_at(ADDRESS + 0x1000)).is_ok());
    assert!(parse(&with_second_at(ADDRESS - 0x1000)).is_ok());
    assert_problem!(&with_second_at(ADDRESS + 0xfff), KernelProblem::Overlap(it) if it == ADDRESS + 0xfff);
    assert_problem!(&with_second_at(ADDRESS), KernelProblem::Overlap(it) if it == ADDRESS);
    assert_problem!(&with_second_at(ADDRESS - 1), KernelProblem::Overlap(it) if it == ADDRESS);
}

#[test]
fn segment_below_1_mib_is_rejected() {
    for area in layout::LOW_AREAS {
        let kernel = TestKernel::new(vec![(load(area.start, 0x1000), CODE.to_vec())]);
        assert_problem!(&kernel.bytes(), KernelProblem::TooLow(it) if it == area.start);
    }
    let kernel = TestKernel::new(vec![(load(MIB - 1, 0x1000), CODE.to_vec())]);
    assert_problem!(&kernel.bytes(), KernelProblem::TooLow(_));
}

#[test]
fn segment_with_invalid_sizes_is_rejected() {
    let sized = |memory_size| TestKernel::new(vec![(load(ADDRESS, memory_size), CODE.to_vec())]).bytes();
    assert_problem!(&sized(CODE.len() as u64 - 1), KernelProblem::SegmentSize { .. });
    assert_problem!(&sized(0), KernelProblem::SegmentSize { .. });
    assert_problem!(&sized(u64::MAX), KernelProblem::SegmentSize { .. });
}

#[test]
fn segment_past_the_end_of_the_file_is_rejected() {
    for (offset, file_size) in [(1u64 << 40, 1u64), (1, 1 << 40), (u64::MAX, 1)] {
        let mut kernel = TestKernel::valid();
        let header = &mut kernel.segments[0].0;
        header.offset = offset.into();
        header.file_size = file_size.into();
        header.memory_size = file_size.into();
        assert_problem!(&kernel.bytes(), KernelProblem::Truncated { what: "segment", .. });
    }
}

#[test]
fn check_fits_rejects_the_hole_and_too_little_memory() {
    let sized = |address, memory_size| {
        let code = (load(ADDRESS, 0x1000), CODE.to_vec());
        parse(&TestKernel::new(vec![code, (load(address, memory_size), vec![1]), (notes(), pvh_note(ADDRESS))]).bytes())
            .unwrap()
    };
    let last = sized(64 * MIB - 0x1000, 0x1000);
    assert!(last.check_fits(64 * MIB).is_ok());
    assert!(matches!(last.check_fits(64 * MIB - 1), Err(KernelProblem::TooLarge { .. })));
    assert!(matches!(sized(32 * MIB, 1 << 63).check_fits(1 << 40), Err(KernelProblem::TooLarge { .. })));
    for area in layout::HOLE_AREAS {
        let problem = sized(area.start, 0x1000).check_fits(8 << 30);
        assert!(matches!(problem, Err(KernelProblem::InHole(_))), "{}: {problem:?}", area.name);
    }
    assert!(matches!(sized(layout::HOLE_START.0 - 1, 2).check_fits(8 << 30), Err(KernelProblem::TooLarge { .. })));
    assert!(sized(4 << 30, 0x1000).check_fits((3 << 30) + 0x1000).is_ok());
    assert!(sized(4 << 30, 0x1001).check_fits((3 << 30) + 0x1000).is_err());
}

#[test]
fn segment_without_content_counts_as_memory() {
    let code = (load(ADDRESS, 0x1000), CODE.to_vec());
    let zeroes = (load(32 * MIB, 64 * MIB), vec![]);
    let headers = parse(&TestKernel::new(vec![code, zeroes, (notes(), pvh_note(ADDRESS))]).bytes()).unwrap();
    assert_eq!(headers.segments().len(), 2);
    assert!(headers.check_fits(64 * MIB).is_err());
}

#[test]
fn elf_file_of_another_type_is_named() {
    let bent = |bend: fn(&mut TestKernel)| {
        let mut kernel = TestKernel::valid();
        bend(&mut kernel);
        kernel.bytes()
    };
    assert_problem!(&bent(|kernel| kernel.header.ident[4] = 1), KernelProblem::Class);
    assert_problem!(&bent(|kernel| kernel.header.ident[5] = 2), KernelProblem::BigEndian);
    assert_problem!(&bent(|kernel| kernel.header.machine = 183.into()), KernelProblem::Machine(183));
    assert_problem!(&bent(|kernel| kernel.header.machine = 3.into()), KernelProblem::Machine(3));
    assert_problem!(&bent(|kernel| kernel.header.kind = 3.into()), KernelProblem::Kind(3));
    assert_problem!(
        &bent(|kernel| kernel.header.program_header_size = 32.into()),
        KernelProblem::ProgramHeaderSize(32)
    );
}

#[test]
fn number_of_program_headers_out_of_range_is_rejected() {
    for count in [0, 65, u16::MAX] {
        let mut kernel = TestKernel::valid();
        kernel.header.program_header_count = count.into();
        assert_problem!(&kernel.bytes(), KernelProblem::ProgramHeaderCount(it) if it == count);
    }
}

#[test]
fn kernel_with_notes_only_is_rejected() {
    assert_problem!(&TestKernel::new(vec![(notes(), pvh_note(ADDRESS))]).bytes(), KernelProblem::NoSegments);
}

#[test]
fn huge_note_segment_is_rejected_by_its_size() {
    let mut kernel = TestKernel::valid();
    kernel.segments[1].0.file_size = (1 << 40).into();
    assert_problem!(&kernel.bytes(), KernelProblem::NotesSize(size) if size == 1 << 40);
}

#[test]
fn to_elf_survives_a_round_trip() {
    let headers = parse(&TestKernel::valid().bytes()).unwrap();
    let elf = headers.to_elf();
    let (header, rest) = FileHeader::read_from_prefix(&elf).unwrap();
    assert_eq!(header.program_header_count.get(), 1);
    let program_header = ProgramHeader::read_from_bytes(rest).unwrap();
    assert_eq!(segment(&program_header, u64::MAX).unwrap(), headers.segments[0]);
}

proptest! {
    #[test]
    fn parse_accepts_any_bytes_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
    }

    /// Up to four bytes of a valid kernel change; an accepted kernel meets all guarantees.
    #[test]
    fn accepted_segments_are_valid_and_disjoint(
        changes in proptest::collection::vec((0usize..64 + 112, any::<u8>()), 1..5),
        memory_mib in 64u64..8192,
    ) {
        let mut bytes = TestKernel::valid().bytes();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let Ok(headers) = parse(&bytes) else { return Ok(()) };
        for segment in headers.segments() {
            prop_assert!(segment.address >= MIB && segment.file_size <= segment.memory_size);
            prop_assert!(segment.file_offset + segment.file_size <= bytes.len() as u64);
        }
        let entry = u64::from(headers.entry());
        prop_assert!(headers.segments().iter().any(|segment| (segment.address..segment.end()).contains(&entry)));
        prop_assert!(headers.segments().windows(2).all(|pair| pair[0].end() <= pair[1].address));
        if headers.check_fits(memory_mib * MIB).is_ok() {
            for segment in headers.segments() {
                prop_assert!(segment.end() <= layout::HOLE_START.0 || segment.address >= layout::HOLE_END.0);
            }
        }
    }
}
