// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One call of the binary, not made yet: arguments, environment, standard streams.

use crate::capture::Capture;
use crate::running::Running;
use crate::{Finished, NetworkNamespace, TestDir, coracle};
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the binary gets as standard input.
pub enum Stdin {
    Null,
    /// A pipe that the test writes to and closes.
    Pipe,
    /// This file or terminal.
    File(File),
}

/// Without [`Invocation::limit`]. A start alone takes up to 100 s on a slow and busy host that emulates guest kernel mode.
const LIMIT: Duration = Duration::from_secs(600);

/// A call of `coracle run`. It has the options that the harness needs: run directory, result, kernel console.
pub struct Invocation {
    wrapper: Vec<OsString>,
    program: Option<PathBuf>,
    /// `--run-dir`, `--result` and `--console`, each with its value.
    harness_options: Vec<OsString>,
    verb: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Stdin,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    limit: Duration,
    default_memory: bool,
    result: PathBuf,
    console: PathBuf,
}

impl Invocation {
    pub(crate) fn new<S: AsRef<str>>(dir: &TestDir, arguments: &[S]) -> Invocation {
        // Runs of one test must not share these two files.
        static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let result = dir.file(&format!("result-{number}.json"));
        let console = dir.file(&format!("console-{number}.log"));
        let options = [("--run-dir", &dir.run_directory()), ("--result", &result), ("--console", &console)];
        let harness_options = options.iter().flat_map(|(name, path)| [(*name).into(), path.into()]).collect();
        let environment = [
            ("PATH".into(), std::env::var_os("PATH").unwrap_or_default()),
            ("HOME".into(), dir.path().join("home").into()),
            ("TMPDIR".into(), dir.temporary().into()),
            ("XDG_CACHE_HOME".into(), dir.cache().into()),
        ];
        Invocation {
            wrapper: Vec::new(),
            program: None,
            harness_options,
            verb: "run",
            arguments: arguments.iter().map(|argument| argument.as_ref().into()).collect(),
            environment: environment.into(),
            stdin: Stdin::Null,
            stdout: None,
            stderr: None,
            limit: LIMIT,
            default_memory: false,
            result,
            console,
        }
    }

    /// With the product's default of `--memory` instead of the harness's.
    #[must_use]
    pub fn default_memory(mut self) -> Invocation {
        self.default_memory = true;
        self
    }

    /// Another verb than `run`; the harness's own options are left out, as they are `run`'s.
    #[must_use]
    pub fn verb(mut self, verb: &'static str) -> Invocation {
        self.verb = verb;
        self.harness_options.clear();
        self
    }

    /// The result somewhere else than into the test.
    #[must_use]
    pub fn result(mut self, destination: &str) -> Invocation {
        self.harness_options[3] = destination.into();
        self
    }

    /// Starts the binary through another program (`setsid --ctty`), which gets its command line after these words and must
    /// end in an `exec` of it.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Invocation {
        self.wrapper = wrapper.iter().map(Into::into).collect();
        self
    }

    /// In the namespaces of `network`; a wrapper is started there.
    #[must_use]
    pub fn in_network(mut self, network: &NetworkNamespace) -> Invocation {
        self.wrapper.splice(..0, network.words().map(OsString::from));
        self
    }

    /// Another copy of the binary.
    #[must_use]
    pub fn program(mut self, path: PathBuf) -> Invocation {
        self.program = Some(path);
        self
    }

    /// Sets a variable of coracle's own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Invocation {
        self.environment.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Invocation {
        self.stdin = stdin;
        self
    }

    /// Standard output somewhere else than into the test.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Invocation {
        self.stdout = Some(stdout.into());
        self
    }

    /// Standard error somewhere else than into the test.
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Invocation {
        self.stderr = Some(stderr.into());
        self
    }

    /// How long the run may take before it is killed and the test fails.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Invocation {
        self.limit = limit;
        self
    }

    #[must_use]
    pub fn start(self) -> Running {
        let mut words = self.wrapper;
        words.push(self.program.unwrap_or_else(|| coracle().to_owned()).into());
        words.push(self.verb.into());
        words.extend(self.harness_options);
        if ["run", "check"].contains(&self.verb) && !decides_network(&self.arguments) {
            // The default network would start a process, and not every host of the tests has a route.
            words.extend(["--network".into(), "none".into()]);
        }
        if ["run", "check"].contains(&self.verb) && !self.default_memory && !decides_memory(&self.arguments) {
            // Enough for most workloads, and the smaller the guest, the earlier they start where guest kernel mode is emulated.
            words.extend(["--memory".into(), "128m".into()]);
        }
        words.extend(self.arguments);
        let shown = words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");

        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(self.environment);
        command.stdin(match self.stdin {
            Stdin::Null => Stdio::null(),
            Stdin::Pipe => Stdio::piped(),
            Stdin::File(file) => file.into(),
        });
        command.stdout(self.stdout.unwrap_or_else(Stdio::piped));
        command.stderr(self.stderr.unwrap_or_else(Stdio::piped));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let stdout = child.stdout.take().map_or_else(|| Capture::start(std::io::empty()), Capture::start);
        let stderr = child.stderr.take().map_or_else(|| Capture::start(std::io::empty()), Capture::start);
        Running::new(child, stdout, stderr, self.limit, shown, self.result, self.console)
    }

    /// Starts it and waits for its end.
    #[must_use]
    pub fn finish(self) -> Finished {
        self.start().finish()
    }
}

/// Whether arguments of `run` have an option that decides the size of memory, or a document that may.
fn decides_memory(arguments: &[OsString]) -> bool {
    let mut texts = arguments.iter().filter_map(|argument| argument.to_str());
    texts.any(|text| ["-m", "--memory", "--config"].contains(&text.split('=').next().unwrap_or_default()))
}

/// Whether arguments of `run` have an option that adds a network, or a document that may.
fn decides_network(arguments: &[OsString]) -> bool {
    const OPTIONS: [&str; 7] = ["--network", "--net", "-p", "-P", "--publish", "--publish-all", "--config"];
    let mut texts = arguments.iter().filter_map(|argument| argument.to_str());
    texts.any(|text| OPTIONS.contains(&text.split('=').next().unwrap_or_default()) || text == "--mac-address")
}
