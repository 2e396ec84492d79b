// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--change INSTRUCTION`: a line of a Dockerfile that changes an image's configuration.

use serde_json::{Map, Value, json};
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageChangeError {
    #[error(
        "expected one of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR, and its arguments"
    )]
    Instruction,
    #[error("{0}: expected NAME=VALUE")]
    Pair(&'static str),
    #[error("{0}: a quotation mark is not closed")]
    Quotes(&'static str),
    #[error("{0}: expected a list of strings, like [\"sh\", \"-c\", \"x\"]")]
    List(&'static str),
    #[error("EXPOSE: `{0}` is not PORT[/tcp|udp]")]
    Port(String),
    #[error("WORKDIR and VOLUME: `{0}` is not an absolute path")]
    Path(String),
}

/// The field that changes, and its new value, or for a list or an object what is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageChange {
    field: &'static str,
    value: Value,
}

impl ImageChange {
    /// Changes the object `config` of an image's configuration.
    pub(crate) fn apply(&self, config: &mut Map<String, Value>) {
        let there = config.entry(self.field).or_insert(Value::Null);
        match (self.field, &self.value) {
            ("Env", Value::Array(added)) => {
                let mut all = there.as_array().cloned().unwrap_or_default();
                let name = |value: &Value| {
                    value.as_str().and_then(|text| text.split_once('=')).map(|(name, _)| name.to_owned())
                };
                for variable in added {
                    all.retain(|old| name(old) != name(variable));
                    all.push(variable.clone());
                }
                *there = all.into();
            }
            (_, Value::Object(added)) => {
                let mut all = there.as_object().cloned().unwrap_or_default();
                all.extend(added.clone());
                *there = all.into();
            }
            (_, value) => *there = value.clone(),
        }
    }
}

impl FromStr for ImageChange {
    type Err = ImageChangeError;

    fn from_str(text: &str) -> Result<Self, ImageChangeError> {
        let (instruction, arguments) =
            text.trim().split_once(char::is_whitespace).ok_or(ImageChangeError::Instruction)?;
        let arguments = arguments.trim();
        let (field, value) = match instruction.to_ascii_uppercase().as_str() {
            "CMD" => ("Cmd", command("CMD", arguments)?),
            "ENTRYPOINT" => ("Entrypoint", command("ENTRYPOINT", arguments)?),
            "ENV" => {
                ("Env", pairs("ENV", arguments)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
            }
            "LABEL" => (
                "Labels",
                Value::Object(
                    pairs("LABEL", arguments)?.into_iter().map(|(name, value)| (name, value.into())).collect(),
                ),
            ),
            "EXPOSE" => ("ExposedPorts", set(words("EXPOSE", arguments)?.iter().map(|word| exposed(word)))?),
            "VOLUME" => ("Volumes", set(list_or_words("VOLUME", arguments)?.iter().map(|path| absolute(path)))?),
            "WORKDIR" => ("WorkingDir", absolute(arguments)?.into()),
            "USER" => ("User", arguments.into()),
            "STOPSIGNAL" => ("StopSignal", arguments.into()),
            _ => return Err(ImageChangeError::Instruction),
        };
        Ok(Self { field, value })
    }
}

/// A list, or a line for the shell.
fn command(instruction: &'static str, text: &str) -> Result<Value, ImageChangeError> {
    match text.starts_with('[') {
        true => Ok(list(instruction, text)?.into()),
        false => Ok(json!(["/bin/sh", "-c", text])),
    }
}

fn list(instruction: &'static str, text: &str) -> Result<Vec<String>, ImageChangeError> {
    serde_json::from_str(text).map_err(|_| ImageChangeError::List(instruction))
}

fn list_or_words(instruction: &'static str, text: &str) -> Result<Vec<String>, ImageChangeError> {
    if text.starts_with('[') { list(instruction, text) } else { words(instruction, text) }
}

/// Words as the shell separates them.
fn words(instruction: &'static str, text: &str) -> Result<Vec<String>, ImageChangeError> {
    shlex::split(text).ok_or(ImageChangeError::Quotes(instruction))
}

/// `NAME=VALUE...`, or the old form `NAME VALUE`.
fn pairs(instruction: &'static str, text: &str) -> Result<Vec<(String, String)>, ImageChangeError> {
    let words = words(instruction, text)?;
    let is_old = words.first().is_some_and(|word| !word.contains('='));
    if let Some((name, value)) = text.split_once(char::is_whitespace).filter(|_| is_old) {
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let pair = word.split_once('=').filter(|(name, _)| !name.is_empty());
        pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or(ImageChangeError::Pair(instruction))
    };
    words.iter().map(pair).collect()
}

/// The keys of an object whose values are empty.
fn set(keys: impl Iterator<Item = Result<String, ImageChangeError>>) -> Result<Value, ImageChangeError> {
    let object: Map<String, Value> = keys.map(|key| Ok((key?, json!({})))).collect::<Result<_, ImageChangeError>>()?;
    Ok(object.into())
}

fn exposed(word: &str) -> Result<String, ImageChangeError> {
    let (port, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let number = port.parse::<u16>().ok().filter(|number| *number > 0);
    match number.filter(|_| ["tcp", "udp"].contains(&protocol)) {
        Some(number) => Ok(format!("{number}/{protocol}")),
        None => Err(ImageChangeError::Port(word.to_owned())),
    }
}

fn absolute(path: &str) -> Result<String, ImageChangeError> {
    if path.starts_with('/') { Ok(path.to_owned()) } else { Err(ImageChangeError::Path(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = Map::new();
        for line in [
            "CMD [\"python3\", \"/x y\"]",
            "entrypoint exec sh",
            "ENV A=1 B=\"two words\" A=3",
            "ENV C three words",
            "LABEL \"a b\"=c",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "VOLUME /more /log",
            "WORKDIR /srv",
            "USER app:app",
            "STOPSIGNAL SIGINT",
        ] {
            line.parse::<ImageChange>().unwrap().apply(&mut config);
        }
        let expected = json!({
            "Cmd": ["python3", "/x y"],
            "Entrypoint": ["/bin/sh", "-c", "exec sh"],
            "Env": ["B=two words", "A=3", "C=three words"],
            "Labels": { "a b": "c" },
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "Volumes": { "/data": {}, "/more": {}, "/log": {} },
            "WorkingDir": "/srv",
            "User": "app:app",
            "StopSignal": "SIGINT",
        });
        assert_eq!(Value::Object(config), expected);
    }

    #[test]
    fn invalid_instructions_are_rejected() {
        for (line, object) in [
            ("", "CMD"),
            ("CMD", "CMD"),
            ("RUN make", "ENTRYPOINT"),
            ("CMD [\"a\"", "CMD: expected a list"),
            ("ENTRYPOINT [1]", "ENTRYPOINT: expected a list"),
            ("ENV A", "ENV: expected NAME=VALUE"),
            ("ENV =1", "ENV: expected NAME=VALUE"),
            ("LABEL a=\"b", "LABEL: a quotation mark"),
            ("EXPOSE 0", "`0`"),
            ("EXPOSE 80/sctp", "80/sctp"),
            ("WORKDIR srv", "`srv`"),
            ("VOLUME data", "`data`"),
        ] {
            let error = line.parse::<ImageChange>().unwrap_err().to_string();
            assert!(error.contains(object), "{line}: {error}");
        }
    }
}
