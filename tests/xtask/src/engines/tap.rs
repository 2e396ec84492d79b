// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of `bats --tap`.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Skipped,
    /// With the line that says most about the reason.
    Failed(String),
}

/// Verdicts by the names of the tests. A test without one was not run to its end.
pub(super) fn parse(text: &str) -> BTreeMap<String, Verdict> {
    let mut verdicts = BTreeMap::new();
    let mut failed: Option<(String, String)> = None;
    for line in text.lines() {
        let (passed, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                if let Some((_, reason)) = &mut failed {
                    improve(reason, line);
                }
                continue;
            }
        };
        verdicts.extend(failed.take().map(|(name, reason)| (name, Verdict::Failed(reason))));
        let rest = rest.trim_start_matches(|character: char| character.is_ascii_digit()).trim_start();
        let (name, is_skipped) = rest.split_once(" # skip").map_or((rest, false), |(name, _)| (name, true));
        match (passed, is_skipped) {
            (true, true) => drop(verdicts.insert(name.to_owned(), Verdict::Skipped)),
            (true, false) => drop(verdicts.insert(name.to_owned(), Verdict::Passed)),
            (false, _) => failed = Some((name.to_owned(), String::new())),
        }
    }
    verdicts.extend(failed.map(|(name, reason)| (name, Verdict::Failed(reason))));
    verdicts
}

/// Takes the message of the assertion, which podman's helpers draw a box around; before there is one, what failed.
fn improve(reason: &mut String, line: &str) {
    let line = line.trim_start_matches('#').trim();
    let message = line.strip_prefix("#|").map(str::trim);
    if let Some(message) = message.filter(|_| !reason.starts_with("FAIL:")) {
        *reason = message.to_owned();
    } else if line.ends_with("failed") && reason.is_empty() {
        *reason = line.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_and_reasons_are_parsed() {
        let text = "1..4\nok 1 a - b\nnot ok 2 c\n# (from function `is', line 4)\n#   `is \"$output\"' failed\n# # podman ps\n\
                    # #/vvvvv\n# #|     FAIL: too late\n# #| expected: x\nok 3 d # skip rootless\nnot ok 4 e\n";
        let expected = [
            ("a - b", Verdict::Passed),
            ("c", Verdict::Failed("FAIL: too late".into())),
            ("d", Verdict::Skipped),
            ("e", Verdict::Failed(String::new())),
        ];
        assert_eq!(parse(text), expected.map(|(name, verdict)| (name.to_owned(), verdict)).into());
    }
}
