// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel command line, built from typed options and, last, the words of `--append`. Pure; any
//! thread.
//!
//! Words are split as in the kernel (`lib/cmdline.c`, `next_arg`): at blanks outside of double
//! quotes, which do not nest. An option's name ends at the first `=`, and `-` equals `_` in names.

use crate::layout;
use std::fmt::{self, Display};
use vm_memory::GuestAddress;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandLineError {
    #[error("the kernel command line is {length} bytes long; a kernel keeps {}", layout::COMMAND_LINE_SIZE - 1)]
    TooLong {
        /// Without a final NUL.
        length: usize,
    },
    #[error("the kernel command line holds the byte {0:#04x}, which is not printable ASCII")]
    Byte(u8),
    #[error("a double quote on the kernel command line is not closed")]
    OpenQuote,
    /// An option's name or value would be several words.
    #[error("{0:?} is not one word of a kernel command line")]
    NotOneWord(String),
    /// The option would replace coracle's init.
    #[error("the kernel option {0:?} is not supported: it would replace coracle's init")]
    ReplacesInit(String),
}

/// Destination of kernel messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// `hvcN`: a port of the virtio console.
    Virtio(u8),
    /// `ttySN`: a serial port.
    Serial(u8),
}

impl Display for Console {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtio(number) => write!(formatter, "hvc{number}"),
            Self::Serial(number) => write!(formatter, "ttyS{number}"),
        }
    }
}

/// Options that replace `/init` of the initramfs, and the mark that ends the options.
const INIT_OPTIONS: [&str; 5] = ["init", "rdinit", "noinitrd", "initrdmem", "--"];

/// A command line that is always valid: each push checks the word and the total length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
}

impl CommandLine {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an option without a value, such as `quiet`.
    pub fn push_flag(&mut self, name: &str) -> Result<&mut Self, CommandLineError> {
        self.push_words(one_word(name)?)
    }

    /// Adds an option with a value, such as `panic=-1`. A value with blanks is quoted; one with
    /// quotes is an error.
    pub fn push_value(&mut self, name: &str, value: impl Display) -> Result<&mut Self, CommandLineError> {
        one_word(name)?;
        let value = value.to_string();
        if value.contains('"') {
            return Err(CommandLineError::NotOneWord(value));
        }
        let quote = if value.contains(' ') { "\"" } else { "" };
        self.push_words(&format!("{name}={quote}{value}{quote}"))
    }

    /// Adds a console. The kernel writes to all of them; the last one is `/dev/console`.
    pub fn push_console(&mut self, console: Console) -> Result<&mut Self, CommandLineError> {
        self.push_value("console", console)
    }

    /// Adds the first serial port as a console that works from the kernel's first message on.
    pub fn push_early_serial(&mut self) -> Result<&mut Self, CommandLineError> {
        self.push_value("earlycon", format_args!("uart8250,io,{:#x}", layout::COM1))
    }

    /// Adds a virtio-mmio device: its register window and its interrupt line
    /// (Documentation/admin-guide/kernel-parameters.txt of the Linux kernel, `virtio_mmio.device`).
    pub fn push_virtio_mmio(&mut self, window: GuestAddress, line: u32) -> Result<&mut Self, CommandLineError> {
        let kib = layout::VIRTIO_MMIO_WINDOW >> 10;
        self.push_value("virtio_mmio.device", format_args!("{kib}K@{:#x}:{line}", window.0))
    }

    /// Adds the user's words at the end, where they override the others.
    pub fn append(&mut self, words: &str) -> Result<&mut Self, CommandLineError> {
        let words = words.trim_matches(' ');
        check_bytes(words)?;
        for word in split(words) {
            let name = name(word?);
            if INIT_OPTIONS.iter().any(|option| same_name(option, name)) {
                return Err(CommandLineError::ReplacesInit(name.to_owned()));
            }
        }
        self.push_words(words)
    }

    /// Whether an option of this name is on the line, with or without a value.
    #[must_use]
    pub fn contains(&self, option: &str) -> bool {
        split(&self.text).flatten().any(|word| same_name(name(word), option))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The line with its final NUL.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.text.clone().into_bytes();
        bytes.push(0);
        bytes
    }

    fn push_words(&mut self, words: &str) -> Result<&mut Self, CommandLineError> {
        if words.is_empty() {
            return Ok(self);
        }
        check_bytes(words)?;
        let length = self.text.len() + usize::from(!self.text.is_empty()) + words.len();
        if length >= layout::COMMAND_LINE_SIZE {
            return Err(CommandLineError::TooLong { length });
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(words);
        Ok(self)
    }
}

impl Display for CommandLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn check_bytes(words: &str) -> Result<(), CommandLineError> {
    match words.bytes().find(|byte| !matches!(byte, b' '..=b'~')) {
        Some(byte) => Err(CommandLineError::Byte(byte)),
        None => Ok(()),
    }
}

fn one_word(text: &str) -> Result<&str, CommandLineError> {
    if text.is_empty() || text.contains([' ', '"']) {
        return Err(CommandLineError::NotOneWord(text.to_owned()));
    }
    Ok(text)
}

/// Splits `line` into words, including their quotes.
fn split(line: &str) -> impl Iterator<Item = Result<&str, CommandLineError>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest.bytes().position(|byte| {
            quoted ^= byte == b'"';
            byte == b' ' && !quoted
        });
        let (word, following) = rest.split_at(end.unwrap_or(rest.len()));
        rest = following;
        Some(if quoted { Err(CommandLineError::OpenQuote) } else { Ok(word) })
    })
}

/// Returns the option's name in a word, without a quote before it.
fn name(word: &str) -> &str {
    let word = word.strip_prefix('"').unwrap_or(word);
    let word = word.split_once('=').map_or(word, |(name, _)| name);
    word.strip_suffix('"').unwrap_or(word)
}

fn same_name(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}

#[cfg(test)]
#[path = "cmdline_tests.rs"]
mod tests;
