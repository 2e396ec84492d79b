// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The workload's environment: `-e`, `--env-file`, the image's variables, and what wins. Rules are docker's.

use super::text_form::text_form;
use std::env::VarError;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest file of variables that is read.
const FILE_BYTES: u64 = 16 << 20;

/// No variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VariableError {
    /// Nothing before the `=`.
    #[error("`{0}` has no name before its value")]
    NoName(String),
    /// A name that no shell could have set.
    #[error("the name `{}` holds a blank or control character", .0.escape_debug())]
    Name(String),
    /// Processes cannot have it.
    #[error("the value of {0} holds a NUL byte")]
    Nul(String),
}

/// A file of variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("cannot read environment file {path}")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Larger than any environment.
    #[error("environment file {path} has more than {} MiB", FILE_BYTES >> 20)]
    Size {
        /// File.
        path: PathBuf,
    },
    /// Not text.
    #[error("environment file {0} is not UTF-8 text")]
    Text(PathBuf),
    /// A line that is no variable.
    #[error("environment file {path}, line {line}")]
    Line {
        /// File.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: VariableError,
    },
}

/// `NAME=value`, or `NAME` for the value that the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvVar {
    name: String,
    value: Option<String>,
}

impl FromStr for EnvVar {
    type Err = VariableError;

    fn from_str(text: &str) -> Result<Self, VariableError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(VariableError::NoName(text.to_owned()));
        }
        if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(VariableError::Name(name.to_owned()));
        }
        if value.is_some_and(|value| value.contains('\0')) {
            return Err(VariableError::Nul(name.to_owned()));
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

/// Reads a file of variables: one a line, blank lines and those that begin with `#` are left out.
///
/// # Errors
/// It cannot be read, or a line is no variable.
pub(crate) fn read_files(paths: &[PathBuf]) -> Result<Vec<EnvVar>, FileError> {
    Ok(paths.iter().map(|path| read_file(path)).collect::<Result<Vec<_>, _>>()?.concat())
}

fn read_file(path: &Path) -> Result<Vec<EnvVar>, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(read)?.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(FileError::Size { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::Text(path.to_owned()))?;
    parse_lines(&text).map_err(|(line, source)| FileError::Line { path: path.to_owned(), line, source })
}

fn parse_lines(text: &str) -> Result<Vec<EnvVar>, (usize, VariableError)> {
    let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
    let wanted = lines.map(|(number, line)| (number, line.trim_start()));
    let wanted = wanted.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    wanted.map(|(number, line)| line.parse().map_err(|error| (number, error))).collect()
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
        let is_it = |entry: &String| entry.split_once('=').is_some_and(|(other, _)| other == name);
        let place = complete.iter().position(is_it);
        match (place, value) {
            (Some(place), Some(value)) => complete[place] = format!("{name}={value}"),
            (Some(place), None) => drop(complete.remove(place)),
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
    fn names_are_checked_and_values_are_free() {
        for text in ["=value", "=", ""] {
            assert_eq!(text.parse::<EnvVar>(), Err(VariableError::NoName(text.into())), "{text}");
        }
        for text in ["A B=c", "A\n=c", "\t=x"] {
            assert!(matches!(text.parse::<EnvVar>(), Err(VariableError::Name(_))), "{text}");
        }
        assert_eq!("A=\0".parse::<EnvVar>(), Err(VariableError::Nul("A".into())));
        for text in ["A=b", "A=", "A", "A=b=c \n", "a.b-c=d"] {
            assert_eq!(text.parse::<EnvVar>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_file_has_comments_blank_lines_and_values_with_blanks() {
        let text = "\u{feff}# comment\n\n  A=file\nC=has = and spaces \n#D=no\r\nFROM_HOST\n";
        assert_eq!(parse_lines(text), Ok(variables(&["A=file", "C=has = and spaces ", "FROM_HOST"])));
        assert_eq!(parse_lines("A=b\n=c\n"), Err((2, VariableError::NoName("=c".into()))));
    }

    #[test]
    fn the_later_counts_in_the_place_of_the_earlier() {
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
