// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether the command of a container exists, as far as its root directory shows it: engines tell a missing command (127) from
//! one that cannot be executed (126) by the message of a `create` that fails. What a mount may hide is left to the guest, which
//! decides all of it again at the start.

use super::error::OciError;
use rustix::fs::{FileType, Mode, OFlags, RawMode, ResolveFlags, fstat, open, openat2, readlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// As in the guest.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As in the kernel.
const MAX_LINKS: usize = 40;
const EXECUTABLE: RawMode = 0o111;

/// The root directory of a container, with the places in it that something else covers.
pub(super) struct Root<'a> {
    directory: OwnedFd,
    /// Where something else is mounted in the container.
    mounts: Vec<&'a Path>,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Executable,
    NotExecutable,
    Missing,
    /// Below a mount, or not readable from here.
    Unknown,
}

impl<'a> Root<'a> {
    /// `None` if the directory cannot be opened: the delegate says why.
    pub(super) fn open(path: &Path, mounts: Vec<&'a Path>) -> Option<Self> {
        let directory = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Some(Self { directory, mounts })
    }

    /// Fails if `command` certainly cannot be executed by a process in the directory `cwd`, with `search` as its PATH.
    pub(super) fn check(&self, command: &str, cwd: &str, search: Option<&str>) -> Result<(), OciError> {
        let cwd = Path::new(cwd);
        if command.contains('/') {
            return match self.find(&cwd.join(command)) {
                Found::Missing => Err(OciError::NoCommand(command.to_owned())),
                Found::NotExecutable => Err(OciError::NotExecutable(command.to_owned())),
                Found::Executable | Found::Unknown => Ok(()),
            };
        }
        let mut denied = false;
        for directory in search.unwrap_or(DEFAULT_PATH).split(':') {
            match self.find(&cwd.join(directory).join(command)) {
                Found::Missing => {}
                Found::NotExecutable => denied = true,
                Found::Executable | Found::Unknown => return Ok(()),
            }
        }
        let error = if denied { OciError::NotExecutable } else { OciError::NotInPath };
        Err(error(command.to_owned()))
    }

    /// Follows `path` from the root as the container will, one component at a time.
    fn find(&self, path: &Path) -> Found {
        let components = |path: &Path| path.components().map(|component| component.as_os_str().to_owned()).collect();
        let mut left: VecDeque<OsString> = components(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        let mut mode = 0;
        while let Some(component) = left.pop_front() {
            match Path::new(&component).components().next() {
                Some(Component::ParentDir) => {
                    at.pop();
                    continue;
                }
                Some(Component::Normal(name)) => at.push(name),
                Some(Component::RootDir) => {
                    at = "/".into();
                    continue;
                }
                _ => continue,
            }
            if self.mounts.iter().any(|mount| at.starts_with(mount)) {
                return Found::Unknown;
            }
            let (file, file_mode) = match self.look_at(&at) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::NOTDIR) => return Found::Missing,
                Err(_) => return Found::Unknown,
            };
            mode = file_mode;
            if FileType::from_raw_mode(mode).is_symlink() {
                links += 1;
                let Ok(target) = readlinkat(&file, "", Vec::new()) else { return Found::Unknown };
                if links > MAX_LINKS {
                    return Found::Unknown;
                }
                at.pop();
                let target: VecDeque<_> = components(Path::new(OsStr::from_bytes(target.as_bytes())));
                target.into_iter().rev().for_each(|component| left.push_front(component));
            }
        }
        match FileType::from_raw_mode(mode).is_file() && mode & EXECUTABLE != 0 {
            true => Found::Executable,
            false => Found::NotExecutable,
        }
    }

    fn look_at(&self, path: &Path) -> Result<(OwnedFd, RawMode), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(&self.directory, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        let mode = fstat(&file)?.st_mode;
        Ok((file, mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A root with some programs.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("usr/bin")).unwrap();
        fs::create_dir(path("volume")).unwrap();
        for (name, mode) in [("usr/bin/tool", 0o755), ("usr/bin/text", 0o644)] {
            fs::write(path(name), "x").unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for (target, link) in [
            ("usr/bin", "bin"),
            ("/usr/bin/tool", "usr/bin/absolute"),
            ("../../volume/x", "usr/bin/mounted"),
            ("loop", "loop"),
        ] {
            symlink(target, path(link)).unwrap();
        }
        root
    }

    fn check(command: &str, cwd: &str, search: Option<&str>) -> String {
        let root = root();
        let root = Root::open(root.path(), vec![Path::new("/volume")]).unwrap();
        root.check(command, cwd, search).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn commands_that_may_be_executed_pass() {
        for (command, cwd, search) in [
            ("tool", "/", None),
            ("tool", "/", Some("/nowhere:/bin")),
            ("tool", "/usr", Some("bin")),
            ("absolute", "/", Some("/usr/bin")),
            ("/bin/tool", "/", None),
            ("./tool", "/usr/bin", None),
            ("/usr/../../bin/tool", "/", None),
            // Nothing is known of files below a mount, and of a loop of links: the guest finds out.
            ("mounted", "/", Some("/bin")),
            ("/volume/x", "/", None),
            ("/loop", "/", None),
        ] {
            assert_eq!(check(command, cwd, search), "", "{command}");
        }
    }

    #[test]
    fn others_are_rejected_in_words_that_engines_know() {
        for (command, search, expected) in [
            ("tool", Some("/usr"), "exec: \"tool\": executable file not found in $PATH"),
            ("nosuch", None, "exec: \"nosuch\": executable file not found in $PATH"),
            ("/nowhere/x", None, "exec: \"/nowhere/x\": no such file or directory"),
            ("/bin/tool/x", None, "exec: \"/bin/tool/x\": no such file or directory"),
            ("text", None, "exec: \"text\": permission denied"),
            ("/bin/text", None, "exec: \"/bin/text\": permission denied"),
            ("/usr", None, "exec: \"/usr\": permission denied"),
        ] {
            assert_eq!(check(command, "/", search), expected);
        }
    }
}
