// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `check`: prints the steps of a start, one line each, and on stderr the line of the first that failed, as `run` would.

use super::arguments::CheckArguments;
use super::machines::{json_text, print};
use crate::run::check::{Step, check as check_all};
use crate::run::failure;
use crate::state::end::STATUS_FAILED;
use crate::state::stages::Stages;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Findings {
    ok: bool,
    steps: Vec<Step>,
}

/// Prints the findings and returns the exit status.
pub(super) fn check(arguments: CheckArguments, stages: Stages) -> u8 {
    let json = arguments.json;
    let request = match arguments.request() {
        Ok(request) => request,
        Err(failure) => return failure::fail(&failure),
    };
    super::logging::start(request.log_level.unwrap_or_default());
    let steps = check_all(&request, stages);
    let findings = Findings { ok: steps.iter().all(|step| step.ok), steps };
    let text = if json { json_text(&findings) } else { findings.steps.iter().map(line).collect() };
    print(&text);
    match findings.steps.iter().find(|step| !step.ok) {
        Some(step) => {
            failure::print_error(&step.detail);
            STATUS_FAILED
        }
        None => 0,
    }
}

fn line(step: &Step) -> String {
    let mark = if step.ok { "ok  " } else { "FAIL" };
    format!("{mark}  {:<14} {}\n", step.name, step.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_the_reason_on_its_line() {
        let step = |name, ok, detail: &str| line(&Step { name, ok, detail: detail.into() });
        assert_eq!(step("kernel", false, "no guest kernel"), "FAIL  kernel         no guest kernel\n");
        assert_eq!(step("kvm", true, "/dev/kvm"), "ok    kvm            /dev/kvm\n");
    }
}
