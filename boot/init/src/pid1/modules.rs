// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernel modules of the initramfs, loaded first: the console's ports may need them.

use super::failure::{Failure, Step};
use super::files::read_file;
use alloc::format;
use guest_protocol::module_list::{self, DIRECTORY, LIST};
use rustix::fs::{CWD, Mode, OFlags, openat, unlink};
use rustix::io::Errno;
use rustix::system::finit_module;

const STEP: &str = "load module";

/// Loads the modules in the order of the list. A kernel with everything built in has no list.
pub(crate) fn load() -> Result<(), Failure> {
    let list = match read_file(LIST) {
        Ok(list) => list,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Failure::setup(STEP, LIST, errno)),
    };
    let list = core::str::from_utf8(&list).map_err(|_| Failure::configuration(STEP, LIST))?;
    for (name, required) in module_list::read(list) {
        let path = format!("{DIRECTORY}/{name}.ko");
        let file = openat(CWD, &*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(STEP, name)?;
        match finit_module(&file, c"", 0) {
            // `EEXIST`: built in.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(_) if !required => {}
            Err(errno) => return Err(Failure::setup(STEP, name, errno)),
        }
        drop(file);
        // The initramfs occupies memory.
        let _ = unlink(&*path);
    }
    Ok(())
}
