//! x86_64 guests: the one place that names their machine and KVM together.

use crate::config::host::{check_memory, host_memory};
use crate::config::{ConfigError, CpuModel, IrqchipChoice, MmuChoice, PlaneChoice, VmConfig};
use crate::control::kernel::{HostTunables, Limit};
use crate::control::{Load, Side};
use crate::devices::{OpenDevices, host_console};
use crate::machine::{MachineError, Parts, Ready};
use arch_api::x86_64::Host;
use kvm::x86_64::{CAPABILITIES, HaltPoll, Vm, VmFd, probe};
use kvm::{Kvm, Parameters, Signals};
use serde::Serialize;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use x86_64::{BootError, BootImages, Machine, Plan, PlanError, Wish};

/// A guest could not be run, or not to its end.
pub type X86Error = MachineError<PlanError, BootError>;

impl From<BootError> for X86Error {
    fn from(error: BootError) -> Self {
        Self::Boot(error)
    }
}

impl From<PlanError> for X86Error {
    /// What the user can mend is told by its flag and key.
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::TooManyCpus { cpus, max } => {
                Self::Config(ConfigError::Cpus { wanted: cpus, limit: max })
            }
            other => Self::Plan(other),
        }
    }
}

impl Limit for HaltPoll {
    fn set_limit(&self, ns: u32) -> io::Result<()> {
        self.set(ns).map_err(|error| error.source)
    }
}

/// What the configuration asks for; what x86_64 guests do not have is refused.
fn wish(config: &VmConfig) -> Result<Wish, ConfigError> {
    let devices = &config.devices;
    let translated = devices.disks.iter().any(|disk| disk.iommu)
        || devices.nets.iter().any(|net| net.iommu)
        || devices.vsock.as_ref().is_some_and(|vsock| vsock.iommu)
        || devices.rng.is_some_and(|rng| rng.iommu);
    let unknown = [
        (config.topology.threads.get() > 1, "cores of several threads (--threads, [cpu] threads)"),
        (config.model != CpuModel::Host, "a processor other than the host's (--cpu, [cpu] model)"),
        (config.mmu != MmuChoice::Auto, "a choice of MMU (--mmu, [machine] mmu)"),
        (
            config.irqchip != IrqchipChoice::Auto,
            "a choice of interrupt controller (--irqchip, [machine] irqchip)",
        ),
        (
            matches!(config.plane, PlaneChoice::Vmm | PlaneChoice::Assist),
            "a plane of cede's own (--plane, [cede] plane)",
        ),
        (translated, "a translation in front of devices (iommu)"),
    ];
    if let Some((_, what)) = unknown.into_iter().find(|(asked, _)| *asked) {
        return Err(ConfigError::NotOnX86 { what });
    }
    Ok(Wish {
        cpus: config.topology.vcpus.get(),
        memory: config.memory.bytes(),
        cmdline: config.boot.cmdline.clone(),
    })
}

fn open() -> Result<(Kvm, Host), X86Error> {
    let kvm = Kvm::open()?;
    let host = probe(&kvm)?;
    Ok((kvm, host))
}

/// Runs a guest to its end.
///
/// # Errors
/// [`X86Error`]; nothing of the guest has run unless the run loop says so.
pub fn run(config: &VmConfig, load: Option<Load>) -> Result<vmm::Outcome, X86Error> {
    let kernel = config.boot.kernel()?;
    let wish = wish(config)?;
    let (kvm, host) = open()?;
    check_memory(config, host_memory())?;
    let plan = Plan::choose(wish, &host)?;
    let parts = Parts::claim(config)?;
    plan.reasons.iter().for_each(|reason| tracing::info!("{reason}"));
    let images = BootImages::open(kernel, config.boot.initrd.as_deref(), plan.wish.memory)?;
    let devices = OpenDevices::open(&config.devices)?;
    let (balloon, cards) = (devices.balloon(), devices.cards());
    let vm = Vm::build(VmFd::create(&kvm)?, Signals { kick: vmm::kick_signal() })?;
    let figures = vm.figures();
    let mut tunables = HostTunables::new(Parameters::default(), true);
    if host.halt_poll {
        tunables = tunables.with_own(Arc::new(vm.halt_poll()));
    }
    let console = Arc::new(host_console(&config.console, "the guest's console")?);
    let populate = move |memory| devices.bus(x86_64::pci::windows(), &memory);
    let machine = Machine::new(plan, vm, images, Arc::clone(&console), populate);
    let counter = machine.unclaimed();
    let unclaimed = Box::new(move || counter.load(Ordering::Relaxed));
    let side = Box::new(|_| Side::Kernel(tunables, figures));
    Ok(parts.run(Ready { machine, console, balloon, cards, unclaimed, side }, config, load)?)
}

/// What `cede caps` says.
#[derive(Debug, Serialize)]
pub struct Caps {
    capabilities: Vec<(&'static str, i32)>,
    /// What cede would choose for a guest that asks for nothing, and why.
    choices: Vec<String>,
}

/// Asks this host.
///
/// # Errors
/// When there is no KVM to ask, or it lacks what every guest needs.
pub fn caps(config: &VmConfig) -> Result<Caps, X86Error> {
    let (kvm, host) = open()?;
    let plan = Plan::choose(wish(config)?, &host)?;
    Ok(Caps {
        capabilities: CAPABILITIES.iter().map(|&(name, cap)| (name, kvm.capability(cap))).collect(),
        choices: plan.reasons,
    })
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capabilities, choices } = self;
        writeln!(f, "KVM: x86_64")?;
        for (name, value) in capabilities {
            writeln!(f, "  {name:<30} {value}")?;
        }
        write!(f, "for a guest that asks for nothing, cede chooses:")?;
        choices.iter().try_for_each(|choice| write!(f, "\n  {choice}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn what_only_power_has_is_refused_by_its_flag() {
        let refused = |settings: Settings| wish(&settings.resolve().unwrap()).unwrap_err().to_string();
        let plane = Settings { plane: Some(PlaneChoice::Vmm), ..Settings::default() };
        assert_eq!(
            refused(plane),
            "x86_64 guests have no choice of this kind yet: a plane of cede's own (--plane, [cede] plane); leave it out"
        );
        let mmu = Settings { mmu: Some(MmuChoice::Hash), ..Settings::default() };
        assert!(refused(mmu).contains("--mmu"));
        let threads = Settings { threads: Some("2".parse().unwrap()), ..Settings::default() };
        assert!(refused(threads).contains("--threads"));
        assert!(wish(&Settings::default().resolve().unwrap()).is_ok());
    }

    #[test]
    fn how_the_process_ends() {
        let error = X86Error::from(PlanError::TooManyCpus { cpus: 9, max: 8 });
        assert!(error.to_string().contains("lower --cpus"), "{error}");
        let missing = X86Error::from(PlanError::Missing(vec!["KVM_CAP_IRQCHIP"]));
        assert_eq!(missing.outcome(), crate::exit_code::Outcome::Host);
    }
}
