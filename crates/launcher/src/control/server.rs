//! The server: one thread that accepts, and one for each client, all apart from the VM's own threads.
//!
//! A client has [`TIME`] to send its line, and as long again to take the answer; then its connection ends. At
//! most [`CLIENTS`] are served at once, and who comes then is told so. So the worst that clients can do is keep
//! each other waiting for that time.

use super::protocol::{self, MAX_REQUEST};
use super::{RunDir, Steering};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a client may take to send, and to take.
const TIME: Duration = Duration::from_secs(5);

/// How many clients are served at once.
const CLIENTS: usize = 16;

/// Deep enough for JSON of some kilobytes.
const STACK: usize = 256 << 10;

/// A server at a VM's socket. Dropping it ends the server and removes the socket.
#[derive(Debug)]
pub struct Server {
    /// Closed to end the accepting thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    dir: RunDir,
}

impl Server {
    /// Starts to answer. Its threads take over the signal mask of the caller, so that of the VM has to be set.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn start(dir: RunDir, steering: Arc<Steering>) -> io::Result<Self> {
        let listener = dir.listener().try_clone()?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = UnixStream::pair()?;
        let accept = move || accept_all(&listener, &stopped, &steering);
        let thread = thread::Builder::new().name("control".into()).stack_size(STACK).spawn(accept)?;
        Ok(Self { stop: Some(stop), thread: Some(thread), dir })
    }

    /// Where it answers.
    #[must_use]
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its hook already.
            let _ = thread.join();
        }
    }
}

/// Serves until `stopped` is closed at its other end. Clients that are being served then have their answer or not.
fn accept_all(listener: &UnixListener, stopped: &UnixStream, steering: &Arc<Steering>) {
    // Each client's thread holds one; the count is the number of clients and the one that is here.
    let slot = Arc::new(());
    loop {
        let mut fds = [listener.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        if fds[1].any().unwrap_or(true) {
            return;
        }
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                // Out of descriptors, most likely; the client still waits.
                tracing::warn!(%error, "a client of the control socket could not be accepted");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if Arc::strong_count(&slot) > CLIENTS {
            let busy = protocol::answer::<()>(Err(format!("{CLIENTS} clients are being served; try again")));
            let _ = send(&mut stream, busy.as_bytes(), Duration::from_millis(1));
            continue;
        }
        let (steering, slot) = (Arc::clone(steering), Arc::clone(&slot));
        let serve = move || {
            if let Err(error) = serve(stream, &steering) {
                tracing::debug!(%error, "a client of the control socket");
            }
            drop(slot);
        };
        if let Err(error) =
            thread::Builder::new().name("control-client".into()).stack_size(STACK).spawn(serve)
        {
            tracing::warn!(%error, "no thread for a client of the control socket");
        }
    }
}

fn serve(mut stream: UnixStream, steering: &Steering) -> io::Result<()> {
    let answer = match receive(&mut stream, MAX_REQUEST, TIME)? {
        Some(request) => steering.answer(&request),
        None => protocol::answer::<()>(Err(format!("a request is one line of at most {MAX_REQUEST} bytes"))),
    };
    send(&mut stream, answer.as_bytes(), TIME)
}

/// Reads a line, without its line feed; what was sent before the other side ended is a line too. `None` if
/// it is longer than `most` bytes.
///
/// # Errors
/// As the socket has them, and `TimedOut` or `WouldBlock` after `time`.
pub(super) fn receive(stream: &mut UnixStream, most: usize, time: Duration) -> io::Result<Option<Vec<u8>>> {
    let end = Instant::now() + time;
    let mut line = Vec::new();
    let mut part = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(end)?))?;
        let length = match stream.read(&mut part) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let fresh = &part[..length];
        let ended = fresh.iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(&fresh[..ended.unwrap_or(length)]);
        // The line feed counts.
        if line.len() >= most {
            return Ok(None);
        }
        match (ended, length) {
            (None, 0) if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            (Some(_), _) | (None, 0) => return Ok(Some(line)),
            (None, _) => {}
        }
    }
}

/// Writes all.
///
/// # Errors
/// As the socket has them, and `TimedOut` or `WouldBlock` after `time`.
pub(super) fn send(stream: &mut UnixStream, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The time until `end`, which a socket's timeout must not be if it is none.
fn left(end: Instant) -> io::Result<Duration> {
    match end.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}
