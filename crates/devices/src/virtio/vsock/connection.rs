//! One stream between a port of the guest and a socket of the host.
//!
//! ```text
//!  the guest asks ───────────────▶ Open ◀─ RESPONSE ── Asked ◀── the host asks
//!                                   │                      └── no answer in time: RST, gone
//!                                   │ either side stops sending, or receiving; data on its way still arrives
//!                                   ▼
//!                             both have stopped sending, or one does neither: RST, gone
//! ```
//!
//! What must hold: at most [`BUFFER`] bytes of the guest's wait for the socket, and a guest that sends more has
//! broken the rules; what goes to the guest waits in the socket, and no more is taken from it than the guest has
//! room for.

use super::packet::{Header, NO_RECEIVE, NO_SEND, Op};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Bytes of the guest's that a connection holds.
pub(super) const BUFFER: usize = 64 << 10;

/// A connection is over, and the other side has to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over;

/// What the guest is to be told next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A packet without data.
    Tell(Op, u32),
    /// Data, at most so many bytes of it, if the socket has some.
    Data(usize),
}

/// A connection.
pub(super) struct Connection {
    pub stream: UnixStream,
    pub host_port: u32,
    pub guest_port: u32,
    /// It is in the list of those that have something for the guest.
    pub queued: bool,
    /// The socket may have something to read. It is not asked again before it says so.
    pub readable: bool,
    open: bool,
    /// When the guest has to have answered to REQUEST, as long as it has not.
    answer_by: Option<Instant>,
    /// REQUEST or RESPONSE, CREDIT_UPDATE and SHUTDOWN, as far as the guest has to be told.
    opening: Option<Op>,
    credit_update: bool,
    credit_request: bool,
    shutdown: bool,
    /// The socket's other end sends no more; it has gone altogether.
    ended: bool,
    gone: bool,
    /// What the guest has said of itself.
    guest_stopped: u32,
    /// Bytes from the guest that the socket has not taken yet.
    buffer: VecDeque<u8>,
    /// Bytes that the socket took, and what the guest knows of it.
    forwarded: Wrapping<u32>,
    told: Wrapping<u32>,
    /// The guest's room, what it has taken out of it, and what was sent to it.
    guest_buffer: u32,
    guest_forwarded: Wrapping<u32>,
    sent: Wrapping<u32>,
}

impl Connection {
    /// One that the guest is to be asked for (REQUEST), or that it asked for (RESPONSE).
    pub(super) fn new(stream: UnixStream, (host_port, guest_port): (u32, u32), opening: Op) -> Self {
        Self {
            stream,
            host_port,
            guest_port,
            queued: false,
            readable: true,
            open: opening == Op::Response,
            answer_by: None,
            opening: Some(opening),
            credit_update: false,
            credit_request: false,
            shutdown: false,
            ended: false,
            gone: false,
            guest_stopped: 0,
            buffer: VecDeque::new(),
            forwarded: Wrapping(0),
            told: Wrapping(0),
            guest_buffer: 0,
            guest_forwarded: Wrapping(0),
            sent: Wrapping(0),
        }
    }

    /// The guest has until then to answer.
    pub(super) fn expect_answer(&mut self, by: Instant) {
        self.answer_by = Some(by);
    }

    /// Until when the guest has to answer, if it has not.
    pub(super) fn answer_by(&self) -> Option<Instant> {
        self.answer_by
    }

    /// What the guest is to be told next, if anything.
    pub(super) fn next(&self) -> Option<Next> {
        if let Some(op) = self.opening {
            return Some(Next::Tell(op, 0));
        }
        if !self.open {
            return None;
        }
        if self.credit_update {
            return Some(Next::Tell(Op::CreditUpdate, 0));
        }
        if self.credit_request {
            return Some(Next::Tell(Op::CreditRequest, 0));
        }
        if self.shutdown {
            let flags = NO_SEND | if self.gone { NO_RECEIVE } else { 0 };
            return Some(Next::Tell(Op::Shutdown, flags));
        }
        let room = self.room();
        (self.readable && !self.ended && room > 0).then_some(Next::Data(room))
    }

    /// The guest has been told.
    pub(super) fn has_told(&mut self, op: Op) {
        match op {
            Op::Request | Op::Response => self.opening = None,
            Op::CreditRequest => self.credit_request = false,
            Op::Shutdown => self.shutdown = false,
            _ => {}
        }
        // Every packet says it.
        self.told = self.forwarded;
        self.credit_update = false;
    }

    /// What came of [`Next::Data`].
    pub(super) fn has_read(&mut self, read: &io::Result<usize>) {
        match read {
            Ok(0) => self.end(false),
            Ok(count) => {
                self.sent += *count as u32;
                self.has_told(Op::Data);
                // It has more, perhaps, and the guest has no room for it: let it say when it does.
                self.credit_request = self.room() == 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.end(true),
        }
    }

    /// The header of a packet to the guest, but for its addresses.
    pub(super) fn header(&self, op: Op, flags: u32, length: usize) -> Header {
        Header {
            source_port: self.host_port,
            destination_port: self.guest_port,
            length: length as u32,
            op: op as u16,
            flags,
            buffer: BUFFER as u32,
            forwarded: self.forwarded.0,
            ..Header::default()
        }
    }

    /// What every packet from the guest says of its room.
    pub(super) fn note_room(&mut self, header: &Header) {
        self.guest_buffer = header.buffer;
        self.guest_forwarded = Wrapping(header.forwarded);
    }

    /// A packet from the guest, of which `data` is the data.
    pub(super) fn receive(&mut self, header: &Header, data: &[u8]) -> Result<(), Over> {
        self.note_room(header);
        match header.op().ok_or(Over)? {
            Op::Response if !self.open && self.opening.is_none() => {
                self.open = true;
                self.answer_by = None;
                // A socket that has taken nothing yet takes a line.
                let line = format!("OK {}\n", self.host_port);
                self.stream.write_all(line.as_bytes()).map_err(|_| Over)
            }
            Op::Data if self.open && self.guest_stopped & NO_SEND == 0 => self.take(data),
            Op::CreditUpdate if self.open => Ok(()),
            Op::CreditRequest if self.open => {
                self.credit_update = true;
                Ok(())
            }
            Op::Shutdown if self.open => {
                self.guest_stopped |= header.flags & (NO_RECEIVE | NO_SEND);
                if self.guest_stopped & NO_RECEIVE != 0 {
                    self.ended = true;
                    // Whoever writes to the socket's other end learns of it. It may have gone.
                    let _ = self.stream.shutdown(Shutdown::Read);
                }
                self.settle()
            }
            _ => Err(Over),
        }
    }

    /// The socket can be written to again.
    pub(super) fn flush(&mut self) -> Result<(), Over> {
        while !self.buffer.is_empty() {
            let (first, _) = self.buffer.as_slices();
            let Some(count) = write(&self.stream, first)? else { return Ok(()) };
            self.buffer.drain(..count);
            self.has_forwarded(count);
        }
        self.settle()
    }

    /// The socket's other end has gone: it neither sends nor receives.
    pub(super) fn hang_up(&mut self) -> Result<(), Over> {
        if !self.open {
            return Err(Over);
        }
        // What it has sent before is still there to be read; if that is done, the guest learns the rest.
        self.shutdown |= self.ended && !self.gone;
        self.gone = true;
        self.readable = true;
        Ok(())
    }

    /// How much the guest has room for. It may say anything of itself.
    fn room(&self) -> usize {
        if self.guest_stopped & NO_RECEIVE != 0 {
            return 0;
        }
        let on_the_way = (self.sent - self.guest_forwarded).0;
        self.guest_buffer.saturating_sub(on_the_way) as usize
    }

    fn take(&mut self, mut data: &[u8]) -> Result<(), Over> {
        if self.buffer.is_empty() && !data.is_empty() {
            let count = write(&self.stream, data)?.unwrap_or(0);
            self.has_forwarded(count);
            data = &data[count..];
        }
        if self.buffer.len() + data.len() > BUFFER {
            return Err(Over);
        }
        self.buffer.extend(data);
        Ok(())
    }

    fn has_forwarded(&mut self, count: usize) {
        self.forwarded += count as u32;
        // Long before the guest has to wait for it.
        if (self.forwarded - self.told).0 as usize >= BUFFER / 4 {
            self.credit_update = true;
        }
    }

    /// The socket sends no more.
    fn end(&mut self, gone: bool) {
        self.gone |= gone;
        self.ended = true;
        self.shutdown = true;
    }

    /// Goes on with the end, as far as it has come, once all that the guest has sent is with the socket.
    fn settle(&mut self) -> Result<(), Over> {
        if self.guest_stopped & NO_SEND == 0 || !self.buffer.is_empty() {
            return Ok(());
        }
        if self.ended && !self.shutdown {
            return Err(Over);
        }
        // Somebody may have closed it already.
        let _ = self.stream.shutdown(Shutdown::Write);
        Ok(())
    }
}

/// Writes what the socket takes; `None` if it takes nothing now.
fn write(mut stream: &UnixStream, data: &[u8]) -> Result<Option<usize>, Over> {
    loop {
        match stream.write(data) {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(Over),
        }
    }
}
