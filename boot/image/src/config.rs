// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The part of an image's configuration that decides how it runs. Read from the image at every
//! start, so that a root disk in the cache does not depend on which fields are read.

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The image's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The first words of what is executed; the command follows them.
    pub entrypoint: Vec<String>,
    /// Default command, which the user's replaces.
    pub cmd: Vec<String>,
    /// `NAME=value` strings.
    pub env: Vec<String>,
    /// Empty means `/`.
    pub working_dir: String,
    /// A name, a number, `name:group` or `uid:gid`; empty means root. Resolved inside, in the
    /// image's own files.
    pub user: String,
    /// A signal's name or number.
    pub stop_signal: Option<String>,
    /// Paths of persistent data.
    pub volumes: Vec<String>,
    /// For example `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// For commands in shell form; empty means `/bin/sh -c`.
    pub shell: Vec<String>,
    /// The image's document, which the caller parses.
    pub healthcheck: Option<serde_json::Value>,
    pub labels: BTreeMap<String, String>,
}

/// A string of the configuration that cannot be passed to a process.
#[derive(Debug, thiserror::Error)]
#[error("{0} of the image's configuration holds a NUL byte")]
pub struct ConfigError(pub(crate) &'static str);

/// The `config` object of the document. Every field may be absent or null. A null in the place of a
/// string is an empty one, as docker reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigObject {
    entrypoint: Option<Words>,
    cmd: Option<Words>,
    env: Option<Vec<Option<String>>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    shell: Option<Words>,
    healthcheck: Option<serde_json::Value>,
    labels: Option<BTreeMap<String, Option<String>>>,
}

/// A list of words. One string is a list of one word, as docker reads it.
#[derive(Debug)]
struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrList;
        impl<'de> Visitor<'de> for OneOrList {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![word.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element::<Option<String>>()? {
                    words.push(word.unwrap_or_default());
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(OneOrList)
    }
}

impl TryFrom<ConfigObject> for ImageConfig {
    type Error = ConfigError;

    fn try_from(object: ConfigObject) -> Result<Self, ConfigError> {
        let labels = object.labels.unwrap_or_default().into_iter();
        let config = Self {
            entrypoint: object.entrypoint.map_or_else(Vec::new, |words| words.0),
            cmd: object.cmd.map_or_else(Vec::new, |words| words.0),
            env: object.env.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect(),
            working_dir: object.working_dir.unwrap_or_default(),
            user: object.user.unwrap_or_default(),
            stop_signal: object.stop_signal.filter(|signal| !signal.is_empty()),
            volumes: object.volumes.unwrap_or_default().into_keys().collect(),
            exposed_ports: object.exposed_ports.unwrap_or_default().into_keys().collect(),
            shell: object.shell.map_or_else(Vec::new, |words| words.0),
            healthcheck: object.healthcheck,
            labels: labels.map(|(name, value)| (name, value.unwrap_or_default())).collect(),
        };
        let lists =
            [("Entrypoint", &config.entrypoint), ("Cmd", &config.cmd), ("Env", &config.env), ("Shell", &config.shell)];
        for (field, list) in lists {
            if list.iter().any(|text| text.contains('\0')) {
                return Err(ConfigError(field));
            }
        }
        for (field, text) in [("WorkingDir", &config.working_dir), ("User", &config.user)] {
            if text.contains('\0') {
                return Err(ConfigError(field));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ImageConfig, ConfigError> {
        serde_json::from_str::<ConfigObject>(json).unwrap().try_into()
    }

    #[test]
    fn null_and_absent_fields_are_empty() {
        assert_eq!(parse("{}").unwrap(), ImageConfig::default());
        let nulls =
            r#"{"Entrypoint":null,"Cmd":null,"Env":null,"User":null,"Volumes":null,"Labels":null,"StopSignal":""}"#;
        assert_eq!(parse(nulls).unwrap(), ImageConfig::default());
    }

    #[test]
    fn fields_that_docker_writes_are_read() {
        let config = parse(
            r#"{"Hostname":"x","User":"app","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Cmd":["c"],"Entrypoint":["e"],
                "Volumes":{"/data":{}},"WorkingDir":"/w","StopSignal":"SIGQUIT","Labels":{"k":"v"},
                "Shell":["/bin/bash","-c"],"Healthcheck":{"Test":["CMD","true"]}}"#,
        )
        .unwrap();
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app", "/w"));
        assert_eq!((config.volumes, config.exposed_ports), (vec!["/data".into()], vec!["80/tcp".into()]));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(config.labels["k"], "v");
        assert_eq!(config.shell, ["/bin/bash", "-c"]);
        assert_eq!(config.healthcheck.unwrap()["Test"][1], "true");
    }

    #[test]
    fn null_in_the_place_of_a_string_is_an_empty_one() {
        let config = parse(r#"{"Cmd":["a",null],"Env":["A=b",null],"Labels":{"k":null}}"#).unwrap();
        assert_eq!((config.cmd, config.env), (vec!["a".to_owned(), String::new()], vec!["A=b".into(), String::new()]));
        assert_eq!(config.labels["k"], "");
    }

    #[test]
    fn one_string_is_a_list_of_one_word() {
        let config = parse(r#"{"Cmd":"echo hi","Entrypoint":"/init","Shell":"/bin/ash"}"#).unwrap();
        assert_eq!((config.cmd, config.entrypoint), (vec!["echo hi".to_owned()], vec!["/init".to_owned()]));
        assert_eq!(config.shell, ["/bin/ash"]);
        assert!(serde_json::from_str::<ConfigObject>(r#"{"Cmd":5}"#).is_err());
    }

    #[test]
    fn nul_byte_in_a_process_string_is_rejected() {
        assert!(parse(r#"{"Cmd":["a\u0000b"]}"#).unwrap_err().to_string().contains("Cmd"));
        assert!(parse(r#"{"User":"\u0000"}"#).is_err());
    }
}
