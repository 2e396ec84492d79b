// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The hidden verb `man`: writes the manual pages for `make install`. Names, options and texts are the parser's; the end reasons
//! are the table in `state/end.rs`.

use super::arguments::Arguments;
use super::machines;
use crate::run::failure::FailsAs as _;
use crate::state::end::{EndReason, StatusRule};
use clap::{Args, Command, CommandFactory as _, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Write the manual pages to a directory
#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// The directory; made if missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Writes the pages and returns the exit status.
pub(super) fn man(arguments: &ManArguments) -> u8 {
    machines::status(write_pages(&arguments.directory).fails_as(EndReason::HostError))
}

fn write_pages(directory: &Path) -> Result<(), WriteError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, text) in pages() {
        let path = directory.join(name);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

/// File names and contents: `coracle.1`, then one page a verb, also of those in a group.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut coracle = Arguments::command().disable_help_subcommand(true);
    coracle.build();
    let mut pages = vec![page(&coracle)];
    for verb in visible(&coracle) {
        pages.push(page(verb));
        pages.extend(visible(verb).map(page));
    }
    pages
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn page(command: &Command) -> (String, Vec<u8>) {
    let man = Man::new(command.clone()).source(concat!("coracle ", env!("CARGO_PKG_VERSION"))).manual("Coracle Manual");
    let name = man.get_filename();
    let text = render(&man, command).expect("a vector takes everything that is written to it");
    (name, text)
}

fn render(man: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    after.split("\n\n").filter(|paragraph| !paragraph.is_empty()).for_each(|paragraph| section(&mut roff, paragraph));
    if command.get_name() == "run" {
        end_reasons(&mut roff);
    }
    if command.has_subcommands() {
        let name = |verb: &Command| format!("{}(1)", verb.get_display_name().unwrap_or_else(|| verb.get_name()));
        let pages: Vec<_> = visible(command).map(name).collect();
        roff.control("SH", ["SEE ALSO"]).text([roman(pages.join(", "))]);
    } else {
        roff.control("SH", ["SEE ALSO"]).text([roman("coracle(1)")]);
    }
    roff.to_writer(&mut text)?;
    Ok(text)
}

/// A paragraph after the options as a section. Its title ends with a colon; commands are indented, one a line.
fn section(roff: &mut Roff, paragraph: &str) {
    let titled = paragraph.split_once(':').filter(|(title, _)| ["Examples", "Exit status"].contains(title));
    let (title, text) = titled.unwrap_or(("Notes", paragraph));
    roff.control("SH", [&*title.to_uppercase()]);
    let text = text.trim_start_matches('\n');
    if text.starts_with("  ") {
        roff.control("nf", []);
        for line in text.lines() {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
    } else {
        roff.text([roman(text.trim())]);
    }
}

/// `end.reason` of the result document.
fn end_reasons(roff: &mut Roff) {
    roff.control("SH", ["END REASONS"]);
    roff.text([roman("How the machine ended, as --result, `status` and `events` report it:")]);
    for reason in EndReason::ALL {
        let status = match reason.status_rule() {
            StatusRule::Workload => "The exit status is the workload's own, or 128 + the signal.",
            StatusRule::Killed => "The exit status is 137.",
            StatusRule::Requested => "The exit status is 0 if the guest requested it, 125 if it was unexpected.",
            StatusRule::Rejected => {
                "The exit status is 125; 126 if the command cannot be executed, 127 if it is not found."
            }
            StatusRule::Failed => "The exit status is 125.",
        };
        roff.control("TP", []).text([bold(reason.to_string())]);
        roff.text([roman(format!("{} {status}", reason.description()))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_visible_verb() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("man1");
        write_pages(&base).unwrap();
        for name in [
            "coracle.1",
            "coracle-run.1",
            "coracle-ps.1",
            "coracle-completion.1",
            "coracle-image.1",
            "coracle-image-ls.1",
        ] {
            assert!(base.join(name).is_file(), "{name}");
        }
        for name in ["coracle-man.1", "coracle-help.1", "coracle-image-help.1"] {
            assert!(!base.join(name).exists(), "{name}");
        }
    }

    #[test]
    fn page_of_run_has_options_examples_and_end_reasons() {
        let pages = pages();
        let (_, text) = pages.iter().find(|(name, _)| name == "coracle-run.1").unwrap();
        let text = std::str::from_utf8(text).unwrap();
        for part in [
            "\\-\\-memory",
            ".SH EXAMPLES",
            ".SH \"EXIT STATUS\"",
            ".SH \"END REASONS\"",
            "guest\\-panic",
            "coracle(1)",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("\\-\\-detached"), "hidden");
    }

    #[test]
    fn write_names_a_directory_that_cannot_be_made() {
        let error = write_pages(Path::new("/dev/null/man1")).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /dev/null/man1");
    }
}
