// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Process documents: what of the workload's goes into the request, and `exec`. Pure.

use super::error::DocumentError;
use super::{MACHINE, in_container, json, make_own};
use crate::config::environment::EnvVar;
use serde_json::{Map, Value};

/// The workload of a process document.
#[derive(Debug, PartialEq)]
pub(super) struct Process {
    pub(super) args: Vec<String>,
    /// Those that can be variables: `NAME=value`.
    pub(super) env: Vec<EnvVar>,
    pub(super) cwd: String,
    /// `UID:GID`.
    pub(super) user: String,
    pub(super) terminal: bool,
}

impl Process {
    pub(super) fn of(document: &Map<String, Value>) -> Result<Self, DocumentError> {
        let args = json::strings(document, "args")?;
        if args.is_empty() {
            return Err(DocumentError::Field("process.args", "a list with a command"));
        }
        let is_variable = |text: &String| text.find('=').is_some_and(|at| at > 0);
        let env = json::strings(document, "env")?;
        let env = env.iter().filter(|text| is_variable(text)).filter_map(|text| text.parse().ok()).collect();
        let cwd = document.get("cwd").and_then(Value::as_str).filter(|path| path.starts_with('/'));
        let cwd = cwd.ok_or(DocumentError::Field("process.cwd", "an absolute path"))?.to_owned();
        let id = |name| match document.get("user").and_then(|user| user.get(name)) {
            None => Ok(0),
            Some(id) => id.as_u64().ok_or(DocumentError::Field("process.user", "an object with uid and gid")),
        };
        let user = format!("{}:{}", id("uid")?, id("gid")?);
        let terminal = document.get("terminal").and_then(Value::as_bool).unwrap_or_default();
        Ok(Self { args, env, cwd, user, terminal })
    }
}

/// The process document of a client of the machine, which passes the workload's environment on by name: what is in the arguments of
/// a process, every user of the host can read.
pub(super) fn of_exec(mut document: Value) -> Result<Value, DocumentError> {
    let object = document.as_object_mut().ok_or(DocumentError::Field("the document", "an object"))?;
    let process = Process::of(object)?;
    let mut args = vec![in_container("bin/coracle"), "exec".to_owned(), "--interactive".to_owned()];
    if process.terminal {
        args.push("--tty".to_owned());
    }
    args.extend(["--run-dir".to_owned(), in_container("run")]);
    args.extend(["--workdir".to_owned(), process.cwd, "--user".to_owned(), process.user]);
    args.extend(process.env.iter().map(|variable| format!("--env={}", variable.name())));
    args.push(MACHINE.to_owned());
    args.extend(process.args);
    let env: Vec<_> = process.env.iter().map(ToString::to_string).collect();
    object.insert("env".into(), env.into());
    make_own(object, args, &["CAP_DAC_OVERRIDE"]);
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exec_becomes_a_client_with_no_value_in_its_arguments() {
        let document = json!({
            "terminal": true, "cwd": "/srv", "args": ["sh", "-c", "x"], "env": ["PATH=/bin", "SECRET=s3cret", "odd", "=x"],
            "user": {"uid": 7, "gid": 8, "additionalGids": [9]}, "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}],
            "capabilities": {"bounding": ["CAP_KILL"], "ambient": ["CAP_KILL"]}, "selinuxLabel": "kept",
        });
        let changed = of_exec(document).unwrap();
        let words: Vec<_> = changed["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let expected = "/dev/.coracle/bin/coracle exec --interactive --tty --run-dir /dev/.coracle/run --workdir /srv --user 7:8 \
                        --env=PATH --env=SECRET main sh -c x";
        assert_eq!(words.join(" "), expected);
        assert_eq!(changed["env"], json!(["PATH=/bin", "SECRET=s3cret"]));
        assert_eq!((&changed["user"], &changed["cwd"]), (&json!({"uid": 0, "gid": 0}), &json!("/")));
        assert_eq!(changed["capabilities"]["bounding"], json!(["CAP_DAC_OVERRIDE"]));
        assert!(changed["capabilities"].get("ambient").is_none() && changed.get("rlimits").is_none());
        assert_eq!(changed["selinuxLabel"], "kept");
    }

    #[test]
    fn invalid_process_documents_are_rejected_by_field() {
        for (document, field) in [
            (json!([]), "the document"),
            (json!({"cwd": "/"}), "process.args"),
            (json!({"cwd": "/", "args": []}), "process.args"),
            (json!({"cwd": "/", "args": [1]}), "args"),
            (json!({"cwd": "/", "args": ["x"], "env": {}}), "env"),
            (json!({"args": ["x"]}), "process.cwd"),
            (json!({"cwd": "relative", "args": ["x"]}), "process.cwd"),
            (json!({"cwd": "/", "args": ["x"], "user": {"uid": -1}}), "process.user"),
        ] {
            let error = of_exec(document.clone()).unwrap_err();
            assert!(matches!(error, DocumentError::Field(name, _) if name == field), "{document}: {error}");
        }
    }
}
