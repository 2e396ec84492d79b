// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies of a running machine, each a detached process of its own. The machine writes one snapshot to files without a name; the copies
//! map its memory, and share what they do not write.

use super::failure::{FailsAs as _, Failure};
use super::kept::require_free;
use super::restore;
use super::{Origin, run_directory_failure, spawn};
use crate::config::name::{MachineName, NameError};
use crate::config::network::{Interface, Network, NetworkKind};
use crate::config::publish::Publish;
use crate::config::request::Request;
use crate::config::text_form::Given;
use crate::host::daemonize::Spawned;
use crate::host::directories::Directories;
use crate::host::message_file::MessageFile;
use crate::host::system_error::Cannot as _;
use crate::host::tmpfile::tmpfile;
use crate::machine::snapshot::{SnapshotPlace, UnnamedSnapshot};
use crate::state::end::EndReason;
use crate::state::machines::MachineInfo;
use crate::state::run_dir::RunDirectory;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, available_parallelism, scope};

/// What a user gives.
#[derive(Debug)]
pub(crate) struct ForkOptions {
    pub(crate) copies: u16,
    /// Beginning of the names of the copies.
    pub(crate) prefix: Option<MachineName>,
    /// Empty leaves the networks.
    pub(crate) network: Vec<Given<Network>>,
    pub(crate) publish: Vec<Publish>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ForkError {
    #[error("{0}: another fork of this machine is under way")]
    Busy(String),
    #[error("--publish {0}: one copy only can have a port of the host; without HOST each gets a free one")]
    Port(Publish),
    #[error("--network {0}: one copy only can have this network or address")]
    Network(String),
    #[error("{machine}: the copies cannot have its network {network}; `--network` gives them another")]
    OwnNetwork { machine: String, network: String },
    #[error("the name {0}")]
    Name(String, #[source] NameError),
}

/// How the start of a copy ended.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) name: MachineName,
    pub(crate) is_running: bool,
    /// What its process printed, by lines.
    pub(crate) messages: Vec<String>,
}

/// A fork whose names are free.
#[derive(Debug)]
pub(crate) struct Fork {
    machine: String,
    options: ForkOptions,
    names: Vec<MachineName>,
    /// State, memory and scratch disk of the machine, empty.
    files: [File; 3],
    /// Of the machine's run directory: a second fork at the same time would choose the same names.
    _lock: File,
}

impl ForkOptions {
    /// Checks what does not depend on the machine.
    ///
    /// # Errors
    /// Several copies cannot have the same port, network or address.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.copies < 2 {
            return Ok(());
        }
        if let Some(publish) = self.publish.iter().find(|publish| publish.host.is_some()) {
            return Err(failure(ForkError::Port(publish.clone())));
        }
        let networks = self.network.iter().filter_map(Given::get);
        match interfaces(networks).find(|interface| !can_be_shared(interface)) {
            Some(interface) => Err(failure(ForkError::Network(Network::Interface(interface.clone()).to_string()))),
            None => Ok(()),
        }
    }
}

impl Fork {
    /// Prepares a fork of `machine`, whose run directory is below `base`. Nothing is made that has a name.
    ///
    /// # Errors
    /// A name is in use, or the temporary directory cannot be written.
    pub(crate) fn begin(machine: &MachineInfo, base: &Path, options: ForkOptions) -> Result<Self, Failure> {
        let directories = Directories::from_environment();
        let opened = File::open(&machine.path).cannot(format!("open {}", machine.path.display()));
        let lock = opened.fails_as(EndReason::HostError)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(failure(ForkError::Busy(machine.name.clone()))),
            locked => {
                locked.cannot(format!("lock {}", machine.path.display())).fails_as(EndReason::HostError)?;
            }
        }
        let prefix = options.prefix.as_ref().map_or(&*machine.name, MachineName::as_str);
        let names = names(prefix, options.copies).map_err(failure)?;
        for name in &names {
            RunDirectory::check(base, name.as_str()).map_err(run_directory_failure)?;
            require_free(name, base, &directories)?;
        }
        let directory = directories.large_temporary();
        let file = || {
            let made = tmpfile(&directory).cannot(format!("create a file in {}", directory.display()));
            made.fails_as(EndReason::HostError)
        };
        let files = [file()?, file()?, file()?];
        Ok(Self { machine: machine.name.clone(), options, names, files, _lock: lock })
    }

    /// For the machine to write.
    #[must_use]
    pub(crate) fn files(&self) -> [BorrowedFd<'_>; 3] {
        self.files.each_ref().map(File::as_fd)
    }

    /// Starts the copies from the files, which the machine has written, some at the same time, and calls `report` for each in the order
    /// of their names. `run_dir` is the base of their run directories, if it is not the usual one.
    ///
    /// # Errors
    /// No copy can be started.
    pub(crate) fn start(self, run_dir: Option<&Path>, report: impl FnMut(Started)) -> Result<(), Failure> {
        let Self { machine, options, names, files: [state, memory, scratch], _lock } = self;
        let written = UnnamedSnapshot::written(&state, &memory, &scratch);
        let (snapshot, document) = written.fails_as(EndReason::SnapshotError)?;
        let is_own = options.network.is_empty();
        let options = Request {
            detach: true,
            run_dir: run_dir.map(Path::to_owned),
            network: options.network,
            publish: options.publish,
            ..Request::default()
        };
        let mut request = restore::request(&document, Path::new(&machine), options)?;
        request.hostname = None;
        if is_own {
            request.network.iter_mut().try_for_each(|network| make_own(network, &machine))?;
        }
        let entered = std::env::set_current_dir(&document.directory);
        entered.cannot(format!("enter {}", document.directory.display())).fails_as(EndReason::ConfigError)?;
        start_all(names, &request, &Origin::Restored(SnapshotPlace::Unnamed(Arc::new(snapshot))), report)
    }
}

/// The machine's network becomes one that a copy can have beside it.
fn make_own(network: &mut Given<Network>, machine: &str) -> Result<(), Failure> {
    let Some(Network::Interface(interface)) = network.get_mut() else { return Ok(()) };
    if matches!(interface.kind, NetworkKind::Bridge(_)) {
        // The bridge gives a copy an address of its own.
        (interface.ipv4, interface.ipv6, interface.gateway4, interface.gateway6) = (None, None, None, None);
    }
    if can_be_shared(interface) {
        return Ok(());
    }
    let network = network.to_string();
    Err(failure(ForkError::OwnNetwork { machine: machine.to_owned(), network }))
}

fn interfaces<'a>(networks: impl Iterator<Item = &'a Network>) -> impl Iterator<Item = &'a Interface> {
    networks.filter_map(|network| match network {
        Network::Interface(interface) => Some(interface),
        Network::None => None,
    })
}

/// Whether several machines can have it at the same time.
fn can_be_shared(interface: &Interface) -> bool {
    let has_address = interface.mac.is_some() || interface.ipv4.is_some() || interface.ipv6.is_some();
    match interface.kind {
        // Each has a network of its own.
        NetworkKind::User => true,
        NetworkKind::Bridge(_) | NetworkKind::Socket(_) => !has_address,
        NetworkKind::Adopt(_) | NetworkKind::Tap(_) | NetworkKind::Descriptor(_) => false,
    }
}

/// `PREFIX-1` and so on.
fn names(prefix: &str, copies: u16) -> Result<Vec<MachineName>, ForkError> {
    let name = |number: u16| {
        let name = format!("{prefix}-{number}");
        name.parse().map_err(|error| ForkError::Name(name, error))
    };
    (1..=copies).map(name).collect()
}

fn start_all(
    names: Vec<MachineName>,
    request: &Request,
    origin: &Origin,
    mut report: impl FnMut(Started),
) -> Result<(), Failure> {
    let threads = available_parallelism().map_or(1, NonZeroUsize::get).min(names.len());
    let (next, (sender, started)) = (AtomicUsize::new(0), channel());
    scope(|scope| {
        for index in 0..threads {
            let (names, next, sender) = (&names, &next, sender.clone());
            let thread = Builder::new().spawn_scoped(scope, move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(index) else { break };
                    // The receiver is there until all have ended.
                    let _ = sender.send((index, start(name, request, origin)));
                }
            });
            // Fewer threads take longer.
            if index == 0 {
                thread.cannot("start a thread").fails_as(EndReason::HostError)?;
            }
        }
        drop(sender);
        let (mut waiting, mut shown) = (BTreeMap::new(), 0);
        for (index, outcome) in started {
            waiting.insert(index, outcome);
            while let Some(outcome) = waiting.remove(&shown) {
                report(outcome);
                shown += 1;
            }
        }
        Ok(())
    })
}

/// Starts one copy, and waits until its workload runs.
fn start(name: &MachineName, request: &Request, origin: &Origin) -> Started {
    let request = Request { name: Some(name.clone().into()), ..request.clone() };
    let spawned = MessageFile::new().and_then(|file| Ok((file.writer()?, file)));
    let spawned = spawned.cannot("make a file in memory").fails_as(EndReason::HostError);
    let spawned = spawned.and_then(|(writer, file)| Ok((spawn(&request, origin, writer.into())?, file)));
    let (is_running, messages) = match spawned {
        Ok((outcome, file)) => {
            let lines = file.content();
            let lines = lines.lines().map(|line| line.strip_prefix("coracle: ").unwrap_or(line).to_owned());
            (matches!(outcome, Spawned::Running(_)), lines.collect())
        }
        Err(failure) => (false, vec![failure.message()]),
    };
    Started { name: name.clone(), is_running, messages }
}

fn failure(error: ForkError) -> Failure {
    Failure::new(EndReason::ConfigError, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(copies: u16, publish: &[&str], network: &[&str]) -> ForkOptions {
        ForkOptions {
            copies,
            prefix: None,
            network: network.iter().map(|text| text.parse().unwrap()).collect(),
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn copies_are_numbered_from_one() {
        let names = |prefix: &str, copies| {
            names(prefix, copies).map(|names| names.iter().map(MachineName::to_string).collect::<Vec<_>>())
        };
        assert_eq!(names("web", 3).unwrap(), ["web-1", "web-2", "web-3"]);
        assert!(names(&"x".repeat(62), 9).is_ok());
        assert!(matches!(names(&"x".repeat(62), 10), Err(ForkError::Name(..))));
    }

    #[test]
    fn what_one_copy_only_can_have_is_rejected_for_several() {
        for (publish, network) in [
            (&["8080:80"][..], &[][..]),
            (&[], &["tap=t"]),
            (&[], &["user", "bridge,ip=10.0.0.9/24"]),
            (&[], &["socket=s,mac=02:00:00:00:00:01"]),
            (&[], &["adopt"]),
        ] {
            assert!(options(2, publish, network).check().is_err(), "{publish:?} {network:?}");
            assert!(options(1, publish, network).check().is_ok());
        }
        assert!(options(9, &["80", "127.0.0.1::53/udp"], &["user", "bridge=br0", "socket=s", "none"]).check().is_ok());
    }

    #[test]
    fn copies_have_the_machines_network_without_its_addresses() {
        let own = |text: &str| {
            let mut network: Given<Network> = text.parse().unwrap();
            make_own(&mut network, "web").map(|()| network.to_string()).map_err(|failure| failure.message())
        };
        assert_eq!(own("bridge=br0,ip=10.0.0.9/24,gw=10.0.0.1,mtu=1400").unwrap(), "bridge=br0,mtu=1400");
        assert_eq!(own("user").unwrap(), "user");
        assert_eq!(own("none").unwrap(), "none");
        let rejected = own("tap=t,ip=10.0.0.9/24").unwrap_err();
        assert!(rejected.starts_with("web: the copies cannot have its network tap=t,"), "{rejected}");
    }
}
