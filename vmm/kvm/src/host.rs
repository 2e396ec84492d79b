// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's `/dev/kvm`: opened and examined, its kind detected once. Runs on `main`.

use kvm_ioctls::{Cap, Kvm};
use std::path::{Path, PathBuf};

/// KVM API version of every Linux since 2.6.22. Its documentation requires to reject any other.
const API_VERSION: i32 = 12;

/// The capabilities that a machine needs, with their names in `linux/kvm.h`.
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

/// How the host runs guest kernel mode. Detected once; the directory `software` is for one of the
/// kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmKind {
    /// VMX or SVM: guest kernel mode runs on the processor.
    Native,
    /// Guest kernel mode is emulated instruction by instruction.
    Software,
}

impl KvmKind {
    /// As in the result document.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Software => "software",
        }
    }
}

/// This host cannot run a microVM.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("{0} does not exist: load kvm_intel or kvm_amd, or enable virtualisation in the firmware")]
    Missing(PathBuf),
    #[error("no permission to open {0}: add the user to the group that owns it (usually kvm)")]
    Permission(PathBuf),
    /// For example: another hypervisor uses the processor's extensions.
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: std::io::Error },
    /// The version is -1 for a device that does not have the ioctl.
    #[error("{path}: KVM API version {version}, not {API_VERSION}")]
    Version { path: PathBuf, version: i32 },
    #[error("{path} lacks {capability}")]
    Capability { path: PathBuf, capability: &'static str },
    /// The modules do not decide the kind, and the probe guest failed to run.
    #[error("cannot detect the kind of KVM of {path}")]
    Probe { path: PathBuf, source: kvm_ioctls::Error },
}

#[derive(Debug)]
pub struct KvmHost {
    pub(super) kvm: Kvm,
    kind: KvmKind,
}

impl KvmHost {
    /// Opens `/dev/kvm`, checks its capabilities and detects its kind.
    ///
    /// # Errors
    /// See [`HostError`].
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

    /// Maximum number of vCPUs of a VM.
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
    fn open_at_names_a_missing_device() {
        let error = KvmHost::open_at(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(matches!(error, HostError::Missing(_)), "{error}");
        assert!(error.to_string().contains("/nonexistent/kvm"));
    }

    #[test]
    fn open_at_rejects_a_device_that_is_not_kvm() {
        let error = KvmHost::open_at(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, HostError::Version { .. }), "{error}");
    }
}
