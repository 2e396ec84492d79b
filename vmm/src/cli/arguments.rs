// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Verbs, and the positional arguments of `run` and `check`. The options of `run` are [`Request`]'s.

use super::attach::AttachArguments;
use super::commit::CommitArguments;
use super::completion::CompletionArguments;
use super::cp::CpArguments;
use super::diff::DiffArguments;
use super::disk::DiskArguments;
use super::events::EventsArguments;
use super::exec::ExecArguments;
use super::export::ExportArguments;
use super::fork::ForkArguments;
use super::history::HistoryArguments;
use super::image::ImageArguments;
use super::images::ImagesArguments;
use super::import::ImportArguments;
use super::layer::LayerArguments;
use super::load::LoadArguments;
use super::logs::LogsArguments;
use super::man::ManArguments;
use super::network::NetworkArguments;
use super::oci::{MonitorArguments, OciArguments};
use super::pause::{PauseArguments, ResumeArguments};
use super::port::PortArguments;
use super::ps::PsArguments;
use super::pull::PullArguments;
use super::push::PushArguments;
use super::restore::RestoreArguments;
use super::rm::RmArguments;
use super::rmi::RmiArguments;
use super::save::SaveArguments;
use super::snapshot::SnapshotArguments;
use super::start::StartArguments;
use super::stats::StatsArguments;
use super::status::StatusArguments;
use super::stop::{KillArguments, StopArguments};
use super::tag::TagArguments;
use super::template::TemplateArguments;
use super::update::UpdateArguments;
use super::volume::VolumeArguments;
use super::wait::WaitArguments;
use crate::config::request::Request;
use crate::run::failure::{FailsAs as _, Failure};
use crate::run::restore;
use crate::state::end::EndReason;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Run one container image as one microVM in one process
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 80, after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const AFTER_HELP: &str = "\
Examples:
  coracle run alpine echo hello
  echo hello | coracle run -i oci:DIR cat
  coracle run -it -m 512m --cpus 2 oci-archive:FILE sh
  coracle run -d --name web oci:DIR && coracle logs -f web
  coracle run -dit --name box oci:DIR sh && coracle attach box
  coracle check oci:DIR

Exit status: the workload's own; 128 + n if signal n ended it; 125 if coracle \
failed; 126 or 127 if the command could not be executed or was not found.";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run an image
    Run(Box<RunArguments>),
    /// Make a machine with its writable layer, without starting it
    Create(Box<CreateArguments>),
    Start(StartArguments),
    /// Check host, kernel, image and options without starting
    Check(Box<CheckArguments>),
    Pull(PullArguments),
    Push(PushArguments),
    Images(ImagesArguments),
    Rmi(RmiArguments),
    Tag(TagArguments),
    History(HistoryArguments),
    Load(LoadArguments),
    Import(ImportArguments),
    Save(SaveArguments),
    Image(ImageArguments),
    Volume(VolumeArguments),
    Network(NetworkArguments),
    Template(TemplateArguments),
    Ps(PsArguments),
    Status(StatusArguments),
    Port(PortArguments),
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
    Update(UpdateArguments),
    Disk(DiskArguments),
    Snapshot(SnapshotArguments),
    Restore(RestoreArguments),
    Fork(ForkArguments),
    Layer(LayerArguments),
    Rm(RmArguments),
    Diff(DiffArguments),
    Commit(CommitArguments),
    Export(ExportArguments),
    Cp(CpArguments),
    Completion(CompletionArguments),
    Oci(OciArguments),
    #[command(hide = true)]
    Man(ManArguments),
    #[command(hide = true)]
    OciMonitor(MonitorArguments),
}

/// Run an image with the streams, signals and exit status of its workload
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "coracle run [OPTIONS] IMAGE [COMMAND [ARG]...]\n       coracle run --rootfs FILE [OPTIONS] COMMAND [ARG]...",
    after_help = AFTER_HELP
)]
pub(super) struct RunArguments {
    /// IMAGE (a name, or oci:DIR, oci-archive:FILE or docker-archive:FILE, each with [:TAG]), then the command. Every word
    /// after IMAGE belongs to the command, options included
    #[arg(value_name = "WORD", trailing_var_arg = true)]
    words: Vec<String>,
    #[command(flatten)]
    request: Request,
    /// Read options from a JSON document (`-` is standard input); options given here override it
    #[arg(long, value_name = "FILE|-", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Print the options as such a document instead of running
    #[arg(long, help_heading = "Configuration")]
    pub(super) print_config: bool,
    /// Start a copy from a snapshot, by its name in the store or its directory, in place of an image; with options of this run,
    /// --hostname, --network and ports only
    #[arg(long, value_name = "SNAPSHOT", help_heading = "Machine", conflicts_with_all = ["words", "print_config"],
        value_hint = clap::ValueHint::DirPath)]
    pub(super) from: Option<PathBuf>,
    /// Internal: this is the background process of `run -d`
    #[arg(long, hide = true)]
    pub(super) detached: bool,
    /// Internal: the machine is kept, and starts again on its layer
    #[arg(long, hide = true)]
    pub(super) kept: bool,
    /// Internal: the machine is restored from the snapshot in this directory
    #[arg(long, hide = true)]
    pub(super) restored: Option<PathBuf>,
    /// Internal: the machine is restored from the snapshot in these descriptors
    #[arg(long, hide = true)]
    pub(super) restored_files: Option<String>,
}

/// Make a machine with its writable layer, without starting it
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "coracle create [OPTIONS] IMAGE [COMMAND [ARG]...]",
    after_help = "Examples:\n  coracle create --name web -p 8080:80 nginx && coracle start web"
)]
pub(super) struct CreateArguments {
    #[command(flatten)]
    run: RunArguments,
}

/// Check host, kernel, image and options without starting
#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "coracle check [OPTIONS] [IMAGE [COMMAND [ARG]...]]")]
pub(super) struct CheckArguments {
    #[command(flatten)]
    run: RunArguments,
    /// Print one JSON object instead of lines
    #[arg(long, help_heading = "Check")]
    pub(super) json: bool,
}

impl RunArguments {
    /// The snapshot of `--from`, with the options of the copy.
    ///
    /// # Errors
    /// An option is the saved machine's.
    pub(super) fn copy_options(&self) -> Result<Option<(PathBuf, Request)>, Failure> {
        let Some(snapshot) = &self.from else { return Ok(None) };
        let options = self.options()?;
        restore::check_options(&options)?;
        Ok(Some((snapshot.clone(), options)))
    }

    /// Merges document and options.
    fn options(&self) -> Result<Request, Failure> {
        let Some(path) = &self.config else { return Ok(self.request.clone().without_empty()) };
        if path.as_os_str() == "-" && self.request.interactive {
            let error = "--config -: cannot be used with -i, because both read standard input";
            return Err(Failure::new(EndReason::ConfigError, error));
        }
        let document = Request::read(path).fails_as(EndReason::ConfigError)?;
        document.overridden_by(&self.request).fails_as(EndReason::ConfigError)
    }

    /// Merges document, options and words.
    pub(super) fn request(self) -> Result<Request, Failure> {
        if self.from.is_some() {
            let error = "--from: only `run` starts a copy from a snapshot";
            return Err(Failure::new(EndReason::ConfigError, error));
        }
        let mut request = self.options()?;
        let mut words = self.words.into_iter();
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

impl CreateArguments {
    pub(super) fn request(self) -> Result<Request, Failure> {
        self.run.request()
    }
}

impl CheckArguments {
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
    fn every_word_after_the_image_is_the_commands() {
        let typed = ["--init", "oci:x", "python", "-c", "x", "--memory", "5", "--", "-i", "--help"];
        let request = request(&typed);
        assert_eq!(request.image.as_deref(), Some("oci:x"));
        assert_eq!(request.command, typed[2..]);
        assert!(request.init && request.memory.is_none() && !request.interactive);
    }

    #[test]
    fn options_right_after_the_image_are_the_commands() {
        assert_eq!(request(&["oci:x", "-c", "x"]).command, ["-c", "x"]);
        assert_eq!(request(&["oci:x", "-e", "A=b"]).command, ["-e", "A=b"]);
        assert_eq!(request(&["oci:x"]).command, [""; 0]);
    }

    #[test]
    fn empty_pull_policy_is_as_if_not_given() {
        assert_eq!(request(&["--pull", "", "oci:x"]), request(&["oci:x"]));
        assert_ne!(request(&["--pull", "never", "oci:x"]), request(&["oci:x"]));
    }

    #[test]
    fn every_word_is_the_command_with_rootfs() {
        let request = request(&["--rootfs", "f", "sh", "-c", "x"]);
        assert_eq!((request.image, request.command), (None, vec!["sh".into(), "-c".into(), "x".into()]));
    }

    #[test]
    fn words_replace_image_and_command_of_the_document() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, r#"{"version":1,"image":"oci:x","command":["a","b"]}"#).unwrap();
        let config = file.path().to_str().unwrap();
        let of_document = request(&["--config", config]);
        assert_eq!((of_document.image.as_deref(), of_document.command.len()), (Some("oci:x"), 2));
        let typed = request(&["--config", config, "oci:y", "c"]);
        assert_eq!((typed.image.as_deref(), &*typed.command), (Some("oci:y"), &["c".to_owned()][..]));
    }
}
