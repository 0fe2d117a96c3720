//! The other side of the socket: finds a VM by its name or its socket's path, and asks it.

use super::protocol::{self, Command, Info, MAX_ANSWER, Refused, VERSION};
use super::run_dir::{SOCKET, bases};
use super::server::{receive, send};
use crate::exit_code::Outcome;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a VM may take to answer; a pause waits for every vCPU.
const TIME: Duration = Duration::from_secs(15);

/// How long to wait for those whose name alone is asked for.
const INFO_TIME: Duration = Duration::from_secs(2);

/// A VM could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody of that name.
    #[error("no VM named {name} runs; {running}")]
    NoVm {
        /// The name.
        name: String,
        /// Those that do.
        running: String,
    },
    /// Nobody at that path.
    #[error("no VM answers at {}", path.display())]
    NoSocket {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody else's.
    #[error("{} belongs to another user; run cede as that one or as root", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// Another cede.
    #[error(
        "the VM at {} speaks version {theirs} of the protocol, this cede {VERSION}; use the cede that started it",
        path.display()
    )]
    Version {
        /// The socket.
        path: PathBuf,
        /// Its version.
        theirs: u64,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It hangs.
    #[error("the VM at {} did not answer within {} s", path.display(), TIME.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// No answer of ours.
    #[error("what answers at {} is no VM: {what}", path.display())]
    Garbage {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The connection broke.
    #[error("cannot talk to {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    /// How the process ends for it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Silent { .. } | Self::Garbage { .. } | Self::Io { .. } => Outcome::Internal,
            _ => Outcome::Usage,
        }
    }
}

/// A VM that may run.
#[derive(Debug)]
pub struct Client {
    /// Where its socket may be, most likely first.
    sockets: Vec<PathBuf>,
    /// Its name, unless its path was given.
    name: Option<String>,
    bases: Vec<PathBuf>,
}

impl Client {
    /// The VM that `vm` names: by its name, or by the path of its socket, which has a slash. `run_dir` is what
    /// `--run-dir` said.
    #[must_use]
    pub fn new(vm: &str, run_dir: Option<&Path>) -> Self {
        let bases = bases(run_dir);
        if vm.contains('/') {
            return Self { sockets: vec![vm.into()], name: None, bases };
        }
        let sockets = bases.iter().map(|base| base.join(vm).join(SOCKET)).collect();
        Self { sockets, name: Some(vm.to_owned()), bases }
    }

    /// Asks it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask<T: DeserializeOwned>(&self, command: &Command) -> Result<T, ClientError> {
        let mut denied = None;
        for path in &self.sockets {
            match UnixStream::connect(path) {
                Ok(stream) => return ask(stream, path, command, TIME),
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::NotADirectory => {}
                    io::ErrorKind::PermissionDenied => denied = denied.or(Some(path)),
                    _ => return Err(ClientError::Io { path: path.clone(), source: error }),
                },
            }
        }
        Err(match (denied, &self.name, self.sockets.first()) {
            (Some(path), _, _) => ClientError::Permission { path: path.clone() },
            (None, None, Some(path)) => ClientError::NoSocket { path: path.clone() },
            (None, name, _) => {
                ClientError::NoVm { name: name.clone().unwrap_or_default(), running: self.running() }
            }
        })
    }

    fn running(&self) -> String {
        let names: Vec<String> = list(&self.bases).into_iter().map(|info| info.name).collect();
        if names.is_empty() { "none does".into() } else { format!("running: {}", names.join(", ")) }
    }
}

fn ask<T: DeserializeOwned>(
    mut stream: UnixStream,
    path: &Path,
    command: &Command,
    time: Duration,
) -> Result<T, ClientError> {
    let path = || path.to_owned();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ClientError::Silent { path: path() },
        // The VM ended just now.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ClientError::NoSocket { path: path() }
        }
        _ => ClientError::Io { path: path(), source },
    };
    // A VM that is busy answers before it is asked, and may have gone when it is.
    let sent = send(&mut stream, protocol::request(command).as_bytes(), time);
    let received = receive(&mut stream, MAX_ANSWER, time);
    let answer = received.map_err(|error| failed(sent.err().unwrap_or(error)))?;
    let garbage = |what: String| ClientError::Garbage { path: path(), what };
    let answer = answer.ok_or_else(|| garbage(format!("the answer is longer than {MAX_ANSWER} bytes")))?;
    protocol::parse_answer(&answer).map_err(|refused| match refused {
        Refused::Error(error) => ClientError::Refused(error),
        Refused::Version(theirs) => ClientError::Version { path: path(), theirs },
        Refused::Garbage(what) => garbage(what),
    })
}

/// Who answers at a socket.
pub(super) fn info(socket: &Path) -> Option<Info> {
    ask(UnixStream::connect(socket).ok()?, socket, &Command::Info, INFO_TIME).ok()
}

/// The VMs of this user, by name. What does not answer is none.
#[must_use]
pub fn list(bases: &[PathBuf]) -> Vec<Info> {
    let directories = bases.iter().filter_map(|base| std::fs::read_dir(base).ok()).flatten().flatten();
    let mut infos: Vec<Info> =
        directories.filter_map(|directory| info(&directory.path().join(SOCKET))).collect();
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    infos
}
