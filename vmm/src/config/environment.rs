// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The workload's environment: `-e`, `--env-file`, the image's variables, and their order, by docker's rules.

use super::text_form::text_form;
use crate::host::bounded_read;
use std::env::VarError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const MAX_FILE_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvVarError {
    #[error("`{0}` has no name before its value")]
    NoName(String),
    #[error("the name `{}` has a blank or control character", .0.escape_debug())]
    Name(String),
    #[error("the value of {0} has a NUL byte")]
    Nul(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read environment file {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("environment file {path} has more than {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge { path: PathBuf },
    #[error("environment file {0} is not UTF-8 text")]
    NotText(PathBuf),
    #[error("environment file {path}, line {line}")]
    Line { path: PathBuf, line: usize, source: EnvVarError },
}

/// `NAME=value`, or `NAME` for the value that the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvVar {
    name: String,
    value: Option<String>,
}

impl EnvVar {
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `None` if it is the host's.
    #[must_use]
    pub(crate) fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl FromStr for EnvVar {
    type Err = EnvVarError;

    fn from_str(text: &str) -> Result<Self, EnvVarError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(EnvVarError::NoName(text.to_owned()));
        }
        if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(EnvVarError::Name(name.to_owned()));
        }
        if value.is_some_and(|value| value.contains('\0')) {
            return Err(EnvVarError::Nul(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), value: value.map(str::to_owned) })
    }
}

impl fmt::Display for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.value.as_ref().map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

text_form!(EnvVar);

/// Reads files with a variable a line. Blank lines and lines that begin with `#` are skipped.
pub(crate) fn read_files(paths: &[PathBuf]) -> Result<Vec<EnvVar>, FileError> {
    Ok(paths.iter().map(|path| read_file(path)).collect::<Result<Vec<_>, _>>()?.concat())
}

fn read_file(path: &Path) -> Result<Vec<EnvVar>, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let too_large = || FileError::TooLarge { path: path.to_owned() };
    let bytes = bounded_read::read_file(path, MAX_FILE_BYTES).map_err(read)?.ok_or_else(too_large)?;
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText(path.to_owned()))?;
    parse_lines(&text).map_err(|(line, source)| FileError::Line { path: path.to_owned(), line, source })
}

fn parse_lines(text: &str) -> Result<Vec<EnvVar>, (usize, EnvVarError)> {
    let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
    let lines = lines.map(|(number, line)| (number, line.trim_start()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| line.parse().map_err(|error| (number, error))).collect()
}

/// A variable of this process that cannot be passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {0}, which -e or --env-file copies from this environment, is not UTF-8 text")]
pub(crate) struct HostValueError(String);

#[cfg(test)]
impl HostValueError {
    pub(crate) fn of(name: &str) -> Self {
        Self(name.to_owned())
    }
}

/// The value that `name` has in the environment of this process.
pub(crate) fn host_value(name: &str) -> Result<Option<String>, HostValueError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(HostValueError(name.to_owned())),
    }
}

/// The environment of the workload: the image's variables, then those of files, then those of options. A later one replaces an
/// earlier one of the same name in its position. `host` looks up variables without a value. As in docker, an option removes a
/// variable that the host does not have, and a line of a file then has no effect.
pub(crate) fn complete<E>(
    image: &[String],
    files: &[EnvVar],
    options: &[EnvVar],
    host: impl Fn(&str) -> Result<Option<String>, E>,
) -> Result<Vec<String>, E> {
    let mut complete: Vec<String> = Vec::new();
    let mut set = |name: &str, value: Option<String>| {
        let has_name = |entry: &String| entry.split_once('=').is_some_and(|(other, _)| other == name);
        let position = complete.iter().position(has_name);
        match (position, value) {
            (Some(position), Some(value)) => complete[position] = format!("{name}={value}"),
            (Some(position), None) => drop(complete.remove(position)),
            (None, Some(value)) => complete.push(format!("{name}={value}")),
            (None, None) => {}
        }
    };
    for (name, value) in image.iter().filter_map(|entry| entry.split_once('=')) {
        set(name, Some(value.to_owned()));
    }
    for EnvVar { name, value } in files {
        let value = if value.is_some() { value.clone() } else { host(name)? };
        if value.is_some() {
            set(name, value);
        }
    }
    for EnvVar { name, value } in options {
        set(name, if value.is_some() { value.clone() } else { host(name)? });
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(texts: &[&str]) -> Vec<EnvVar> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn from_str_checks_the_name() {
        for text in ["=value", "=", ""] {
            assert_eq!(text.parse::<EnvVar>(), Err(EnvVarError::NoName(text.into())), "{text}");
        }
        for text in ["A B=c", "A\n=c", "\t=x"] {
            assert!(matches!(text.parse::<EnvVar>(), Err(EnvVarError::Name(_))), "{text}");
        }
        assert_eq!("A=\0".parse::<EnvVar>(), Err(EnvVarError::Nul("A".into())));
        for text in ["A=b", "A=", "A", "A=b=c \n", "a.b-c=d"] {
            assert_eq!(text.parse::<EnvVar>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn file_may_have_comments_and_blank_lines() {
        let text = "\u{feff}# comment\n\n  A=file\nC=has = and spaces \n#D=no\r\nFROM_HOST\n";
        assert_eq!(parse_lines(text), Ok(variables(&["A=file", "C=has = and spaces ", "FROM_HOST"])));
        assert_eq!(parse_lines("A=b\n=c\n"), Err((2, EnvVarError::NoName("=c".into()))));
    }

    #[test]
    fn later_variable_replaces_the_earlier_in_place() {
        let image = ["PATH=/bin".to_owned(), "A=image".to_owned(), "B=image".to_owned(), "GONE=image".to_owned()];
        let files = variables(&["A=file", "C=file", "HOST", "NOT_THERE"]);
        let options = variables(&["C=option", "D=option", "GONE", "HOST_TOO"]);
        let host = |name: &str| Ok::<_, ()>(name.starts_with("HOST").then(|| "host".to_owned()));
        let expected = ["PATH=/bin", "A=file", "B=image", "C=option", "HOST=host", "D=option", "HOST_TOO=host"];
        assert_eq!(complete(&image, &files, &options, host).unwrap(), expected);
        let error = complete(&image, &files, &options, |name| Err(name.to_owned()));
        assert_eq!(error, Err("HOST".to_owned()), "a variable that cannot be passed on");
    }
}
