// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a call of the binary left: status, streams, result document. Each assertion prints all of it when it fails.

use crate::running::report;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// A call that has ended.
pub struct Finished {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The result document, if it was written.
    pub result: Option<Value>,
    /// What the guest's kernel wrote to its console.
    pub console: String,
    /// From start to end.
    pub elapsed: Duration,
}

impl Finished {
    /// All of it, as the message of a test's own assertion.
    #[must_use]
    pub fn report(&self) -> String {
        let result = self.result.as_ref().map_or_else(|| "none".into(), ToString::to_string);
        let report = report(&self.command, &self.stdout, self.stderr.as_bytes(), &self.console);
        format!("status: {}\nresult: {result}\n{report}", self.status)
    }

    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The value at a JSON pointer of the result document, or `null`.
    #[must_use]
    pub fn result_at(&self, pointer: &str) -> &Value {
        let result = self.result.as_ref().unwrap_or_else(|| panic!("no result document\n{}", self.report()));
        result.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The process exited with `status`, and so says the result document, if there is one.
    pub fn assert_status(&self, status: i32) -> &Finished {
        assert_eq!(self.status.signal(), None, "killed by a signal\n{}", self.report());
        assert_eq!(self.status.code(), Some(status), "exit status\n{}", self.report());
        if self.result.is_some() {
            assert_eq!(self.result_at("/end/status"), status, "status in the result\n{}", self.report());
        }
        self
    }

    /// The result document has this end reason.
    pub fn assert_reason(&self, reason: &str) -> &Finished {
        assert_eq!(self.result_at("/end/reason"), reason, "reason in the result\n{}", self.report());
        self
    }

    /// Standard output is exactly this.
    pub fn assert_stdout(&self, expected: &str) -> &Finished {
        assert_eq!(self.stdout_text(), expected, "stdout\n{}", self.report());
        self
    }

    /// Standard error is exactly this.
    pub fn assert_stderr(&self, expected: &str) -> &Finished {
        assert_eq!(self.stderr, expected, "stderr\n{}", self.report());
        self
    }

    /// Standard error is one line of coracle's that names each of `objects`, and standard output is empty.
    pub fn assert_one_line_naming(&self, objects: &[&str]) -> &Finished {
        self.assert_stdout("");
        let line = self.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(line.starts_with("coracle: ") && !line.contains('\n'), "not one line of coracle\n{}", self.report());
        for object in objects {
            assert!(line.contains(object), "the line does not name `{object}`\n{}", self.report());
        }
        self
    }
}
