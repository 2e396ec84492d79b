// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disk behind the device: files or block devices, one after the other, and what can be done to
//! them, in bytes. Runs on the device's event loop; shared with the device, which keeps it over a
//! reset.

use super::super::chain::{Reader, Writer};
use super::super::guest_io;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of zeroes that are written at once.
const ZEROES_BUF_SIZE: usize = 64 << 10;

device_counters! {
    /// What a disk has done since the start. Monotonic, relaxed: for statistics.
    DiskCounters {
        /// Bytes that the guest has read.
        read_bytes,
        /// Bytes that the guest has written.
        write_bytes,
        /// Read requests that have succeeded.
        read_requests,
        /// Write requests that have succeeded.
        write_requests,
        /// Flushes of the file that have succeeded.
        flushes,
        /// Requests of any kind that failed.
        errors,
    }
}

/// A file as a part of a disk. It ends where the next one starts.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its place on the disk; a multiple of the sector size.
    pub(super) start: u64,
    pub(super) file: File,
    /// For messages.
    pub(super) path: PathBuf,
}

/// An open, locked disk.
#[derive(Debug)]
pub(super) struct Disk {
    /// The only file, if the disk can be written.
    pub(super) first: Segment,
    /// What comes after it, in order.
    pub(super) more: Box<[Segment]>,
    /// Multiple of the sector size; only grows. What the configuration space shows and what requests
    /// are checked against, so that no request passes that is beyond what the driver was shown.
    pub(super) size: AtomicU64,
    /// Unit in bytes in which the host allocates and deallocates. More than a sector on a block
    /// device with larger logical blocks (4Kn); a file system takes any range.
    pub(super) alignment: u64,
    pub(super) read_only: bool,
    /// Its contents need not outlive the machine, so that a flush has nothing to do.
    pub(super) scratch: bool,
    pub(super) serial: String,
    pub(super) counters: Arc<DiskCounters>,
    /// Data was written since the last flush that succeeded.
    pub(super) dirty: AtomicBool,
    /// A flush failed: the host may have lost data, and no later flush can bring it back.
    pub(super) flush_failed: AtomicBool,
}

impl Disk {
    /// In bytes, at this moment.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(super) fn read(&self, mut offset: u64, data: &mut Writer<'_>) -> Result<()> {
        let length = data.remaining() as u64;
        while data.remaining() > 0 {
            let (segment, end) = self.segment_at(offset);
            let here = (end - offset).min(data.remaining() as u64);
            let rest = data.split_off(here as usize);
            guest_io::read_exact_at(segment.file.as_fd(), offset - segment.start, data)
                .map_err(|error| Error::new(error.kind(), format!("{}: {error}", segment.path.display())))?;
            (offset, *data) = (offset + here, rest);
        }
        self.counters.read_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// The segment that holds the byte at `offset`, and where the next one starts.
    fn segment_at(&self, offset: u64) -> (&Segment, u64) {
        // An empty segment starts where the next one does, which is the one that counts.
        let after = self.more.partition_point(|segment| segment.start <= offset);
        let segment = after.checked_sub(1).map_or(&self.first, |index| &self.more[index]);
        (segment, self.more.get(after).map_or(u64::MAX, |next| next.start))
    }

    pub(super) fn write(&self, offset: u64, data: &mut Reader<'_>) -> Result<()> {
        let length = data.remaining() as u64;
        self.dirty.store(true, Ordering::Relaxed);
        guest_io::write_all_at(self.first.file.as_fd(), offset, data)?;
        self.counters.write_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// [`sync`](Self::sync) as a request of the guest's.
    pub(super) fn flush(&self) -> Result<()> {
        self.sync()?;
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Everything that was written before is on the medium when this returns, unless the disk is
    /// scratch.
    pub(super) fn sync(&self) -> Result<()> {
        if self.scratch || self.read_only { Ok(()) } else { self.sync_with(|| self.first.file.sync_data()) }
    }

    fn sync_with(&self, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.flush_failed.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("an earlier flush failed"));
        }
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        sync().inspect_err(|_| self.flush_failed.store(true, Ordering::Relaxed))
    }

    /// Gives up the contents of the range. Does nothing where the host cannot deallocate, as at the
    /// ends of a range that is not aligned.
    pub(super) fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let Some((start, end)) = self.aligned_part(offset, length) else { return Ok(()) };
        match self.allocate(FallocateFlags::PUNCH_HOLE, start, end - start) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    /// The range reads as zeroes afterwards. With `unmap` the host may deallocate the space.
    pub(super) fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> Result<()> {
        let flag = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        let Some((start, end)) = self.aligned_part(offset, length) else {
            return self.write_zero_bytes(offset, length);
        };
        match self.allocate(flag, start, end - start) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zero_bytes(offset, length),
            Err(error) => Err(error.into()),
            Ok(()) => {
                self.write_zero_bytes(offset, start - offset)?;
                self.write_zero_bytes(end, offset + length - end)
            }
        }
    }

    /// Start and end of the part of a range that the host can allocate or deallocate; `None` if
    /// there is none.
    fn aligned_part(&self, offset: u64, length: u64) -> Option<(u64, u64)> {
        let start = offset.next_multiple_of(self.alignment);
        let end = (offset + length) / self.alignment * self.alignment;
        (start < end).then_some((start, end))
    }

    fn allocate(&self, flag: FallocateFlags, offset: u64, length: u64) -> rustix::io::Result<()> {
        self.dirty.store(true, Ordering::Relaxed);
        rustix::io::retry_on_intr(|| fallocate(&self.first.file, flag | FallocateFlags::KEEP_SIZE, offset, length))
    }

    fn write_zero_bytes(&self, offset: u64, length: u64) -> Result<()> {
        static ZEROES: [u8; ZEROES_BUF_SIZE] = [0; ZEROES_BUF_SIZE];
        self.dirty.store(true, Ordering::Relaxed);
        let mut done = 0;
        while done < length {
            let count = (length - done).min(ZEROES.len() as u64);
            let written = rustix::io::retry_on_intr(|| {
                rustix::io::pwritev(&self.first.file, &[IoSlice::new(&ZEROES[..count as usize])], offset + done)
            })?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            done += written as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::SECTOR_SIZE;
    use super::*;
    use std::os::unix::fs::FileExt;

    fn disk(scratch: bool) -> Disk {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0xaa; 8192], 0).unwrap();
        Disk {
            first: Segment { start: 0, file, path: "test".into() },
            more: [].into(),
            size: 8192.into(),
            alignment: SECTOR_SIZE,
            read_only: false,
            scratch,
            serial: String::new(),
            counters: Arc::default(),
            dirty: AtomicBool::new(true),
            flush_failed: AtomicBool::new(false),
        }
    }

    fn contents(disk: &Disk) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        disk.first.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn flush_that_failed_once_fails_for_ever() {
        let disk = disk(false);
        assert!(disk.sync_with(|| Err(std::io::ErrorKind::StorageFull.into())).is_err());
        disk.dirty.store(true, Ordering::Relaxed);
        assert!(disk.flush().is_err());
        assert_eq!(disk.counters.flushes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn clean_disk_is_not_synced_again() {
        let disk = disk(false);
        disk.flush().unwrap();
        disk.sync_with(|| panic!("nothing was written")).unwrap();
    }

    #[test]
    fn scratch_disk_is_never_synced() {
        let disk = disk(true);
        disk.flush_failed.store(true, Ordering::Relaxed);
        disk.flush().unwrap();
    }

    #[test]
    fn write_zeroes_changes_its_range_only_in_each_of_three_ways() {
        let expected: Vec<u8> = (0..8192).map(|i| if (512..4608).contains(&i) { 0 } else { 0xaa }).collect();
        for way in 0..3 {
            let disk = disk(true);
            match way {
                0 => disk.write_zeroes(512, 4096, true).unwrap(),
                1 => disk.write_zeroes(512, 4096, false).unwrap(),
                _ => disk.write_zero_bytes(512, 4096).unwrap(),
            }
            assert_eq!(contents(&disk), expected, "way {way}");
            assert_eq!(disk.first.file.metadata().unwrap().len(), 8192);
        }
    }

    #[test]
    fn disk_with_large_blocks_discards_whole_blocks_and_zeroes_all() {
        for (offset, length, discarded) in [(512, 7168, None), (512, 7680, Some(4096..8192)), (0, 4608, Some(0..4096))]
        {
            let large_blocks = || Disk { alignment: 4096, ..disk(true) };
            let zeroes = |range: std::ops::Range<usize>| {
                (0..8192).map(|i| if range.contains(&i) { 0 } else { 0xaa }).collect::<Vec<u8>>()
            };
            let disk = large_blocks();
            disk.discard(offset, length).unwrap();
            assert_eq!(contents(&disk), zeroes(discarded.unwrap_or_default()));
            for unmap in [true, false] {
                let disk = large_blocks();
                disk.write_zeroes(offset, length, unmap).unwrap();
                assert_eq!(contents(&disk), zeroes(offset as usize..(offset + length) as usize));
            }
        }
    }
}
