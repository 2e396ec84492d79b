// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest kernel: an x86-64 ELF file with a PVH note, plain or in a bzImage. Runs on `main`,
//! before a VM exists (`open`, `check_fits`) and once its memory does (`load`).
//!
//! The headers are read and checked when the file is opened, and never read again: linux-loader
//! gets headers written from the checked ones, and only the contents of segments come from the
//! file. A file that changes in between can therefore break the guest, and nothing else.

use crate::bzimage::BzImage;
use crate::compression::Compression;
use crate::features::{Feature, Features};
use crate::file_format::FileFormat;
use crate::hardware_description::HardwareDescription;
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

#[derive(Debug)]
pub struct KernelError {
    pub path: PathBuf,
    pub problem: KernelProblem,
}

impl fmt::Display for KernelError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kernel {} {}", self.path.display(), self.problem)
    }
}

impl Error for KernelError {
    /// The message contains the problem, so the chain continues with the problem's cause.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// Maximum size of the ELF file in a bzImage: several times that of a kernel with everything built
/// in.
const MAX_UNPACKED_SIZE: u64 = 512 << 20;

/// An open, checked kernel.
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
    /// Opens the kernel at `path`, unpacks it if necessary, and checks everything that does not
    /// depend on the guest's memory. Never blocks, for any type of file. `cache` holds unpacked
    /// kernels. `progress` gets the packed bytes that are done, and all.
    pub fn open(path: &Path, cache: &KernelCache, progress: &dyn Fn(u64, u64)) -> Result<Self, KernelError> {
        Self::try_open(path, cache, progress).map_err(|problem| KernelError { path: path.to_owned(), problem })
    }

    fn try_open(path: &Path, cache: &KernelCache, progress: &dyn Fn(u64, u64)) -> Result<Self, KernelProblem> {
        let mut file = open_file(path)?;
        let metadata = file.metadata().map_err(KernelProblem::Read)?;
        let parsed = KernelHeaders::parse(&mut file);
        let is_bzimage = matches!(parsed, Err(KernelProblem::NotElf(FileFormat::BzImage)));
        let headers = if is_bzimage {
            file = unpack(file, &metadata, cache, progress)?;
            KernelHeaders::parse(&mut file).map_err(|problem| KernelProblem::Inside(Box::new(problem)))?
        } else {
            parsed?
        };
        let features = match cache.find_features(&metadata) {
            Some(features) => features,
            None => {
                let content = headers.segments().iter().map(|segment| segment.file_offset + segment.file_size).max();
                let length = content.unwrap_or_default().min(MAX_UNPACKED_SIZE);
                let features = Features::search(&mut file, length).map_err(KernelProblem::Read)?;
                cache.store_features(&metadata, &features);
                features
            }
        };
        Ok(Self { path: path.to_owned(), file, headers, features, is_bzimage, modules: None })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn is_bzimage(&self) -> bool {
        self.is_bzimage
    }

    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    #[must_use]
    pub fn headers(&self) -> &KernelHeaders {
        &self.headers
    }

    /// Searches its modules: in `named` (`--modules`), else where distributions install them.
    pub fn find_modules(&mut self, named: Option<&Path>) -> Result<(), ModulesError> {
        let release = self.features.release().unwrap_or("of unknown release");
        self.modules = ModuleTree::find(&self.path, release, named)?;
        Ok(())
    }

    /// Its modules, if [`find_modules`](Self::find_modules) found some.
    #[must_use]
    pub fn modules(&self) -> Option<&ModuleTree> {
        self.modules.as_ref()
    }

    /// Whether it has the file system `name` (`erofs`, `squashfs`, `ext4`, `overlay`), built in or
    /// as a module that [`find_modules`](Self::find_modules) found.
    #[must_use]
    pub fn has_file_system(&self, name: &str) -> bool {
        self.features.has_file_system(name) || self.modules.as_ref().is_some_and(|modules| modules.has(name))
    }

    /// How it gets the hardware description: on the command line if it takes devices from there,
    /// else by ACPI. A kernel that takes both gets ACPI only if it does not read the MP table,
    /// which belongs to the command line.
    #[must_use]
    pub fn description(&self) -> HardwareDescription {
        let has = |feature| self.features.has(feature);
        let acpi_only = has(Feature::MmioByAcpi) && !has(Feature::MpTable);
        if has(Feature::MmioOnCommandLine) && !acpi_only {
            HardwareDescription::CommandLine
        } else {
            HardwareDescription::Acpi
        }
    }

    /// Checks that every segment lies within the memory of a guest of `memory_bytes`.
    pub fn check_fits(&self, memory_bytes: u64) -> Result<(), KernelError> {
        self.headers.check_fits(memory_bytes).map_err(|problem| self.error(problem))
    }

    /// Copies the segments to their link addresses. The memory must be zeroed: the part of a
    /// segment without content is not written.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<(), KernelError> {
        let mut image = CheckedImage { headers: self.headers.to_elf(), file: &self.file, position: 0 };
        // Without an offset linux-loader uses the segments' own addresses.
        Elf::load(memory, None, &mut image, None).map_err(|error| self.error(KernelProblem::Load(error)))?;
        Ok(())
    }

    fn error(&self, problem: KernelProblem) -> KernelError {
        KernelError { path: self.path.clone(), problem }
    }
}

/// Returns the ELF file in the bzImage `file`, from the cache or unpacked now.
fn unpack(
    mut file: File,
    metadata: &Metadata,
    cache: &KernelCache,
    progress: &dyn Fn(u64, u64),
) -> Result<File, KernelProblem> {
    if let Some(mut elf) = cache.find_unpacked(metadata)
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
        None => return Err(KernelProblem::Compression("an unknown format")),
    };
    file.seek(SeekFrom::Start(payload)).map_err(KernelProblem::Read)?;
    let store_error = |error| KernelProblem::Unpack(UnpackError::Write(error));
    let mut elf = cache.create_tmpfile().map_err(store_error)?;
    let packed = BufReader::with_capacity(64 << 10, ProgressReader { file: file.take(length), length, progress });
    compression.unpack(packed, MAX_UNPACKED_SIZE, &mut elf).map_err(KernelProblem::Unpack)?;
    // Only a valid kernel is worth a cache entry.
    if KernelHeaders::parse(&mut elf).is_ok() {
        cache.store_unpacked(metadata, &elf);
    }
    Ok(elf)
}

/// The packed bytes; reports how many of them were read.
struct ProgressReader<'a> {
    file: io::Take<File>,
    length: u64,
    progress: &'a dyn Fn(u64, u64),
}

impl Read for ProgressReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        (self.progress)(self.length - self.file.limit(), self.length);
        Ok(read)
    }
}

/// Opens a regular file without waiting for the other end of a pipe, and without acquiring a
/// controlling terminal.
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

/// The source that linux-loader reads: headers (read as bytes) from the checked copy, contents
/// (read into guest memory) from the file.
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
