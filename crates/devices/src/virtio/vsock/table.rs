//! All connections of a VM, and the sockets of the host behind them.
//!
//! ```text
//!  host: connect(path), "CONNECT 5000\n" ─▶ Greeting ─▶ Connection (REQUEST) ─▶ "OK 1073741824\n"
//!  guest: REQUEST to port 5000 ─▶ connect(path_5000) ─▶ Connection (RESPONSE), or RST
//! ```
//!
//! What must hold: there are at most [`MOST`] sockets, and so much memory; the host's side does not wait for a guest that never answers; nothing here waits; and a connection
//! that has something for the guest is in `waiting`, once. Whoever has [too many answers](Table::is_full) neither
//! receives nor looks at sockets. Sockets are watched for changes (EPOLLET), so one that the guest has no room for
//! wakes nobody.

use super::connection::{Connection, Next, Over};
use super::packet::{HOST, Header, LARGEST, Op, STREAM};
use crate::virtio::NeedsReset;
use crate::virtio::alarm::Alarm;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections, and those that are to become some.
pub(super) const MOST: usize = 256;

/// Answers that wait for receive buffers, beyond which all else waits.
pub(super) const REPLIES: usize = 256;

/// The first port of the host's own.
const FIRST_PORT: u32 = 1 << 30;

/// "CONNECT 4294967295\n" and a little more.
const LINE: usize = 32;

/// What the listener and the alarm are called in the epoll set. Connections have larger numbers.
const LISTENER: u64 = 0;
const ALARM: u64 = 1;

/// How long the guest has to answer a REQUEST. A kernel that runs does so at once, whether somebody listens or not.
const ANSWER: Duration = Duration::from_secs(10);

/// Somebody who has connected and not yet said to which port.
struct Greeting {
    stream: UnixStream,
    line: Vec<u8>,
}

/// The connections.
pub(super) struct Table {
    cid: u64,
    listener: Arc<UnixListener>,
    path: PathBuf,
    epoll: Epoll,
    /// The listener is in the epoll set.
    listens: bool,
    connections: HashMap<u64, Connection>,
    /// By the host's and the guest's port.
    ports: HashMap<(u32, u32), u64>,
    greetings: HashMap<u64, Greeting>,
    waiting: VecDeque<u64>,
    replies: VecDeque<Header>,
    next_id: u64,
    next_port: u32,
    /// Set for the first connection that the guest has to answer, while there is one.
    alarm: Alarm,
    patience: Duration,
}

impl Table {
    /// No connections yet, for the guest with address `cid`.
    pub(super) fn new(cid: u64, listener: Arc<UnixListener>, path: &Path) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        let alarm = Alarm::new()?;
        epoll.add(alarm.fd(), EpollEvent::new(EpollFlags::EPOLLIN, ALARM))?;
        Ok(Self {
            cid,
            listener,
            path: path.to_owned(),
            epoll,
            listens: true,
            connections: HashMap::new(),
            ports: HashMap::new(),
            greetings: HashMap::new(),
            waiting: VecDeque::new(),
            replies: VecDeque::new(),
            next_id: ALARM + 1,
            next_port: FIRST_PORT,
            alarm,
            patience: ANSWER,
        })
    }

    /// What is readable when [`events`](Self::events) has something to do.
    pub(super) fn source(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// There are so many answers to the guest that it has to take some first.
    pub(super) fn is_full(&self) -> bool {
        self.replies.len() >= REPLIES
    }

    /// There may be something for the guest.
    pub(super) fn has_packets(&self) -> bool {
        !self.replies.is_empty() || !self.waiting.is_empty()
    }

    /// Sees to the sockets that have changed, some of them: there may be more.
    pub(super) fn events(&mut self) -> Result<(), NeedsReset> {
        let mut events = [EpollEvent::empty(); 64];
        // Nothing but a signal disturbs it, and then it is called again.
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept(),
                ALARM => self.give_up()?,
                id if self.greetings.contains_key(&id) => self.greet(id)?,
                id => self.change(id, event.events()),
            }
        }
        Ok(())
    }

    /// Ends the connections that the guest should have answered by now.
    fn give_up(&mut self) -> Result<(), NeedsReset> {
        let now = Instant::now();
        let is_late =
            |(_, connection): &(&u64, &Connection)| connection.answer_by().is_some_and(|by| by <= now);
        let late: Vec<u64> = self.connections.iter().filter(is_late).map(|(id, _)| *id).collect();
        for id in late {
            self.with(id, |_| Err(Over));
        }
        self.set_alarm(now)
    }

    fn set_alarm(&mut self, now: Instant) -> Result<(), NeedsReset> {
        match self.connections.values().filter_map(Connection::answer_by).min() {
            // A time that is 0 would never come.
            Some(by) => self.alarm.set(by.saturating_duration_since(now).max(Duration::from_millis(1))),
            None => self.alarm.clear(),
        }
    }

    /// A packet from the guest.
    pub(super) fn receive(&mut self, header: &Header, data: &[u8]) {
        let op = header.op();
        let key = (header.destination_port, header.source_port);
        let known = self.ports.get(&key).copied();
        if header.source_cid != self.cid {
            tracing::trace!(?header, "a packet with another's address is dropped");
        } else if op == Some(Op::Reset) {
            known.into_iter().for_each(|id| self.remove(id));
        } else if header.destination_cid != HOST || header.kind != STREAM {
            self.replies.push_back(header.refusal());
        } else if let Some(id) = known {
            self.with(id, |connection| connection.receive(header, data));
        } else if op != Some(Op::Request) || !self.connect(header) {
            self.replies.push_back(header.refusal());
        }
    }

    /// The next packet to the guest: its header, with `read` having read its data from a socket, at most as many
    /// bytes as it was told and as there is `room`.
    pub(super) fn next(
        &mut self,
        room: usize,
        mut read: impl FnMut(&UnixStream, usize) -> io::Result<usize>,
    ) -> Option<Header> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        while let Some(id) = self.waiting.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let Some(next) = connection.next() else {
                connection.queued = false;
                continue;
            };
            let header = match next {
                Next::Tell(op, flags) => {
                    connection.has_told(op);
                    Some(connection.header(op, flags, 0))
                }
                Next::Data(most) => {
                    let read = read(&connection.stream, most.min(room).min(LARGEST));
                    connection.has_read(&read);
                    read.ok().filter(|count| *count > 0).map(|count| connection.header(Op::Data, 0, count))
                }
            };
            // Others have their turn before it has its next.
            self.waiting.push_back(id);
            if let Some(header) = header {
                let addresses =
                    Header { source_cid: HOST, destination_cid: self.cid, kind: STREAM, ..header };
                return Some(addresses);
            }
        }
        None
    }

    /// Has something done with a connection; sees to it that what it then has for the guest is sent, or that it ends.
    fn with(&mut self, id: u64, what: impl FnOnce(&mut Connection) -> Result<(), Over>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match what(connection) {
            Ok(()) => {
                if !connection.queued && connection.next().is_some() {
                    connection.queued = true;
                    self.waiting.push_back(id);
                }
            }
            Err(Over) => {
                let reset = connection.header(Op::Reset, 0, 0);
                self.replies.push_back(Header {
                    source_cid: HOST,
                    destination_cid: self.cid,
                    kind: STREAM,
                    ..reset
                });
                self.remove(id);
            }
        }
    }

    fn change(&mut self, id: u64, events: EpollFlags) {
        self.with(id, |connection| {
            connection.readable |= events.contains(EpollFlags::EPOLLIN);
            if events.contains(EpollFlags::EPOLLOUT) {
                connection.flush()?;
            }
            if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                connection.hang_up()?;
            }
            Ok(())
        });
    }

    /// A connection's socket, or a greeting's, is closed.
    fn remove(&mut self, id: u64) {
        self.greetings.remove(&id);
        if let Some(connection) = self.connections.remove(&id) {
            self.ports.remove(&(connection.host_port, connection.guest_port));
            if connection.queued {
                self.waiting.retain(|waiting| *waiting != id);
            }
        }
        if !self.listens {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
            self.listens = self.epoll.add(&*self.listener, event).is_ok();
        }
    }

    fn has_room(&self) -> bool {
        self.connections.len() + self.greetings.len() < MOST
    }

    /// Watches a socket, and gives it a number.
    fn watch(&mut self, stream: &UnixStream) -> Option<u64> {
        let id = self.next_id;
        let changes = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll.add(stream, EpollEvent::new(changes, id)).ok()?;
        self.next_id += 1;
        Some(id)
    }

    fn add(&mut self, id: u64, connection: Connection) {
        self.ports.insert((connection.host_port, connection.guest_port), id);
        self.connections.insert(id, connection);
        self.with(id, |_| Ok(()));
    }

    /// The guest wants to connect to a port of the host. `false` if it cannot.
    fn connect(&mut self, header: &Header) -> bool {
        if !self.has_room() {
            return false;
        }
        let mut path = OsString::from(&self.path);
        path.push(format!("_{}", header.destination_port));
        let Ok(stream) = connect_to(Path::new(&path)) else { return false };
        let Some(id) = self.watch(&stream) else { return false };
        let ports = (header.destination_port, header.source_port);
        let mut connection = Connection::new(stream, ports, Op::Response);
        connection.note_room(header);
        self.add(id, connection);
        true
    }

    fn accept(&mut self) {
        for _ in 0..MOST {
            match self.listener.accept() {
                Ok((stream, _)) if self.has_room() && stream.set_nonblocking(true).is_ok() => {
                    if let Some(id) = self.watch(&stream) {
                        self.greetings.insert(id, Greeting { stream, line: Vec::with_capacity(LINE) });
                    }
                }
                // Too many: whoever it is finds it closed.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    tracing::warn!(%error, "a client of the vsock cannot be accepted; the next wait for a connection to end");
                    // The kernel forgets it with the descriptor only, which the device keeps.
                    self.listens = self.epoll.delete(&*self.listener).is_err();
                    return;
                }
            }
        }
    }

    /// A byte at a time, since what follows the line is the guest's.
    fn greet(&mut self, id: u64) -> Result<(), NeedsReset> {
        let Some(greeting) = self.greetings.get_mut(&id) else { return Ok(()) };
        let port = loop {
            let mut byte = [0];
            match greeting.stream.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => break port_of(&greeting.line),
                Ok(1) if greeting.line.len() < LINE => greeting.line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break None,
            }
        };
        let Some(guest_port) = port else {
            self.remove(id);
            return Ok(());
        };
        let Some(Greeting { stream, .. }) = self.greetings.remove(&id) else { return Ok(()) };
        let host_port = self.free_port(guest_port);
        let mut connection = Connection::new(stream, (host_port, guest_port), Op::Request);
        let now = Instant::now();
        connection.expect_answer(now + self.patience);
        self.add(id, connection);
        self.set_alarm(now)
    }

    /// A port of the host that has no connection to the guest's: there are more ports than connections.
    fn free_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.ports.contains_key(&(port, guest_port)) {
                return port;
            }
        }
    }
}

/// The port of "CONNECT port".
fn port_of(line: &[u8]) -> Option<u32> {
    let port = std::str::from_utf8(line).ok()?.trim_end_matches('\r').strip_prefix("CONNECT ")?;
    // Neither signs nor blanks.
    port.bytes().all(|digit| digit.is_ascii_digit()).then(|| port.parse().ok())?
}

/// Connects without waiting for a place in the listener's queue.
fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The client finds its stream closed, the guest is told, and a guest that has answered in time keeps its connection.
    #[test]
    fn a_guest_that_does_not_answer_is_given_up() {
        const CID: u64 = 3;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut table = Table::new(CID, Arc::new(listener), &path).unwrap();
        table.patience = Duration::from_millis(50);
        let mut clients = [5000, 5001].map(|port| {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
            table.events().unwrap();
            table.events().unwrap();
            client
        });
        let mut asked = Vec::new();
        while let Some(header) = table.next(LARGEST, |_, _| unreachable!("nothing is open")) {
            asked.push((header.op(), header.source_port, header.destination_port));
        }
        let ports = [(FIRST_PORT, 5000), (FIRST_PORT + 1, 5001)];
        assert_eq!(asked, ports.map(|(host, guest)| (Some(Op::Request), host, guest)));
        let answer = Header {
            source_cid: CID,
            destination_cid: HOST,
            source_port: 5001,
            destination_port: FIRST_PORT + 1,
            kind: STREAM,
            op: Op::Response as u16,
            buffer: 1 << 16,
            ..Header::default()
        };
        table.receive(&answer, &[]);

        std::thread::sleep(2 * table.patience);
        table.events().unwrap();
        let reset = table.next(LARGEST, |_, _| Ok(0)).unwrap();
        assert_eq!(
            (reset.op(), reset.source_port, reset.destination_port),
            (Some(Op::Reset), FIRST_PORT, 5000)
        );
        assert_eq!(clients[0].read(&mut [0; 8]).unwrap(), 0);
        let mut line = [0; 14];
        clients[1].read_exact(&mut line).unwrap();
        assert_eq!(&line, b"OK 1073741825\n");
        assert_eq!((table.connections.len(), table.ports.len()), (1, 1));
        assert!(table.connections.values().all(|connection| connection.answer_by().is_none()));
    }

    #[test]
    fn a_greeting_names_a_port() {
        assert_eq!(port_of(b"CONNECT 5000"), Some(5000));
        assert_eq!(port_of(b"CONNECT 4294967295\r"), Some(u32::MAX));
        for line in
            [&b""[..], b"CONNECT", b"CONNECT ", b"CONNECT +1", b"CONNECT 4294967296", b"connect 1", b"\xff"]
        {
            assert_eq!(port_of(line), None);
        }
    }
}
