// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's `/dev/kvm`: opened, examined, and asked once what kind it is. Runs on `main`.

use kvm_ioctls::{Cap, Kvm};
use std::path::{Path, PathBuf};

/// KVM API version that every Linux since 2.6.22 reports; the documentation asks to refuse any other.
const API_VERSION: i32 = 12;

/// What the machine cannot do without, with the names of `linux/kvm.h`.
const REQUIRED: [(Cap, &str); 9] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
];

/// How the host runs guest kernel mode. Decided once; everything in `kvm/software` hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmKind {
    /// VMX or SVM: guest kernel mode runs on the processor.
    Native,
    /// Guest kernel mode is emulated instruction by instruction.
    Software,
}

impl KvmKind {
    /// As the result document spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Software => "software",
        }
    }
}

/// Why this host cannot run a microVM.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no such device.
    #[error("{0} does not exist: load kvm_intel or kvm_amd, or switch virtualisation on in the firmware")]
    Missing(PathBuf),
    /// It is there and may not be opened.
    #[error("no permission to open {0}: add the user to the group that owns it (usually kvm)")]
    Permission(PathBuf),
    /// Another hypervisor holds the processor's extensions, or the like.
    #[error("cannot open {path}")]
    Open {
        /// Device.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a KVM device, or one of another age.
    #[error("{path} speaks version {version} of the KVM interface, not {API_VERSION}")]
    Version {
        /// Device.
        path: PathBuf,
        /// What it said; -1 where the device knows no such question.
        version: i32,
    },
    /// A capability is missing.
    #[error("{path} lacks {capability}")]
    Capability {
        /// Device.
        path: PathBuf,
        /// Name in `linux/kvm.h`.
        capability: &'static str,
    },
    /// The probe that tells the kinds apart did not run.
    #[error("cannot find out what kind of KVM {path} is")]
    Probe {
        /// Device.
        path: PathBuf,
        /// Why.
        source: kvm_ioctls::Error,
    },
}

/// The open device.
#[derive(Debug)]
pub struct KvmHost {
    pub(super) kvm: Kvm,
    kind: KvmKind,
}

impl KvmHost {
    /// Opens `/dev/kvm` and examines it.
    ///
    /// # Errors
    /// It is missing, may not be opened, or cannot do what a microVM needs.
    pub fn open() -> Result<Self, HostError> {
        Self::open_at(Path::new("/dev/kvm"))
    }

    /// Opens another device node.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(path: &Path) -> Result<Self, HostError> {
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let kvm = Kvm::new_with_path(&name).map_err(|error| open_error(path, error))?;
        let version = kvm.get_api_version();
        if version != API_VERSION {
            return Err(HostError::Version { path: path.to_owned(), version });
        }
        if let Some((_, capability)) = REQUIRED.iter().find(|(capability, _)| !kvm.check_extension(*capability)) {
            return Err(HostError::Capability { path: path.to_owned(), capability });
        }
        let kind =
            super::software::detect::kind(&kvm).map_err(|source| HostError::Probe { path: path.to_owned(), source })?;
        Ok(Self { kvm, kind })
    }

    /// How this host runs guest kernel mode.
    #[must_use]
    pub fn kind(&self) -> KvmKind {
        self.kind
    }

    /// Most vCPUs of one VM.
    #[must_use]
    pub fn max_cpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }
}

fn open_error(path: &Path, error: kvm_ioctls::Error) -> HostError {
    match error.errno() {
        libc::ENOENT => HostError::Missing(path.to_owned()),
        libc::EACCES | libc::EPERM => HostError::Permission(path.to_owned()),
        errno => HostError::Open { path: path.to_owned(), source: std::io::Error::from_raw_os_error(errno) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named() {
        let error = KvmHost::open_at(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(matches!(error, HostError::Missing(_)), "{error}");
        assert!(error.to_string().contains("/nonexistent/kvm"));
    }

    #[test]
    fn a_device_that_is_not_kvm_is_refused_by_its_version() {
        let error = KvmHost::open_at(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, HostError::Version { .. }), "{error}");
    }
}
