//! A disk at work: its queues, and the requests that are in flight.

use super::image::{Aligned, Image, is_unsupported};
use super::request::{self, ID, Limits, Operation, Status};
use super::uring::{DEPTH, Uring};
use crate::dma::Memory;
use crate::virtio::chain::Buffers;
use crate::virtio::{Activation, Backend, NeedsReset, Ring, Vectors};
use std::collections::HashSet;
use std::io;
use std::mem::Discriminant;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use virtio_bindings::virtio_blk;
use vm_memory::{Bytes, GuestAddress, Permissions};

/// Requests of a turn where each is waited for.
const AT_ONCE: u16 = 16;

/// What a disk keeps from one reset to the next.
pub struct Shared {
    pub image: Image,
    name: String,
    id: [u8; ID],
    /// Whether writes may wait in a cache until they are flushed, and what that is to a new driver. Relaxed: the choice holds for the writes
    /// that begin when the device's thread has seen it, and the driver cannot tell.
    write_back: AtomicBool,
    write_back_at_first: bool,
    /// Failures that the log has.
    told: Mutex<HashSet<(Discriminant<Operation>, Option<i32>)>>,
}

impl Shared {
    pub fn new(image: Image, name: String, id: [u8; ID], write_back: bool) -> Self {
        let told = Mutex::default();
        Self { image, name, id, write_back: write_back.into(), write_back_at_first: write_back, told }
    }

    /// What the driver finds in its configuration.
    pub fn is_write_back(&self) -> bool {
        self.write_back.load(Ordering::Relaxed)
    }

    /// What the driver wants (VIRTIO_BLK_F_CONFIG_WCE).
    pub fn set_write_back(&self, write_back: bool) {
        self.write_back.store(write_back, Ordering::Relaxed);
    }

    /// Logs a failure, once for each kind.
    fn failed(&self, operation: Operation, error: &io::Error) -> Status {
        let kind = (std::mem::discriminant(&operation), error.raw_os_error());
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(kind) {
            tracing::warn!(%error, ?operation, "{}: the guest gets an I/O error, from now on silently", self.name);
        }
        if is_unsupported(error) { Status::Unsupported } else { Status::IoError }
    }
}

/// A request, from its chain to its status.
struct Request {
    queue: u16,
    head: u16,
    status: GuestAddress,
    operation: Operation,
    /// What the driver finds written if all goes well, beside the status.
    fills: u32,
    /// Buffers that are left.
    vectors: Vectors,
    /// Where in the image they go.
    offset: u64,
}

/// The backend.
pub struct Queues {
    shared: Arc<Shared>,
    limits: Limits,
    memory: Memory,
    rings: Vec<Option<Ring>>,
    /// Queues that were left before they were empty.
    left: Vec<bool>,
    uring: Option<Uring>,
    requests: Vec<Request>,
    /// Those of the requests that stand for nothing now.
    free: Vec<usize>,
    /// One that began when no other was in flight. None between turns.
    alone: Option<usize>,
    buffers: Buffers,
    /// Whether the driver flushes by itself what it wants to last.
    flushes: bool,
    /// Whether it says in the configuration when.
    says_when: bool,
}

impl Queues {
    pub fn new(shared: Arc<Shared>, activation: Activation, uring: Option<Uring>) -> Self {
        let Activation { memory, features, rings, .. } = activation;
        let image = &shared.image;
        let limits =
            Limits { sectors: image.sectors(), read_only: image.is_read_only(), discards: image.discards() };
        Self {
            limits,
            flushes: features & 1 << virtio_blk::VIRTIO_BLK_F_FLUSH != 0,
            says_when: features & 1 << virtio_blk::VIRTIO_BLK_F_CONFIG_WCE != 0,
            left: vec![false; rings.len()],
            requests: Vec::new(),
            free: Vec::new(),
            alone: None,
            buffers: Buffers::default(),
            shared,
            memory,
            rings,
            uring,
        }
    }

    /// Takes what is available in a queue, as much as it has entries and there is room for.
    fn turn(&mut self, queue: u16) -> Result<(), NeedsReset> {
        let index = usize::from(queue);
        let Some(Some(ring)) = self.rings.get_mut(index) else { return Ok(()) };
        ring.disable_notification()?;
        let mut budget = if self.uring.is_some() { ring.size() } else { AT_ONCE.min(ring.size()) };
        self.left[index] = true;
        while budget > 0 && self.has_room() {
            let Some(Some(ring)) = self.rings.get_mut(index) else { return Ok(()) };
            budget -= 1;
            match ring.pop_buffers(&mut self.buffers)? {
                Some(head) => self.begin(queue, head)?,
                None if self.alone.is_some() => self.transfer_alone()?,
                None if ring.enable_notification()? => ring.disable_notification()?,
                None => {
                    self.left[index] = false;
                    break;
                }
            }
        }
        self.join_in();
        self.submit_and_harvest()
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() || self.requests.len() < DEPTH as usize
    }

    fn begin(&mut self, queue: u16, head: u16) -> Result<(), NeedsReset> {
        let parsed = request::parse(&self.memory, &mut self.buffers, &self.limits);
        let (status, operation) =
            parsed.map_err(|what| NeedsReset::Queue { queue, what: what.to_string() })?;
        let operation = match operation {
            Ok(operation) => operation,
            Err(answer) => {
                let written = written_if_failed(self.buffers.writable.length());
                return self.answer(queue, head, status, answer, written);
            }
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            let vectors = Vectors::new(self.memory.clone());
            self.requests.push(Request { queue, head, status, operation, fills: 0, vectors, offset: 0 });
            self.requests.len() - 1
        });
        let request = &mut self.requests[slot];
        (request.queue, request.head, request.status, request.operation) = (queue, head, status, operation);
        request.fills = 0;
        let taken = match operation {
            Operation::Read { offset } => {
                request.fills = self.buffers.writable.length() as u32;
                request.offset = offset;
                request.vectors.fill(self.buffers.writable.iter(), Permissions::Write)
            }
            Operation::Write { offset } => {
                request.offset = offset;
                request.vectors.fill(self.buffers.readable.iter(), Permissions::Read)
            }
            _ => Ok(()),
        };
        if taken.is_err() {
            // The buffers are not in memory: the driver's fault, but one that has an answer.
            return self.finish(slot, Err(io::Error::from_raw_os_error(libc::EFAULT)));
        }
        self.perform(slot)
    }

    /// Begins a request, and ends it too where that does not take long, or there is no other way.
    fn perform(&mut self, slot: usize) -> Result<(), NeedsReset> {
        let image = &self.shared.image;
        let request = &mut self.requests[slot];
        let result = match request.operation {
            Operation::Read { .. } | Operation::Write { .. } if request.vectors.length() == 0 => Ok(()),
            Operation::Read { .. } | Operation::Write { .. } => {
                let unit = image.direct_unit();
                if unit.is_some_and(|unit| !request.vectors.is_aligned(unit)) {
                    self.transfer_aligned(slot)
                } else if let Some(uring) = &self.uring {
                    if uring.is_idle() && self.alone.is_none() && self.write_flags() == 0 {
                        self.alone = Some(slot);
                    } else {
                        self.join_in();
                        self.queue_transfer(slot);
                    }
                    return Ok(());
                } else {
                    self.transfer(slot)
                }
            }
            Operation::Flush => match &mut self.uring {
                Some(uring) => {
                    uring.sync(slot as u64);
                    return Ok(());
                }
                None => image.sync(),
            },
            Operation::Discard { offset, length } => image.discard(offset, length),
            Operation::Zero { offset, length, unmap } => {
                let zeroed = image.zero(offset, length, unmap);
                if self.write_flags() == 0 { zeroed } else { zeroed.and_then(|()| image.sync()) }
            }
            Operation::Identify => {
                let put = self.buffers.writable.put(&self.memory, &self.shared.id);
                request.fills = *put.as_ref().unwrap_or(&0) as u32;
                put.map(|_| ()).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
            }
        };
        self.finish(slot, result)
    }

    /// pwritev2(2)'s flags for a write: it lasts by itself where the driver does not flush, or nothing may wait in a cache.
    pub fn write_flags(&self) -> i32 {
        let write_back =
            if self.says_when { self.shared.is_write_back() } else { self.shared.write_back_at_first };
        if self.flushes && write_back { 0 } else { libc::RWF_DSYNC }
    }

    /// The transfer that was alone no longer is.
    fn join_in(&mut self) {
        if let Some(slot) = self.alone.take() {
            self.queue_transfer(slot);
        }
    }

    /// The transfer that is alone still is: without io_uring it is done sooner.
    fn transfer_alone(&mut self) -> Result<(), NeedsReset> {
        let Some(slot) = self.alone.take() else { return Ok(()) };
        let result = self.transfer(slot);
        self.finish(slot, result)?;
        self.rings.iter_mut().flatten().try_for_each(Ring::signal)
    }

    fn queue_transfer(&mut self, slot: usize) {
        let flags = self.write_flags();
        let (Some(uring), request) = (&mut self.uring, &self.requests[slot]) else { return };
        let (number, vectors, offset) = (slot as u64, &request.vectors, request.offset);
        // SAFETY: the vectors of a request that is in flight are not touched before it is done, and `drop` waits for it. They stay
        // where they are when the list of requests grows.
        unsafe {
            match request.operation {
                Operation::Read { .. } => uring.read(number, vectors, offset),
                _ => uring.write(number, vectors, offset, flags),
            }
        }
    }

    /// Transfers all of a request at once.
    fn transfer(&mut self, slot: usize) -> io::Result<()> {
        let flags = self.write_flags();
        let file = self.shared.image.as_fd();
        let request = &mut self.requests[slot];
        while request.vectors.length() > 0 {
            let moved = match request.operation {
                Operation::Read { .. } => request.vectors.read(file, Some(request.offset)),
                _ => request.vectors.write(file, Some(request.offset), flags),
            };
            match moved {
                Ok(0) => return Err(end_of_file()),
                Ok(count) => {
                    request.vectors.advance(count);
                    request.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Likewise by way of a buffer whose address direct I/O takes. Drivers hardly ever need it.
    fn transfer_aligned(&mut self, slot: usize) -> io::Result<()> {
        let image = &self.shared.image;
        let missing = |_| io::Error::from_raw_os_error(libc::EFAULT);
        let request = &self.requests[slot];
        let mut data = Aligned::new(request.vectors.length(), image.direct_unit().unwrap_or(1));
        match request.operation {
            Operation::Read { offset } => {
                image.read(data.bytes(), offset)?;
                self.buffers.writable.put(&self.memory, data.bytes()).map_err(missing)?;
            }
            _ => {
                self.buffers.readable.take(&self.memory, data.bytes()).map_err(missing)?;
                image.write(data.bytes(), request.offset)?;
                if self.write_flags() != 0 {
                    image.sync()?;
                }
            }
        }
        Ok(())
    }

    fn submit_and_harvest(&mut self) -> Result<(), NeedsReset> {
        if let Some(uring) = &mut self.uring {
            // What the kernel has no room for is told again when something is done, or at the next turn.
            let _ = uring.submit();
        }
        let mut resubmit = false;
        while let Some((number, result)) = self.uring.as_mut().and_then(Uring::done) {
            resubmit |= self.harvest(number as usize, result)?;
        }
        if let (true, Some(uring)) = (resubmit, &mut self.uring) {
            let _ = uring.submit();
        }
        self.rings.iter_mut().flatten().try_for_each(Ring::signal)
    }

    /// A request is done, or a part of it; then the rest is queued.
    fn harvest(&mut self, slot: usize, result: io::Result<usize>) -> Result<bool, NeedsReset> {
        let request = &mut self.requests[slot];
        let result = match (request.operation, result) {
            (Operation::Flush, result) => result.map(|_| ()),
            (_, Ok(0)) => Err(end_of_file()),
            (_, Ok(count)) => {
                request.vectors.advance(count);
                request.offset += count as u64;
                if request.vectors.length() > 0 {
                    self.queue_transfer(slot);
                    return Ok(true);
                }
                Ok(())
            }
            (_, Err(error)) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {
                self.queue_transfer(slot);
                return Ok(true);
            }
            (_, Err(error)) => Err(error),
        };
        self.finish(slot, result)?;
        Ok(false)
    }

    fn finish(&mut self, slot: usize, result: io::Result<()>) -> Result<(), NeedsReset> {
        let request = &mut self.requests[slot];
        request.vectors.clear();
        self.free.push(slot);
        let Request { queue, head, status, operation, fills, .. } = *request;
        match result {
            Ok(()) => self.answer(queue, head, status, Status::Ok, fills + 1),
            Err(error) => {
                let answer = self.shared.failed(operation, &error);
                self.answer(queue, head, status, answer, written_if_failed(fills as usize))
            }
        }
    }

    /// Gives a chain back.
    fn answer(
        &mut self,
        queue: u16,
        head: u16,
        address: GuestAddress,
        status: Status,
        written: u32,
    ) -> Result<(), NeedsReset> {
        let Some(Some(ring)) = self.rings.get_mut(usize::from(queue)) else { return Ok(()) };
        let put = self.memory.write_obj(status as u8, address);
        put.map_err(|_| ring.broken(&"the place for a status is not in memory"))?;
        ring.push(head, written)?;
        // One transfer at a time takes long enough for the driver to want to hear of each.
        if self.uring.is_none() { ring.signal() } else { Ok(()) }
    }
}

/// What is written counts from a chain's first byte, and the status is the last.
fn written_if_failed(data: usize) -> u32 {
    u32::from(data == 0)
}

fn end_of_file() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the image has become shorter")
}

impl Backend for Queues {
    fn notified(&mut self, queue: u16) -> Result<(), NeedsReset> {
        self.turn(queue)
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        self.uring.iter().map(AsFd::as_fd).collect()
    }

    fn ready(&mut self, _: usize) -> Result<(), NeedsReset> {
        self.submit_and_harvest()
    }

    fn unfinished(&self) -> bool {
        let behind = self.uring.as_ref().is_some_and(Uring::is_behind);
        behind || self.has_room() && self.left.contains(&true)
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        if let Some(uring) = &mut self.uring {
            uring.drain();
        }
        self.shared.set_write_back(self.shared.write_back_at_first);
    }
}
