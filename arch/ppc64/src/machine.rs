//! The pseries machine: what the run loop drives.

use crate::boot::{BootError, BootImages};
use crate::cpus::{CpuState, Cpus};
use crate::entropy;
use crate::hcall::{self, Call, Effect};
use crate::layout;
use crate::lpcr;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::tree_spec;
use crate::xive::XiveRoutes;
use arch_api::ppc64::{Generation, Irqchip, Mmu, Partition, Regs, Vcpu as _, Vm};
use arch_api::{Action, Arch, Exit, Fatal, HvError, RamRegion, Reply};
use devices::console::Console;
use irq::{Line, Sink};
use std::io;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// 64-bit mode, machine checks enabled; real mode, big-endian, interrupts off.
const ENTRY_MSR: u64 = 0x8000_0000_0000_1000;

/// Where a vCPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the first instruction.
    pub pc: u64,
    /// r3: the device tree's address for the boot CPU, what start-cpu was given for the others.
    pub r3: u64,
}

/// The machine.
pub struct Machine<V: Vm> {
    plan: Plan,
    vm: Arc<V>,
    images: BootImages,
    platform: Platform,
}

impl<V: Vm> Machine<V> {
    /// Puts the machine together. It has no memory yet.
    #[must_use]
    pub fn new(plan: Plan, vm: V, images: BootImages, console: Arc<Console>) -> Self {
        let vm = Arc::new(vm);
        let partition: Arc<dyn Partition> = Arc::clone(&vm) as _;
        console.connect(Line::new(Arc::new(Sources(Arc::clone(&partition))), layout::IRQ_VIO));
        let platform = Platform {
            memory: GuestMemoryMmap::new(),
            partition,
            cpus: Cpus::new(&plan.spec.servers),
            console,
            unsent: Default::default(),
            clock: Default::default(),
            epow: Default::default(),
            xive: (plan.spec.irqchip == Irqchip::Xive).then(|| XiveRoutes::new(&plan.sources())),
            characteristics: plan.host.characteristics,
            ail_mode_3: plan.host.ail_mode_3,
            radix: plan.spec.mmu == Mmu::Radix,
            isa_v3: plan.generation >= Generation::Power9,
            name: plan.wish.name.clone(),
            ram: plan.wish.memory,
            counters: Default::default(),
        };
        Self { plan, vm, images, platform }
    }

    fn boot(&self) -> Result<(), BootError> {
        let dtb = tree_spec::dtb(&self.plan, &self.images.placement(), entropy::random())?;
        self.images.load(&self.platform.memory, self.plan.rma(), &dtb)
    }

    fn effect(&self, effect: Effect, reply: Reply) -> Action<Entry> {
        match effect {
            Effect::None => Action::Resume(reply),
            Effect::Sync => Action::ResumeAndSync(reply),
            Effect::Start { vcpu, pc, r3 } => Action::Start { vcpu, entry: Entry { pc, r3 }, reply },
            Effect::Park => Action::Park,
            Effect::Stop(stop) => Action::Stop(stop),
        }
    }
}

/// Interrupt sources of KVM's controller, for devices.
struct Sources(Arc<dyn Partition>);

impl Sink for Sources {
    fn set(&self, gsi: u32, level: bool) -> io::Result<()> {
        self.0.set_irq(gsi, level).map_err(|error| error.source)
    }
}

impl<V: Vm> Arch for Machine<V> {
    type Vcpu = V::Vcpu;
    type Entry = Entry;

    fn vcpu_count(&self) -> usize {
        self.platform.cpus.len()
    }

    fn ram(&self) -> Vec<RamRegion> {
        vec![RamRegion { start: GuestAddress(0), size: self.plan.wish.memory }]
    }

    fn attach(&mut self, memory: GuestMemoryMmap) -> Result<(), HvError> {
        self.vm.set_memory(&memory)?;
        self.platform.memory = memory;
        Ok(())
    }

    fn create_vcpu(&self, index: usize) -> Result<V::Vcpu, HvError> {
        let vcpu = self.vm.create_vcpu(self.platform.cpus.server(index))?;
        if index + 1 == self.vcpu_count() {
            self.vm.create_sources(&self.plan.sources())?;
        }
        Ok(vcpu)
    }

    fn reset(&self) -> Result<(usize, Entry), Fatal> {
        self.vm.reset()?;
        self.platform.cpus.reset();
        self.platform.epow.reset();
        if let Some(routes) = &self.platform.xive {
            routes.reset();
        }
        self.boot().map_err(|error| Fatal::Reset(chain(&error)))?;
        let placement = self.images.placement();
        self.platform.cpus.set(0, CpuState::Running);
        Ok((0, Entry { pc: placement.entry, r3: placement.fdt }))
    }

    fn enter(&self, _index: usize, vcpu: &mut V::Vcpu, entry: Entry) -> Result<(), Fatal> {
        vcpu.reset()?;
        let mut regs = Regs { pc: entry.pc, msr: ENTRY_MSR, ..Regs::default() };
        regs.gpr[3] = entry.r3;
        vcpu.set_regs(&regs)?;
        Ok(vcpu.set_online(true)?)
    }

    fn leave(&self, index: usize, vcpu: &mut V::Vcpu) -> Result<(), Fatal> {
        vcpu.set_online(false)?;
        self.platform.cpus.set(index, CpuState::Stopped);
        Ok(())
    }

    fn prepare(&self, index: usize, vcpu: &mut V::Vcpu) -> Result<(), Fatal> {
        match self.platform.cpus.lpcr_update(index) {
            Some(value) => Ok(vcpu.set_lpcr(lpcr::GUEST, value)?),
            None => Ok(()),
        }
    }

    fn handle(&self, index: usize, vcpu: &mut V::Vcpu, exit: Exit) -> Result<Action<Entry>, Fatal> {
        let Exit::Hcall { nr, args } = exit else {
            return Err(lost(index, vcpu, exit));
        };
        let mut call = Call { platform: &self.platform, vcpu: index, args, effect: Effect::None };
        let ret = hcall::dispatch(nr, &mut call);
        Ok(self.effect(call.effect, Reply::Hcall { ret, args: call.args }))
    }

    fn power_button(&self) -> Result<(), HvError> {
        self.platform.epow.press();
        self.platform.partition.set_irq(layout::IRQ_EPOW, true)
    }
}

/// An exit that nobody can carry on from, with the registers that say where it came from.
fn lost<V: arch_api::ppc64::Vcpu>(index: usize, vcpu: &mut V, exit: Exit) -> Fatal {
    let place = match vcpu.regs() {
        Ok(r) => format!("pc {:#x} msr {:#x} lr {:#x}", r.pc, r.msr, r.lr),
        Err(error) => chain(&error),
    };
    Fatal::Guest { vcpu: index, what: format!("{exit:x?} at {place}") }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
