// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest kernel: an x86-64 ELF file with a PVH note, as it is or in a bzImage. Runs on `main`, before a VM exists (`open`,
//! `check_fits`) and once its memory does (`load`).
//!
//! The headers are read and checked when the file is opened and never read again: linux-loader gets a beginning that was
//! written from the checked ones, and only segments' contents come from the file. So a file that changes in between can
//! spoil the guest, and nothing else.

use crate::bzimage::BzImage;
use crate::compression::Compression;
use crate::description::Description;
use crate::features::{Feature, Features};
use crate::foreign::Foreign;
use crate::headers::{KernelHeaders, KernelProblem};
use crate::kernel_cache::KernelCache;
use crate::modules::{ModuleTree, ModulesError};
use crate::{GuestMemory, UnpackError};
use linux_loader::loader::{Elf, KernelLoader as _};
use rustix::fs::{FileType, Mode, OFlags};
use std::error::Error;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

/// A kernel cannot be used: which, and why.
#[derive(Debug)]
pub struct KernelError {
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: KernelProblem,
}

impl fmt::Display for KernelError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kernel {} {}", self.path.display(), self.problem)
    }
}

impl Error for KernelError {
    /// The problem is part of this message, so the chain goes on with what caused it.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// Largest ELF file in a bzImage: several times what a kernel with everything built in has.
const LARGEST_UNPACKED: u64 = 512 << 20;

/// An opened kernel, checked.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    file: File,
    headers: KernelHeaders,
    features: Features,
    is_bzimage: bool,
    modules: Option<ModuleTree>,
}

impl Kernel {
    /// Opens the kernel at `path`, unpacks it if it must, and checks everything that does not depend on the guest's memory.
    /// Never blocks, for any kind of file. `cache` holds kernels of earlier starts. `progress` is called with how far unpacking is, in packed
    /// bytes of all.
    ///
    /// # Errors
    /// There is no readable file, or it is no kernel that can be started.
    pub fn open(path: &Path, cache: &KernelCache, progress: &dyn Fn(u64, u64)) -> Result<Self, KernelError> {
        Self::try_open(path, cache, progress).map_err(|problem| KernelError { path: path.to_owned(), problem })
    }

    fn try_open(path: &Path, cache: &KernelCache, progress: &dyn Fn(u64, u64)) -> Result<Self, KernelProblem> {
        let mut file = open_file(path)?;
        let metadata = file.metadata().map_err(KernelProblem::Read)?;
        let parsed = KernelHeaders::parse(&mut file);
        let is_bzimage = matches!(parsed, Err(KernelProblem::Foreign(Foreign::BzImage)));
        let headers = if is_bzimage {
            file = unpacked(file, &metadata, cache, progress)?;
            KernelHeaders::parse(&mut file).map_err(|problem| KernelProblem::Inside(Box::new(problem)))?
        } else {
            parsed?
        };
        let features = match cache.features(&metadata) {
            Some(features) => features,
            None => {
                let content = headers.segments().iter().map(|segment| segment.file_offset + segment.file_size).max();
                let length = content.unwrap_or_default().min(LARGEST_UNPACKED);
                let features = Features::search(&mut file, length).map_err(KernelProblem::Read)?;
                cache.keep_features(&metadata, &features);
                features
            }
        };
        Ok(Self { path: path.to_owned(), file, headers, features, is_bzimage, modules: None })
    }

    /// The file's name, as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is a bzImage rather than the ELF file itself.
    #[must_use]
    pub fn is_bzimage(&self) -> bool {
        self.is_bzimage
    }

    /// What its image shows that it can do.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    #[must_use]
    pub fn headers(&self) -> &KernelHeaders {
        &self.headers
    }

    /// Looks for its modules: in `named` (`--modules`), else where distributions have them.
    ///
    /// # Errors
    /// There are none in `named`, or they cannot be read.
    pub fn find_modules(&mut self, named: Option<&Path>) -> Result<(), ModulesError> {
        let release = self.features.release().unwrap_or("of unknown release");
        self.modules = ModuleTree::find(&self.path, release, named)?;
        Ok(())
    }

    /// Its modules, once they were looked for and found.
    #[must_use]
    pub fn modules(&self) -> Option<&ModuleTree> {
        self.modules.as_ref()
    }

    /// Whether it can mount the file system of this name (`erofs`, `squashfs`, `ext4`, `overlay`), built in or as a module
    /// that can be loaded. Counts modules only once they were looked for.
    #[must_use]
    pub fn has_file_system(&self, name: &str) -> bool {
        self.features.has_file_system(name) || self.modules.as_ref().is_some_and(|modules| modules.has(name))
    }

    /// How it learns of the machine: on the command line if it takes devices from there, by ACPI if not. One
    /// that takes them from both is told by ACPI only if it would not read the MP table that goes with the command line.
    #[must_use]
    pub fn description(&self) -> Description {
        let has = |feature| self.features.has(feature);
        let acpi_only = has(Feature::MmioByAcpi) && !has(Feature::MpTable);
        if has(Feature::MmioOnCommandLine) && !acpi_only { Description::CommandLine } else { Description::Acpi }
    }

    /// Whether a guest with `memory_bytes` has room for the kernel.
    ///
    /// # Errors
    /// A segment lies outside of the guest's memory.
    pub fn check_fits(&self, memory_bytes: u64) -> Result<(), KernelError> {
        self.headers.check_fits(memory_bytes).map_err(|problem| self.error(problem))
    }

    /// Copies the segments to where they were linked. The memory must be fresh: what a segment has no content for is left
    /// as it is, and must be zero.
    ///
    /// # Errors
    /// The file fails, or has become shorter.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<(), KernelError> {
        let mut image = CheckedImage { headers: self.headers.to_elf(), file: &self.file, position: 0 };
        // No offset: linux-loader then takes the segments' own addresses.
        Elf::load(memory, None, &mut image, None).map_err(|error| self.error(KernelProblem::Load(error)))?;
        Ok(())
    }

    fn error(&self, problem: KernelProblem) -> KernelError {
        KernelError { path: self.path.clone(), problem }
    }
}

/// The ELF file in the bzImage `file`: from an earlier start, or unpacked now.
fn unpacked(
    mut file: File,
    metadata: &Metadata,
    cache: &KernelCache,
    progress: &dyn Fn(u64, u64),
) -> Result<File, KernelProblem> {
    if let Some(mut elf) = cache.unpacked(metadata)
        && KernelHeaders::parse(&mut elf).is_ok()
    {
        return Ok(elf);
    }
    let BzImage { payload, length, .. } = BzImage::parse(&mut file)?;
    let mut head = [0; 8];
    file.seek(SeekFrom::Start(payload)).map_err(KernelProblem::Read)?;
    let head_length = file.read(&mut head).map_err(KernelProblem::Read)?;
    let compression = match Compression::recognise(&head[..head_length]) {
        Some(Ok(compression)) => compression,
        Some(Err(name)) => return Err(KernelProblem::Compression(name)),
        None => return Err(KernelProblem::Compression("something unknown")),
    };
    file.seek(SeekFrom::Start(payload)).map_err(KernelProblem::Read)?;
    let place = |error| KernelProblem::Unpack(UnpackError::Write(error));
    let mut elf = cache.unnamed().map_err(place)?;
    let packed = BufReader::with_capacity(64 << 10, Counted { file: file.take(length), length, progress });
    compression.unpack(packed, LARGEST_UNPACKED, &mut elf).map_err(KernelProblem::Unpack)?;
    // Only what is a kernel is worth keeping.
    if KernelHeaders::parse(&mut elf).is_ok() {
        cache.keep_unpacked(metadata, &elf);
    }
    Ok(elf)
}

/// Packed bytes, and the callback for how many of them were read.
struct Counted<'a> {
    file: io::Take<File>,
    length: u64,
    progress: &'a dyn Fn(u64, u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        (self.progress)(self.length - self.file.limit(), self.length);
        Ok(read)
    }
}

/// Opens a regular file without waiting for the other end of a pipe, and without making a terminal ours.
fn open_file(path: &Path) -> Result<File, KernelProblem> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| KernelProblem::Open(error.into()))?;
    let status = rustix::fs::fstat(&fd).map_err(|error| KernelProblem::Open(error.into()))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok(File::from(fd)),
        FileType::Directory => Err(KernelProblem::NotAFile("a directory")),
        FileType::Fifo => Err(KernelProblem::NotAFile("a pipe")),
        FileType::CharacterDevice | FileType::BlockDevice => Err(KernelProblem::NotAFile("a device")),
        _ => Err(KernelProblem::NotAFile("something else")),
    }
}

/// What linux-loader sees: headers (which it reads as bytes) from the checked copy, contents (which it reads into guest
/// memory) from the file.
struct CheckedImage<'a> {
    headers: Vec<u8>,
    file: &'a File,
    position: u64,
}

impl Read for CheckedImage<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(self.position).unwrap_or(usize::MAX).min(self.headers.len());
        let length = (&self.headers[start..]).read(bytes)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for CheckedImage<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

impl ReadVolatile for CheckedImage<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        slice: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.file.as_fd().read_volatile(slice)
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
