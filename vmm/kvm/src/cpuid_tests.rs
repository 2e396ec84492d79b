// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of the CPUID leaves, with those that KVM returns on processors of both vendors.

use super::*;

const CMP_LEGACY_AND_OTHERS: u32 = 0xffff_ffff;
const L1: u32 = 1 << 5 | 1;
const L3: u32 = 3 << 5 | 3;

fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = registers;
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

fn vendor(maximum: u32, name: &[u8; 12]) -> kvm_cpuid_entry2 {
    let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
    leaf(LEAF_VENDOR, 0, [maximum, word(0), word(8), word(4)])
}

/// As on a host with 2 threads a core and 64 processors that share a cache; the level leaves as
/// since Linux 6.2.
fn intel() -> CpuId {
    CpuId::from_entries(&[
        vendor(0x24, b"GenuineIntel"),
        leaf(LEAF_FEATURES, 0, [0x000a_0671, 0x0180_0800, 0, EDX_HYPERTHREADING]),
        leaf(LEAF_CACHES, 0, [0xfc00_4000 | L1, 0x02c0_003f, 0x3f, 0]),
        leaf(LEAF_CACHES, 3, [0xfc0f_c000 | L3, 0x03c0_003f, 0x7_ffff, 0]),
        leaf(LEAF_CACHES, 4, [0, 0, 0, 0]),
        leaf(LEAF_TOPOLOGY, 0, [0, 0, 0, 7]),
        leaf(LEAF_TOPOLOGY_V2, 0, [0, 0, 0, 7]),
        leaf(LEAF_AMD_FEATURES, 0, [0, 0, 0x101, 0x2010_0800]),
        leaf(LEAF_AMD_SIZES, 0, [0x3930, 0, 0, 0]),
    ])
    .unwrap()
}

/// As on an EPYC of 64 cores; the level leaves as before Linux 6.2, with the host's levels.
fn amd() -> CpuId {
    CpuId::from_entries(&[
        vendor(0x10, b"AuthenticAMD"),
        leaf(LEAF_FEATURES, 0, [0x00a1_0f11, 0x2580_0800, 0, EDX_HYPERTHREADING]),
        leaf(LEAF_TOPOLOGY, 0, [1, 2, 0x100, 0x25]),
        leaf(LEAF_TOPOLOGY, 1, [7, 128, 0x201, 0x25]),
        leaf(LEAF_TOPOLOGY, 2, [0, 0, 2, 0x25]),
        leaf(LEAF_AMD_FEATURES, 0, [0, 0, CMP_LEGACY_AND_OTHERS, 0]),
        leaf(LEAF_AMD_SIZES, 0, [0x3030, 0, 0x0003_7f7f, 0]),
        leaf(LEAF_AMD_CACHES, 0, [0x4000 | L1, 0x01c0_003f, 0x3f, 0]),
        leaf(LEAF_AMD_CACHES, 3, [0x3c000 | L3, 0x03c0_003f, 0x7fff, 0]),
        leaf(LEAF_AMD_CACHES, 4, [0, 0, 0, 0]),
        leaf(LEAF_AMD_TOPOLOGY, 0, [0x25, 0x112, 0x301, 0]),
        leaf(LEAF_AMD_TOPOLOGY_V2, 0, [1, 2, 0x100, 0x25]),
    ])
    .unwrap()
}

fn with_topology(mut leaves: CpuId, index: u8, cpus: u8) -> CpuId {
    Topology::new(&leaves, index, cpus).apply(&mut leaves);
    leaves
}

fn registers(leaves: &CpuId, function: u32, index: u32) -> Option<[u32; 4]> {
    let mut found = leaves.as_slice().iter().filter(|leaf| leaf.function == function && leaf.index == index);
    let leaf = found.next()?;
    assert!(found.next().is_none(), "leaf {function:#x} subleaf {index} is there once");
    Some([leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
}

#[test]
fn apic_id_is_the_same_in_every_leaf() {
    for host in [intel(), amd()] {
        for index in 0..32 {
            let (leaves, id) = (with_topology(host.clone(), index, 32), u32::from(index));
            assert_eq!(registers(&leaves, LEAF_FEATURES, 0).unwrap()[1] >> 24, id);
            for level in 0..2 {
                assert_eq!(registers(&leaves, LEAF_TOPOLOGY, level).unwrap()[3], id);
            }
            let v2 = registers(&leaves, LEAF_TOPOLOGY_V2, 1);
            assert!(v2.is_none_or(|[.., edx]| edx == id));
            let amd = registers(&leaves, LEAF_AMD_TOPOLOGY, 0);
            assert!(amd.is_none_or(|leaf| leaf == [id, id, 0, 0]), "one thread a core, one node");
        }
    }
}

#[test]
fn all_vcpus_are_cores_of_one_package() {
    for (host, cpus, bits) in [(intel(), 32, 5), (intel(), 3, 2), (amd(), 32, 5), (amd(), 3, 2), (amd(), 1, 0)] {
        let has_v2 = registers(&host, LEAF_TOPOLOGY_V2, 0).is_some();
        let leaves = with_topology(host, 0, cpus);
        let levels = [Some([0, 1, 0x100, 0]), Some([bits, cpus.into(), 0x201, 0]), None];
        for (index, level) in (0..).zip(levels) {
            assert_eq!(registers(&leaves, LEAF_TOPOLOGY, index), level);
            assert_eq!(registers(&leaves, LEAF_TOPOLOGY_V2, index), level.filter(|_| has_v2));
            assert_eq!(registers(&leaves, LEAF_AMD_TOPOLOGY_V2, index), None, "kernels fall back to leaf 0xB");
        }
    }
}

#[test]
fn levels_are_absent_where_the_maximum_leaf_is_lower() {
    let host = CpuId::from_entries(&[vendor(0xa, b"GenuineIntel")]).unwrap();
    let leaves = with_topology(host, 0, 2);
    assert_eq!(leaves.as_slice().len(), 1);
}

#[test]
fn number_of_processors_has_its_vendors_form() {
    let count = |host, cpus| registers(&with_topology(host, 0, cpus), LEAF_FEATURES, 0).unwrap()[1] >> 16 & 0xff;
    assert_eq!((count(intel(), 3), count(amd(), 3)), (4, 3), "ids set aside, processors");

    let sizes = |host, cpus| registers(&with_topology(host, 0, cpus), LEAF_AMD_SIZES, 0).unwrap()[2];
    assert_eq!(sizes(amd(), 3), 0x0003_0f00 | 2 << 12 | 2);
    assert_eq!(sizes(amd(), 1), 0x0003_0f00);
    assert_eq!(sizes(intel(), 3), 0, "reserved on Intel");

    let legacy = |host, cpus| registers(&with_topology(host, 0, cpus), LEAF_AMD_FEATURES, 0).unwrap()[2];
    assert_eq!(legacy(amd(), 3), CMP_LEGACY_AND_OTHERS);
    assert_eq!(legacy(amd(), 1), CMP_LEGACY_AND_OTHERS & !ECX_CMP_LEGACY);
    assert_eq!(legacy(intel(), 3), 0x101, "reserved on Intel");
}

#[test]
fn only_the_last_level_cache_is_shared() {
    let leaves = with_topology(intel(), 0, 3);
    let cores = 3 << 26;
    assert_eq!(registers(&leaves, LEAF_CACHES, 0).unwrap()[0], cores | L1);
    assert_eq!(registers(&leaves, LEAF_CACHES, 3).unwrap()[0], cores | 3 << 14 | L3, "four ids");
    assert_eq!(registers(&leaves, LEAF_CACHES, 4).unwrap(), [0; 4]);

    let leaves = with_topology(amd(), 0, 3);
    assert_eq!(registers(&leaves, LEAF_AMD_CACHES, 0).unwrap()[0], L1);
    assert_eq!(registers(&leaves, LEAF_AMD_CACHES, 3).unwrap()[0], 2 << 14 | L3, "three processors");
    assert_eq!(registers(&leaves, LEAF_AMD_CACHES, 4).unwrap(), [0; 4]);
}

#[test]
fn single_vcpu_shares_no_cache_and_has_no_siblings() {
    for host in [intel(), amd()] {
        let leaves = with_topology(host, 0, 1);
        let [_, ebx, _, edx] = registers(&leaves, LEAF_FEATURES, 0).unwrap();
        assert_eq!((ebx >> 16, edx & EDX_HYPERTHREADING), (1, 0));
        for function in [LEAF_CACHES, LEAF_AMD_CACHES] {
            let cache = registers(&leaves, function, 3);
            assert!(cache.is_none_or(|[eax, ..]| eax == L3));
        }
    }
}

#[test]
fn async_page_faults_and_hypercalls_are_hidden() {
    let mut features = leaf(LEAF_KVM_FEATURES, 0, [u32::MAX, 0, 0, 0]);
    set_features(&mut features, true);
    assert_eq!(features.eax & (KVM_FEATURE_ASYNC_PF | KVM_FEATURE_ASYNC_PF_INT), 0);
    assert_ne!(features.eax & KVM_FEATURES_BY_HYPERCALL, 0);
    hide_unemulated_features(&mut features);
    assert_eq!(features.eax & KVM_FEATURES_BY_HYPERCALL, 0);
}

#[test]
fn supervisor_state_is_hidden_where_it_cannot_be_saved() {
    let mut xstate = leaf(LEAF_XSTATE, 1, [0xf, 0x988, 0x1800, 0x1]);
    hide_unemulated_features(&mut xstate);
    assert_eq!((xstate.eax, xstate.ecx, xstate.edx), (0xf, 0, 0));
    let mut standard = leaf(LEAF_XSTATE, 0, [0xe7, 0xa80, 0xa80, 0]);
    hide_unemulated_features(&mut standard);
    assert_eq!(standard.ecx, 0xa80);
    let mut features = leaf(LEAF_EXTENDED_FEATURES, 0, [2, u32::MAX, u32::MAX, u32::MAX]);
    hide_unemulated_features(&mut features);
    assert_eq!(!features.ecx, ECX_LA57 | ECX_SHADOW_STACK);
    assert_eq!(!features.edx, EDX_BRANCH_TRACKING);
}

#[test]
fn performance_counters_are_hidden_on_both_vendors() {
    let hidden = |function, index, registers| {
        let mut found = leaf(function, index, registers);
        hide_performance_counters(&mut found);
        [found.eax, found.ebx, found.ecx, found.edx]
    };
    for function in [LEAF_PERFORMANCE, LEAF_BRANCH_RECORDS, LEAF_PERFORMANCE_EXTENDED, LEAF_AMD_PERFORMANCE] {
        assert_eq!(hidden(function, 0, [0x0730_0805, 0, 0, 0x603]), [0; 4], "leaf {function:#x}");
        assert_eq!(hidden(function, 1, [u32::MAX; 4]), [0; 4], "leaf {function:#x}");
    }
    let all = u32::MAX;
    assert_eq!(hidden(LEAF_FEATURES, 0, [all; 4]), [all, all, !(1 << 2 | 1 << 4 | 1 << 15), !(1 << 21)]);
    assert_eq!(hidden(LEAF_EXTENDED_FEATURES, 0, [all; 4]), [all, all, all, !(1 << 19)]);
    assert_eq!(hidden(LEAF_EXTENDED_FEATURES, 1, [all; 4]), [all; 4], "other features");
    assert_eq!(hidden(LEAF_AMD_FEATURES, 0, [all; 4]), [all, all, !0x1180_0400, all]);
    assert_eq!(hidden(LEAF_TOPOLOGY, 0, [all; 4]), [all; 4]);
}
