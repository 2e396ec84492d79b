// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The volumes of a run: those of the options, and the `VOLUME`s of the image. Named ones become disks, the others directories of
//! the scratch layer.

use crate::config::bind_mount::BindMount;
use crate::config::disk::VOLUME_SERIAL;
use crate::config::guest_path;
use crate::config::name::VolumeName;
use crate::config::request::Request;
use crate::config::size::{DiskSize, Scratch};
use crate::config::tmpfs::Tmpfs;
use crate::config::volume::{Mount, Volume};
use crate::host::directories::{Directories, DirectoryError};
use crate::host::scratch::{self, ScratchError};
use crate::state::volumes::{VolumeError, Volumes};
use devices::rate_limit::RateLimits;
use devices::virtio::block::BlockConfig;
use guest_protocol::run_spec::{VolumeMount, VolumeSource};
use std::collections::BTreeSet;

#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumesError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Scratch(#[from] ScratchError),
}

/// Volumes that are ready for the machine.
#[derive(Debug, Default)]
pub(crate) struct AttachedVolumes {
    pub(crate) disks: Vec<BlockConfig>,
    pub(crate) mounts: Vec<VolumeMount>,
}

/// The volumes that the options name.
pub(super) fn requested(request: &Request) -> impl Iterator<Item = &Volume> {
    request.mounts().filter_map(|(_, mount)| match mount {
        Mount::Volume(volume) => Some(volume),
        Mount::Bind(_) | Mount::Tmpfs(_) => None,
    })
}

/// The directories and files of the host that the options name.
pub(super) fn requested_binds(request: &Request) -> impl Iterator<Item = &BindMount> {
    request.mounts().filter_map(|(_, mount)| match mount {
        Mount::Bind(bind) => Some(bind),
        Mount::Volume(_) | Mount::Tmpfs(_) => None,
    })
}

/// The tmpfs that the options name.
pub(super) fn requested_tmpfs(request: &Request) -> impl Iterator<Item = &Tmpfs> {
    request.tmpfs.iter().chain(request.mounts().filter_map(|(_, mount)| match mount {
        Mount::Tmpfs(tmpfs) => Some(tmpfs),
        Mount::Volume(_) | Mount::Bind(_) => None,
    }))
}

/// Takes the volumes of `request` and of the image, whose paths are `of_image`. With `create` false nothing that outlives this
/// process is made: what is missing is a disk without a name.
pub(super) fn attach(
    request: &Request,
    of_image: &[String],
    directories: &Directories,
    create: bool,
) -> Result<AttachedVolumes, VolumesError> {
    let mut attached = AttachedVolumes::default();
    for volume in requested(request) {
        let source = match &volume.name {
            None => VolumeSource::Scratch,
            Some(name) => {
                let serial = format!("{VOLUME_SERIAL}{}", attached.disks.len());
                attached.disks.push(open(name, volume.read_only, directories, create, &serial)?);
                VolumeSource::Disk(serial)
            }
        };
        attached.mounts.push(mount(volume, source));
    }
    if matches!(request.scratch(), Scratch::Disk(_) | Scratch::Tmpfs) {
        let tmpfs = request.tmpfs.iter().map(Tmpfs::path);
        let named = request.mounts().map(|(_, mount)| mount.path()).chain(tmpfs);
        let mut taken: BTreeSet<String> = named.filter_map(guest_path::normal).collect();
        let mut of_image: Vec<Volume> = of_image.iter().filter_map(|path| Volume::of_image(path)).collect();
        of_image.retain(|volume| taken.insert(volume.path.clone()));
        attached.mounts.extend(of_image.iter().map(|volume| mount(volume, VolumeSource::Scratch)));
    }
    Ok(attached)
}

fn mount(volume: &Volume, source: VolumeSource) -> VolumeMount {
    VolumeMount { path: volume.path.clone(), source, read_only: volume.read_only, copy: volume.copy }
}

fn open(
    name: &VolumeName,
    read_only: bool,
    directories: &Directories,
    create: bool,
    serial: &str,
) -> Result<BlockConfig, VolumesError> {
    let volumes = Volumes::open(directories.volumes()?);
    let file = match create {
        true => volumes.take(name, read_only)?,
        false => match volumes.take_existing(name, read_only)? {
            Some(file) => file,
            None => return Ok(scratch::create(DiskSize::default().bytes(), directories, serial)?),
        },
    };
    let (path, serial, limits) = (volumes.path(name), serial.to_owned(), RateLimits::default());
    Ok(BlockConfig { file, path, more: Vec::new(), read_only, scratch: false, serial, limits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(volumes: &[&str], mounts: &[&str]) -> Request {
        let volume = volumes.iter().map(|text| text.parse().unwrap()).collect();
        let mount = mounts.iter().map(|text| text.parse().unwrap()).collect();
        Request { volume, mount, ..Request::default() }
    }

    fn attach_in(directory: &std::path::Path, request: &Request, of_image: &[&str], create: bool) -> AttachedVolumes {
        let of_image: Vec<String> = of_image.iter().map(|path| (*path).to_owned()).collect();
        let base = Some(directory.to_owned());
        let directories = Directories {
            data_home: base.clone(),
            cache_home: base.clone(),
            temporary: base,
            ..Directories::default()
        };
        attach(request, &of_image, &directories, create).unwrap()
    }

    #[test]
    fn named_volumes_are_disks_and_others_directories_of_the_scratch_layer() {
        let directory = tempfile::tempdir().unwrap();
        let request = request(
            &["/cache", "data:/data:ro"],
            &["type=volume,source=b,target=/b,volume-nocopy", "type=tmpfs,target=/t"],
        );
        let of_image = ["/data/", "/t", "/var//lib/x", "/sys/fs/cgroup", "/var/lib/x"];
        let AttachedVolumes { disks, mounts } = attach_in(directory.path(), &request, &of_image, true);
        assert_eq!(
            disks.iter().map(|disk| (&*disk.serial, disk.read_only)).collect::<Vec<_>>(),
            [("volume:0", true), ("volume:1", false)]
        );
        let source = |mount: &VolumeMount| match &mount.source {
            VolumeSource::Disk(serial) => serial.clone(),
            VolumeSource::Scratch => String::new(),
        };
        let mounts: Vec<_> =
            mounts.iter().map(|mount| (&*mount.path, source(mount), mount.read_only, mount.copy)).collect();
        let expected = [
            ("/cache", String::new(), false, true),
            ("/data", "volume:0".to_owned(), true, true),
            ("/b", "volume:1".to_owned(), false, false),
            ("/var/lib/x", String::new(), false, true),
        ];
        assert_eq!(mounts, expected);
        assert!(directory.path().join("coracle/volumes/data.ext4").exists());
    }

    #[test]
    fn check_makes_no_volume() {
        let directory = tempfile::tempdir().unwrap();
        let attached = attach_in(directory.path(), &request(&["data:/data"], &[]), &[], false);
        assert_eq!(attached.disks.len(), 1);
        assert!(!directory.path().join("coracle/volumes").exists());
    }

    #[test]
    fn volumes_of_the_image_need_a_scratch_layer() {
        let directory = tempfile::tempdir().unwrap();
        let none = Request { scratch: Some(Scratch::None), ..Request::default() };
        assert!(attach_in(directory.path(), &none, &["/data"], true).mounts.is_empty());
    }
}
