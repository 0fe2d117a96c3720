//! pseries guests: the one place that names POWER's machine and KVM together.

use crate::config::host::{check_memory, host_memory};
use crate::config::{ConfigError, CpuModel, IrqchipChoice, MmuChoice, PlaneChoice, VmConfig};
use crate::control::kernel::HostTunables;
use crate::control::{Load, Side};
use crate::devices::{OpenDevices, host_console};
use crate::machine::{MachineError, Parts, Ready};
use arch_api::HvError;
use arch_api::ppc64::{Generation, Host, Irqchip, Plane};
use kvm::ppc64::{CAPABILITIES, Vm, VmFd, probe};
use kvm::{Kvm, OpenError, Parameters, Signals};
use ppc64::boot::Placement;
use ppc64::phb::Phb;
use ppc64::{BootError, BootImages, Machine, MmuKind, Plan, PlanError, PlaneKind, Wish};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use vcore::Tunables;

/// A guest could not be run, or not to its end.
pub type PowerError = MachineError<PlanError, BootError>;

impl From<BootError> for PowerError {
    fn from(error: BootError) -> Self {
        Self::Boot(error)
    }
}

impl From<PlanError> for PowerError {
    /// The plan alone decides what the host can; what the user can mend is told by its flag and key.
    fn from(error: PlanError) -> Self {
        Self::Config(match error {
            PlanError::Threads { threads, mask } => ConfigError::Threads { wanted: threads, mask },
            PlanError::PartialCore { cpus, threads } => ConfigError::Topology { cpus, threads },
            PlanError::TooManyCpus { cpus, max } => ConfigError::Cpus { wanted: cpus, limit: max },
            other => return Self::Plan(other),
        })
    }
}

fn wish(config: &VmConfig) -> Wish {
    Wish {
        name: config.name.clone(),
        cpus: config.topology.vcpus.get(),
        threads: config.topology.threads.get(),
        memory: config.memory.bytes(),
        cpu: generation(config.model),
        mmu: match config.mmu {
            MmuChoice::Auto => None,
            MmuChoice::Radix => Some(MmuKind::Radix),
            MmuChoice::Hash => Some(MmuKind::Hash),
        },
        irqchip: match config.irqchip {
            IrqchipChoice::Auto => None,
            IrqchipChoice::Xive => Some(Irqchip::Xive),
            IrqchipChoice::Xics => Some(Irqchip::Xics),
        },
        plane: match config.plane {
            PlaneChoice::Auto => None,
            PlaneChoice::Kernel => Some(PlaneKind::Kernel),
            PlaneChoice::Assist => Some(PlaneKind::Assist),
            PlaneChoice::Vmm => Some(PlaneKind::Vmm),
        },
        polls: config.tunables.on(Tunables::NO_POLL).halt_poll_ns != 0,
        cmdline: config.boot.cmdline.clone(),
    }
}

fn generation(model: CpuModel) -> Option<Generation> {
    match model {
        CpuModel::Host => None,
        CpuModel::Power8 => Some(Generation::Power8),
        CpuModel::Power9 => Some(Generation::Power9),
        CpuModel::Power10 => Some(Generation::Power10),
    }
}

/// KVM on this host: what it can do, and the empty VM that told.
struct PowerHost {
    host: Host,
    kvm: Kvm,
    vm: VmFd,
}

impl PowerHost {
    fn open() -> Result<Self, OpenError> {
        let kvm = Kvm::open()?;
        let vm = VmFd::create(&kvm)?;
        let host = probe(&kvm, &vm)?;
        Ok(Self { host, kvm, vm })
    }
}

/// Runs a guest to its end.
///
/// # Errors
/// [`PowerError`]; nothing of the guest has run unless the run loop says so.
pub fn run(config: &VmConfig, load: Option<Load>) -> Result<vmm::Outcome, PowerError> {
    let kernel = config.boot.kernel()?;
    let PowerHost { host, vm, .. } = PowerHost::open()?;
    check_memory(config, host_memory())?;
    let plan = Plan::choose(wish(config), &host)?;
    let parts = Parts::claim(config)?;
    plan.reasons.iter().for_each(|reason| tracing::info!("{reason}"));
    let images = BootImages::open(kernel, config.boot.initrd.as_deref(), plan.rma())?;
    let devices = OpenDevices::open(&config.devices)?;
    let (balloon, cards) = (devices.balloon(), devices.cards());
    let (plane, polls) = (plan.spec.plane, plan.host.generation == Generation::Power8);
    let vm = Vm::build(vm, plan.spec.clone(), &host, Signals { kick: vmm::kick_signal() })?;
    let figures = vm.figures();
    let console = Arc::new(host_console(&config.console, "the guest's console")?);
    let populate = move |memory| devices.bus(ppc64::phb::window::bus_ranges(), &memory);
    let machine = Machine::new(plan, vm, images, Arc::clone(&console), populate);
    let mmio = machine.mmio();
    let side = |tunables| match plane {
        Plane::Vmm(_) => Side::Own { plane: "vmm", tunables },
        Plane::Assist(_) => Side::Own { plane: "assist", tunables },
        Plane::Kernel => Side::Kernel(HostTunables::new(Parameters::default(), polls), figures),
    };
    let (side, unclaimed) = (Box::new(side), Box::new(move || mmio.unclaimed()));
    Ok(parts.run(Ready { machine, console, balloon, cards, unclaimed, side }, config, load)?)
}

/// The device tree that a configuration gives: this host's, or that of a bare-metal host of the generation
/// that was named. Of the devices it has what the guest will find, and nothing of the host's is opened for them.
///
/// # Errors
/// When neither KVM nor a generation says what the machine is, or the images do not fit.
pub fn tree(config: &VmConfig) -> Result<Vec<u8>, PowerError> {
    let host = match generation(config.model) {
        Some(generation) => ppc64::assumed_host(generation),
        None => PowerHost::open()?.host,
    };
    let plan = Plan::choose(wish(config), &host)?;
    let placement = match &config.boot.kernel {
        Some(kernel) => BootImages::open(kernel, config.boot.initrd.as_deref(), plan.rma())?.placement(),
        None => Placement::NOMINAL,
    };
    let bus = OpenDevices::outline(&config.devices, ppc64::phb::window::bus_ranges());
    let bus = bus.map_err(|source| HvError { call: "setting up the PCI devices", source })?;
    let functions = Phb::new(bus, Arc::default()).map_or_else(Vec::new, |phb| phb.functions());
    Ok(ppc64::dtb(&plan, &placement, &functions, None)?)
}

/// What `cede caps` says.
#[derive(Debug, Serialize)]
pub struct Caps {
    processor: &'static str,
    pvr: String,
    page_size: u64,
    timebase_hz: u32,
    capabilities: Vec<(&'static str, i32)>,
    /// What cede would choose for a guest that asks for nothing, and why.
    choices: Vec<String>,
}

/// Asks this host.
///
/// # Errors
/// When there is no KVM to ask.
pub fn caps(config: &VmConfig) -> Result<Caps, PowerError> {
    let PowerHost { host, kvm, .. } = PowerHost::open()?;
    let plan = Plan::choose(wish(config), &host)?;
    Ok(Caps {
        processor: host.generation.name(),
        pvr: format!("{:04x} {:04x}", host.pvr >> 16, host.pvr & 0xffff),
        page_size: host.page_size,
        timebase_hz: host.timebase_hz,
        capabilities: CAPABILITIES.iter().map(|&(name, cap)| (name, kvm.capability(cap))).collect(),
        choices: plan.reasons,
    })
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, pvr, page_size, timebase_hz, capabilities, choices } = self;
        writeln!(f, "host: {processor} (pvr {pvr}), pages of {page_size} bytes, timebase {timebase_hz} Hz")?;
        writeln!(f, "KVM: Book3S HV")?;
        for (name, value) in capabilities {
            writeln!(f, "  {name:<26} {value}")?;
        }
        write!(f, "for a guest that asks for nothing, cede chooses:")?;
        choices.iter().try_for_each(|choice| write!(f, "\n  {choice}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::Outcome;

    #[test]
    fn what_the_user_can_mend_is_told_by_its_flag() {
        let error = PowerError::from(PlanError::TooManyCpus { cpus: 9, max: 8 });
        assert_eq!(
            (error.to_string().as_str(), error.outcome()),
            ("9 vCPUs are more than this host's KVM allows (8); lower --cpus ([cpu] count)", Outcome::Usage)
        );
        let error = PowerError::from(PlanError::Threads { threads: 8, mask: 0b111 });
        assert!(error.to_string().ends_with("set --threads ([cpu] threads) to 1, 2, 4"), "{error}");
        assert_eq!(PowerError::from(PlanError::NoRadix).outcome(), Outcome::Host);
    }
}
