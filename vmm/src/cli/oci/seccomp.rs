// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The seccomp profile of a container, compiled to classic BPF for the guest's kernel. Pure.
//!
//! A profile has any number of actions, and covers two architectures, so that 32-bit programs run under it. One program does all
//! of it:
//!
//! ```text
//! architecture -> its section; another one: kill the process
//! section:   a call above all that the profile names: ENOSYS, if the default is another errno
//!            for each call:  return its action, or for rules on arguments, the first that matches, and else the default
//!            default
//! ```

use super::error::DocumentError;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use syscalls::{x86, x86_64};

/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;
const FIELD: &str = "linux.seccomp";

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_NOT_BELOW: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const MAX_DATA: u32 = 0xffff;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// What the kernel calls an architecture, its name in profiles, and the numbers of its calls.
type Architecture = (u32, &'static str, fn(&str) -> Option<u32>);
const NATIVE: Architecture =
    (0xc000_003e, "SCMP_ARCH_X86_64", |name| Some(name.parse::<x86_64::Sysno>().ok()?.id() as u32));
const COMPATIBLE: Architecture =
    (0x4000_0003, "SCMP_ARCH_X86", |name| Some(name.parse::<x86::Sysno>().ok()?.id() as u32));

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Comparison,
}

#[derive(Clone, Copy, Deserialize)]
enum Comparison {
    #[serde(rename = "SCMP_CMP_NE")]
    Different,
    #[serde(rename = "SCMP_CMP_LT")]
    Below,
    #[serde(rename = "SCMP_CMP_LE")]
    NotAbove,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    NotBelow,
    #[serde(rename = "SCMP_CMP_GT")]
    Above,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Where a jump inside of a comparison leads.
#[derive(Clone, Copy)]
enum Target {
    Next,
    /// The comparison is true.
    Pass,
    Fail,
}

/// Compiles `profile`. The result is a sequence of `struct sock_filter`, each as it is in memory.
pub(super) fn compile(profile: &Value) -> Result<Vec<u64>, DocumentError> {
    let profile = Profile::deserialize(profile)
        .map_err(|error| DocumentError::Value(FIELD, "a profile".to_owned(), error.to_string()))?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let is_native = |name: &String| name == NATIVE.1;
    let covered = |name| profile.architectures.iter().any(|other| other == name);
    if !profile.architectures.is_empty() && !profile.architectures.iter().any(is_native) {
        return Err(DocumentError::Field("linux.seccomp.architectures", "a list with SCMP_ARCH_X86_64"));
    }
    let mut program = vec![instruction(LOAD, 0, 0, ARCHITECTURE)];
    for architecture in [NATIVE, COMPATIBLE] {
        if architecture.1 == NATIVE.1 || covered(architecture.1) {
            let section = section(&profile.syscalls, architecture.2, default)?;
            program.extend(unless_equal(architecture.0, &section));
            program.extend(section);
        }
    }
    program.push(instruction(RETURN, 0, 0, KILL_PROCESS));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(DocumentError::Value(
            FIELD,
            format!("{} rules", profile.syscalls.len()),
            format!("it takes {} instructions; the kernel allows {MAX_INSTRUCTIONS}", program.len()),
        ));
    }
    Ok(program)
}

fn section(rules: &[Rule], number: fn(&str) -> Option<u32>, default: u32) -> Result<Vec<u64>, DocumentError> {
    let mut calls: BTreeMap<u32, Vec<(u32, &[Argument])>> = BTreeMap::new();
    for rule in rules {
        let action = action(&rule.action, rule.errno_ret)?;
        // Profiles name calls of every architecture and kernel.
        let arguments = rule.args.as_deref().unwrap_or_default();
        for number in rule.names.iter().filter_map(|name| number(name)) {
            let known = calls.entry(number).or_default();
            // A rule without arguments covers all others.
            match (known.first(), arguments.is_empty()) {
                (Some((_, [])), _) => {}
                (_, true) => *known = vec![(action, &[])],
                (_, false) => known.push((action, arguments)),
            }
        }
    }
    let mut section = vec![instruction(LOAD, 0, 0, NUMBER)];
    // Programs take a fallback for calls that the kernel does not have, and EPERM for a failure.
    if let Some(last) = calls.keys().next_back()
        && default & !MAX_DATA == ERRNO
    {
        section.push(instruction(JUMP_ABOVE, 0, 1, *last));
        section.push(instruction(RETURN, 0, 0, ERRNO | ENOSYS));
    }
    for (number, rules) in calls {
        let mut body = Vec::new();
        for (action, arguments) in &rules {
            body.extend(rule(*action, arguments)?);
        }
        if rules.iter().all(|(_, arguments)| !arguments.is_empty()) {
            body.push(instruction(RETURN, 0, 0, default));
        }
        section.extend(unless_equal(number, &body));
        section.extend(body);
    }
    section.push(instruction(RETURN, 0, 0, default));
    Ok(section)
}

/// Returns `action` if all `arguments` compare as stated, and goes on otherwise.
fn rule(action: u32, arguments: &[Argument]) -> Result<Vec<u64>, DocumentError> {
    const MAX_ARGUMENTS: usize = 6;
    if arguments.len() > MAX_ARGUMENTS || arguments.iter().any(|argument| usize::from(argument.index) >= MAX_ARGUMENTS)
    {
        return Err(DocumentError::Field("linux.seccomp.syscalls.args", "a list of at most 6, with index 0 to 5"));
    }
    let comparisons: Vec<_> = arguments.iter().map(comparison).collect();
    // With the instruction that returns.
    let mut left = comparisons.iter().map(Vec::len).sum::<usize>() + 1;
    let mut program = Vec::new();
    for comparison in comparisons {
        let count = comparison.len();
        for (index, (code, value, jump_true, jump_false)) in comparison.into_iter().enumerate() {
            let distance = |target| match target {
                Target::Next => 0,
                Target::Pass => count - index - 1,
                Target::Fail => left - index - 1,
            };
            let [jump_true, jump_false] = [jump_true, jump_false]
                .map(|target| u8::try_from(distance(target)).expect("six comparisons have at most 49 instructions"));
            program.push(instruction(code, jump_true, jump_false, value));
        }
        left -= count;
    }
    program.push(instruction(RETURN, 0, 0, action));
    Ok(program)
}

fn comparison(argument: &Argument) -> Vec<(u16, u32, Target, Target)> {
    use Target::{Fail, Next, Pass};
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let low = ARGUMENTS + 8 * u32::from(argument.index);
    let (load_high, load_low) = ((LOAD, low + 4, Next, Next), (LOAD, low, Next, Next));
    let (high_value, low_value) = halves(argument.value);
    let order = |code, yes, no| {
        let equal_high = (JUMP_EQUAL, high_value, Next, no);
        vec![load_high, (JUMP_ABOVE, high_value, yes, Next), equal_high, load_low, (code, low_value, yes, no)]
    };
    match argument.op {
        Comparison::Equal => {
            vec![load_high, (JUMP_EQUAL, high_value, Next, Fail), load_low, (JUMP_EQUAL, low_value, Pass, Fail)]
        }
        Comparison::Different => {
            vec![load_high, (JUMP_EQUAL, high_value, Next, Pass), load_low, (JUMP_EQUAL, low_value, Fail, Pass)]
        }
        Comparison::MaskedEqual => {
            let (high_datum, low_datum) = halves(argument.value_two);
            let (mask_high, mask_low) = ((AND, high_value, Next, Next), (AND, low_value, Next, Next));
            let equal_high = (JUMP_EQUAL, high_datum, Next, Fail);
            vec![load_high, mask_high, equal_high, load_low, mask_low, (JUMP_EQUAL, low_datum, Pass, Fail)]
        }
        Comparison::Above => order(JUMP_ABOVE, Pass, Fail),
        Comparison::NotBelow => order(JUMP_NOT_BELOW, Pass, Fail),
        Comparison::NotAbove => order(JUMP_ABOVE, Fail, Pass),
        Comparison::Below => order(JUMP_NOT_BELOW, Fail, Pass),
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, DocumentError> {
    let data = errno.unwrap_or(EPERM) & MAX_DATA;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => ERRNO | data,
        "SCMP_ACT_TRACE" => TRACE | data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        _ => {
            let reason = "it is unknown, or needs a listener on the host".to_owned();
            return Err(DocumentError::Value("seccomp action", name.to_owned(), reason));
        }
    })
}

/// Skips `body` if the accumulator is not `value`.
fn unless_equal(value: u32, body: &[u64]) -> Vec<u64> {
    match u8::try_from(body.len()) {
        Ok(length) => vec![instruction(JUMP_EQUAL, 0, length, value)],
        // A conditional jump reaches no further.
        Err(_) => {
            let length = u32::try_from(body.len()).expect("a document has at most 16 MiB");
            vec![instruction(JUMP_EQUAL, 1, 0, value), instruction(JUMP, 0, 0, length)]
        }
    }
}

/// `struct sock_filter`.
fn instruction(code: u16, jump_true: u8, jump_false: u8, value: u32) -> u64 {
    u64::from(code) | u64::from(jump_true) << 16 | u64::from(jump_false) << 24 | u64::from(value) << 32
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
