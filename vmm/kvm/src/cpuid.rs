// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a vCPU says of itself: the host's supported leaves with the topology and APIC id of this VM (Intel SDM vol. 2A,
//! CPUID; KVM API, `KVM_GET_SUPPORTED_CPUID`). Pure but for the question to the host. Runs on `main`.

use super::host::{KvmHost, KvmKind};
use super::vm::{VmError, failed};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Cap;

const LEAF_FEATURES: u32 = 0x1;
const LEAF_CACHES: u32 = 0x4;
const LEAF_EXTENDED_FEATURES: u32 = 0x7;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HYPERTHREADING: u32 = 1 << 28;
/// Leaf 7, ECX: five-level paging. The system-call gate hangs in a four-level table.
const ECX_LA57: u32 = 1 << 16;

/// Asynchronous page faults need the host to swap, and the guest to be told: nothing that a container wants.
const KVM_FEATURE_ASYNC_PF: u32 = 1 << 4;
const KVM_FEATURE_ASYNC_PF_VMEXIT: u32 = 1 << 10;
const KVM_FEATURE_ASYNC_PF_INT: u32 = 1 << 14;

/// Features that a guest uses by hypercalls (`KVM_FEATURE_PV_UNHALT`, `_PV_SEND_IPI`, `_PV_SCHED_YIELD`,
/// `_HC_MAP_GPA_RANGE`, `_MIGRATION_CONTROL`): on a host that emulates guest kernel mode a hypercall never returns.
const KVM_FEATURES_BY_HYPERCALL: u32 = 1 << 7 | 1 << 11 | 1 << 13 | 1 << 16 | 1 << 17;

/// What the host supports.
///
/// # Errors
/// The host does not tell.
pub(super) fn supported(host: &KvmHost) -> Result<CpuId, VmError> {
    host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("KVM_GET_SUPPORTED_CPUID"))
}

/// `supported` with the topology of a VM of `cpus` vCPUs, seen from vCPU `index`: one package, one thread a core.
pub(super) fn for_vcpu(host: &KvmHost, supported: &CpuId, index: u8, cpus: u8) -> CpuId {
    let mut leaves = supported.clone();
    let deadline = host.kvm.check_extension(Cap::TscDeadlineTimer);
    for leaf in leaves.as_mut_slice() {
        place(leaf, index, cpus);
        if leaf.function == LEAF_FEATURES && deadline {
            leaf.ecx |= ECX_TSC_DEADLINE;
        }
        if host.kind() == KvmKind::Software {
            hide_what_emulation_lacks(leaf);
        }
    }
    ensure_topology(&mut leaves, index, cpus);
    leaves
}

/// What the kernel must not find where its mode is emulated. User mode sees the CPU's own bits all the same.
fn hide_what_emulation_lacks(leaf: &mut kvm_cpuid_entry2) {
    match (leaf.function, leaf.index) {
        (LEAF_EXTENDED_FEATURES, 0) => leaf.ecx &= !ECX_LA57,
        (LEAF_KVM_FEATURES, _) => leaf.eax &= !KVM_FEATURES_BY_HYPERCALL,
        _ => {}
    }
}

/// Hosts without the topology leaf still run guests that ask for it: give it where the maximum leaf admits it.
fn ensure_topology(leaves: &mut CpuId, index: u8, cpus: u8) {
    let present = leaves.as_slice().iter().any(|leaf| leaf.function == LEAF_TOPOLOGY);
    let maximum = leaves.as_slice().iter().find(|leaf| leaf.function == 0).map_or(0, |leaf| leaf.eax);
    if present || maximum < LEAF_TOPOLOGY {
        return;
    }
    for level in 0..2 {
        let mut leaf = kvm_cpuid_entry2 {
            function: LEAF_TOPOLOGY,
            index: level,
            flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            ..Default::default()
        };
        place(&mut leaf, index, cpus);
        // A host whose table is full keeps its own view: the MP table still tells the right ids.
        let _ = leaves.push(leaf);
    }
}

/// Bits of an APIC id that number the vCPUs.
fn id_bits(cpus: u8) -> u32 {
    u32::from(cpus).next_power_of_two().trailing_zeros()
}

/// Writes this vCPU's place into one leaf.
fn place(leaf: &mut kvm_cpuid_entry2, index: u8, cpus: u8) {
    let (id, count) = (u32::from(index), u32::from(cpus));
    match leaf.function {
        LEAF_FEATURES => {
            // EBX: brand index and cache line as they are, number of logical ids, initial APIC id.
            leaf.ebx = (leaf.ebx & 0xffff) | (count.next_power_of_two() << 16) | (id << 24);
            leaf.ecx |= ECX_HYPERVISOR;
            if cpus > 1 {
                leaf.edx |= EDX_HYPERTHREADING;
            } else {
                leaf.edx &= !EDX_HYPERTHREADING;
            }
        }
        LEAF_CACHES if leaf.eax & 0x1f != 0 => {
            // EAX[25:14]: threads that share the cache, less one; EAX[31:26]: cores in the package, less one.
            let level = (leaf.eax >> 5) & 0x7;
            let sharing = if level >= 3 { count.next_power_of_two() - 1 } else { 0 };
            leaf.eax = (leaf.eax & 0x3fff) | (sharing << 14) | ((count.next_power_of_two() - 1) << 26);
        }
        LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 => {
            // EAX: shift to the next level's id; EBX: logical CPUs here; ECX[15:8]: kind of level; EDX: x2APIC id.
            (leaf.eax, leaf.ebx, leaf.ecx) = match leaf.index {
                0 => (0, 1, 1 << 8),
                1 => (id_bits(cpus), count, 1 | (2 << 8)),
                other => (0, 0, other),
            };
            leaf.edx = id;
        }
        LEAF_KVM_FEATURES => {
            leaf.eax &= !(KVM_FEATURE_ASYNC_PF | KVM_FEATURE_ASYNC_PF_VMEXIT | KVM_FEATURE_ASYNC_PF_INT);
        }
        LEAF_AMD_SIZES => {
            // ECX[7:0]: cores less one; ECX[15:12]: bits of the core id.
            leaf.ecx = (leaf.ecx & !0xf0ff) | (count - 1) | (id_bits(cpus) << 12);
        }
        LEAF_AMD_CACHES if leaf.eax & 0x1f != 0 => {
            let level = (leaf.eax >> 5) & 0x7;
            let sharing = if level >= 3 { count - 1 } else { 0 };
            leaf.eax = (leaf.eax & !(0xfff << 14)) | (sharing << 14);
        }
        LEAF_AMD_TOPOLOGY => {
            // EAX: APIC id; EBX[7:0]: core id, EBX[15:8]: threads a core less one; ECX: node id.
            (leaf.eax, leaf.ebx, leaf.ecx) = (id, id, 0);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ..Default::default() }
    }

    #[test]
    fn every_vcpu_finds_its_own_apic_id_in_leaf_1_and_leaf_b() {
        for index in 0..32 {
            let (mut features, mut topology) = (leaf(LEAF_FEATURES, 0), leaf(LEAF_TOPOLOGY, 1));
            place(&mut features, index, 32);
            place(&mut topology, index, 32);
            assert_eq!(features.ebx >> 24, u32::from(index));
            assert_eq!(topology.edx, u32::from(index));
            assert_eq!(topology.ebx, 32);
            assert_eq!(topology.eax, 5, "five bits number 32 vCPUs");
        }
    }

    #[test]
    fn an_odd_number_of_vcpus_gets_ids_as_wide_as_the_next_power_of_two() {
        let mut topology = leaf(LEAF_TOPOLOGY, 1);
        place(&mut topology, 2, 3);
        assert_eq!((topology.eax, topology.ebx), (2, 3));
    }

    #[test]
    fn one_vcpu_shares_no_cache_and_claims_no_siblings() {
        let mut caches = kvm_cpuid_entry2 { eax: 0xffff_c063, ..leaf(LEAF_CACHES, 3) };
        let mut features = kvm_cpuid_entry2 { edx: EDX_HYPERTHREADING, ..leaf(LEAF_FEATURES, 0) };
        place(&mut caches, 0, 1);
        place(&mut features, 0, 1);
        assert_eq!(caches.eax, 0x63);
        assert_eq!(features.edx & EDX_HYPERTHREADING, 0);
    }

    #[test]
    fn asynchronous_page_faults_are_not_offered() {
        let mut features = kvm_cpuid_entry2 { eax: u32::MAX, ..leaf(LEAF_KVM_FEATURES, 0) };
        place(&mut features, 0, 1);
        assert_eq!(features.eax & (KVM_FEATURE_ASYNC_PF | KVM_FEATURE_ASYNC_PF_INT), 0);
    }
}
