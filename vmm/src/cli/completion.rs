// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `completion`: a shell's completion script, generated from the parser.

use super::arguments::Arguments;
use super::machines::print;
use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::{Shell, generate};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle completion bash > /etc/bash_completion.d/coracle
  coracle completion fish > ~/.config/fish/completions/coracle.fish
  source <(coracle completion zsh)")]
pub(super) struct CompletionArguments {
    /// The shell
    shell: SupportedShell,
}

/// The shells that the scripts are tested with.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SupportedShell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script and returns the exit status.
pub(super) fn completion(arguments: &CompletionArguments) -> u8 {
    let shell = match arguments.shell {
        SupportedShell::Bash => Shell::Bash,
        SupportedShell::Zsh => Shell::Zsh,
        SupportedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "coracle", &mut script);
    print(&String::from_utf8_lossy(&script));
    0
}
