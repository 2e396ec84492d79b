// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A thread's list of system calls as a seccomp filter. A call that is not in it raises SIGSYS (`host/forbidden_call.rs`).

use super::calls::{self, Call, Rule};
use super::thread::Thread;
use rustix::io::Errno;
use rustix::thread::{SecureComputingMode, set_secure_computing_mode};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Of the calls that the thread is to find missing; it is applied before [`program`].
pub(super) fn missing(thread: Thread) -> Result<Option<BpfProgram>, BackendError> {
    let rules: BTreeMap<_, _> = calls::of(thread)
        .filter(|call| matches!(call.rule, Rule::Missing))
        .map(|call| (call.number, Vec::new()))
        .collect();
    if rules.is_empty() {
        return Ok(None);
    }
    let error = SeccompAction::Errno(Errno::NOSYS.raw_os_error().unsigned_abs());
    Ok(Some(SeccompFilter::new(rules, SeccompAction::Allow, error, TargetArch::x86_64)?.try_into()?))
}

/// `helpers` are the process IDs for [`Rule::OwnOrHelper`].
pub(super) fn program(thread: Thread, helpers: &[u32]) -> Result<BpfProgram, BackendError> {
    let own = std::process::id();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Call { number, rule, .. } in calls::of(thread) {
        let chain = rules.entry(number).or_default();
        for condition in conditions(rule, own, helpers)? {
            chain.push(SeccompRule::new(vec![condition])?);
        }
    }
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// Whether the kernel has filters: it has if it misses the program.
pub(super) fn is_supported() -> bool {
    set_secure_computing_mode(SecureComputingMode::Filter) == Err(Errno::FAULT)
}

/// Each is an alternative; none at all allows every call.
fn conditions(rule: Rule, own: u32, helpers: &[u32]) -> Result<Vec<SeccompCondition>, BackendError> {
    let equal = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value & u64::from(u32::MAX))
    };
    match rule {
        Rule::Any | Rule::Missing => Ok(Vec::new()),
        Rule::OneOf(argument, values) => values.iter().map(|&value| equal(argument, value)).collect(),
        Rule::Without(argument, bits) => {
            Ok(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), 0)?])
        }
        Rule::Own(argument) => Ok(vec![equal(argument, own.into())?]),
        Rule::OwnOrHelper(argument) => {
            [own].iter().chain(helpers).map(|&process| equal(argument, process.into())).collect()
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
