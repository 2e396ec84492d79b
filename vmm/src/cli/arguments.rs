// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can be typed: verbs, and the words besides the options. The options themselves are [`Request`]'s.

use super::attach::AttachArguments;
use super::completion::CompletionArguments;
use super::events::EventsArguments;
use super::exec::ExecArguments;
use super::logs::LogsArguments;
use super::pause::{PauseArguments, ResumeArguments};
use super::ps::PsArguments;
use super::rm::RmArguments;
use super::stats::StatsArguments;
use super::status::StatusArguments;
use super::stop::{KillArguments, StopArguments};
use super::wait::WaitArguments;
use crate::config::request::Request;
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Run one container image as one microVM in one process
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 100, after_help = STATUS)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const STATUS: &str = "\
Examples:
  coracle run oci:DIR echo hello
  echo hello | coracle run -i oci:DIR cat
  coracle run -it -m 512m --cpus 2 oci-archive:FILE sh
  coracle run -d --name web oci:DIR && coracle logs -f web
  coracle run -dit --name box oci:DIR sh && coracle attach box
  coracle check oci:DIR

Exit status: the workload's own; 128 + n if signal n ended it; 125 if coracle could not do it;
126 or 127 if the command could not be executed or was not found.";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Start an image and end as its workload ends
    Run(Box<RunArguments>),
    /// Examine host, kernel, image and options without starting
    Check(Box<CheckArguments>),
    Ps(PsArguments),
    Status(StatusArguments),
    Logs(LogsArguments),
    Events(EventsArguments),
    Exec(ExecArguments),
    Attach(AttachArguments),
    Stats(StatsArguments),
    Wait(WaitArguments),
    Stop(StopArguments),
    Kill(KillArguments),
    Pause(PauseArguments),
    Resume(ResumeArguments),
    Rm(RmArguments),
    Completion(CompletionArguments),
}

/// Start an image and end as its workload ends: same streams, same signals, same exit status
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "coracle run [OPTIONS] IMAGE [COMMAND [ARG]...]\n       coracle run --rootfs FILE [OPTIONS] COMMAND [ARG]...",
    after_help = STATUS
)]
pub(super) struct RunArguments {
    /// IMAGE (oci:DIR, oci-archive:FILE or docker-archive:FILE, each with [:TAG]), then the command: every word after IMAGE is the
    /// workload's, whatever it looks like
    #[arg(value_name = "WORD", trailing_var_arg = true)]
    words: Vec<String>,
    #[command(flatten)]
    request: Request,
    /// Read options from a JSON document (`-` is standard input); those typed here come on top
    #[arg(long, value_name = "FILE|-", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Write the options as such a document to standard output instead of running
    #[arg(long, help_heading = "Configuration")]
    pub(super) print_config: bool,
    /// This is the process that another `run -d` started
    #[arg(long, hide = true)]
    pub(super) detached: bool,
}

/// Examine host, kernel, image and options without starting
#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "coracle check [OPTIONS] [IMAGE [COMMAND [ARG]...]]")]
pub(super) struct CheckArguments {
    #[command(flatten)]
    run: RunArguments,
    /// One JSON object instead of lines
    #[arg(long, help_heading = "Check")]
    pub(super) json: bool,
}

impl RunArguments {
    /// Document, options and words together.
    pub(super) fn request(self) -> Result<Request, Failure> {
        let Self { words, request: options, config, .. } = self;
        let mut request = match &config {
            None => options,
            Some(path) => {
                if path.as_os_str() == "-" && options.interactive {
                    let error = "--config - contradicts -i: both read standard input";
                    return Err(Failure::new(EndReason::ConfigError, error));
                }
                let document = Request::read(path).fails_as(EndReason::ConfigError)?;
                document.overridden_by(&options).fails_as(EndReason::ConfigError)?
            }
        };
        let mut words = words.into_iter();
        if request.rootfs.is_none()
            && let Some(image) = words.next()
        {
            request.image = Some(image);
        }
        let command: Vec<String> = words.collect();
        if !command.is_empty() {
            request.command = command;
        }
        Ok(request)
    }
}

impl CheckArguments {
    /// Document, options and words together.
    pub(super) fn request(self) -> Result<Request, Failure> {
        self.run.request()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Request {
        let words = ["coracle", "run"].iter().chain(words);
        match Arguments::try_parse_from(words).unwrap().verb {
            Verb::Run(arguments) => arguments.request().unwrap(),
            _ => unreachable!("the verb is run"),
        }
    }

    #[test]
    fn every_word_after_the_image_is_the_workloads() {
        let typed = ["--init", "oci:x", "python", "-c", "x", "--memory", "5", "--", "-i", "--help"];
        let request = request(&typed);
        assert_eq!(request.image.as_deref(), Some("oci:x"));
        assert_eq!(request.command, typed[2..]);
        assert!(request.init && request.memory.is_none() && !request.interactive);
    }

    #[test]
    fn options_right_after_the_image_are_the_workloads_too() {
        assert_eq!(request(&["oci:x", "-c", "x"]).command, ["-c", "x"]);
        assert_eq!(request(&["oci:x", "-e", "A=b"]).command, ["-e", "A=b"]);
        assert_eq!(request(&["oci:x"]).command, [""; 0]);
    }

    #[test]
    fn with_a_root_file_system_every_word_is_the_command() {
        let request = request(&["--rootfs", "f", "sh", "-c", "x"]);
        assert_eq!((request.image, request.command), (None, vec!["sh".into(), "-c".into(), "x".into()]));
    }

    #[test]
    fn words_take_the_place_of_the_documents() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, r#"{"version":1,"image":"oci:x","command":["a","b"]}"#).unwrap();
        let config = file.path().to_str().unwrap();
        let of_document = request(&["--config", config]);
        assert_eq!((of_document.image.as_deref(), of_document.command.len()), (Some("oci:x"), 2));
        let typed = request(&["--config", config, "oci:y", "c"]);
        assert_eq!((typed.image.as_deref(), &*typed.command), (Some("oci:y"), &["c".to_owned()][..]));
    }
}
