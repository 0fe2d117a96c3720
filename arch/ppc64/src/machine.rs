//! The pseries machine: what the run loop drives.

use crate::assist::Assist;
use crate::boot::{BootError, BootImages};
use crate::cpus::{CpuState, Cpus};
use crate::entropy;
use crate::hcall::{self, Call, Effect};
use crate::layout;
use crate::lpcr;
use crate::own::Own;
use crate::papr::ret::{H_BAD_MODE, H_CONTINUE};
use crate::phb::tce::TceTable;
use crate::phb::{Mmio, Phb};
use crate::plan::Plan;
use crate::platform::Platform;
use crate::tree_spec;
use crate::xive::XiveRoutes;
use arch_api::ppc64::{Generation, Irqchip, Mmu, Partition, Plane, Regs, Trigger, Vcpu as _, Vm};
use arch_api::{Action, Arch, Exit, Fatal, HvError, Nap, Raise, RamRegion, Reply, Scheduler, Until};
use devices::console::Console;
use devices::dma::{self, Memory};
use devices::pci::Bus;
use irq::{Line, Sink};
use std::io;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// 64-bit mode, machine checks enabled; real mode, big-endian, interrupts off.
const ENTRY_MSR: u64 = 0x8000_0000_0000_1000;

/// External interrupts and the decrementer are taken.
const MSR_EE: u64 = 1 << 15;

/// Where a vCPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the first instruction.
    pub pc: u64,
    /// r3: the device tree's address for the boot CPU, what start-cpu was given for the others.
    pub r3: u64,
}

/// Makes the bus of PCI functions, which see memory like this.
type Populate = Box<dyn FnOnce(Memory) -> io::Result<Bus> + Send + Sync>;

/// The machine.
pub struct Machine<V: Vm> {
    plan: Plan,
    vm: Arc<V>,
    images: BootImages,
    /// Until there is memory.
    populate: Option<Populate>,
    /// Every interrupt source, ascending.
    sources: Vec<(u32, Trigger)>,
    platform: Platform,
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
        let partition: Arc<dyn Partition> = Arc::clone(&vm) as _;
        let platform = Platform {
            memory: GuestMemoryMmap::new(),
            partition,
            cpus: Cpus::new(&plan.spec.servers),
            console,
            unsent: Default::default(),
            clock: Default::default(),
            epow: Default::default(),
            own: None,
            assist: None,
            xive: None,
            phb: None,
            mmio: Default::default(),
            characteristics: plan.host.characteristics,
            ail_mode_3: plan.host.ail_mode_3,
            radix: plan.spec.mmu == Mmu::Radix,
            isa_v3: plan.generation >= Generation::Power9,
            name: plan.wish.name.clone(),
            ram: plan.wish.memory,
            counters: Default::default(),
        };
        Self { plan, vm, images, populate: Some(Box::new(populate)), sources: Vec::new(), platform }
    }

    /// What counts the loads and stores that find nothing.
    #[must_use]
    pub fn mmio(&self) -> Arc<Mmio> {
        Arc::clone(&self.platform.mmio)
    }

    fn boot(&self) -> Result<(), BootError> {
        let pci = self.platform.phb.as_ref().map_or_else(Vec::new, Phb::functions);
        let dtb = tree_spec::dtb(&self.plan, &self.images.placement(), &pci, entropy::random())?;
        self.images.load(&self.platform.memory, self.plan.rma(), &dtb)
    }

    fn effect(
        &self,
        index: usize,
        vcpu: &mut V::Vcpu,
        effect: Effect,
        reply: Reply,
    ) -> Result<Action<Entry>, Fatal> {
        Ok(match effect {
            Effect::None => Action::Resume(reply),
            Effect::Cede => return self.cede(index, vcpu, reply),
            Effect::Join => return self.join(index, vcpu, reply),
            Effect::Sync => Action::ResumeAndSync(reply),
            Effect::Start { vcpu, pc, r3 } => Action::Start { vcpu, entry: Entry { pc, r3 }, reply },
            Effect::Park => Action::Park,
            Effect::Stop(stop) => Action::Stop(stop),
        })
    }

    /// H_CEDE that came as a hypercall: it enables interrupts, and naps.
    fn cede(&self, index: usize, vcpu: &mut V::Vcpu, reply: Reply) -> Result<Action<Entry>, Fatal> {
        let mut regs = vcpu.regs()?;
        if regs.msr & MSR_EE == 0 {
            regs.msr |= MSR_EE;
            vcpu.set_regs(&regs)?;
        }
        self.nap(index, vcpu, reply)
    }

    /// The vCPU has ceded.
    fn nap(&self, index: usize, vcpu: &mut V::Vcpu, reply: Reply) -> Result<Action<Entry>, Fatal> {
        let Some(own) = &self.platform.own else { return Err(lost(index, vcpu, Exit::Ceded)) };
        let timeout = u64::try_from(vcpu.decrementer_ns()?).unwrap_or(0);
        Ok(match own.nap(index, timeout, || vcpu.doorbell())? {
            Some(nap) => Action::Nap { nap, reply },
            None => Action::Resume(reply),
        })
    }

    /// H_JOIN. The caller has interrupts disabled, since they would not wake it.
    fn join(&self, index: usize, vcpu: &mut V::Vcpu, reply: Reply) -> Result<Action<Entry>, Fatal> {
        let Reply::Hcall { args, .. } = reply else { return Ok(Action::Resume(reply)) };
        if vcpu.regs()?.msr & MSR_EE != 0 {
            return Ok(Action::Resume(Reply::Hcall { ret: H_BAD_MODE, args }));
        }
        if !self.platform.cpus.try_join(index) {
            return Ok(Action::Resume(Reply::Hcall { ret: H_CONTINUE, args }));
        }
        Ok(Action::Nap { nap: Nap { timeout: None, until: Until::Prod }, reply })
    }
}

/// Every interrupt source, ascending.
fn sources(plan: &Plan, phb: Option<&Phb>) -> Vec<(u32, Trigger)> {
    plan.sources().into_iter().chain(phb.into_iter().flat_map(Phb::sources)).collect()
}

/// Interrupt sources of KVM's controller, for devices.
pub(crate) struct Sources(pub Arc<dyn Partition>);

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

    fn threads(&self) -> usize {
        match self.plan.spec.plane {
            // KVM on the processors that have this plane runs every vCPU by itself, and so is the poll before its sleep.
            Plane::Assist(_) => 1,
            Plane::Kernel | Plane::Vmm(_) => self.plan.wish.threads as usize,
        }
    }

    fn attach(&mut self, memory: GuestMemoryMmap, scheduler: Arc<dyn Scheduler>) -> Result<(), HvError> {
        self.vm.set_memory(&memory)?;
        self.platform.memory = memory.clone();
        if let Some(populate) = self.populate.take() {
            let tces = Arc::<TceTable>::default();
            let bus = populate(dma::memory(memory, Arc::clone(&tces) as _));
            let bus = bus.map_err(|source| HvError { call: "setting up the PCI devices", source })?;
            self.platform.phb = Phb::new(bus, tces);
        }
        self.sources = sources(&self.plan, self.platform.phb.as_ref());
        if self.plan.spec.irqchip == Irqchip::Xive {
            self.platform.xive = Some(XiveRoutes::new(&self.sources));
        }
        let threads = self.plan.wish.threads;
        if let Plane::Assist(_) = self.plan.spec.plane {
            let (memory, scheduler) = (self.platform.memory.clone(), Arc::clone(&scheduler));
            self.platform.assist = Some(Assist::new(self.vcpu_count(), threads as usize, memory, scheduler));
        }
        let sink: Arc<dyn Sink> = match self.plan.spec.plane {
            Plane::Kernel | Plane::Assist(_) => Arc::new(Sources(Arc::clone(&self.platform.partition))),
            Plane::Vmm(_) => {
                let own = Own::new(self.vcpu_count(), threads, &self.sources, scheduler);
                let own = Arc::new(own);
                self.platform.own = Some(Arc::clone(&own));
                own
            }
        };
        if let Some(phb) = &self.platform.phb {
            let call = "the thread of the PCI functions' pins";
            phb.connect(&sink, &self.platform.partition).map_err(|source| HvError { call, source })?;
        }
        self.platform.console.connect(Line::new(sink, layout::IRQ_VIO));
        Ok(())
    }

    fn create_vcpu(&self, index: usize) -> Result<V::Vcpu, HvError> {
        let vcpu = self.vm.create_vcpu(self.platform.cpus.server(index))?;
        if let Some(own) = &self.platform.own {
            own.connect(index, vcpu.external_pin());
        }
        if index + 1 == self.vcpu_count() {
            self.vm.create_sources(&self.sources)?;
        }
        Ok(vcpu)
    }

    fn raiser(&self, index: usize) -> Option<Arc<dyn Raise>> {
        self.platform.own.as_ref()?.raiser(index)
    }

    fn reset(&self) -> Result<Vec<(usize, Entry)>, Fatal> {
        self.vm.reset()?;
        self.platform.cpus.reset();
        self.platform.epow.reset();
        if let Some(routes) = &self.platform.xive {
            routes.reset();
        }
        if let Some(own) = &self.platform.own {
            own.xics.reset();
        }
        if let Some(assist) = &self.platform.assist {
            assist.reset();
        }
        if let Some(phb) = &self.platform.phb {
            phb.reset().map_err(|error| Fatal::Reset(Box::new(error)))?;
        }
        self.boot().map_err(|error| Fatal::Reset(Box::new(error)))?;
        let placement = self.images.placement();
        self.platform.cpus.set(0, CpuState::Running);
        Ok(vec![(0, Entry { pc: placement.entry, r3: placement.fdt })])
    }

    fn enter(&self, index: usize, vcpu: &mut V::Vcpu, entry: Entry) -> Result<(), Fatal> {
        vcpu.watch_cede()?;
        vcpu.reset()?;
        if let Some(own) = &self.platform.own {
            own.xics.reset_server(index, |index| own.notify(index));
        }
        if let Some(assist) = &self.platform.assist {
            assist.online(index);
        }
        let mut regs = Regs { pc: entry.pc, msr: ENTRY_MSR, ..Regs::default() };
        regs.gpr[3] = entry.r3;
        vcpu.set_regs(&regs)?;
        Ok(vcpu.set_online(true)?)
    }

    fn leave(&self, index: usize, vcpu: &mut V::Vcpu) -> Result<(), Fatal> {
        vcpu.set_online(false)?;
        if let Some(assist) = &self.platform.assist {
            assist.offline(index);
        }
        self.platform.cpus.set(index, CpuState::Stopped);
        Ok(())
    }

    fn prepare(&self, index: usize, vcpu: &mut V::Vcpu) -> Result<(), Fatal> {
        if let Some(value) = self.platform.cpus.lpcr_update(index) {
            vcpu.set_lpcr(lpcr::GUEST, value)?;
        }
        if let Some(own) = &self.platform.own {
            self.platform.cpus.unjoin(index);
            own.settle(index)?;
        }
        if let Some(assist) = &self.platform.assist {
            assist.prepare(index, vcpu);
        }
        Ok(())
    }

    fn handle(&self, index: usize, vcpu: &mut V::Vcpu, exit: Exit) -> Result<Action<Entry>, Fatal> {
        if let Some(assist) = &self.platform.assist {
            match exit {
                Exit::Ceded => assist.ceded(index, vcpu)?,
                Exit::Woken => assist.woken(index, vcpu),
                _ => assist.busy(index, vcpu),
            }
            if let Exit::Ceded | Exit::Woken = exit {
                return Ok(Action::Resume(Reply::None));
            }
        }
        let (nr, args) = match exit {
            Exit::Hcall { nr, args } => (nr, args),
            Exit::MmioRead { addr, len } => {
                let mut data = [0; 8];
                self.platform.mmio.read(self.platform.phb.as_ref(), addr, &mut data[..len.min(8)]);
                return Ok(Action::Resume(Reply::Mmio(data)));
            }
            Exit::MmioWrite { addr, data, len } => {
                self.platform.mmio.write(self.platform.phb.as_ref(), addr, &data[..len.min(8)]);
                return Ok(Action::Resume(Reply::None));
            }
            Exit::Ceded => return self.nap(index, vcpu, Reply::None),
            _ => return Err(lost(index, vcpu, exit)),
        };
        let mut call = Call { platform: &self.platform, vcpu: index, args, effect: Effect::None };
        let ret = hcall::dispatch(nr, &mut call);
        let (effect, reply) = (call.effect, Reply::Hcall { ret, args: call.args });
        self.effect(index, vcpu, effect, reply)
    }

    fn quiesce(&self) {
        if let Some(phb) = &self.platform.phb {
            phb.quiesce();
        }
    }

    fn power_button(&self) -> Result<(), HvError> {
        self.platform.epow.press();
        let call = "the EPOW interrupt";
        self.platform.set_irq(layout::IRQ_EPOW, true).map_err(|source| HvError { call, source })
    }
}

/// An exit that nobody can carry on from, with the registers that say where it came from.
fn lost<V: arch_api::ppc64::Vcpu>(index: usize, vcpu: &mut V, exit: Exit) -> Fatal {
    let place = match vcpu.regs() {
        Ok(r) => format!("pc {:#x} msr {:#x} lr {:#x}", r.pc, r.msr, r.lr),
        Err(HvError { call, source }) => format!("unknown registers ({call}: {source})"),
    };
    Fatal::Guest { vcpu: index, what: format!("{exit:x?} at {place}") }
}

#[cfg(test)]
mod tests;
