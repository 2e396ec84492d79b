// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: profiles in, decisions of the compiled programs out.

use super::*;
use serde_json::json;

const ALLOW: u32 = 0x7fff_0000;
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;

/// What the kernel would do with the call.
fn run(program: &[u64], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [number, architecture, 0, 0].to_vec();
    data.extend(arguments.iter().flat_map(|argument| [*argument as u32, (*argument >> 32) as u32]));
    let (mut accumulator, mut at) = (0_u32, 0);
    loop {
        let word = program[at];
        let (code, value) = (word as u16, (word >> 32) as u32);
        let jump = |condition: bool| usize::from(if condition { (word >> 16) as u8 } else { (word >> 24) as u8 });
        at += 1;
        match code {
            LOAD => accumulator = data[value as usize / 4],
            AND => accumulator &= value,
            JUMP => at += value as usize,
            JUMP_EQUAL => at += jump(accumulator == value),
            JUMP_ABOVE => at += jump(accumulator > value),
            JUMP_NOT_BELOW => at += jump(accumulator >= value),
            RETURN => return value,
            code => panic!("{code:#x}"),
        }
    }
}

fn compiled(profile: Value) -> Vec<u64> {
    compile(&profile).unwrap()
}

#[test]
fn every_call_has_the_action_of_its_rule_or_the_default() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["read", "statx", "nosuchcall"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
            {"names": ["close"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    }));
    let result = |architecture, number| run(&program, architecture, number, [0; 6]);
    assert_eq!([0, 1, 2, 3].map(|number| result(X86_64, number)), [ALLOW, ERRNO | 5, ERRNO | 1, KILL_PROCESS]);
    // The same names have other numbers there.
    assert_eq!([3, 4, 5, 6].map(|number| result(X86, number)), [ALLOW, ERRNO | 5, ERRNO | 1, KILL_PROCESS]);
    assert_eq!(result(0xc000_00b7, 0), KILL_PROCESS);
    // Above statx, and x32.
    assert_eq!([332, 333, 0x4000_0000].map(|number| result(X86_64, number)), [ALLOW, ERRNO | 38, ERRNO | 38]);
    let native = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!([X86_64, X86].map(|architecture| run(&native, architecture, 3, [0; 6])), [ALLOW, KILL_PROCESS]);
}

#[test]
fn arguments_are_compared_in_all_64_bits() {
    const LARGE: u64 = 0x1_0000_0002;
    for (op, matching, different) in [
        ("NE", vec![0, LARGE + 1, LARGE - (1 << 32)], vec![LARGE]),
        ("EQ", vec![LARGE], vec![2, LARGE + 1, LARGE + (1 << 32)]),
        ("LT", vec![0, LARGE - 1, u64::from(u32::MAX)], vec![LARGE, LARGE + 1, u64::MAX]),
        ("LE", vec![0, LARGE - 1, LARGE], vec![LARGE + 1, 0x2_0000_0000]),
        ("GE", vec![LARGE, LARGE + 1, 0x2_0000_0000], vec![LARGE - 1, 3]),
        ("GT", vec![LARGE + 1, u64::MAX], vec![LARGE, LARGE - 1, u64::from(u32::MAX)]),
    ] {
        let rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 5, "value": LARGE, "op": format!("SCMP_CMP_{op}")}]});
        let program = compiled(json!({"defaultAction": "SCMP_ACT_TRAP", "syscalls": [rule]}));
        let allows = |value: &u64| run(&program, X86_64, 0, [0, 0, 0, 0, 0, *value]) == ALLOW;
        assert!(matching.iter().all(allows), "{op}");
        assert!(!different.iter().any(allows), "{op}");
    }
}

#[test]
fn rules_of_one_call_are_alternatives_and_their_arguments_are_not() {
    // As docker's profile allows namespaces and personalities.
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
    ]}));
    let (clone, personality, socket) = (56, 135, 41);
    let denied = ERRNO | 1;
    for (number, arguments, expected) in [
        (clone, [0x0f00, 0], ALLOW),
        (clone, [0x1000_0000, 0], denied),
        (personality, [0, 0], ALLOW),
        (personality, [8, 0], 0x7ffc_0000),
        (personality, [9, 0], denied),
        (socket, [1, 2], ALLOW),
        (socket, [1, 3], denied),
        (socket, [2, 2], denied),
        (0, [1, 0], ALLOW),
    ] {
        let arguments = [arguments[0], arguments[1], 0, 0, 0, 0];
        assert_eq!(run(&program, X86_64, number, arguments), expected, "{number} {arguments:?}");
    }
}

#[test]
fn invalid_profiles_are_rejected_by_name() {
    let comparison = |index: u8, op: &str| json!({"index": index, "value": 0, "op": op});
    let with = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let rule = |value: u32| {
        let argument = json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
        json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [argument]})
    };
    let many: Vec<_> = (0..2000).map(rule).collect();
    let many = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many});
    for (profile, object) in [
        (json!({}), "defaultAction"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "SCMP_ACT_NOTIFY"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_AARCH64"]}), "architectures"),
        (with(json!({"names": ["read"], "action": "DENY"})), "DENY"),
        (with(json!({"names": "read", "action": "SCMP_ACT_LOG"})), "sequence"),
        (with(json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [comparison(6, "SCMP_CMP_EQ")]})), "args"),
        (with(json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [comparison(0, "EQ")]})), "EQ"),
        (many, "4096"),
    ] {
        let message = compile(&profile).unwrap_err().to_string();
        assert!(message.contains(object), "{message}");
    }
}
