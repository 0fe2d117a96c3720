//! Runs a pseries guest: the one place that names POWER's machine and KVM together.

use arch_api::HvError;
use arch_api::ppc64::Host;
use devices::console::Console;
use kvm::ppc64::{Vm, VmFd, probe};
use kvm::{Kvm, OpenError};
use ppc64::{BootError, BootImages, Machine, Plan, PlanError, Wish};
use std::path::Path;
use std::sync::Arc;
use vmm::{Options, Outcome, RunError};

/// A guest could not be run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// No KVM.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Not on this host.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Not with these files.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// KVM refused.
    #[error(transparent)]
    Hv(#[from] HvError),
    /// While running.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// KVM on this host: what it can do, and the empty VM that told.
pub struct PowerHost {
    /// What it can do.
    pub host: Host,
    /// `/dev/kvm`.
    pub kvm: Kvm,
    vm: VmFd,
}

impl PowerHost {
    /// Opens KVM and asks it.
    ///
    /// # Errors
    /// [`OpenError`], each with its remedy.
    pub fn open() -> Result<Self, OpenError> {
        let kvm = Kvm::open()?;
        let vm = VmFd::create(&kvm)?;
        let host = probe(&kvm, &vm)?;
        Ok(Self { host, kvm, vm })
    }

    /// Runs a guest to its end.
    ///
    /// # Errors
    /// [`PowerError`]; nothing of the guest has run unless it is [`PowerError::Run`].
    pub fn run(
        self,
        wish: Wish,
        (kernel, initrd): (&Path, Option<&Path>),
        console: impl FnOnce() -> Result<Console, PowerError>,
        options: Options,
    ) -> Result<Outcome, PowerError> {
        let plan = Plan::choose(wish, &self.host)?;
        plan.reasons.iter().for_each(|reason| tracing::info!("{reason}"));
        let images = BootImages::open(kernel, initrd, plan.rma())?;
        let vm = Vm::build(self.vm, plan.spec.clone(), self.host.page_size, vmm::kick_signal())?;
        let console = Arc::new(console()?);
        let machine = Machine::new(plan, vm, images, Arc::clone(&console));
        Ok(vmm::Vm::new(machine, console, options)?.run()?)
    }
}
