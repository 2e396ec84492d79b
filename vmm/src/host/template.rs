// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Formatted empty disks in the cache, one a size, and their copying: a start that copies one is ten times as fast as one
//! that runs `mke2fs`. They appear whole or not at all; what cannot be kept is made anew each time.

use super::mke2fs::{FormatError, format};
use super::tmpfile::tmpfile;
use rustix::fs::{AtFlags, CWD, SeekFrom, linkat, seek};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Changes whenever a disk of the same size would be formatted otherwise.
const FORMAT: &str = "v1";
/// More data than any template has: what a file system reports that knows no holes.
const MOST_DATA: u64 = 64 << 20;

/// How a copy went.
#[derive(Debug)]
pub(super) enum Copied {
    /// The disk is formatted.
    Yes,
    /// There is no template, and none can be kept.
    NoTemplate,
    /// The disk cannot be written.
    Failed(io::Error),
}

/// Makes `disk`, which has `size` bytes that read as zeroes, a copy of the template of that size; first makes the template
/// if it is missing.
///
/// # Errors
/// Formatting failed.
pub(super) fn copy(size: u64, cache: &Path, disk: &File) -> Result<Copied, FormatError> {
    let folder = cache.join("scratch").join(FORMAT);
    let path = folder.join(format!("ext4-{size}.img"));
    let template = match File::open(&path) {
        Ok(template) if template.metadata().is_ok_and(|metadata| metadata.len() == size) => template,
        _ => match make(size, &folder, &path)? {
            Some(template) => template,
            None => return Ok(Copied::NoTemplate),
        },
    };
    let Ok(extents) = extents(&template, size) else { return Ok(Copied::NoTemplate) };
    let mut bytes = Vec::new();
    for (start, end) in extents {
        bytes.resize((end - start) as usize, 0);
        if let Err(error) = template.read_exact_at(&mut bytes, start) {
            return Ok(Copied::Failed(error));
        }
        if let Err(error) = disk.write_all_at(&bytes, start) {
            return Ok(Copied::Failed(error));
        }
    }
    Ok(Copied::Yes)
}

/// Formats a template and gives it its name. `None` if the cache takes none.
fn make(size: u64, folder: &Path, path: &Path) -> Result<Option<File>, FormatError> {
    if fs::create_dir_all(folder).is_err() {
        return Ok(None);
    }
    let Ok(file) = tmpfile(folder) else { return Ok(None) };
    if file.set_len(size).is_err() {
        return Ok(None);
    }
    match format(&file, size) {
        // A full cache is no reason not to run.
        Err(FormatError::Refused { .. }) => return Ok(None),
        result => result?,
    }
    let own_name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(CWD, &own_name, CWD, path, AtFlags::SYMLINK_FOLLOW);
    if link() == Err(Errno::EXIST) && fs::metadata(path).is_ok_and(|metadata| metadata.len() != size) {
        // Damaged; another may have mended it meanwhile. Either way the one at hand is good for this run.
        let _ = fs::remove_file(path).map(|()| link());
    }
    Ok(Some(file))
}

/// Where `file` has data, in pieces that fit into memory.
fn extents(file: &File, size: u64) -> Result<Vec<(u64, u64)>, Errno> {
    let (mut extents, mut position, mut data) = (Vec::new(), 0, 0);
    while position < size {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        data += end - start;
        if data > MOST_DATA {
            return Err(Errno::OPNOTSUPP);
        }
        extents.push((start, end));
        position = end;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_where_data_is() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        assert_eq!(extents(&file, 1 << 30), Ok(vec![]));
        file.write_all_at(&[1; 4096], 512 << 20).unwrap();
        file.write_all_at(&[1; 4096], (1 << 30) - 4096).unwrap();
        let expected = vec![(512 << 20, (512 << 20) + 4096), ((1 << 30) - 4096, 1 << 30)];
        assert_eq!(extents(&file, 1 << 30), Ok(expected));
    }

    #[test]
    fn a_template_of_the_wrong_length_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch/v1/ext4-16777216.img");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "damaged").unwrap();
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(16 << 20).unwrap();
        assert!(matches!(copy(16 << 20, folder.path(), &disk), Ok(Copied::Yes)));
        assert_eq!(fs::metadata(&path).unwrap().len(), 16 << 20);
        let mut magic = [0; 2];
        disk.read_exact_at(&mut magic, 1024 + 56).unwrap();
        assert_eq!(u16::from_le_bytes(magic), 0xef53);
    }

    #[test]
    fn a_cache_that_cannot_be_written_has_no_template() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(16 << 20).unwrap();
        assert!(matches!(copy(16 << 20, Path::new("/dev/null"), &disk), Ok(Copied::NoTemplate)));
    }
}
