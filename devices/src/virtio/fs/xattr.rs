// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Extended attributes. Only `user.` passes: the other name spaces give rights on the host (`security.capability`) or
//! change what the host's programs see (`trusted.`, access control lists).

use super::host_file::own_path;
use super::request::Body;
use super::server::{Answer, Server};
use super::wire::{GetxattrIn, GetxattrOut, SetxattrIn};
use rustix::buffer::spare_capacity;
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;
use std::ffi::CStr;

/// The kernel's bound for a value and for a list.
const MAX_SIZE: usize = 64 << 10;
const PREFIX: &[u8] = b"user.";

fn check(name: &CStr) -> Result<&CStr, Errno> {
    if name.to_bytes().starts_with(PREFIX) { Ok(name) } else { Err(Errno::OPNOTSUPP) }
}

/// A size of 0 asks how large the answer is.
fn answer(value: Vec<u8>, size: u32) -> Result<Answer, Errno> {
    match size as usize {
        // At most MAX_SIZE.
        0 => Ok(Answer::of(&GetxattrOut { size: value.len() as u32, padding: 0 })),
        size if size < value.len() => Err(Errno::RANGE),
        _ => Ok(Answer::Bytes(value)),
    }
}

impl Server {
    /// The path of a file that can have such attributes.
    fn xattr_path(&mut self, node: u64) -> Result<String, Errno> {
        let key = self.inodes.key(node)?;
        if !key.is(libc::S_IFREG) && !key.is(libc::S_IFDIR) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(own_path(&*self.open_path(node)?))
    }

    pub(super) fn set_xattr(&mut self, node: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let SetxattrIn { size, flags } = body.take()?;
        let (name, value) = (check(body.string()?)?, body.bytes(size as usize)?);
        self.export.check_writable()?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        setxattr(self.xattr_path(node)?, name, value, flags)?;
        Ok(Answer::EMPTY)
    }

    pub(super) fn get_xattr(&mut self, node: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let GetxattrIn { size, .. } = body.take()?;
        let name = check(body.string()?)?;
        let mut value = Vec::with_capacity(MAX_SIZE);
        getxattr(self.xattr_path(node)?, name, spare_capacity(&mut value))?;
        answer(value, size)
    }

    pub(super) fn list_xattrs(&mut self, node: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let GetxattrIn { size, .. } = body.take()?;
        let mut names = Vec::with_capacity(MAX_SIZE);
        listxattr(self.xattr_path(node)?, spare_capacity(&mut names))?;
        let shown = names.split_inclusive(|&byte| byte == 0).filter(|name| name.starts_with(PREFIX));
        answer(shown.collect::<Vec<_>>().concat(), size)
    }

    pub(super) fn remove_xattr(&mut self, node: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let name = check(body.string()?)?;
        self.export.check_writable()?;
        removexattr(self.xattr_path(node)?, name)?;
        Ok(Answer::EMPTY)
    }
}
