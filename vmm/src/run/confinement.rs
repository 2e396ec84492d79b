// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the threads of a machine still need once its guest runs: the run directory, the destinations of the result, and what its
//! network is given back with. Everything else is open. Used by `main`.

use super::kept::Kept;
use crate::config::destination::Destination;
use crate::config::request::Request;
use crate::config::text_form::Given;
use crate::machine::MachineConfig;
use crate::network::Attachment;
use crate::sandbox::{Grant, Needs, Right, Thread};
use crate::state::run_dir::RunDirectory;
use devices::virtio::net::Backend;
use std::path::Path;

/// The needs of a machine that is about to be built.
pub(super) fn needs(
    request: &Request,
    run_directory: &RunDirectory,
    kept: Option<&Kept>,
    machine: &MachineConfig,
    attachments: &[Attachment],
) -> Needs {
    let mut needs = Needs::default();
    let entry = run_directory.path();
    let mut add = |path: &Path, right| needs.files.extend(Grant::new(path, right));
    add(entry, Right::Change);
    add(directory_of(entry), Right::RemoveDirectories);
    // The last status, and the end of a machine that is not kept after all.
    if let Some(kept) = kept {
        add(kept.machine.path(), Right::Change);
        add(directory_of(kept.machine.path()), Right::RemoveDirectories);
    }
    // Counters, and code that only the start needs.
    add(Path::new("/proc/self"), Right::Read);
    // The streams of a detached process.
    add(Path::new("/dev/null"), Right::ReadAndWrite);
    if let Some(Destination::File(path)) = &request.result {
        replaceable(path, &mut add);
    }
    if let Some(path) = &request.profile {
        replaceable(path, &mut add);
        add(&machine.kernel.path().with_file_name("System.map"), Right::Read);
    }
    if let Some(vsock) = request.vsock.as_ref().and_then(Given::get) {
        add(directory_of(&vsock.path), Right::RemoveFiles);
    }
    for [state, settings] in attachments.iter().filter_map(Attachment::restores) {
        add(&state, Right::Change);
        add(&settings, Right::ReadAndWrite);
    }
    needs.helpers = attachments.iter().filter_map(Attachment::helper).collect();
    needs.restores_network = attachments.iter().any(|attachment| attachment.restores().is_some());
    needs.executes_programs = attachments.iter().any(Attachment::executes_programs);
    // The logs, which are rotated.
    needs.of_event_loops.insert("io".to_owned(), Grant::new(entry, Right::Change).into_iter().collect());
    for share in &machine.shares {
        let right = if share.read_only { Right::Read } else { Right::Change };
        let grant = share.directory.try_clone().map(|directory| Grant::of(directory, right));
        let name = format!("fs-{}", share.tag);
        needs.read_only.extend(share.read_only.then(|| name.clone()));
        needs.of_event_loops.insert(name, grant.into_iter().collect());
    }
    let networks = machine.nets.iter().enumerate();
    needs.networks = networks.map(|(index, net)| (format!("net-{index}"), thread_of(&net.backend))).collect();
    needs
}

fn thread_of(backend: &Backend) -> Thread {
    match backend {
        _ if backend.connects_again() => Thread::NetSocket,
        Backend::Tap(_) => Thread::Tap,
        Backend::Packet(_) => Thread::PacketSocket,
        Backend::Stream(_) | Backend::None | Backend::Absent { .. } => Thread::Stream,
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// A file that is replaced, or written where it is no regular file.
fn replaceable(path: &Path, add: &mut impl FnMut(&Path, Right)) {
    add(directory_of(path), Right::Replace);
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        add(path, Right::ReadAndWrite);
    }
}
