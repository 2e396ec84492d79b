// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies files into a machine that runs, by docker's rules: the source goes into a directory that is there, and else gets the name of
//! the destination, which PID 1 decides. A process of PID 1's writes them in the workload's root.

use super::failure::{FailsAs as _, Failure, print_error};
use super::machine_files::of_machine;
use crate::api::client::Client;
use crate::api::file_stream::{FileStream, FileStreamError};
use crate::api::server::Files;
use crate::host::sparse_file::is_zero;
use crate::host::system_error::{Cannot as _, SystemError};
use crate::state::end::EndReason;
use crate::state::machines::MachineInfo;
use guest_protocol::files::{self, CopySource, Destination, EntryKind, FileEntry, FileMessage, MAX_DATA};
use oci_image::{ArchiveError, ArchivePart, Entry, EntryKind as ArchiveKind, read_archive};
use rustix::fs::{SeekFrom, major, minor, seek};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Permission bits that a file has whose owner is not the source's.
const PERMISSIONS: u32 = 0o1777;

#[derive(Debug, thiserror::Error)]
enum CopyIntoError {
    #[error(transparent)]
    Host(#[from] SystemError),
    #[error("standard input")]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Machine(#[from] FileStreamError),
    #[error("{0}: a socket cannot be copied")]
    Socket(PathBuf),
}

/// How files of the host are copied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CopyOptions {
    /// With their owners and set-id bits. Otherwise they are root's.
    pub(crate) keeps_owners: bool,
    /// What the source names, if it is a symbolic link.
    pub(crate) follows_link: bool,
}

/// Copies the file or directory `source` of the host to `destination` in `machine`.
///
/// # Errors
/// A file cannot be read, or written there, or the machine does not answer.
pub(crate) fn copy(
    machine: &MachineInfo,
    source: &Path,
    destination: &[u8],
    options: CopyOptions,
) -> Result<(), Failure> {
    let opened = Source::open(source, options);
    let opened = opened.fails_as(EndReason::ConfigError)?;
    let mut stream = begin(machine, destination, opened.kind())?;
    let mut sender = Sender { options, links: HashMap::new(), sockets: 0, stream: &mut stream };
    let sent = sender.file(&opened.path, &opened.metadata, &[]);
    let sockets = sender.sockets;
    sent.and_then(|()| Ok(stream.finish()?)).map_err(|error| failed(machine, error))?;
    if sockets > 0 {
        print_error(&format!("{}: sockets are not copied ({sockets})", source.display()));
    }
    Ok(())
}

/// Copies the files of the tar archive `input`, with their owners, into the directory `destination` of `machine`.
///
/// # Errors
/// See [`copy`]; the archive is damaged.
pub(crate) fn extract(machine: &MachineInfo, input: impl Read, destination: &[u8]) -> Result<(), Failure> {
    let mut stream = begin(machine, destination, CopySource::Archive)?;
    let sent = read_archive(input, |part| -> Result<(), CopyIntoError> {
        Ok(stream.send(&match part {
            ArchivePart::Entry(entry) => FileMessage::File(of_archive(entry)),
            ArchivePart::Data(bytes) => {
                return Ok(bytes
                    .chunks(MAX_DATA)
                    .try_for_each(|bytes| stream.send(&FileMessage::Data(bytes.to_vec())))?);
            }
            ArchivePart::Hole(size) => FileMessage::Hole(size),
        })?)
    });
    sent.and_then(|()| Ok(stream.finish()?)).map_err(|error| failed(machine, error))
}

fn begin(machine: &MachineInfo, destination: &[u8], source: CopySource) -> Result<FileStream, Failure> {
    let of_client = |error| of_machine(machine, EndReason::HostError, error);
    let client = Client::connect(&machine.path).map_err(of_client)?;
    let channel = client.upgrade_of_workload("/v1/files", &Files { version: files::VERSION }).map_err(of_client)?;
    let mut stream = FileStream::new(channel).map_err(|error| failed(machine, error.into()))?;
    let begin = FileMessage::Begin(Destination { path: destination.to_vec(), source });
    stream.send(&begin).map_err(|error| failed(machine, error.into()))?;
    Ok(stream)
}

fn failed(machine: &MachineInfo, error: CopyIntoError) -> Failure {
    match error {
        // They are the caller's, not the machine's.
        CopyIntoError::Host(_) | CopyIntoError::Socket(_) => Failure::new(EndReason::HostError, error),
        CopyIntoError::Archive(_) => Failure::new(EndReason::ConfigError, error),
        CopyIntoError::Machine(_) => of_machine(machine, EndReason::HostError, error),
    }
}

/// A file or directory of the host.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    metadata: Metadata,
    /// Not the directory, only what is in it.
    is_content: bool,
}

impl Source {
    fn open(path: &Path, options: CopyOptions) -> Result<Self, CopyIntoError> {
        let bytes = path.as_os_str().as_bytes();
        let is_content = bytes == b"." || bytes.ends_with(b"/.");
        let open = |path: &Path| match options.follows_link {
            true => fs::metadata(path),
            false => fs::symlink_metadata(path),
        };
        let metadata = open(path).cannot(format!("open {}", path.display()))?;
        if metadata.file_type().is_socket() {
            return Err(CopyIntoError::Socket(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), is_content: is_content && metadata.is_dir(), metadata })
    }

    fn kind(&self) -> CopySource {
        let name = |path: &Path| path.file_name().map(|name| name.as_bytes().to_vec());
        // `..` has no name of its own.
        let name = name(&self.path).or_else(|| name(&fs::canonicalize(&self.path).ok()?));
        match name {
            _ if self.is_content => CopySource::Contents,
            Some(name) if self.metadata.is_dir() => CopySource::Directory { name },
            Some(name) => CopySource::File { name },
            None => CopySource::Contents,
        }
    }
}

struct Sender<'a> {
    options: CopyOptions,
    /// The first path of each file with several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    sockets: u64,
    stream: &'a mut FileStream,
}

impl Sender<'_> {
    /// Sends a file, and of a directory all that is in it. `target` is its path below the destination.
    fn file(&mut self, path: &Path, metadata: &Metadata, target: &[u8]) -> Result<(), CopyIntoError> {
        let kind = metadata.file_type();
        if kind.is_socket() {
            self.sockets += 1;
            return Ok(());
        }
        let device = (major(metadata.rdev()), minor(metadata.rdev()));
        let identity = (metadata.dev(), metadata.ino());
        let entry = match self.links.get(&identity) {
            Some(first) => EntryKind::HardLink(first.clone()),
            None if kind.is_dir() => EntryKind::Directory,
            None if kind.is_symlink() => {
                let link = fs::read_link(path).cannot(format!("read {}", path.display()))?;
                EntryKind::Symlink(link.into_os_string().as_bytes().to_vec())
            }
            None if kind.is_fifo() => EntryKind::Fifo,
            None if kind.is_char_device() => EntryKind::CharacterDevice(device.0, device.1),
            None if kind.is_block_device() => EntryKind::BlockDevice(device.0, device.1),
            None => EntryKind::Regular,
        };
        if metadata.nlink() > 1 && !kind.is_dir() {
            self.links.entry(identity).or_insert_with(|| target.to_vec());
        }
        // Opened first, so that a file that cannot be read is not left empty there.
        let content = match entry {
            EntryKind::Regular => Some(open_regular(path)?),
            _ => None,
        };
        let (user, group, bits) = match self.options.keeps_owners {
            true => (metadata.uid(), metadata.gid(), 0o7777),
            false => (0, 0, PERMISSIONS),
        };
        self.stream.send(&FileMessage::File(FileEntry {
            path: target.to_vec(),
            kind: entry,
            mode: (metadata.mode() & bits) as u16,
            user,
            group,
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec() as u32,
            attributes: Vec::new(),
        }))?;
        if let Some(content) = content {
            self.content(&content, path)?;
        }
        if kind.is_dir() {
            self.directory(path, target)?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, target: &[u8]) -> Result<(), CopyIntoError> {
        let failed = || format!("read {}", path.display());
        for entry in fs::read_dir(path).cannot(failed())? {
            let entry = entry.cannot(failed())?;
            let path = entry.path();
            let metadata = entry.metadata().cannot(format!("open {}", path.display()))?;
            let name = entry.file_name();
            let target =
                if target.is_empty() { name.as_bytes().to_vec() } else { [target, name.as_bytes()].join(&b'/') };
            self.file(&path, &metadata, &target)?;
        }
        Ok(())
    }

    /// Sends what a file has, with its holes.
    fn content(&mut self, file: &File, path: &Path) -> Result<(), CopyIntoError> {
        let failed = || format!("read {}", path.display());
        let (mut buffer, mut position) = (vec![0; MAX_DATA], 0);
        loop {
            let end = file.metadata().cannot(failed())?.len();
            let hole = match seek(file, SeekFrom::Data(position)) {
                Ok(data) => data.saturating_sub(position),
                // Up to the end, which a special file system does not know.
                Err(Errno::NXIO) => end.saturating_sub(position),
                // The file system has no holes.
                Err(_) => 0,
            };
            if hole > 0 {
                self.stream.send(&FileMessage::Hole(hole))?;
                position += hole;
            }
            let length = file.read_at(&mut buffer, position).cannot(failed())?;
            if length == 0 {
                return Ok(());
            }
            let bytes = &buffer[..length];
            self.stream.send(&match is_zero(bytes) {
                true => FileMessage::Hole(length as u64),
                false => FileMessage::Data(bytes.to_vec()),
            })?;
            position += length as u64;
        }
    }
}

/// Without waiting, should it be a FIFO by now.
fn open_regular(path: &Path) -> Result<File, CopyIntoError> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    Ok(opened.cannot(format!("open {}", path.display()))?)
}

fn of_archive(entry: Entry) -> FileEntry {
    let (major, minor) = entry.device;
    FileEntry {
        kind: match entry.kind {
            ArchiveKind::Regular => EntryKind::Regular,
            ArchiveKind::HardLink => EntryKind::HardLink(entry.link),
            ArchiveKind::Symlink => EntryKind::Symlink(entry.link),
            ArchiveKind::CharacterDevice => EntryKind::CharacterDevice(major, minor),
            ArchiveKind::BlockDevice => EntryKind::BlockDevice(major, minor),
            ArchiveKind::Directory => EntryKind::Directory,
            ArchiveKind::Fifo => EntryKind::Fifo,
        },
        path: entry.path,
        mode: entry.mode,
        user: entry.uid,
        group: entry.gid,
        seconds: entry.mtime.seconds,
        nanoseconds: entry.mtime.nanoseconds,
        attributes: entry.xattrs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::frame::{self, Exit, FrameReader};
    use guest_protocol::protocol;
    use std::io::{BufReader, Write as _};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    /// What is sent of `source`.
    fn sent(source: &Path, options: CopyOptions) -> (CopySource, Vec<FileMessage>) {
        let opened = Source::open(source, options).unwrap();
        let kind = opened.kind();
        let (near, mut far) = UnixStream::pair().unwrap();
        let receiver = thread::spawn(move || {
            let (mut frames, mut reader, mut bytes) =
                (FrameReader::default(), protocol::FrameReader::new(1 << 20), [0; 1000]);
            loop {
                let length = far.read(&mut bytes).unwrap();
                frames.push(&bytes[..length]);
                while let Some((_, payload)) = frames.next_frame().unwrap() {
                    if payload.is_empty() {
                        far.write_all(&frame::encode_json(&Exit { status: 0, signal: None, message: None })).unwrap();
                        return std::iter::from_fn(|| reader.next::<FileMessage>().unwrap()).collect();
                    }
                    reader.push(&payload);
                }
            }
        });
        let mut stream = FileStream::new(BufReader::new(near)).unwrap();
        let mut sender = Sender { options, links: HashMap::new(), sockets: 0, stream: &mut stream };
        sender.file(&opened.path, &opened.metadata, &[]).unwrap();
        stream.finish().unwrap();
        (kind, receiver.join().unwrap())
    }

    fn entries(messages: &[FileMessage]) -> Vec<(String, EntryKind, u16)> {
        let entries = messages.iter().filter_map(|message| match message {
            FileMessage::File(entry) => {
                Some((String::from_utf8(entry.path.clone()).unwrap(), entry.kind.clone(), entry.mode))
            }
            _ => None,
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        entries
    }

    #[test]
    fn directory_is_sent_with_all_that_is_in_it() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        fs::create_dir_all(path("d/sub")).unwrap();
        fs::write(path("d/file"), "text").unwrap();
        fs::hard_link(path("d/file"), path("d/sub/hard")).unwrap();
        symlink("../x", path("d/link")).unwrap();
        let _socket = UnixListener::bind(path("d/socket")).unwrap();
        for (name, mode) in [("d", 0o2750), ("d/file", 0o4711), ("d/sub", 0o700)] {
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let (kind, messages) = sent(&path("d"), CopyOptions::default());
        assert_eq!(kind, CopySource::Directory { name: b"d".to_vec() });
        let (file, hard) = match &entries(&messages)[..] {
            [root, file, link, sub, hard] => {
                assert_eq!(*root, (String::new(), EntryKind::Directory, 0o750));
                assert_eq!((&*link.0, &link.1), ("link", &EntryKind::Symlink(b"../x".to_vec())));
                assert_eq!(*sub, ("sub".to_owned(), EntryKind::Directory, 0o700));
                (file.clone(), hard.clone())
            }
            other => panic!("{other:?}"),
        };
        // The directory has no order.
        let link =
            |kind: &EntryKind| matches!(kind, EntryKind::HardLink(first) if first == b"file" || first == b"sub/hard");
        assert_eq!((&*file.0, &*hard.0), ("file", "sub/hard"));
        assert!(file.1 == EntryKind::Regular && link(&hard.1) || link(&file.1) && hard.1 == EntryKind::Regular);
        assert_eq!((file.2, hard.2), (0o711, 0o711));
        assert!(messages.contains(&FileMessage::Data(b"text".to_vec())));
        let options = CopyOptions { keeps_owners: true, follows_link: false };
        assert_eq!(entries(&sent(&path("d/file"), options).1)[0].2, 0o4711);
    }

    #[test]
    fn source_has_the_name_and_kind_that_dockers_rules_need() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| PathBuf::from(format!("{}/{name}", base.path().display()));
        fs::create_dir(path("d")).unwrap();
        fs::write(path("f"), "").unwrap();
        symlink("d", path("l")).unwrap();
        let of = |name: &str, follows_link| {
            let options = CopyOptions { keeps_owners: false, follows_link };
            Source::open(&path(name), options).map(|source| source.kind()).map_err(|error| error.to_string())
        };
        let directory = |name: &str| Ok(CopySource::Directory { name: name.into() });
        assert_eq!(of("d", false), directory("d"));
        assert_eq!(of("d/", false), directory("d"));
        assert_eq!(of("d/../d", false), directory("d"));
        assert_eq!(of("d/.", false), Ok(CopySource::Contents));
        assert_eq!(of("l", false), Ok(CopySource::File { name: b"l".to_vec() }));
        assert_eq!(of("l", true), directory("l"));
        assert_eq!(of("l/.", false), Ok(CopySource::Contents));
        for missing in ["nowhere", "f/", "f/."] {
            assert!(of(missing, false).unwrap_err().contains(missing), "{missing}");
        }
    }

    #[test]
    fn holes_are_not_sent() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_at(b"x", 1 << 29).unwrap();
        let (_, messages) = sent(&path, CopyOptions::default());
        let (mut size, mut data) = (0, 0);
        for message in &messages {
            match message {
                FileMessage::Hole(length) => size += length,
                FileMessage::Data(bytes) => {
                    data += bytes.len();
                    size += bytes.len() as u64;
                }
                _ => {}
            }
        }
        assert_eq!(size, 1 << 30);
        assert!(data <= 1 << 20, "{data}");
    }
}
