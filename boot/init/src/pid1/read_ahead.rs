// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a program into the kernel's page cache before it is executed, with what is loaded for it. For a template: the page cache
//! is part of it. Called in the workload's root, by the process that becomes the workload.

use super::enter::check_executable;
use super::files::open_image_file;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use guest_init::executable::{self, DEFAULT_PATH};
use guest_init::program_file::{self, LIBRARY_DIRECTORIES, Loaded};
use guest_protocol::run_spec::ExpectedProgram;
use rustix::fd::OwnedFd;
use rustix::io::{Errno, pread};

/// Of all files together: it is memory of the template, and a file of it on the host.
const MAX_BYTES: u64 = 16 << 20;
const MAX_FILES: usize = 64;
const BUF_SIZE: usize = 64 << 10;
/// Read for every program, or for every one with libraries.
const COMMON_FILES: [&str; 3] = ["/etc/passwd", "/etc/group", "/etc/ld.so.cache"];

/// Reads the files. What is missing or cannot be read is left out: the start of the workload reports it.
pub(crate) fn read_program(program: &ExpectedProgram) {
    let path = program.path.as_deref().unwrap_or(DEFAULT_PATH);
    let check = |file: &str| check_executable(file).map(|_| file.into()).map_err(Errno::raw_os_error);
    let Ok(file) = executable::find::<String>(&program.command, path, check) else { return };
    let mut wanted: Vec<String> = COMMON_FILES.map(String::from).into();
    wanted.push(file);
    let (mut next, mut left) = (0, MAX_BYTES);
    while let Some(path) = wanted.get(next).filter(|_| next < MAX_FILES) {
        next += 1;
        let Ok(file) = open_image_file(path) else { continue };
        left -= read_whole(&file, left);
        let Loaded { interpreter, libraries } = program_file::loaded(|offset, length| read_at(&file, offset, length));
        let libraries = libraries.into_iter().filter_map(find_library);
        for found in interpreter.into_iter().chain(libraries) {
            if !wanted.contains(&found) {
                wanted.push(found);
            }
        }
    }
}

fn find_library(name: String) -> Option<String> {
    if name.contains('/') {
        return Some(name);
    }
    let mut paths = LIBRARY_DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
    paths.find(|path| open_image_file(path).is_ok())
}

/// Returns the bytes that were read, at most `max`.
fn read_whole(file: &OwnedFd, max: u64) -> u64 {
    let mut buffer = vec![0; BUF_SIZE];
    let mut offset = 0;
    while offset < max {
        let part = BUF_SIZE.min(usize::try_from(max - offset).unwrap_or(BUF_SIZE));
        match pread(file, &mut buffer[..part], offset) {
            Ok(length) if length > 0 => offset += length as u64,
            _ => break,
        }
    }
    offset
}

fn read_at(file: &OwnedFd, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = pread(file, &mut bytes[..], offset).unwrap_or(0);
    bytes.truncate(read);
    bytes
}
