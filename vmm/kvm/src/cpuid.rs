// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CPUID of a vCPU: the leaves that the host supports, with the topology of this VM and the vCPU's
//! APIC id (Intel SDM vol. 2A, CPUID; AMD64 APM vol. 3, appendix E; KVM API,
//! `KVM_GET_SUPPORTED_CPUID`). Pure, except for one ioctl. Runs on `main`.
//!
//! The topology is one package, one thread per core, APIC id = index of the vCPU. It is in several
//! leaves, of which a kernel reads those of its vendor:
//!
//! | leaf | vendor | holds |
//! |---|---|---|
//! | 1 | both | initial APIC id, number of logical processors |
//! | 4 | Intel | which CPUs share a cache |
//! | 0xB, 0x1F | both, Intel | levels of the topology, x2APIC id |
//! | 0x80000001 | AMD | the logical processors of leaf 1 are cores |
//! | 0x80000008 | AMD | number of cores, width of a core's id |
//! | 0x8000001D | AMD | which CPUs share a cache |
//! | 0x8000001E | AMD | APIC id, core, node |
//! | 0x80000026 | AMD | levels of the topology; left out, so that kernels read 0xB |

use super::host::{KvmHost, KvmKind};
use super::vm::{VmError, failed};
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Cap;

const LEAF_VENDOR: u32 = 0x0;
const LEAF_FEATURES: u32 = 0x1;
const LEAF_CACHES: u32 = 0x4;
const LEAF_EXTENDED_FEATURES: u32 = 0x7;
const LEAF_PERFORMANCE: u32 = 0xa;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_XSTATE: u32 = 0xd;
const LEAF_BRANCH_RECORDS: u32 = 0x1c;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_PERFORMANCE_EXTENDED: u32 = 0x23;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;
const LEAF_AMD_PERFORMANCE: u32 = 0x8000_0022;
const LEAF_AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

/// Leaf 1: debug store, and `IA32_PERF_CAPABILITIES`.
const EDX_DEBUG_STORE: u32 = 1 << 21;
const ECX_DEBUG_STORE: u32 = 1 << 2 | 1 << 4;
const ECX_PERF_CAPABILITIES: u32 = 1 << 15;
/// Leaf 7, EDX: architectural last-branch records.
const EDX_BRANCH_RECORDS: u32 = 1 << 19;
/// Leaf 0x80000001, ECX: counters of the core, of the northbridge and of the last-level cache; leaf
/// 0x80000001, ECX bit 10: instruction-based sampling.
const ECX_AMD_COUNTERS: u32 = 1 << 10 | 1 << 23 | 1 << 24 | 1 << 28;

const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HYPERTHREADING: u32 = 1 << 28;
/// Leaf 7, ECX: five-level paging. The system-call gate needs a four-level table.
const ECX_LA57: u32 = 1 << 16;
/// Leaf 7: shadow stacks and indirect-branch tracking, whose state completions do not save.
const ECX_SHADOW_STACK: u32 = 1 << 7;
const EDX_BRANCH_TRACKING: u32 = 1 << 20;
/// Leaf 0x80000001, ECX: the logical processors that leaf 1 counts are cores, not threads.
const ECX_CMP_LEGACY: u32 = 1 << 1;

/// Asynchronous page faults are useful only where the host swaps guest memory.
const KVM_FEATURE_ASYNC_PF: u32 = 1 << 4;
const KVM_FEATURE_ASYNC_PF_VMEXIT: u32 = 1 << 10;
const KVM_FEATURE_ASYNC_PF_INT: u32 = 1 << 14;

/// Features that a guest uses by hypercalls (`KVM_FEATURE_PV_UNHALT`, `_PV_SEND_IPI`,
/// `_PV_SCHED_YIELD`, `_HC_MAP_GPA_RANGE`, `_MIGRATION_CONTROL`): on a host that emulates guest
/// kernel mode a hypercall never returns.
const KVM_FEATURES_BY_HYPERCALL: u32 = 1 << 7 | 1 << 11 | 1 << 13 | 1 << 16 | 1 << 17;

/// The leaves that the host supports.
///
/// # Errors
/// `KVM_GET_SUPPORTED_CPUID` failed.
pub(super) fn supported(host: &KvmHost) -> Result<CpuId, VmError> {
    host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("KVM_GET_SUPPORTED_CPUID"))
}

/// What the first vCPU's CPUID is on this host: a state that was saved can be restored where it is the same.
///
/// # Errors
/// `KVM_GET_SUPPORTED_CPUID` failed.
pub fn cpu_identity(host: &KvmHost) -> Result<Vec<u8>, VmError> {
    let leaves = for_vcpu(host, &supported(host)?, 0, 1);
    let registers = |leaf: &kvm_cpuid_entry2| [leaf.function, leaf.index, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx];
    Ok(leaves.as_slice().iter().flat_map(registers).flat_map(u32::to_le_bytes).collect())
}

/// The leaves of vCPU `index` in a VM of `cpus` vCPUs.
pub(super) fn for_vcpu(host: &KvmHost, supported: &CpuId, index: u8, cpus: u8) -> CpuId {
    let mut leaves = supported.clone();
    Topology::new(supported, index, cpus).apply(&mut leaves);
    let deadline = host.kvm.check_extension(Cap::TscDeadlineTimer);
    for leaf in leaves.as_mut_slice() {
        set_features(leaf, deadline);
        hide_performance_counters(leaf);
        if host.kind() == KvmKind::Software {
            hide_unemulated_features(leaf);
        }
    }
    leaves
}

fn set_features(leaf: &mut kvm_cpuid_entry2, deadline: bool) {
    match leaf.function {
        LEAF_FEATURES => {
            leaf.ecx |= ECX_HYPERVISOR;
            if deadline {
                leaf.ecx |= ECX_TSC_DEADLINE;
            }
        }
        LEAF_KVM_FEATURES => {
            leaf.eax &= !(KVM_FEATURE_ASYNC_PF | KVM_FEATURE_ASYNC_PF_VMEXIT | KVM_FEATURE_ASYNC_PF_INT);
        }
        _ => {}
    }
}

/// The virtual processor has no performance counters: they would tell the workload about its
/// neighbours on the host, and cost the kernel's start 320,000 instructions. KVM that can disable
/// them does (`restriction`), but still lists them.
fn hide_performance_counters(leaf: &mut kvm_cpuid_entry2) {
    match (leaf.function, leaf.index) {
        (LEAF_PERFORMANCE | LEAF_BRANCH_RECORDS | LEAF_PERFORMANCE_EXTENDED | LEAF_AMD_PERFORMANCE, _) => {
            (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0);
        }
        (LEAF_FEATURES, _) => {
            leaf.ecx &= !(ECX_PERF_CAPABILITIES | ECX_DEBUG_STORE);
            leaf.edx &= !EDX_DEBUG_STORE;
        }
        (LEAF_EXTENDED_FEATURES, 0) => leaf.edx &= !EDX_BRANCH_RECORDS,
        (LEAF_AMD_FEATURES, _) => leaf.ecx &= !ECX_AMD_COUNTERS,
        _ => {}
    }
}

/// Hides from the kernel what does not work where its mode is emulated. User mode sees the CPU's
/// own bits all the same.
fn hide_unemulated_features(leaf: &mut kvm_cpuid_entry2) {
    match (leaf.function, leaf.index) {
        (LEAF_EXTENDED_FEATURES, 0) => {
            leaf.ecx &= !(ECX_LA57 | ECX_SHADOW_STACK);
            leaf.edx &= !EDX_BRANCH_TRACKING;
        }
        // ECX and EDX: supervisor state components.
        (LEAF_XSTATE, 1) => (leaf.ecx, leaf.edx) = (0, 0),
        (LEAF_KVM_FEATURES, _) => leaf.eax &= !KVM_FEATURES_BY_HYPERCALL,
        _ => {}
    }
}

/// One vCPU's position in its VM.
#[derive(Clone, Copy)]
struct Topology {
    id: u32,
    cpus: u32,
    /// The leaves are those of AMD, or of Hygon, whose processors follow AMD's.
    amd: bool,
}

impl Topology {
    fn new(leaves: &CpuId, index: u8, cpus: u8) -> Self {
        let vendor = leaves.as_slice().iter().find(|leaf| leaf.function == LEAF_VENDOR);
        let amd = vendor.is_some_and(|leaf| {
            let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
            [b"AuthenticAMD", b"HygonGenuine"].into_iter().any(|amd| name.as_flattened() == amd)
        });
        Self { id: index.into(), cpus: cpus.into(), amd }
    }

    fn apply(self, leaves: &mut CpuId) {
        for leaf in leaves.as_mut_slice() {
            self.set_leaf(leaf);
        }
        self.replace_levels(leaves);
    }

    /// Number of APIC ids, used or not.
    fn ids(self) -> u32 {
        self.cpus.next_power_of_two()
    }

    /// Bits of an APIC id that number the vCPUs.
    fn id_bits(self) -> u32 {
        self.ids().trailing_zeros()
    }

    fn set_leaf(self, leaf: &mut kvm_cpuid_entry2) {
        let cache_level = leaf.eax >> 5 & 0x7;
        match leaf.function {
            LEAF_FEATURES => {
                // EBX: brand index and cache line unchanged, number of logical processors, initial
                // APIC id. Intel counts the ids that are set aside, AMD the processors.
                let count = if self.amd { self.cpus } else { self.ids() };
                leaf.ebx = leaf.ebx & 0xffff | count << 16 | self.id << 24;
                set_bit(&mut leaf.edx, EDX_HYPERTHREADING, self.cpus > 1);
            }
            LEAF_CACHES if leaf.eax & 0x1f != 0 => {
                // EAX[25:14]: ids that share the cache, less one; EAX[31:26]: ids of cores in the
                // package, less one.
                let sharing = if cache_level >= 3 { self.ids() - 1 } else { 0 };
                leaf.eax = leaf.eax & 0x3fff | sharing << 14 | (self.ids() - 1) << 26;
            }
            LEAF_AMD_FEATURES if self.amd => set_bit(&mut leaf.ecx, ECX_CMP_LEGACY, self.cpus > 1),
            LEAF_AMD_SIZES if self.amd => {
                // ECX[7:0]: cores less one; ECX[15:12]: bits of the core id.
                leaf.ecx = leaf.ecx & !0xf0ff | (self.cpus - 1) | self.id_bits() << 12;
            }
            LEAF_AMD_CACHES if leaf.eax & 0x1f != 0 => {
                // EAX[25:14]: processors that share the cache, less one.
                let sharing = if cache_level >= 3 { self.cpus - 1 } else { 0 };
                leaf.eax = leaf.eax & !(0xfff << 14) | sharing << 14;
            }
            LEAF_AMD_TOPOLOGY => {
                // EAX: APIC id; EBX[7:0]: core id, EBX[15:8]: threads of the core less one; ECX:
                // node id.
                (leaf.eax, leaf.ebx, leaf.ecx) = (self.id, self.id, 0);
            }
            _ => {}
        }
    }

    /// Replaces the leaves that list the levels of the topology. Since Linux 6.2 KVM's own are one
    /// empty level: with that alone every vCPU is a package of its own to the guest. Before, they
    /// were the host's.
    fn replace_levels(self, leaves: &mut CpuId) {
        let has = |function| leaves.as_slice().iter().any(|leaf| leaf.function == function);
        let maximum = leaves.as_slice().iter().find(|leaf| leaf.function == LEAF_VENDOR).map_or(0, |leaf| leaf.eax);
        let listed = [(LEAF_TOPOLOGY, maximum >= LEAF_TOPOLOGY), (LEAF_TOPOLOGY_V2, has(LEAF_TOPOLOGY_V2))];
        leaves.retain(|leaf| !matches!(leaf.function, LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 | LEAF_AMD_TOPOLOGY_V2));
        for (function, _) in listed.into_iter().filter(|(_, present)| *present) {
            for index in 0..2 {
                // A table that is full lacks them: the kernel then takes the ids of the MP table or
                // of ACPI.
                let _ = leaves.push(self.level(function, index));
            }
        }
    }

    /// One level of the topology: threads of a core, then cores of the package.
    fn level(self, function: u32, index: u32) -> kvm_cpuid_entry2 {
        const THREAD: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        // EAX: shift to the next level's id; EBX: logical processors at this level; ECX: number and
        // kind of the level.
        let (eax, ebx, kind) = if index == 0 { (0, 1, THREAD) } else { (self.id_bits(), self.cpus, CORE) };
        kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: index | kind,
            edx: self.id,
            ..Default::default()
        }
    }
}

fn set_bit(register: &mut u32, bit: u32, value: bool) {
    *register = if value { *register | bit } else { *register & !bit };
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
