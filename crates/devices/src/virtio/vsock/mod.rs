//! Sockets between guest and host (VIRTIO 1.2, 5.10), with sockets in the file system at the host's end:
//!
//! ```text
//!  host's programs                              guest's programs
//!  connect to PATH, "CONNECT port\n" ─────────▶ listen on port
//!  listen on PATH_port               ◀───────── connect to CID 2, port
//! ```
//!
//! So a user needs neither a kernel module nor a privilege, and who may talk to the guest is a matter of the
//! directory that PATH lies in.

mod connection;
mod packet;
mod queues;
mod table;
#[cfg(test)]
mod tests;

use super::{Activation, Backend, Device, Kind, Outline};
use queues::Queues;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use table::Table;

/// Entries of each queue at most: to the guest, from it, and events.
const QUEUES: [u16; 3] = [128, 128, 16];

/// What a device for sockets cannot be made of.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// 0 to 2 are the hypervisor's, everybody's own, and the host's; the last is anybody's.
    #[error("{0} is no address for a guest; those are 3 to 4294967294")]
    Cid(u32),
    /// The path does not fit into a socket's address, with a port behind it.
    #[error("the path of a vsock may have at most {most} bytes, and {path} is longer", most = LONGEST)]
    Long {
        /// Which.
        path: PathBuf,
    },
    /// Another has it.
    #[error("{path} is in use: another VM or program listens there")]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{path} is there, and is no socket; move it away or choose another path")]
    NoSocket {
        /// Which.
        path: PathBuf,
    },
    /// Anything else.
    #[error("the vsock cannot listen at {path}")]
    Host {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// 108 bytes are an address, less the zero at the end and `_4294967295`.
const LONGEST: usize = 107 - 11;

/// What a bus shows of it.
#[must_use]
pub fn outline() -> Outline {
    Outline::new(Kind::Socket, QUEUES)
}

/// The device. Its socket is there, for its user alone, until it is dropped.
pub struct Vsock {
    name: String,
    cid: u32,
    path: PathBuf,
    listener: Arc<UnixListener>,
}

impl Vsock {
    /// For the guest with address `cid`, listening at `path`. What a VM that was killed has left there is replaced.
    ///
    /// # Errors
    /// [`VsockError`], which says what to do.
    pub fn new(cid: u32, path: &Path) -> Result<Self, VsockError> {
        if !(3..u32::MAX).contains(&cid) {
            return Err(VsockError::Cid(cid));
        }
        if path.as_os_str().len() > LONGEST {
            return Err(VsockError::Long { path: path.to_owned() });
        }
        let listener = listen(path)?;
        let vsock = Self {
            name: format!("vsock {}", path.display()),
            cid,
            path: path.to_owned(),
            listener: Arc::new(listener),
        };
        let ready = std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .and_then(|()| vsock.listener.set_nonblocking(true));
        ready.map_err(|source| VsockError::Host { path: path.to_owned(), source })?;
        Ok(vsock)
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        // Somebody may have tidied up before.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> Result<UnixListener, VsockError> {
    let host = |source| VsockError::Host { path: path.to_owned(), source };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        bound => return bound.map_err(host),
    }
    let metadata = std::fs::symlink_metadata(path).map_err(host)?;
    if !metadata.file_type().is_socket() {
        return Err(VsockError::NoSocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(host)?;
            UnixListener::bind(path).map_err(host)
        }
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(host(error)),
        _ => Err(VsockError::Busy { path: path.to_owned() }),
    }
}

impl Device for Vsock {
    fn kind(&self) -> Kind {
        Kind::Socket
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// None: streams are what there is without.
    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &QUEUES
    }

    /// The guest's address, of 64 bits.
    fn config(&self, offset: u64, data: &mut [u8]) {
        let space = u64::from(self.cid).to_le_bytes();
        let rest = usize::try_from(offset).ok().and_then(|offset| space.get(offset..)).unwrap_or_default();
        data.fill(0);
        data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>> {
        let mut rings = activation.rings.into_iter();
        let (Some(Some(rx)), Some(Some(tx))) = (rings.next(), rings.next()) else {
            return Err(io::Error::other("the driver has not enabled both queues"));
        };
        let table = Table::new(self.cid.into(), self.listener.clone(), &self.path)?;
        Ok(Box::new(Queues::new(table, activation.memory, rx, tx)))
    }
}
