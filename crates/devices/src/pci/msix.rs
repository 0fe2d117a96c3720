//! MSI-X: the table of a function's messages, its pending bits, and the vectors that they lead to.
//!
//! ```text
//!  BAR: table, 16 bytes a vector │ pending bits, from the half of it on
//!
//!  table, enable, mask ──resolve, under the lock──▶ Vector ◀──raise, no lock── device threads
//! ```
//!
//! Always true: a vector's route is that of its entry as it is in the table. What was raised
//! while the entry or the function was masked is sent, once, when neither is any more; the bit is set meanwhile.
//! Source: PCI Local Bus Specification 3.0, 6.8.2.

use super::{Bar, BarKind};
use irq::{Line, Message, Messages, Vector};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Type of the capability.
pub const CAPABILITY: u8 = 0x11;

/// Most vectors of one function.
pub const MOST: u16 = 2048;

/// Bytes of an entry: address, data, control.
const ENTRY: u64 = 16;

/// In an entry's control word.
const ENTRY_MASKED: u32 = 1;

/// In message control.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;

/// The vectors of a function.
pub struct Msix {
    vectors: Box<[Vector]>,
    table: Mutex<Table>,
    /// Copy of the table's, for those who raise.
    enabled: AtomicBool,
    messages: OnceLock<Arc<dyn Messages>>,
}

struct Table {
    entries: Box<[Entry]>,
    control: u16,
}

#[derive(Clone, Copy)]
struct Entry {
    message: Message,
    masked: bool,
}

impl Entry {
    /// The power-on state.
    const INITIAL: Self = Self { message: Message { address: 0, data: 0 }, masked: true };
}

impl Msix {
    /// Table and pending bits for `count` vectors, at most [`MOST`].
    #[must_use]
    pub fn new(count: u16) -> Self {
        let count = usize::from(count.min(MOST));
        Self {
            vectors: (0..count).map(|_| Vector::default()).collect(),
            table: Mutex::new(Table { entries: vec![Entry::INITIAL; count].into(), control: 0 }),
            enabled: AtomicBool::new(false),
            messages: OnceLock::new(),
        }
    }

    /// How many vectors there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// The base address register that table and pending bits are behind.
    #[must_use]
    pub fn bar(&self, index: u8) -> Bar {
        Bar { index, kind: BarKind::Memory32, size: 2 * self.pending_offset() }
    }

    /// What the capability says after the pointer to the next one, and what of it can be written. It begins with message
    /// control.
    #[must_use]
    pub fn capability(&self, bar: u8) -> ([u8; 10], [u8; 2]) {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&self.count().saturating_sub(1).to_le_bytes());
        body[2..6].copy_from_slice(&u32::from(bar).to_le_bytes());
        body[6..].copy_from_slice(&(self.pending_offset() as u32 | u32::from(bar)).to_le_bytes());
        (body, (ENABLE | MASK_ALL).to_le_bytes())
    }

    /// Where the pending bits begin: behind the table, half of the window each.
    fn pending_offset(&self) -> u64 {
        (ENTRY * self.vectors.len() as u64).next_power_of_two().max(2048)
    }

    /// Says where messages lead, once.
    pub fn connect(&self, messages: Arc<dyn Messages>) {
        _ = self.messages.set(messages);
    }

    /// Takes over message control as it was written.
    pub fn set_control(&self, control: u16) {
        let mut table = self.table();
        if table.control != control & (ENABLE | MASK_ALL) {
            self.apply(&mut table, control);
        }
    }

    fn apply(&self, table: &mut Table, control: u16) {
        table.control = control & (ENABLE | MASK_ALL);
        let enabled = control & ENABLE != 0;
        // Whoever finds it on finds the routes too: they are there first, and go last.
        if !enabled {
            self.enabled.store(false, Ordering::Release);
        }
        for index in 0..self.vectors.len() {
            self.resolve(table, index);
        }
        if enabled {
            self.enabled.store(true, Ordering::Release);
        }
    }

    /// Message control with MSI-X on or off.
    #[must_use]
    pub fn switched(control: u16, enabled: bool) -> u16 {
        if enabled { control | ENABLE } else { control & !ENABLE }
    }

    /// Whether the function interrupts by messages.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Raises a vector; one that does not exist is ignored.
    pub fn raise(&self, vector: u16) {
        if let Some(Err(error)) = self.vectors.get(usize::from(vector)).map(Vector::raise) {
            tracing::debug!(%error, vector, "a message leads to no source");
        }
    }

    /// Where a raise of `vector` leads at this moment; `None` while MSI-X is off, it is masked, or its message leads nowhere.
    #[must_use]
    pub fn line(&self, vector: u16) -> Option<Line> {
        let table = self.table();
        let entry = table.entries.get(usize::from(vector)).filter(|entry| !entry.masked)?;
        let open = table.control & (ENABLE | MASK_ALL) == ENABLE;
        self.messages.get().filter(|_| open)?.route(entry.message)
    }

    /// Sets a vector's message and unmasks it, as firmware does.
    pub fn set_message(&self, vector: u16, message: Message) {
        let mut table = self.table();
        if let Some(entry) = table.entries.get_mut(usize::from(vector)) {
            *entry = Entry { message, masked: false };
            self.resolve(&table, usize::from(vector));
        }
    }

    /// Reads behind the base address register: 4 or 8 bytes, aligned.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if !proper(offset, data.len()) {
            return;
        }
        for (at, word) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            word.copy_from_slice(&self.word(at).to_le_bytes());
        }
    }

    fn word(&self, offset: u64) -> u32 {
        if offset >= self.pending_offset() {
            return self.pending(offset - self.pending_offset());
        }
        let table = self.table();
        let Some(entry) = table.entries.get((offset / ENTRY) as usize) else { return u32::MAX };
        match offset % ENTRY {
            0 => entry.message.address as u32,
            4 => (entry.message.address >> 32) as u32,
            8 => entry.message.data,
            _ => u32::from(entry.masked),
        }
    }

    /// The word of pending bits at `offset`.
    fn pending(&self, offset: u64) -> u32 {
        let vectors = self.vectors.iter().skip((offset as usize).saturating_mul(8)).take(32);
        vectors.enumerate().fold(0, |bits, (bit, vector)| bits | (u32::from(vector.is_pending()) << bit))
    }

    /// Writes behind the base address register: 4 or 8 bytes, aligned. Pending bits only tell.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if !proper(offset, data.len()) {
            return;
        }
        let mut table = self.table();
        let index = (offset / ENTRY) as usize;
        let Some(entry) = table.entries.get_mut(index) else { return };
        for (at, word) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let address = entry.message.address;
            match at % ENTRY {
                // Messages are written to whole words.
                0 => entry.message.address = (address & !0xffff_ffff) | u64::from(word & !3),
                4 => entry.message.address = (address & 0xffff_ffff) | (u64::from(word) << 32),
                8 => entry.message.data = word,
                _ => entry.masked = word & ENTRY_MASKED != 0,
            }
        }
        self.resolve(&table, index);
    }

    /// The power-on state.
    pub fn reset(&self) {
        let mut table = self.table();
        table.entries.fill(Entry::INITIAL);
        self.apply(&mut table, 0);
    }

    /// Brings a vector up to its entry. A raise that began before is not under way any more when this returns.
    fn resolve(&self, table: &Table, index: usize) {
        let (entry, vector) = (&table.entries[index], &self.vectors[index]);
        if table.control & ENABLE == 0 {
            return vector.reset();
        }
        let masked = entry.masked || table.control & MASK_ALL != 0;
        let route = || self.messages.get().and_then(|messages| messages.route(entry.message));
        // The route changes behind the mask, so that what is pending goes to the new one.
        let done = match masked {
            true => vector.set_masked(true).map(|()| vector.set_route(route())),
            false => {
                vector.set_route(route());
                vector.set_masked(false)
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, index, "a pending message leads to no source");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn proper(offset: u64, length: usize) -> bool {
    matches!(length, 4 | 8) && offset % length as u64 == 0
}

#[cfg(test)]
mod tests;
