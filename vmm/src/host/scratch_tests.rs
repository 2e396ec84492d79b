// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use std::os::unix::fs::MetadataExt as _;

const MIB: u64 = 1 << 20;

/// Checks the magic number of an ext4 file system, and returns the size in its superblock.
fn file_system_size(file: &File) -> u64 {
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, 1024).unwrap();
    assert_eq!(superblock[56..58], 0xef53_u16.to_le_bytes(), "magic number");
    u64::from(u32::from_le_bytes(*superblock[4..].first_chunk().unwrap())) * 4096
}

fn directories(base: &Path) -> Directories {
    let (cache, temporary) = (base.join("cache"), base.join("tmp"));
    fs::create_dir(&temporary).unwrap();
    Directories { cache_home: Some(cache), temporary: Some(temporary), ..Directories::default() }
}

#[test]
fn scratch_disk_is_sparse_formatted_and_has_no_name() {
    let base = tempfile::tempdir().unwrap();
    let directories = directories(base.path());
    for round in ["formatted", "copied"] {
        let disk = create(8 << 30, &directories, "scratch").unwrap();
        assert_eq!(file_system_size(&disk.file), 8 << 30, "{round}");
        let metadata = disk.file.metadata().unwrap();
        assert_eq!(metadata.nlink(), 0, "{round}");
        assert!(metadata.blocks() * 512 < MIB, "{round}: {} blocks", metadata.blocks());
        assert!(disk.scratch && !disk.read_only);
        let left = fs::read_dir(directories.large_temporary()).unwrap().count();
        assert_eq!(left, 0, "{round}");
    }
}

#[test]
fn a_copy_equals_a_newly_formatted_disk() {
    let base = tempfile::tempdir().unwrap();
    let directories = directories(base.path());
    let [first, second] = [(); 2].map(|()| create(64 * MIB, &directories, "scratch").unwrap());
    let bytes = |disk: &BlockConfig| {
        let mut bytes = vec![0; 64 << 20];
        disk.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert!(bytes(&first) == bytes(&second));
}

#[test]
fn without_a_cache_the_disk_itself_is_formatted() {
    let base = tempfile::tempdir().unwrap();
    let directories = Directories { cache_home: Some("/dev/null".into()), ..directories(base.path()) };
    assert_eq!(file_system_size(&create(16 * MIB, &directories, "scratch").unwrap().file), 16 * MIB);
}

#[test]
fn create_names_a_missing_directory() {
    let directories = Directories { temporary: Some("/nowhere/tmp".into()), ..Directories::default() };
    let error = create(16 * MIB, &directories, "scratch").unwrap_err();
    assert!(error.to_string().contains("/nowhere/tmp"), "{error}");
}

#[test]
fn extents_are_the_ranges_with_data() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    assert_eq!(extents(&file, 1 << 30), Ok(vec![]));
    file.write_all_at(&[1; 4096], 512 * MIB).unwrap();
    file.write_all_at(&[1; 4096], (1 << 30) - 4096).unwrap();
    let expected = vec![(512 * MIB, 512 * MIB + 4096), ((1 << 30) - 4096, 1 << 30)];
    assert_eq!(extents(&file, 1 << 30), Ok(expected));
}

#[test]
fn a_template_of_the_wrong_length_is_replaced() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join(TEMPLATE_DIRECTORY).join("ext4-16777216.img");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "damaged").unwrap();
    let template = open_template(16 * MIB, base.path()).unwrap().unwrap();
    assert_eq!(file_system_size(&template), 16 * MIB);
    assert_eq!(file_system_size(&File::open(&path).unwrap()), 16 * MIB);
}

#[test]
fn a_cache_that_cannot_be_written_has_no_template() {
    assert!(matches!(open_template(16 * MIB, Path::new("/dev/null")), Ok(None)));
}

#[test]
fn format_reports_the_message_of_mke2fs() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let error = format(&file, 4096, &OPTIONS).unwrap_err();
    assert!(matches!(&error, FormatError::Refused { message, .. } if !message.is_empty()), "{error}");
}
