// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Process documents: what of the workload's goes into the request, and `exec`. Pure.

use super::error::DocumentError;
use super::settings::parse;
use super::{MACHINE, in_container, json, make_own};
use crate::config::capability::Capability;
use crate::config::environment::EnvVar;
use crate::config::ulimit::Ulimit;
use guest_protocol::attributes::{Capabilities, CapabilitySets, ProcessAttributes};
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
    pub(super) attributes: ProcessAttributes,
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
        Ok(Self { args, env, cwd, user, terminal, attributes: attributes(document)? })
    }
}

fn attributes(document: &Map<String, Value>) -> Result<ProcessAttributes, DocumentError> {
    const USER: DocumentError = DocumentError::Field("process.user", "an object with numbers");
    let user = document.get("user");
    let groups = match user.and_then(|user| user.get("additionalGids")) {
        None | Some(Value::Null) => Vec::new(),
        Some(groups) => {
            let groups = groups.as_array().ok_or(USER)?;
            groups.iter().map(|id| id.as_u64().map(|id| id.to_string()).ok_or(USER)).collect::<Result<_, _>>()?
        }
    };
    let umask = match user.and_then(|user| user.get("umask")) {
        None | Some(Value::Null) => None,
        Some(umask) => Some(umask.as_u64().and_then(|umask| u32::try_from(umask).ok()).ok_or(USER)?),
    };
    let oom_score_adj = match document.get("oomScoreAdj") {
        None | Some(Value::Null) => None,
        Some(number) => {
            let number = number.as_i64().filter(|number| (-1000..=1000).contains(number));
            let number = number.ok_or(DocumentError::Field("process.oomScoreAdj", "a number from -1000 to 1000"))?;
            Some(number as i16)
        }
    };
    Ok(ProcessAttributes {
        limits: limits(document)?.into_iter().map(|Ulimit(limit)| limit).collect(),
        groups,
        umask,
        capabilities: capabilities(document)?,
        no_new_privileges: document.get("noNewPrivileges").and_then(Value::as_bool).unwrap_or_default(),
        oom_score_adj,
    })
}

fn limits(document: &Map<String, Value>) -> Result<Vec<Ulimit>, DocumentError> {
    const RLIMITS: DocumentError =
        DocumentError::Field("process.rlimits", "a list of objects with type, soft and hard");
    let limits = match document.get("rlimits") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(limits) => limits.as_array().ok_or(RLIMITS)?,
    };
    let limit = |limit: &Value| {
        let name = limit.get("type").and_then(Value::as_str).ok_or(RLIMITS)?;
        let value = |key| limit.get(key).and_then(Value::as_u64).ok_or(RLIMITS);
        // RLIM_INFINITY is the largest number.
        let [soft, hard] = [value("soft")?, value("hard")?].map(|value| Some(value).filter(|&value| value != u64::MAX));
        let resource = name.strip_prefix("RLIMIT_").unwrap_or_default().to_ascii_lowercase();
        Ulimit::new(&resource, soft, hard)
            .map_err(|error| DocumentError::Value("process.rlimits", name.to_owned(), error.to_string()))
    };
    limits.iter().map(limit).collect()
}

/// As runc has it, a process without capabilities in its document has none.
fn capabilities(document: &Map<String, Value>) -> Result<Capabilities, DocumentError> {
    let no_sets = Map::new();
    let sets = match document.get("capabilities") {
        None | Some(Value::Null) => &no_sets,
        Some(sets) => sets.as_object().ok_or(DocumentError::Field("process.capabilities", "an object"))?,
    };
    let set = |name: &'static str| {
        let names = json::strings(sets, name)?;
        let mask = |name: &String| parse::<Capability>("process.capabilities", name).map(Capability::mask);
        names.iter().map(mask).try_fold(0, |sum, mask| Ok(sum | mask?))
    };
    Ok(Capabilities::Sets(CapabilitySets {
        bounding: set("bounding")?,
        effective: set("effective")?,
        inheritable: set("inheritable")?,
        permitted: set("permitted")?,
        ambient: set("ambient")?,
    }))
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
    args.push(format!("--attributes={}", serde_json::json!(process.attributes)));
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
        let (attributes, words): (Vec<_>, Vec<_>) =
            words.into_iter().partition(|word| word.starts_with("--attributes="));
        assert_eq!(words.join(" "), expected);
        let attributes = attributes[0].strip_prefix("--attributes=").unwrap();
        let attributes: ProcessAttributes = serde_json::from_str(attributes).unwrap();
        assert_eq!(attributes.groups, ["9"]);
        assert_eq!(attributes.limits, ["nofile=1".parse::<Ulimit>().unwrap().0]);
        let sets = CapabilitySets { bounding: 1 << 5, ambient: 1 << 5, ..CapabilitySets::default() };
        assert_eq!(attributes.capabilities, Capabilities::Sets(sets));
        assert_eq!(changed["env"], json!(["PATH=/bin", "SECRET=s3cret"]));
        assert_eq!((&changed["user"], &changed["cwd"]), (&json!({"uid": 0, "gid": 0}), &json!("/")));
        assert_eq!(changed["capabilities"]["bounding"], json!(["CAP_DAC_OVERRIDE"]));
        assert!(changed["capabilities"].get("ambient").is_none() && changed.get("rlimits").is_none());
        assert_eq!(changed["selinuxLabel"], "kept");
    }

    #[test]
    fn attributes_are_those_of_the_document() {
        let document = json!({
            "user": {"uid": 0, "gid": 0, "umask": 63}, "noNewPrivileges": true, "oomScoreAdj": -500,
            "rlimits": [{"type": "RLIMIT_CORE", "hard": u64::MAX, "soft": 0}],
        });
        let attributes = attributes(document.as_object().unwrap()).unwrap();
        assert_eq!(
            attributes,
            ProcessAttributes {
                limits: vec!["core=0:-1".parse::<Ulimit>().unwrap().0],
                groups: Vec::new(),
                umask: Some(0o077),
                capabilities: Capabilities::Sets(CapabilitySets::default()),
                no_new_privileges: true,
                oom_score_adj: Some(-500),
            }
        );
    }

    #[test]
    fn invalid_attributes_are_rejected_by_name() {
        for (key, value, object) in [
            ("rlimits", json!({}), "process.rlimits"),
            ("rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1}]), "process.rlimits"),
            ("rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": -1, "hard": 1}]), "process.rlimits"),
            ("rlimits", json!([{"type": "RLIMIT_FILES", "soft": 1, "hard": 1}]), "RLIMIT_FILES"),
            ("rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]), "above the hard limit"),
            ("capabilities", json!([]), "process.capabilities"),
            ("capabilities", json!({"bounding": ["CAP_FLY"]}), "CAP_FLY"),
            ("capabilities", json!({"ambient": "CAP_KILL"}), "ambient"),
            ("user", json!({"additionalGids": [-1]}), "process.user"),
            ("user", json!({"additionalGids": 1}), "process.user"),
            ("user", json!({"umask": "022"}), "process.user"),
            ("oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ] {
            let document = json!({key: value});
            let error = attributes(document.as_object().unwrap()).unwrap_err().to_string();
            assert!(error.contains(object), "{document}: {error}");
        }
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
