// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting a process: PID 1 forks, and the child sets up its environment and executes a program.
//! The files that the child meets belong to the image and may block for ever, on a file system in
//! user space that does not answer for example. PID 1 therefore never waits for the child without a
//! deadline.
//!
//! The child finds its user, connects its streams, drops to the user, and executes the program, in
//! steps that are the same for every process.
//!
//! A Unix socket carries the outcome from the child to PID 1: a failure, or, once the program is
//! executed, the end of the stream, because `execve` closes the child's end. The master of a
//! terminal, which can only be opened inside the workload's `/dev/pts`, is passed over it as a
//! descriptor. A child that is forked before it is known what it executes reports over it that it is prepared, and gets the
//! rest. Each message to it starts a new packet.

use super::failure::{Failure, Step};
use super::files::read_image_file;
use crate::freestanding::replace_standard_descriptors;
use crate::freestanding::system_call::{
    StringArray, close_all_but, execute, fork, milliseconds_since_boot, send_signal,
};
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::mem::MaybeUninit;
use guest_init::executable;
use guest_init::user::{self, Identity};
use guest_protocol::exec::ExecReport;
use guest_protocol::protocol::{FailureKind, FrameReader, MAX_TO_GUEST, MAX_TO_HOST, encode};
use guest_protocol::run_spec::WindowSize;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fchown, fcntl_setfl, open};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, shutdown, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bound for `/etc/passwd` and `/etc/group`: some 50,000 lines.
const MAX_USER_FILE_SIZE: usize = 4 << 20;
const STEP: &str = "start process";
/// A failure, encoded.
const MESSAGE_BUF_SIZE: usize = 8 << 10;
/// The message that carries the terminal. An encoded failure is longer.
const TERMINAL: &[u8] = b"T";
/// The message of a child that waits for the next one of PID 1.
const PREPARED: &[u8] = b"P";
/// Bytes of a message to such a child.
const PART_BUF_SIZE: usize = 16 << 10;
/// What DHCP adds to a run specification.
const MAX_ADDED: u32 = 64 << 10;
const SIGKILL: u8 = 9;

/// PID 1's ends of a process's pipes. The one that is written to does not block.
pub(crate) struct Pipes {
    /// `None` if the host has no input to relay.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The process's ends of its pipes. `None` is `/dev/null`, unless the process has a terminal.
#[derive(Default)]
pub(crate) struct ChildPipes {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// PID 1's side of a process's standard streams.
pub(crate) enum Streams {
    None,
    Pipes(Pipes),
    /// The master of its terminal.
    Terminal(OwnedFd),
}

pub(crate) fn make_pipes(input: bool) -> Result<(Pipes, ChildPipes), Failure> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).step(STEP, "pipe");
    let ((stdout, child_stdout), (stderr, child_stderr)) = (pipe()?, pipe()?);
    let (mut stdin, mut child_stdin) = (None, None);
    if input {
        let (read_end, write_end) = pipe()?;
        fcntl_setfl(&write_end, OFlags::NONBLOCK).step(STEP, "pipe")?;
        (stdin, child_stdin) = (Some(write_end), Some(read_end));
    }
    let child = ChildPipes { stdin: child_stdin, stdout: Some(child_stdout), stderr: Some(child_stderr) };
    Ok((Pipes { stdin, stdout, stderr }, child))
}

/// The child's end of the socket.
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Passes the master of the child's terminal to PID 1.
    pub(crate) fn send_terminal(&self, master: &OwnedFd) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [master.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[IoSlice::new(TERMINAL)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    /// Reports that this process waits for the next message.
    pub(crate) fn send_prepared(&self) -> Result<(), Errno> {
        send(&self.0, PREPARED, SendFlags::NOSIGNAL).map(drop)
    }

    /// Waits for the next message of [`Launch::send`].
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> Result<M, Failure> {
        let mut reader = FrameReader::new(MAX_TO_GUEST + MAX_ADDED);
        let mut bytes = vec![0; PART_BUF_SIZE];
        loop {
            if let Some(message) = reader.next().map_err(|_| Failure::setup(STEP, "socket", Errno::PROTO))? {
                return Ok(message);
            }
            match recv(&self.0, &mut bytes[..], RecvFlags::empty()).step(STEP, "socket")? {
                (0, _) => return Err(Failure::setup(STEP, "socket", Errno::PIPE)),
                (length, _) => reader.push(&bytes[..length]),
            }
        }
    }

    /// Reports that the child is what it was started for, and executes nothing.
    pub(crate) fn report_started(&self) -> Result<(), Errno> {
        shutdown(&self.0, Shutdown::Both)
    }

    fn send_failure(&self, failure: Failure) {
        let frame = encode(&ExecReport::from(failure));
        // It fails only if PID 1 has given up on this child.
        let _ = sendmsg(&self.0, &[IoSlice::new(&frame)], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
    }
}

/// A process between fork and `execve`.
pub(crate) struct Launch {
    socket: OwnedFd,
    pipes: Option<Pipes>,
    master: Option<OwnedFd>,
    /// The child waits for the next message.
    is_prepared: bool,
    timeout_ms: u64,
    deadline: u64,
}

/// Forks a process with the namespaces of `flags` in the control group `cgroup`. `pipes` are PID
/// 1's ends, and `body` gets the child's. The child keeps only those, `kept` and the channel open,
/// since the workload's processes can see it and, as root, take its descriptors: the ports must not
/// be among them.
pub(crate) fn launch(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    pipes: Option<(Pipes, ChildPipes)>,
    kept: &[BorrowedFd<'_>],
    timeout_ms: u64,
    body: impl FnOnce(&Channel, ChildPipes) -> Result<Infallible, Failure>,
) -> Result<(Pid, OwnedFd, Launch), Failure> {
    let (socket, channel) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step(STEP, "socket")?;
    let (channel, deadline) = (Channel(channel), milliseconds_since_boot() + timeout_ms);
    let (pipes, child_pipes) = pipes.map_or((None, ChildPipes::default()), |(ours, child)| (Some(ours), child));
    let (pid, pidfd) = fork(flags, cgroup, move || {
        let ChildPipes { stdin, stdout, stderr } = &child_pipes;
        let pipes = [stdin, stdout, stderr].into_iter().flatten().map(AsFd::as_fd);
        let open = pipes.chain(kept.iter().copied()).chain([channel.0.as_fd()]);
        let mut open: Vec<i32> = open.map(|descriptor| descriptor.as_raw_fd()).collect();
        let closed = close_all_but(&mut open).step(STEP, "descriptors of PID 1");
        let Err(failure) = closed.and_then(|()| body(&channel, child_pipes));
        channel.send_failure(failure);
    })
    .step(STEP, "new process")?;
    Ok((pid, pidfd, Launch { socket, pipes, master: None, is_prepared: false, timeout_ms, deadline }))
}

impl Launch {
    /// Becomes readable when there is an outcome.
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Whether the child has executed its program; `None` while that is undecided. A child that was
    /// killed counts as executed: its status follows.
    pub(crate) fn outcome(&mut self) -> Option<Result<(), Failure>> {
        loop {
            let mut bytes = [0; MESSAGE_BUF_SIZE];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let length = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                Ok(message) => message.bytes,
                Err(Errno::AGAIN) => return None,
                Err(errno) => return Some(Err(Failure::setup(STEP, "socket", errno))),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                    self.master = descriptors.next();
                }
            }
            match &bytes[..length] {
                [] => return Some(Ok(())),
                TERMINAL => {}
                PREPARED => self.is_prepared = true,
                frame => return Some(Err(decode(frame))),
            }
        }
    }

    /// Blocks until the child has sent that it is prepared, or kills the child of `pidfd` at the deadline.
    pub(crate) fn wait_until_prepared(&mut self, pidfd: &OwnedFd) -> Result<(), Failure> {
        loop {
            match self.outcome() {
                Some(Ok(())) => {
                    return Err(Failure::setup(STEP, "the process ended before it was prepared", Errno::SRCH));
                }
                Some(failed) => return failed,
                None if self.is_prepared => return Ok(()),
                None => self.wait_for_socket(pidfd)?,
            }
        }
    }

    /// Keeps PID 1's ends of the pipes only as far as the process has them.
    pub(crate) fn keep_pipes(&mut self, all: bool, stdin: bool) {
        self.pipes =
            self.pipes.take().filter(|_| all).map(|pipes| Pipes { stdin: pipes.stdin.filter(|_| stdin), ..pipes });
    }

    /// Sends a child that is prepared what comes next. It has `timeout_ms` from now on.
    pub(crate) fn send(&mut self, message: &impl Serialize, timeout_ms: u64) -> Result<(), Failure> {
        self.timeout_ms = timeout_ms;
        self.deadline = milliseconds_since_boot() + timeout_ms;
        self.is_prepared = false;
        for part in encode(message).chunks(PART_BUF_SIZE) {
            match send(&self.socket, part, SendFlags::NOSIGNAL) {
                Ok(_) => {}
                // The child has ended, or ends with a failure: both are an outcome.
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(errno) => return Err(Failure::setup(STEP, "socket", errno)),
            }
        }
        Ok(())
    }

    /// Blocks until there is an outcome, or kills the child of `pidfd` at the deadline.
    pub(crate) fn wait(mut self, pidfd: &OwnedFd) -> Result<Streams, Failure> {
        loop {
            match self.outcome() {
                Some(outcome) => return outcome.map(|()| self.into_streams()),
                None => self.wait_for_socket(pidfd)?,
            }
        }
    }

    fn wait_for_socket(&self, pidfd: &OwnedFd) -> Result<(), Failure> {
        let left = self.deadline.saturating_sub(milliseconds_since_boot());
        if left == 0 {
            let _ = send_signal(pidfd.as_fd(), SIGKILL);
            return Err(self.timed_out());
        }
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut socket, Some(&timespec(left))).step(STEP, "socket").map(drop)
    }

    /// PID 1's side of the streams, once the program was executed.
    pub(crate) fn into_streams(self) -> Streams {
        match (self.pipes, self.master) {
            (Some(pipes), _) => Streams::Pipes(pipes),
            (None, Some(master)) => Streams::Terminal(master),
            (None, None) => Streams::None,
        }
    }

    pub(crate) fn timed_out(&self) -> Failure {
        let detail = format!("the command was not executed within {} s", self.timeout_ms / 1000);
        Failure::new(FailureKind::Setup, STEP, detail)
    }
}

pub(crate) fn timespec(milliseconds: u64) -> Timespec {
    Timespec { tv_sec: (milliseconds / 1000) as i64, tv_nsec: (milliseconds % 1000 * 1_000_000) as i64 }
}

fn decode(frame: &[u8]) -> Failure {
    let mut reader = FrameReader::new(MAX_TO_HOST);
    reader.push(frame);
    match reader.next() {
        Ok(Some(ExecReport::Failed { kind, step, detail, errno })) => {
            Failure { errno, ..Failure::new(kind, step, detail) }
        }
        _ => Failure::setup(STEP, "socket", Errno::PROTO),
    }
}

/// Resolves `specification`, and the names of further `groups`, in the files of this root.
pub(super) fn find_user(specification: &str, groups: &[String]) -> Result<Identity, Failure> {
    const STEP: &str = "find user";
    let read = |path| match read_image_file(path, MAX_USER_FILE_SIZE) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
        // Ids need no file, so that root can enter and repair it.
        Err(_) if ![specification].into_iter().chain(groups.iter().map(|name| &**name)).any(user::has_name) => {
            Ok(Vec::new())
        }
        Err(Errno::INVAL) => Err(Failure::configuration(STEP, format!("{path}: not a regular file"))),
        Err(Errno::FBIG) => Err(Failure::configuration(STEP, format!("{path}: larger than 4 MiB"))),
        outcome => outcome.map_err(|errno| Failure::configuration(STEP, path).with_errno(errno)),
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    let mut identity = user::resolve(specification, &passwd, &group)?;
    user::add_groups(&mut identity, groups, &group)?;
    Ok(identity)
}

pub(super) fn string_array(strings: &[String]) -> Result<StringArray, Failure> {
    let strings: Result<Vec<CString>, _> = strings.iter().map(|string| CString::new(string.as_bytes())).collect();
    let zero_byte = |_| Failure::configuration("execute", "an argument or a variable contains a zero byte");
    strings.map(StringArray::new).map_err(zero_byte)
}

/// Replaces descriptors 0 to 2 by the pipes or by a new terminal, which is also passed to PID 1.
/// They are owned by the user, who can so open `/dev/stdout`. A `controlling` terminal becomes that
/// of the session.
pub(super) fn connect_streams(
    terminal: Option<WindowSize>,
    controlling: bool,
    user: u32,
    channel: &Channel,
    pipes: &ChildPipes,
) -> Result<(), Failure> {
    const STEP: &str = "connect streams";
    if let Some(size) = terminal {
        let (master, slave) = open_terminal(size).step(STEP, "terminal")?;
        change_owner(&slave, user).step(STEP, "terminal")?;
        channel.send_terminal(&master).step(STEP, "terminal")?;
        if controlling {
            rustix::process::ioctl_tiocsctty(&slave).step(STEP, "terminal")?;
        }
        return replace_standard_descriptors(&slave, &slave, &slave).step(STEP, "terminal");
    }
    let ChildPipes { stdin, stdout, stderr } = pipes;
    for pipe in [stdin, stdout, stderr].into_iter().flatten() {
        change_owner(pipe, user).step(STEP, "pipe")?;
    }
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(STEP, "/dev/null")?;
    let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(|pipe| pipe.as_ref().unwrap_or(&null));
    replace_standard_descriptors(stdin, stdout, stderr).step(STEP, "pipe")
}

fn change_owner(stream: &OwnedFd, user: u32) -> Result<(), Errno> {
    if user == 0 { Ok(()) } else { fchown(stream, Some(Uid::from_raw(user)), None) }
}

/// A new pseudo-terminal of this `/dev/pts`: master and slave.
fn open_terminal(size: WindowSize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&master, winsize(size))?;
    Ok((master, slave))
}

/// The kernel's form of `size`.
pub(super) fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Executes `command`, looked up in `path`. Returns only if that fails.
pub(super) fn execute_command(
    command: &str,
    path: &str,
    arguments: &StringArray,
    environment: &StringArray,
) -> Result<Infallible, Failure> {
    Ok(executable::find(command, path, |file| {
        let file = CString::new(file).map_err(|_| Errno::NOENT.raw_os_error())?;
        Err(execute(&file, arguments, environment).raw_os_error())
    })?)
}
