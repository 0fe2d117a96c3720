//! A hypervisor that writes down what it is asked, and a PCI function that does nothing.

use arch_api::x86_64::{CpuidLeaf, Partition, ProtectedMode, Regs, Vcpu, Vm};
use arch_api::{Bind, Exit, HvError, Reply};
use devices::pci::{Bar, BarKind, Doorbell, Function, Identity, Stuck};
use irq::{Line, Message, Messages};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vm_memory::GuestMemoryMmap;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the VM was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Irq(u32, bool),
    Msi(u64, u32),
    Doorbell(u64, u32, Bind),
    Memory,
    Reset,
}

#[derive(Debug, Default)]
pub struct FakeVm(Mutex<Vec<Asked>>);

impl FakeVm {
    /// Everything since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.0))
    }

    fn note(&self, asked: Asked) -> Result<(), HvError> {
        lock(&self.0).push(asked);
        Ok(())
    }
}

impl Partition for FakeVm {
    fn set_irq(&self, pin: u32, level: bool) -> Result<(), HvError> {
        self.note(Asked::Irq(pin, level))
    }

    fn signal_msi(&self, address: u64, data: u32) -> Result<(), HvError> {
        self.note(Asked::Msi(address, data))
    }

    fn ioeventfd(&self, address: u64, length: u32, _: &dyn AsRawFd, bind: Bind) -> Result<(), HvError> {
        self.note(Asked::Doorbell(address, length, bind))
    }
}

impl Vm for FakeVm {
    type Vcpu = FakeVcpu;

    fn set_memory(&self, _: &GuestMemoryMmap) -> Result<(), HvError> {
        self.note(Asked::Memory)
    }

    fn create_vcpu(&self, id: u32) -> Result<FakeVcpu, HvError> {
        Ok(FakeVcpu { id, ..FakeVcpu::default() })
    }

    fn reset(&self) -> Result<(), HvError> {
        self.note(Asked::Reset)
    }
}

#[derive(Debug, Default)]
pub struct FakeVcpu {
    pub id: u32,
    pub cpuid: Vec<CpuidLeaf>,
    pub regs: Regs,
    pub mode: Option<ProtectedMode>,
    pub resets: usize,
}

impl arch_api::Vcpu for FakeVcpu {
    fn run(&mut self, _: Reply) -> Result<Exit, HvError> {
        Ok(Exit::Interrupted)
    }
}

impl Vcpu for FakeVcpu {
    fn configure(&mut self, cpuid: &[CpuidLeaf], _: &[(u32, u64)]) -> Result<(), HvError> {
        self.cpuid = cpuid.to_vec();
        Ok(())
    }

    fn regs(&mut self) -> Result<Regs, HvError> {
        Ok(self.regs)
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), HvError> {
        self.regs = *regs;
        Ok(())
    }

    fn set_mode(&mut self, mode: &ProtectedMode) -> Result<(), HvError> {
        self.mode = Some(*mode);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), HvError> {
        (self.mode, self.regs) = (None, Regs::default());
        self.resets += 1;
        Ok(())
    }
}

/// A function whose configuration space is one word, and whose memory is where that says.
#[derive(Default)]
pub struct FakeFunction {
    word: Mutex<[u8; 4]>,
    interrupts: Mutex<Option<(Arc<dyn Messages>, Line)>>,
}

const BARS: [Bar; 1] = [Bar { index: 0, kind: BarKind::Memory32, size: 4096 }];

impl FakeFunction {
    /// Sends a message.
    pub fn send(&self, address: u64, data: u32) {
        let (messages, _) = lock(&self.interrupts).clone().expect("it is connected");
        if let Some(line) = messages.route(Message { address, data }) {
            line.set(true).unwrap();
        }
    }

    /// Its pin.
    pub fn pin(&self) -> Line {
        lock(&self.interrupts).clone().expect("it is connected").1
    }
}

impl Function for FakeFunction {
    fn identity(&self) -> Identity {
        Identity { vendor: 0, device: 0, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 }
    }

    fn bars(&self) -> &[Bar] {
        &BARS
    }

    fn vectors(&self) -> u16 {
        1
    }

    fn connect(&self, messages: Arc<dyn Messages>, intx: Line) {
        *lock(&self.interrupts) = Some((messages, intx));
    }

    fn config(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = lock(&self.word).get(at).copied().unwrap_or(0);
        }
    }

    fn set_config(&self, offset: u16, data: &[u8]) -> bool {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            if let Some(kept) = lock(&self.word).get_mut(at) {
                *kept = *byte;
            }
        }
        true
    }

    fn address(&self, _: u8) -> Option<u64> {
        Some(u64::from(u32::from_le_bytes(*lock(&self.word))))
    }

    fn doorbells(&self) -> &[Doorbell] {
        &[]
    }

    fn read(&self, _: u8, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }

    fn write(&self, _: u8, _: u64, _: &[u8]) {}

    fn set_message(&self, _: u16, _: Message) {}

    fn enable_messages(&self, _: bool) {}

    fn reset(&self, _: Instant) -> Result<(), Stuck> {
        *lock(&self.word) = [0; 4];
        Ok(())
    }
}
