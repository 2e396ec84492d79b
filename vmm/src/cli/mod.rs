// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: one file a verb. Everything that a person reads of coracle on stderr is one line that begins with
//! `coracle: `.

mod arguments;
mod attach;
mod check;
mod completion;
mod events;
mod exec;
mod logging;
mod logs;
mod machines;
mod pause;
mod ps;
mod rm;
mod run;
mod stats;
mod status;
mod stop;
mod table;
mod wait;
mod words;

use crate::host::panics;
use crate::run::failure::{self, Failure};
use crate::state::end::STATUS_FAILED;
use crate::state::stages::Stages;
use arguments::{Arguments, Verb};
use clap::Parser as _;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does what `words` ask for, the first of which is the program's name, and returns the exit status. `stages` has been
/// running since the process began. A panic is one line, too.
pub fn main(words: impl Iterator<Item = OsString>, stages: Stages) -> u8 {
    panics::keep();
    let obey = AssertUnwindSafe(|| obey(words, stages));
    catch_unwind(obey).unwrap_or_else(|_| failure::fail(&Failure::from_panic()))
}

fn obey(words: impl Iterator<Item = OsString>, stages: Stages) -> u8 {
    let verb = match Arguments::try_parse_from(words) {
        Ok(Arguments { verb }) => verb,
        Err(error) => return refuse(&error),
    };
    match verb {
        Verb::Run(arguments) => run::run(*arguments, stages),
        Verb::Check(arguments) => check::check(*arguments),
        Verb::Ps(arguments) => ps::ps(&arguments),
        Verb::Status(arguments) => status::status(&arguments),
        Verb::Logs(arguments) => logs::logs(&arguments),
        Verb::Events(arguments) => events::events(&arguments),
        Verb::Exec(arguments) => exec::exec(&arguments),
        Verb::Attach(arguments) => attach::attach(&arguments),
        Verb::Stats(arguments) => stats::stats(&arguments),
        Verb::Wait(arguments) => wait::wait(&arguments),
        Verb::Stop(arguments) => stop::stop(&arguments),
        Verb::Kill(arguments) => stop::kill(&arguments),
        Verb::Pause(arguments) => pause::pause(&arguments),
        Verb::Resume(arguments) => pause::resume(&arguments),
        Verb::Rm(arguments) => rm::rm(&arguments),
        Verb::Completion(arguments) => completion::completion(&arguments),
    }
}

/// Help that was asked for is a success; everything else is one line.
fn refuse(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever closed stdout does not want to read it.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return 0;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        _ => failure::print_error(&first_paragraph(&text)),
    }
    STATUS_FAILED
}

/// The first paragraph as one line: what is wrong. Usage and hints, which follow, are `--help`'s.
fn first_paragraph(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(words: &[&str]) -> String {
        let words = ["coracle", "run"].iter().chain(words);
        first_paragraph(&Arguments::try_parse_from(words).unwrap_err().render().to_string())
    }

    #[test]
    fn a_refusal_is_one_line_that_names_option_and_value() {
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
            let line = refusal(words);
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
            assert!(objects.iter().all(|object| line.contains(object)), "{words:?}: {line}");
        }
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
