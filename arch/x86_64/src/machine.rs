//! The machine: what the run loop drives.

use crate::acpi::Contents;
use crate::boot::{BootError, BootImages, GDT_LIMIT, Start};
use crate::cpuid;
use crate::layout::{self, GDT, PCI_WINDOW, PIN_EVENTS};
use crate::pci::{Bridge, Wires};
use crate::plan::Plan;
use crate::ports::Ports;
use crate::uart::Uart;
use arch_api::x86_64::{FlatSegment, Partition, ProtectedMode, Regs, Vcpu as _, Vm};
use arch_api::{Action, Arch, Exit, Fatal, HvError, Raise, RamRegion, Reply, Scheduler, Stop};
use devices::console::Console;
use devices::dma::{self, Memory, Untranslated};
use devices::pci::Bus;
use irq::{Line, Sink};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Where the boot CPU begins: flat segments, no paging.
const MODE: ProtectedMode = ProtectedMode {
    code: FlatSegment { selector: 0x10, kind: 0xb },
    data: FlatSegment { selector: 0x18, kind: 0x3 },
    task: FlatSegment { selector: 0x20, kind: 0xb },
    gdt: GDT,
    gdt_limit: GDT_LIMIT,
};

/// Model specific registers as firmware leaves them: fast string instructions are on; memory is cached, whatever it is.
const MSRS: [(u32, u64); 2] = [(IA32_MISC_ENABLE, 1), (IA32_MTRR_DEF_TYPE, 0x806)];
const IA32_MISC_ENABLE: u32 = 0x1a0;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;

/// Of the flags only the bit that is always set: interrupts are off.
const RFLAGS: u64 = 2;

/// How a vCPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The boot CPU.
    Boot(Start),
    /// The others wait in the hypervisor until the boot CPU calls them.
    Wait,
}

/// Makes the bus of PCI functions, which see memory like this.
type Populate = Box<dyn FnOnce(Memory) -> io::Result<Bus> + Send + Sync>;

/// The machine.
pub struct Machine<V: Vm> {
    plan: Plan,
    vm: Arc<V>,
    images: BootImages,
    memory: GuestMemoryMmap,
    /// Until there is memory.
    populate: Option<Populate>,
    console: Arc<Console>,
    uart: Arc<Uart>,
    bridge: Option<Bridge>,
    /// How many accesses nobody answered. The log hears of the first.
    unclaimed: Arc<AtomicU64>,
}

impl<V: Vm> Machine<V> {
    /// Puts the machine together. It has no memory yet, and `populate` is called when it has.
    #[must_use]
    pub fn new(
        plan: Plan,
        vm: V,
        images: BootImages,
        console: Arc<Console>,
        populate: impl FnOnce(Memory) -> io::Result<Bus> + Send + Sync + 'static,
    ) -> Self {
        let vm = Arc::new(vm);
        let uart = Arc::new(Uart::new(Arc::clone(&vm) as _, Arc::clone(&console)));
        Self {
            plan,
            vm,
            images,
            memory: GuestMemoryMmap::new(),
            populate: Some(Box::new(populate)),
            console,
            uart,
            bridge: None,
            unclaimed: Arc::default(),
        }
    }

    /// How many accesses outside memory and ports nobody answered, as it grows.
    #[must_use]
    pub fn unclaimed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unclaimed)
    }

    fn partition(&self) -> Arc<dyn Partition> {
        Arc::clone(&self.vm) as _
    }

    fn ports(&self) -> Ports<'_> {
        Ports { uart: &self.uart, bridge: self.bridge.as_ref() }
    }

    fn boot(&self) -> Result<Start, BootError> {
        let slots = self.bridge.iter().flat_map(Bridge::slots).collect();
        let wish = &self.plan.wish;
        let contents = Contents { cpus: wish.cpus, slots };
        self.images.load(&self.memory, wish.memory, &wish.cmdline, &contents)
    }

    /// The bridge, if `address` is in its window.
    fn window(&self, address: u64) -> Option<&Bridge> {
        let bridge = self.bridge.as_ref().filter(|_| PCI_WINDOW.contains(&address));
        if bridge.is_none() && self.unclaimed.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                address = format_args!("{address:#x}"),
                "an access where nothing is; it reads as ones or is dropped, and later ones are only counted"
            );
        }
        bridge
    }
}

impl<V: Vm> Arch for Machine<V> {
    type Vcpu = V::Vcpu;
    type Entry = Entry;

    fn vcpu_count(&self) -> usize {
        self.plan.wish.cpus as usize
    }

    fn ram(&self) -> Vec<RamRegion> {
        let region = |range: std::ops::Range<u64>| RamRegion {
            start: GuestAddress(range.start),
            size: range.end - range.start,
        };
        layout::ram(self.plan.wish.memory).into_iter().map(region).collect()
    }

    fn threads(&self) -> usize {
        1
    }

    fn attach(&mut self, memory: GuestMemoryMmap, _scheduler: Arc<dyn Scheduler>) -> Result<(), HvError> {
        self.vm.set_memory(&memory)?;
        self.memory = memory.clone();
        if let Some(populate) = self.populate.take() {
            let bus = populate(dma::memory(memory, Arc::new(Untranslated)));
            let bus = bus.map_err(|source| HvError { call: "setting up the PCI devices", source })?;
            self.bridge = Bridge::new(bus);
        }
        if let Some(bridge) = &self.bridge {
            let wires: Arc<dyn Sink> = Arc::new(Wires(self.partition()));
            let call = "the thread of the PCI functions' pins";
            bridge.connect(&wires, &self.partition()).map_err(|source| HvError { call, source })?;
        }
        self.console.connect(Line::new(Arc::clone(&self.uart) as _, layout::PIN_COM1));
        Ok(())
    }

    fn create_vcpu(&self, index: usize) -> Result<V::Vcpu, HvError> {
        // The plan allows no more than 254.
        let id = index as u32;
        let mut vcpu = self.vm.create_vcpu(id)?;
        vcpu.configure(&cpuid::leaves(&self.plan.host, id, self.plan.wish.cpus), &MSRS)?;
        Ok(vcpu)
    }

    fn raiser(&self, _index: usize) -> Option<Arc<dyn Raise>> {
        None
    }

    fn reset(&self) -> Result<Vec<(usize, Entry)>, Fatal> {
        self.vm.reset()?;
        self.uart.reset();
        if let Some(bridge) = &self.bridge {
            bridge.reset().map_err(|error| Fatal::Reset(Box::new(error)))?;
        }
        let start = self.boot().map_err(|error| Fatal::Reset(Box::new(error)))?;
        let others = (1..self.vcpu_count()).map(|index| (index, Entry::Wait));
        Ok(others.chain([(0, Entry::Boot(start))]).collect())
    }

    fn enter(&self, _index: usize, vcpu: &mut V::Vcpu, entry: Entry) -> Result<(), Fatal> {
        let Entry::Boot(Start { rip, rbx, rsi }) = entry else { return Ok(()) };
        vcpu.set_mode(&MODE)?;
        Ok(vcpu.set_regs(&Regs { rip, rflags: RFLAGS, rbx, rsi, ..Regs::default() })?)
    }

    /// The power-on state comes now and not before the next entry: the boot CPU may call the others as soon as it runs, and none of them
    /// must forget that.
    fn leave(&self, _index: usize, vcpu: &mut V::Vcpu) -> Result<(), Fatal> {
        Ok(vcpu.reset()?)
    }

    fn prepare(&self, _index: usize, _vcpu: &mut V::Vcpu) -> Result<(), Fatal> {
        Ok(())
    }

    fn handle(&self, index: usize, vcpu: &mut V::Vcpu, exit: Exit) -> Result<Action<Entry>, Fatal> {
        Ok(match exit {
            Exit::PioRead { port, len } => {
                let mut data = [0; 4];
                self.ports().read(port, &mut data[..len.min(4)]);
                Action::Resume(Reply::Pio(data))
            }
            Exit::PioWrite { port, data, len } => match self.ports().write(port, &data[..len.min(4)]) {
                Some(stop) => Action::Stop(stop),
                None => Action::Resume(Reply::None),
            },
            Exit::MmioRead { addr, len } => {
                let mut data = [0xff; 8];
                if let Some(bridge) = self.window(addr) {
                    bridge.read(addr, &mut data[..len.min(8)]);
                }
                Action::Resume(Reply::Mmio(data))
            }
            Exit::MmioWrite { addr, data, len } => {
                if let Some(bridge) = self.window(addr) {
                    bridge.write(addr, &data[..len.min(8)]);
                }
                Action::Resume(Reply::None)
            }
            // What a board makes of it: the processor's shutdown resets the machine. Old kernels reboot that way.
            Exit::Shutdown => {
                tracing::info!(vcpu = index, "the processor has shut down, as after a triple fault");
                Action::Stop(Stop::Reboot)
            }
            _ => return Err(lost(index, vcpu, exit)),
        })
    }

    fn quiesce(&self) {
        if let Some(bridge) = &self.bridge {
            bridge.quiesce();
        }
    }

    fn power_button(&self) -> Result<(), HvError> {
        [true, false].into_iter().try_for_each(|level| self.vm.set_irq(PIN_EVENTS, level))
    }
}

/// An exit that nobody can carry on from, with the registers that say where it came from.
fn lost<V: arch_api::x86_64::Vcpu>(index: usize, vcpu: &mut V, exit: Exit) -> Fatal {
    let place = match vcpu.regs() {
        Ok(r) => format!("rip {:#x} rsp {:#x} rflags {:#x}", r.rip, r.rsp, r.rflags),
        Err(HvError { call, source }) => format!("unknown registers ({call}: {source})"),
    };
    Fatal::Guest { vcpu: index, what: format!("{exit:x?} at {place}") }
}

#[cfg(test)]
mod tests;
