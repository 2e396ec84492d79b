// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which drivers and file systems a guest needs, and their modules where the kernel has them as such. Runs where the
//! machine is prepared.

use super::failure::{FailsAs as _, Failure};
use crate::config::request::Request;
use crate::state::end::EndReason;
use boot::modules::{Module, WantedModule};
use boot::{Feature, Kernel};
use guest_protocol::module_list::{self, DIRECTORY, LIST};
use guest_protocol::run_spec::{RunSpec, Upper};
use std::path::PathBuf;

/// No device would ever be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "kernel {kernel} has no virtio-mmio built in (CONFIG_VIRTIO_MMIO), and no modules lie beside it; --modules names their folder"
)]
struct NoDevicesError {
    kernel: PathBuf,
}

/// Finds the folder of the kernel's modules. A Linux that shows no way to find its devices must have some: PID 1 would wait
/// for them for ever.
pub(crate) fn find(kernel: &mut Kernel, request: &Request) -> Result<(), Failure> {
    kernel.find_modules(request.modules.as_deref()).fails_as(EndReason::KernelError)?;
    let features = kernel.features();
    let finds_devices = features.has(Feature::MmioOnCommandLine) || features.has(Feature::MmioByAcpi);
    if features.release().is_some() && !finds_devices && kernel.modules().is_none() {
        return Err(NoDevicesError { kernel: kernel.path().to_owned() }).fails_as(EndReason::KernelError);
    }
    Ok(())
}

/// The modules that a guest of `spec` needs.
pub(crate) fn load(kernel: &Kernel, spec: &RunSpec) -> Result<Vec<Module>, Failure> {
    match kernel.modules() {
        Some(modules) => modules.load(&wanted(spec)).fails_as(EndReason::KernelError),
        None => Ok(Vec::new()),
    }
}

fn wanted(spec: &RunSpec) -> Vec<WantedModule<'_>> {
    let required = |name| WantedModule { name, required: true };
    let optional = |name| WantedModule { name, required: false };
    let mut wanted =
        vec![required("virtio_mmio"), required("virtio_console"), required("virtio_blk"), optional("virtio_rng")];
    if !spec.interfaces.is_empty() {
        wanted.push(required("virtio_net"));
    }
    // Of several file systems the disk has one, and only the guest will know which.
    match &*spec.root.file_systems {
        [one] => wanted.push(required(one)),
        several => wanted.extend(several.iter().map(|name| optional(name))),
    }
    match spec.root.upper {
        Upper::None | Upper::InPlace => {}
        Upper::Tmpfs => wanted.push(required("overlay")),
        Upper::Disk(_) => wanted.extend([required("overlay"), required("ext4")]),
    }
    wanted
}

/// Names and contents of the files that bring `modules` to PID 1, relative to the root; the folder comes first.
pub(crate) fn files(modules: &[Module]) -> Vec<(String, Vec<u8>)> {
    let below = |path: &str| path.trim_start_matches('/').to_owned();
    let list = module_list::write(modules.iter().map(|module| (&*module.name, module.required)));
    let objects =
        modules.iter().map(|module| (below(&format!("{DIRECTORY}/{}.ko", module.name)), module.object.clone()));
    objects.chain([(below(LIST), list.into_bytes())]).collect()
}
