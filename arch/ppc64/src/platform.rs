//! What hcalls and RTAS calls work on: everything of the machine that is not one vCPU's own.

use crate::assist::Assist;
use crate::clock::Clock;
use crate::cpus::Cpus;
use crate::epow::Epow;
use crate::hcall::{Counters, Unsent};
use crate::own::Own;
use crate::phb::{Mmio, Phb};
use crate::xive::XiveRoutes;
use arch_api::ppc64::{CpuCharacteristics, Partition};
use devices::console::Console;
use irq::Sink;
use std::io;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

/// The machine, but for its vCPUs.
pub struct Platform {
    /// Guest RAM.
    pub memory: GuestMemoryMmap,
    /// The hypervisor.
    pub partition: Arc<dyn Partition>,
    /// Which vCPUs run.
    pub cpus: Cpus,
    /// The console behind vty 0.
    pub console: Arc<Console>,
    /// What the console has taken from the guest and not sent yet.
    pub unsent: Unsent,
    /// The guest's wall clock.
    pub clock: Clock,
    /// The power button.
    pub epow: Epow,
    /// The interrupt controller and the scheduler, on the VMM's plane.
    pub own: Option<Arc<Own>>,
    /// What polls before KVM sleeps, on the assist plane.
    pub assist: Option<Assist>,
    /// The PCI host bridge, when there is something behind it.
    pub phb: Option<Phb>,
    /// Loads and stores outside memory.
    pub mmio: Arc<Mmio>,
    /// XIVE routes, when the guest has a XIVE.
    pub xive: Option<XiveRoutes>,
    /// What H_GET_CPU_CHARACTERISTICS answers; `None` where the host does not know.
    pub characteristics: Option<CpuCharacteristics>,
    /// Whether the host lets AIL be 3 (KVM_CAP_PPC_AIL_MODE_3).
    pub ail_mode_3: bool,
    /// Whether the guest's tables are radix trees.
    pub radix: bool,
    /// Whether H_REGISTER_PROC_TBL exists (ISA 3.0).
    pub isa_v3: bool,
    /// The guest's name, for `ibm,get-system-parameter`.
    pub name: String,
    /// RAM in bytes.
    pub ram: u64,
    /// How often each hcall came.
    pub counters: Counters,
}

impl Platform {
    /// Triggers an edge source, or sets the level of a level source, of whichever interrupt controller there is.
    ///
    /// # Errors
    /// When there is no such source.
    pub fn set_irq(&self, source: u32, level: bool) -> io::Result<()> {
        match &self.own {
            Some(own) => own.set(source, level),
            None => self.partition.set_irq(source, level).map_err(|error| error.source),
        }
    }
}
