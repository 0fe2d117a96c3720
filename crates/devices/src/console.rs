//! The host side of a guest console: a terminal, a pty or a file.
//!
//! ```text
//!  vCPU threads                                                       event loop
//!  write() ──> Output (stdout | pty | file)
//!  read()  <── Ring (4 KiB) <── Escape (terminal only) <── pump() <── poll_fd()
//!     └─ made room in a full ring: wakes poll_fd()            └─ Line::trigger()
//! ```
//!
//! What a guest console's registers look like (vty hcalls, a UART, virtio) is its device's business; this is
//! what they share. Always true:
//! - [`write`](Console::write) and [`read`](Console::read) never wait. No lock is held across a system call
//!   on a vCPU's thread.
//! - No input is lost: while the ring is full nothing is read, and whoever sends is held back by the host.
//! - The attributes of a terminal come back on every way out of the process (`console/raw.rs`).
//! - An end of input ends nothing else.

mod escape;
mod output;
mod raw;
mod ring;
#[cfg(test)]
mod tests;

use escape::{Escape, Key};
use irq::Line;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{isatty, read};
use output::Output;
use raw::RawMode;
use ring::Ring;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What Ctrl-A h prints. The lines carry their own carriage returns: the terminal is raw.
const HELP: &[u8] = b"\r\nCtrl-A x  stop the virtual machine\r\n\
                      Ctrl-A a  send Ctrl-A (also Ctrl-A Ctrl-A)\r\n\
                      Ctrl-A h  this help\r\n";

/// Bytes per read of input.
const CHUNK: usize = 512;

/// A console could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The output file.
    #[error("cannot open the console file {}; its directory has to exist and be writable", path.display())]
    File {
        /// As the caller gave it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The pty.
    #[error(
        "cannot open a pty for the console; /dev/pts has to be mounted (mount -t devpts devpts /dev/pts)"
    )]
    Pty(#[source] io::Error),
    /// Standard input or output.
    #[error("cannot use standard input and output as the console; choose a pty or a file")]
    Stdio(#[source] io::Error),
}

/// What [`Console::pump`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pump {
    /// All input there is, or all that fits, is in the ring. More may come.
    Data,
    /// Input has ended, and said so before if it was asked before. Output goes on.
    Eof,
    /// Somebody typed Ctrl-A x.
    Quit,
}

/// A guest console. Shared by the vCPU threads and the event loop.
#[derive(Debug)]
pub struct Console {
    output: Output,
    input: Option<Input>,
    ring: Mutex<Ring>,
    line: Mutex<Option<Line>>,
    /// Readable when [`pump`](Console::pump) has work: it holds the input, edge-triggered, and `kick`.
    poll: Epoll,
    /// Written when there may be input that no edge will tell of: a ring with room again.
    kick: EventFd,
    pty: Option<PathBuf>,
}

#[derive(Debug)]
struct Input {
    fd: OwnedFd,
    kind: Kind,
    /// The event loop's own; no vCPU thread takes it.
    state: Mutex<InputState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A person: raw mode and escape keys.
    Terminal,
    /// A pipe, file or socket: bytes as they come.
    Stream,
    /// The master of our own pty. Nobody on the other side is no end.
    Pty,
}

#[derive(Debug, Default)]
struct InputState {
    escape: Escape,
    raw: Option<RawMode>,
    ended: bool,
}

/// One attempt to read input.
enum Got {
    Bytes(usize),
    Nothing,
    End,
}

impl Console {
    /// Standard input and output. When input is a terminal it becomes raw, and Ctrl-A x, Ctrl-A a and
    /// Ctrl-A h are the escape keys; when it is not, bytes pass unchanged. A terminal that another process
    /// group has is left alone until this one is in the foreground.
    ///
    /// # Errors
    /// [`ConsoleError::Stdio`].
    pub fn stdio() -> Result<Self, ConsoleError> {
        Self::over(io::stdin().as_fd(), io::stdout().as_fd()).map_err(ConsoleError::Stdio)
    }

    fn over(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Self> {
        let kind = if isatty(input).unwrap_or(false) { Kind::Terminal } else { Kind::Stream };
        let input = Input { fd: input.try_clone_to_owned()?, kind, state: Mutex::default() };
        input.claim(&mut lock(&input.state))?;
        Self::new(Output::inherited(output)?, Some(input))
    }

    /// A new pty; [`pty_path`](Console::pty_path) names the side to attach to. While nobody has it open
    /// output is dropped. One may come and go any number of times.
    ///
    /// # Errors
    /// [`ConsoleError::Pty`].
    pub fn pty() -> Result<Self, ConsoleError> {
        Self::open_pty().map_err(ConsoleError::Pty)
    }

    fn open_pty() -> io::Result<Self> {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(ptsname_r(&master)?);
        // Raw, or the line discipline would send the guest's output back to it as an echo. The slave has to
        // have been open once for the kernel to tell that it is closed.
        let slave = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&path)?;
        let mut attributes = tcgetattr(&slave)?;
        cfmakeraw(&mut attributes);
        tcsetattr(&slave, SetArg::TCSANOW, &attributes)?;

        let master = OwnedFd::from(master);
        let input = Input { fd: master.try_clone()?, kind: Kind::Pty, state: Mutex::default() };
        let console = Self::new(Output::pty(master), Some(input))?;
        Ok(Self { pty: Some(path), ..console })
    }

    /// Output to a file, which is created, or emptied if it is there. There is no input.
    ///
    /// # Errors
    /// [`ConsoleError::File`].
    pub fn file(path: &Path) -> Result<Self, ConsoleError> {
        // O_NONBLOCK is for a FIFO: without a reader its open fails instead of waiting for one.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .and_then(|file| Self::new(Output::owned(file.into()), None))
            .map_err(|source| ConsoleError::File { path: path.to_owned(), source })
    }

    fn new(output: Output, input: Option<Input>) -> io::Result<Self> {
        // The first kick covers input that has no edges: epoll refuses regular files and /dev/null (EPERM),
        // which are readable until they end, so room in the ring is all they wait for.
        let kick = EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        poll.add(&kick, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        if let Some(input) = &input {
            // Edges, because a pty without a peer would else report its hang-up without end.
            match poll.add(&input.fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)) {
                Ok(()) | Err(Errno::EPERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self { output, input, ring: Mutex::default(), line: Mutex::default(), poll, kick, pty: None })
    }

    /// The side of the pty to attach to, when the console is one.
    #[must_use]
    pub fn pty_path(&self) -> Option<&Path> {
        self.pty.as_deref()
    }

    /// Guest output. Returns how many bytes were taken; 0 means busy, and the guest has to try again.
    /// Output that has nowhere to go (a closed pipe, a pty without a peer) is taken and dropped.
    ///
    /// Never waits, and can be called from any thread. A regular file is as fast as the page cache.
    #[must_use = "bytes that were not taken have to be offered again"]
    pub fn write(&self, bytes: &[u8]) -> usize {
        self.output.write(bytes)
    }

    /// Guest input: moves what waits into `buf` and returns how many bytes that was. Never waits, and can be
    /// called from any thread.
    #[must_use = "only so many bytes of the buffer are input"]
    pub fn read(&self, buf: &mut [u8]) -> usize {
        let (count, wake) = lock(&self.ring).pop(buf);
        if wake {
            self.kick();
        }
        count
    }

    /// Connects the interrupt line that is triggered when input arrives, in place of the one before.
    pub fn connect(&self, line: Line) {
        *lock(&self.line) = Some(line);
        // An edge that nobody was there to see.
        if !lock(&self.ring).is_empty() {
            self.interrupt();
        }
    }

    /// Readable (`POLLIN`) when [`pump`](Console::pump) has work. The same descriptor for the console's whole
    /// life: while the ring is full or after the end of input it is quiet.
    #[must_use]
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.poll.0.as_fd()
    }

    /// Takes what input there is into the ring and triggers the line if that was any. For the event loop;
    /// one thread at a time. Never waits.
    ///
    /// # Errors
    /// When the console's own descriptors fail. A failing input is an end of input.
    pub fn pump(&self) -> io::Result<Pump> {
        let Some(input) = &self.input else {
            self.take_events()?;
            return Ok(Pump::Eof);
        };
        let mut state = lock(&input.state);
        // Before the reads: an edge after the last read then is still to come.
        self.take_events()?;
        let mut arrived = false;
        let found = loop {
            if state.ended {
                break Pump::Eof;
            }
            let room = lock(&self.ring).room();
            if room == 0 {
                break Pump::Data;
            }
            let mut buf = [0; CHUNK];
            match input.read(&mut state, &mut buf[..room.min(CHUNK)]) {
                Got::Nothing => break Pump::Data,
                Got::End => state.ended = true,
                Got::Bytes(count) => {
                    let (count, quit) = self.filter(input.kind, &mut state.escape, &mut buf[..count]);
                    lock(&self.ring).push(&buf[..count]);
                    arrived |= count > 0;
                    if quit {
                        break Pump::Quit;
                    }
                }
            }
        };
        if arrived {
            self.interrupt();
        }
        Ok(found)
    }

    /// Acts on the escape keys in `bytes` and moves the rest to the front; returns how many are left and
    /// whether to quit. What follows a quit is dropped.
    fn filter(&self, kind: Kind, escape: &mut Escape, bytes: &mut [u8]) -> (usize, bool) {
        if kind != Kind::Terminal {
            return (bytes.len(), false);
        }
        let mut kept = 0;
        for index in 0..bytes.len() {
            match escape.feed(bytes[index]) {
                Key::Pass(byte) => {
                    bytes[kept] = byte;
                    kept += 1;
                }
                Key::Swallow => {}
                // A busy terminal loses the help, which can be asked for again.
                Key::Help => _ = self.output.write(HELP),
                Key::Quit => return (kept, true),
            }
        }
        (kept, false)
    }

    /// Makes the poll descriptor quiet until something new happens.
    fn take_events(&self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 2];
        match self.poll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        match self.kick.read() {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn kick(&self) {
        // It fails only when the counter is about to overflow, and then the event loop is awake anyway.
        _ = self.kick.write(1);
    }

    fn interrupt(&self) {
        // A copy, so that no lock is held in the interrupt controller.
        let line = lock(&self.line).clone();
        if let Some(Err(error)) = line.map(|line| line.trigger()) {
            tracing::warn!(%error, "the console's interrupt could not be raised");
        }
    }
}

impl Input {
    /// Makes a terminal in the foreground raw, once. Returns whether input may be read.
    fn claim(&self, state: &mut InputState) -> io::Result<bool> {
        if self.kind != Kind::Terminal {
            return Ok(true);
        }
        // Reading it, or setting its attributes, from the background would stop the process.
        if raw::in_background(self.fd.as_raw_fd()) {
            return Ok(false);
        }
        if state.raw.is_none() {
            state.raw = Some(RawMode::enter(self.fd.as_fd())?);
        }
        Ok(true)
    }

    fn read(&self, state: &mut InputState, buf: &mut [u8]) -> Got {
        match self.claim(state) {
            Ok(true) => {}
            Ok(false) => return Got::Nothing,
            Err(error) => {
                tracing::warn!(%error, "the terminal cannot be made raw; console input ends");
                return Got::End;
            }
        }
        // An inherited description is shared and may not become non-blocking; the pty's is ours.
        if self.kind != Kind::Pty && !ready(self.fd.as_fd(), PollFlags::POLLIN) {
            return Got::Nothing;
        }
        loop {
            return match read(&self.fd, buf) {
                Err(Errno::EINTR) => continue,
                Ok(0) if self.kind != Kind::Pty => Got::End,
                Ok(0) | Err(Errno::EAGAIN) => Got::Nothing,
                Ok(count) => Got::Bytes(count),
                Err(Errno::EIO) if self.kind == Kind::Pty => Got::Nothing,
                Err(errno) => {
                    tracing::warn!(%errno, "console input ends");
                    Got::End
                }
            };
        }
    }
}

/// Whether the descriptor is ready for what `flags` names; also true when it would fail.
fn ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            found => return found.is_ok_and(|count| count > 0),
        }
    }
}

/// Whether a terminal is raw at the moment, so that a line which the VMM itself prints on it has to end in a
/// carriage return and a line feed.
#[must_use]
pub fn terminal_is_raw() -> bool {
    raw::is_raw()
}

/// A panic while the lock was held leaves no value half-changed that matters: the bytes are what they are.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
