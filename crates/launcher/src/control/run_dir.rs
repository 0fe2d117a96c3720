//! The directory of a running VM, and the name that goes with it.
//!
//! ```text
//!   BASE/            --run-dir, else $XDG_RUNTIME_DIR/cede, else /run/cede for root
//!     NAME/          mode 0700, locked (flock) by the VM's process as long as it lives
//!       control.sock mode 0600
//! ```
//!
//! The lock decides who has the name, since the kernel takes it away from a process that was killed: a socket
//! in a directory that nobody has locked is left over, and is replaced.

use super::client;
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The socket's name in the directory.
pub(super) const SOCKET: &str = "control.sock";

/// Where root's VMs are when nothing else was said.
const SYSTEM: &str = "/run/cede";

/// There is no place for a VM's socket.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Neither root nor a login session.
    #[error(
        "XDG_RUNTIME_DIR is not set and this is not root, so there is no place for the control socket; name a \
         directory with --run-dir ([cede] run_dir)"
    )]
    NoBase,
    /// Another VM has the name.
    #[error("a VM named {name} runs already{who}; give this one another --name (name in the file)")]
    Taken {
        /// The name.
        name: String,
        /// Its process, if it told.
        who: String,
    },
    /// The directory is not ours to use.
    #[error("{} is no directory of this user; name another one with --run-dir ([cede] run_dir)", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// The host refused.
    #[error("cannot {what} {}; name another directory with --run-dir ([cede] run_dir)", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The directories that can hold VMs, in the order in which they are looked through; a VM takes the first that
/// it may use.
#[must_use]
pub fn bases(chosen: Option<&Path>) -> Vec<PathBuf> {
    candidates(chosen, std::env::var_os("XDG_RUNTIME_DIR").as_deref())
}

fn candidates(chosen: Option<&Path>, runtime: Option<&OsStr>) -> Vec<PathBuf> {
    if let Some(chosen) = chosen {
        return vec![chosen.to_owned()];
    }
    // An empty or relative value is to be ignored (XDG Base Directory Specification).
    let session = runtime.map(Path::new).filter(|path| path.is_absolute()).map(|path| path.join("cede"));
    session.into_iter().chain([SYSTEM.into()]).collect()
}

/// Where a VM of this process goes.
fn base(chosen: Option<&Path>) -> Result<PathBuf, RunDirError> {
    let first = bases(chosen).swap_remove(0);
    if first == Path::new(SYSTEM) && chosen.is_none() && !nix::unistd::geteuid().is_root() {
        return Err(RunDirError::NoBase);
    }
    Ok(first)
}

/// The directory of a VM, with its socket bound. Both go with the value.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    listener: UnixListener,
    _lock: Flock<File>,
}

impl RunDir {
    /// The directory of a VM that is about to start. That there is no place for one is a warning and no reason not
    /// to run, unless `chosen` was asked for.
    ///
    /// # Errors
    /// [`RunDirError::Taken`], and the others for `chosen`.
    pub fn for_vm(chosen: Option<&Path>, name: &str) -> Result<Option<Self>, RunDirError> {
        match Self::claim(chosen, name) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if chosen.is_some() || matches!(error, RunDirError::Taken { .. }) => Err(error),
            Err(error) => {
                tracing::warn!("the VM cannot be steered: {}", crate::report::chain(&error));
                Ok(None)
            }
        }
    }

    /// Claims the name and binds the socket. Clients that come before a [`Server`](super::Server) wait for it.
    ///
    /// # Errors
    /// [`RunDirError`].
    pub fn claim(chosen: Option<&Path>, name: &str) -> Result<Self, RunDirError> {
        let path = base(chosen)?.join(name);
        let lock = claim_directory(&path, name)?;
        let fail = |what, path: &Path| {
            let path = path.to_owned();
            move |source| RunDirError::Io { what, path, source }
        };
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(fail("restrict", &path))?;
        let socket = path.join(SOCKET);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail("replace the old", &socket)(error));
            }
            _ => {}
        }
        // Until the mode is set the directory's own keeps everybody else out.
        let listener = UnixListener::bind(&socket).map_err(fail("make", &socket))?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(fail("restrict", &socket))?;
        Ok(Self { path, listener, _lock: lock })
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Still locked, so nobody else's is removed. What cannot be removed is replaced by the next VM of the name.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.path);
    }
}

/// Makes the directory, if it is not there, and locks it.
fn claim_directory(path: &Path, name: &str) -> Result<Flock<File>, RunDirError> {
    let fail = |what| move |source| RunDirError::Io { what, path: path.to_owned(), source };
    loop {
        if let Some(base) = path.parent() {
            fs::create_dir_all(base).map_err(fail("make the directory of"))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail("make")(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(path).map_err(fail("use"))?;
        if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(RunDirError::NotOurs { path: path.to_owned() });
        }
        let directory = File::open(path).map_err(fail("open"))?;
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let who = client::info(&path.join(SOCKET));
                let who = who.map(|info| format!(" (process {})", info.pid)).unwrap_or_default();
                return Err(RunDirError::Taken { name: name.to_owned(), who });
            }
            Err((_, error)) => return Err(fail("lock")(error.into())),
        };
        // A VM that ended between the open and the lock has removed what was opened; then all begins anew.
        let opened = lock.metadata().map_err(fail("use"))?;
        if fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (opened.dev(), opened.ino()))
        {
            return Ok(lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_places() {
        let places = |chosen: Option<&str>, runtime: Option<&str>| {
            let places = candidates(chosen.map(Path::new), runtime.map(OsStr::new));
            places.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(places(Some("d"), Some("/run/user/1")), ["d"]);
        assert_eq!(places(None, Some("/run/user/1")), ["/run/user/1/cede", "/run/cede"]);
        for unset in [None, Some(""), Some("relative")] {
            assert_eq!(places(None, unset), ["/run/cede"]);
        }
    }

    #[test]
    fn a_name_has_one_vm_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        let claim = || RunDir::claim(Some(base.path()), "vm");
        let first = claim().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&base.path().join("vm")), 0o700);
        assert_eq!(mode(&first.socket()), 0o600);
        let taken = claim().unwrap_err().to_string();
        assert_eq!(taken, "a VM named vm runs already; give this one another --name (name in the file)");
        assert!(first.socket().exists(), "the second attempt left the first alone");
        drop(first);
        assert!(!base.path().join("vm").exists());
        claim().unwrap();
    }

    #[test]
    fn what_a_killed_vm_left_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("vm");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        drop(UnixListener::bind(path.join(SOCKET)).unwrap());
        assert!(path.join(SOCKET).exists());
        let claimed = RunDir::claim(Some(base.path()), "vm").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        drop(claimed);
    }

    #[test]
    fn places_that_cannot_be_used() {
        let base = tempfile::tempdir().unwrap();
        let claim = |base: &Path, name: &str| {
            let error = RunDir::claim(Some(base), name).unwrap_err();
            crate::report::chain(&error).replace(&base.display().to_string(), "BASE")
        };
        fs::write(base.path().join("file"), "").unwrap();
        let ours = "name another one with --run-dir ([cede] run_dir)";
        assert_eq!(claim(base.path(), "file"), format!("BASE/file is no directory of this user; {ours}"));
        std::os::unix::fs::symlink(base.path(), base.path().join("link")).unwrap();
        assert_eq!(claim(base.path(), "link"), format!("BASE/link is no directory of this user; {ours}"));
        let error = claim(&base.path().join("file"), "vm");
        assert!(error.starts_with("cannot make the directory of BASE/vm; name another directory"), "{error}");
        // The kernel's limit is 108 bytes.
        let deep = base.path().join("d".repeat(120));
        assert!(claim(&deep, "vm").starts_with("cannot make BASE/vm/control.sock; name another directory"));
        assert!(!deep.join("vm").join(SOCKET).exists());
    }
}
