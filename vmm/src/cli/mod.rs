// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: one file a verb. Every message on stderr is one line that begins with `coracle: `.

mod arguments;
mod attach;
mod check;
mod commit;
mod completion;
mod cp;
mod create;
mod diff;
mod disk;
mod events;
mod exec;
mod export;
mod fork;
mod history;
mod image;
mod image_check;
mod image_export;
mod image_inspect;
mod images;
mod import;
mod layer;
mod list;
mod load;
mod logging;
mod logs;
mod machines;
mod man;
mod network;
mod oci;
mod pause;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod restore;
mod rm;
mod rmi;
mod run;
mod save;
mod snapshot;
mod snapshot_inspect;
mod snapshot_store;
mod start;
mod stats;
mod status;
mod stop;
mod table;
mod tag;
mod template;
mod update;
mod volume;
mod wait;
mod words;

use crate::host::{allocator, panics, signals, stack_limit};
use crate::run::failure::{self, Failure};
use crate::state::end::{EndReason, STATUS_FAILED};
use crate::state::stages::Stages;
use arguments::{Arguments, Verb};
use clap::Parser as _;
use clap::error::ErrorKind;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Executes the command line `words`, whose first word is the program's name, and returns the exit status. `stages` started with
/// the process. A panic is one line, too.
pub fn main(words: impl Iterator<Item = OsString>, stages: Stages) -> u8 {
    signals::reset_inherited();
    allocator::use_one_heap();
    panics::install_hook();
    if let Err(error) = stack_limit::raise() {
        return failure::fail(&Failure::new(EndReason::HostError, error));
    }
    let dispatch = AssertUnwindSafe(|| dispatch(words, stages));
    catch_unwind(dispatch).unwrap_or_else(|_| failure::fail(&Failure::from_panic()))
}

fn dispatch(words: impl Iterator<Item = OsString>, stages: Stages) -> u8 {
    let mut words = words.peekable();
    if words.peek().is_some_and(|program| Path::new(program).file_name() == Some(OsStr::new(oci::PROGRAM))) {
        return oci::oci_words(words.skip(1).collect());
    }
    let verb = match Arguments::try_parse_from(words) {
        Ok(Arguments { verb }) => verb,
        Err(error) => return help_or_usage_error(&error),
    };
    match verb {
        Verb::Run(arguments) => run::run(*arguments, stages),
        Verb::Create(arguments) => create::create(*arguments, stages),
        Verb::Start(arguments) => start::start(&arguments, &stages),
        Verb::Diff(arguments) => diff::diff(&arguments),
        Verb::Commit(arguments) => commit::commit(&arguments),
        Verb::Export(arguments) => export::export(&arguments),
        Verb::Cp(arguments) => cp::cp(&arguments),
        Verb::Check(arguments) => check::check(*arguments, stages),
        Verb::Pull(arguments) => pull::pull(&arguments),
        Verb::Push(arguments) => push::push(&arguments),
        Verb::Images(arguments) => images::images(&arguments),
        Verb::Rmi(arguments) => rmi::rmi(&arguments),
        Verb::Tag(arguments) => tag::tag(&arguments),
        Verb::History(arguments) => history::history(&arguments),
        Verb::Load(arguments) => load::load(&arguments),
        Verb::Import(arguments) => import::import(&arguments),
        Verb::Save(arguments) => save::save(&arguments),
        Verb::Image(arguments) => image::image(&arguments),
        Verb::Volume(arguments) => volume::volume(&arguments),
        Verb::Template(arguments) => template::template(&arguments),
        Verb::Network(arguments) => network::network(&arguments),
        Verb::Ps(arguments) => ps::ps(&arguments),
        Verb::Status(arguments) => status::status(&arguments),
        Verb::Logs(arguments) => logs::logs(&arguments),
        Verb::Events(arguments) => events::events(&arguments),
        Verb::Exec(arguments) => exec::exec(&arguments),
        Verb::Attach(arguments) => attach::attach(&arguments),
        Verb::Stats(arguments) => stats::stats(&arguments),
        Verb::Port(arguments) => port::port(&arguments),
        Verb::Wait(arguments) => wait::wait(&arguments),
        Verb::Stop(arguments) => stop::stop(&arguments),
        Verb::Kill(arguments) => stop::kill(&arguments),
        Verb::Pause(arguments) => pause::pause(&arguments),
        Verb::Resume(arguments) => pause::resume(&arguments),
        Verb::Disk(arguments) => disk::disk(&arguments),
        Verb::Update(arguments) => update::update(&arguments),
        Verb::Snapshot(arguments) => snapshot::snapshot(&arguments),
        Verb::Restore(arguments) => restore::restore(arguments, stages),
        Verb::Fork(arguments) => fork::fork(&arguments),
        Verb::Layer(arguments) => layer::layer(&arguments),
        Verb::Rm(arguments) => rm::rm(&arguments),
        Verb::Completion(arguments) => completion::completion(&arguments),
        Verb::Man(arguments) => man::man(&arguments),
        Verb::Oci(arguments) => oci::oci(arguments),
        Verb::OciMonitor(arguments) => oci::monitor(&arguments, stages),
    }
}

/// Help on request is a success; a usage error is one line and status 125.
fn help_or_usage_error(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            machines::print(&text);
            return 0;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        _ => failure::print_error(&usage_error(&text)),
    }
    STATUS_FAILED
}

/// clap's message as one line: its first paragraph, then its tips. Usage is left to `--help`.
fn usage_error(rendered: &str) -> String {
    let paragraph = rendered.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    let message = paragraph.collect::<Vec<_>>().join(" ");
    let tips = rendered.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    // A word with a hyphen in the place of IMAGE or MACHINE is hardly ever meant.
    let tips = tips.filter(|tip| !tip.starts_with("to pass "));
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    std::iter::once(message).chain(tips).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, CommandFactory as _};

    fn error_of(words: &[&str]) -> String {
        let words = ["coracle"].iter().chain(words);
        usage_error(&Arguments::try_parse_from(words).unwrap_err().render().to_string())
    }

    #[test]
    fn usage_error_is_one_line_that_names_option_and_value() {
        for (words, objects) in [
            (&["--no-such-option", "oci:x"][..], &["--no-such-option"][..]),
            (&["-m", "63m", "oci:x"], &["--memory", "63m", "the minimum is 64m"]),
            (&["-m", "-5m", "oci:x"], &["--memory", "-5m"]),
            (&["-m", "", "oci:x"], &["--memory"]),
            (&["--cpus", "1.5", "oci:x"], &["--cpus", "1.5", "fraction"]),
            (&["-h", "-leading", "oci:x"], &["--hostname", "-leading"]),
            (&["--name", "one", "--id", "other", "oci:x"], &["--name", "--id"]),
            (&["--scratch", "8g", "--scratch", "tmpfs", "oci:x"], &["--scratch"]),
            (&["-e", "=value", "oci:x"], &["--env", "=value"]),
            (&["--sandbox", "perhaps", "oci:x"], &["--sandbox", "perhaps"]),
        ] {
            let line = error_of(&[&["run"], words].concat());
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
            assert!(objects.iter().all(|object| line.contains(object)), "{words:?}: {line}");
        }
    }

    #[test]
    fn usage_error_includes_claps_tip() {
        for (words, expected) in [
            (
                &["run", "--memroy", "1g", "oci:X"][..],
                "unexpected argument '--memroy' found: a similar argument exists: '--memory'",
            ),
            (&["runn"], "unrecognized subcommand 'runn': a similar subcommand exists: 'run'"),
            (&["--memory", "1g", "run"], "unexpected argument '--memory' found: 'run --memory' exists"),
            (
                &["completion", "bsh"],
                "invalid value 'bsh' for '<SHELL>' [possible values: bash, zsh, fish]: a similar value exists: 'bash'",
            ),
            (&["exec", "-Q", "m", "sh"], "unexpected argument '-Q' found"),
            (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        ] {
            assert_eq!(error_of(words), expected);
        }
    }

    #[test]
    fn definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_fits_80_columns() {
        fn check(command: &mut Command) {
            for text in [command.render_help(), command.render_long_help()] {
                for line in text.to_string().lines() {
                    assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
                }
            }
            command.get_subcommands_mut().for_each(check);
        }
        let mut command = Arguments::command();
        command.build();
        check(&mut command);
    }
}
