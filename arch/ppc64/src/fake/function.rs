//! A PCI function for tests: a header that remembers, one base address register, and what it was told.
//!
//! It asserts what the bus and the host bridge promise a function.

use devices::pci::{Bar, BarKind, Bus, Doorbell, Function, Identity, Stuck};
use irq::{Line, Message, Messages, Vector};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Vectors of the functions of [`bus`], by slot.
pub const VECTORS: &[u16] = &[3, 0, 2];

pub const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: 0x01_00_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

pub const BAR: Bar = Bar { index: 0, kind: BarKind::Memory64, size: 0x4000 };

/// Where in the register's window a store only tells.
pub const DOORBELL: u64 = 0x1000;

/// The command register, and its bit that decodes memory.
pub const COMMAND: u16 = 4;
pub const MEMORY: u16 = 2;

/// What a load behind the register reads.
pub const LOADED: u8 = 0x5a;

#[derive(Default)]
struct State {
    config: Vec<u8>,
    messages: Vec<Message>,
    enabled: bool,
    resets: u32,
    hangs: bool,
    stores: Vec<(u64, Vec<u8>)>,
    wiring: Option<(Arc<dyn Messages>, Line)>,
}

pub struct FakeFunction {
    vectors: u16,
    doorbells: Vec<Doorbell>,
    state: Mutex<State>,
}

impl FakeFunction {
    pub fn new(vectors: u16) -> Self {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let messages = vec![Message::default(); vectors.into()];
        let state = State { config: vec![0; 4096], messages, ..State::default() };
        Self {
            vectors,
            doorbells: vec![Doorbell { bar: 0, offset: DOORBELL, event }],
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Messages as they were last set, and whether they are on.
    pub fn messages(&self) -> (Vec<Message>, bool) {
        let state = self.state();
        (state.messages.clone(), state.enabled)
    }

    pub fn resets(&self) -> u32 {
        self.state().resets
    }

    /// Its work does not end, or does again.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// Stores since the last time.
    pub fn stores(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.state().stores)
    }

    /// Raises a vector as a device does, along the route of its message. The hypervisor may refuse.
    pub fn raise(&self, vector: usize) {
        let state = self.state();
        let (router, _) = state.wiring.as_ref().expect("it is connected");
        let route = Vector::default();
        route.set_route(router.route(state.messages[vector]));
        _ = route.raise();
    }

    /// Sets its pin.
    pub fn pull(&self, level: bool) {
        let (_, pin) = self.state().wiring.clone().expect("it is connected");
        pin.set(level).unwrap();
    }
}

/// A bus with a function for each of [`VECTORS`].
pub fn bus() -> (Bus, Vec<Arc<FakeFunction>>) {
    let mut bus = Bus::new(crate::phb::window::bus_ranges());
    let functions: Vec<_> = VECTORS.iter().map(|&vectors| Arc::new(FakeFunction::new(vectors))).collect();
    for (slot, function) in (0..).zip(&functions) {
        assert_eq!(bus.add(Arc::clone(function) as _).unwrap(), slot);
    }
    (bus, functions)
}

fn assert_proper(offset: u16, length: usize) {
    assert!(
        matches!(length, 1 | 2 | 4) && usize::from(offset) % length == 0 && offset < 4096,
        "{offset:#x} {length}"
    );
}

impl Function for FakeFunction {
    fn identity(&self) -> Identity {
        IDENTITY
    }

    fn bars(&self) -> &[Bar] {
        &[BAR]
    }

    fn vectors(&self) -> u16 {
        self.vectors
    }

    fn connect(&self, messages: Arc<dyn Messages>, intx: Line) {
        let before = self.state().wiring.replace((messages, intx));
        assert!(before.is_none(), "connected twice");
    }

    fn config(&self, offset: u16, data: &mut [u8]) {
        assert_proper(offset, data.len());
        data.copy_from_slice(&self.state().config[offset.into()..][..data.len()]);
    }

    fn set_config(&self, offset: u16, data: &[u8]) -> bool {
        assert_proper(offset, data.len());
        self.state().config[offset.into()..][..data.len()].copy_from_slice(data);
        true
    }

    fn address(&self, bar: u8) -> Option<u64> {
        assert_eq!(bar, 0);
        let state = self.state();
        let register =
            |at: usize| u64::from(u32::from_le_bytes(state.config[at..at + 4].try_into().unwrap()));
        let address = (register(0x14) << 32 | register(0x10)) & !(BAR.size - 1);
        (state.config[usize::from(COMMAND)] & MEMORY as u8 != 0).then_some(address)
    }

    fn doorbells(&self) -> &[Doorbell] {
        &self.doorbells
    }

    fn read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        assert!(bar == 0 && offset + data.len() as u64 <= BAR.size, "{bar} {offset:#x}");
        data.fill(LOADED);
    }

    fn write(&self, bar: u8, offset: u64, data: &[u8]) {
        assert!(bar == 0 && offset + data.len() as u64 <= BAR.size, "{bar} {offset:#x}");
        self.state().stores.push((offset, data.to_vec()));
    }

    fn set_message(&self, vector: u16, message: Message) {
        assert!(vector < self.vectors, "vector {vector}");
        self.state().messages[usize::from(vector)] = message;
    }

    fn enable_messages(&self, enabled: bool) {
        self.state().enabled = enabled;
    }

    fn reset(&self, _: Instant) -> Result<(), Stuck> {
        let mut state = self.state();
        if state.hangs {
            return Err(Stuck("a fake".into()));
        }
        let (messages, resets, wiring) =
            (vec![Message::default(); self.vectors.into()], state.resets + 1, state.wiring.take());
        *state = State { config: vec![0; 4096], messages, resets, wiring, ..State::default() };
        Ok(())
    }
}
