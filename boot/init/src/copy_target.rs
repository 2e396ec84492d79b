// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where copied files go, by docker's rules: into a directory that is there, else to the path itself.

use alloc::vec::Vec;
use guest_protocol::files::{CopySource, Destination};

/// What the path of a destination names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// The path names a directory.
    Directory,
    /// A file of any other type.
    Other,
    /// No file has the path.
    Missing,
}

/// Where the source goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Path of the entry with an empty path; others are below it.
    pub path: Vec<u8>,
    /// The entry with an empty path is not copied: the directory is there.
    pub is_there: bool,
}

/// Decides where the source of `destination` goes, whose path names `there`.
///
/// # Errors
/// What is wrong with the path.
pub fn target(destination: &Destination, there: There) -> Result<Target, &'static str> {
    let Destination { path, source } = destination;
    let ends_in_slash = path.ends_with(b"/") || path.ends_with(b"/.");
    let (name, is_directory) = match source {
        CopySource::Archive | CopySource::Contents => (None, true),
        CopySource::File { name } => (Some(name), false),
        CopySource::Directory { name } => (Some(name), true),
    };
    match there {
        There::Directory => {
            let name = name.map_or(&[][..], Vec::as_slice);
            Ok(Target { path: below(path, name), is_there: name.is_empty() })
        }
        There::Missing if *source == CopySource::Archive || (ends_in_slash && !is_directory) => {
            Err("no such directory")
        }
        There::Other if *source == CopySource::Archive => Err("not a directory"),
        There::Other if is_directory => Err("not a directory, and the source is one"),
        There::Other if ends_in_slash => Err("not a directory"),
        There::Missing | There::Other => Ok(Target { path: below(path, b""), is_there: false }),
    }
}

/// The absolute path of `relative` below `base`, without a slash at its end.
#[must_use]
pub fn below(base: &[u8], relative: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(base.len() + relative.len() + 2);
    for part in base.split(|byte| *byte == b'/').chain(relative.split(|byte| *byte == b'/')) {
        if !part.is_empty() && part != b"." {
            path.push(b'/');
            path.extend_from_slice(part);
        }
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned as _;
    use alloc::string::String;

    fn of(path: &str, source: CopySource, there: There) -> Result<(String, bool), &'static str> {
        let destination = Destination { path: path.into(), source };
        let target = target(&destination, there)?;
        Ok((String::from_utf8(target.path).unwrap(), target.is_there))
    }

    fn at(path: &str, is_there: bool) -> Result<(String, bool), &'static str> {
        Ok((path.to_owned(), is_there))
    }

    fn file() -> CopySource {
        CopySource::File { name: b"x".to_vec() }
    }

    fn directory() -> CopySource {
        CopySource::Directory { name: b"x".to_vec() }
    }

    #[test]
    fn source_goes_into_a_directory_that_is_there() {
        for path in ["d", "/d", "d/", "/d/.", "//d//"] {
            assert_eq!(of(path, file(), There::Directory), at("/d/x", false), "{path}");
            assert_eq!(of(path, directory(), There::Directory), at("/d/x", false), "{path}");
            assert_eq!(of(path, CopySource::Contents, There::Directory), at("/d", true), "{path}");
            assert_eq!(of(path, CopySource::Archive, There::Directory), at("/d", true), "{path}");
        }
        assert_eq!(of("/", CopySource::Archive, There::Directory), at("/", true));
        assert_eq!(of("", file(), There::Directory), at("/x", false));
    }

    #[test]
    fn source_gets_the_name_of_a_path_that_is_missing() {
        assert_eq!(of("a/new", file(), There::Missing), at("/a/new", false));
        for path in ["a/new", "a/new/", "a/new/."] {
            assert_eq!(of(path, directory(), There::Missing), at("/a/new", false), "{path}");
            assert_eq!(of(path, CopySource::Contents, There::Missing), at("/a/new", false), "{path}");
        }
        assert_eq!(of("a/new/", file(), There::Missing), Err("no such directory"));
        assert_eq!(of("a/new", CopySource::Archive, There::Missing), Err("no such directory"));
    }

    #[test]
    fn file_is_replaced_by_a_file_only() {
        assert_eq!(of("f", file(), There::Other), at("/f", false));
        assert_eq!(of("f/", file(), There::Other), Err("not a directory"));
        assert_eq!(of("f", CopySource::Archive, There::Other), Err("not a directory"));
        for source in [directory(), CopySource::Contents] {
            assert_eq!(of("f", source, There::Other), Err("not a directory, and the source is one"));
        }
    }
}
