//! What runs a machine of any architecture: its name and its place on the host, the control socket, and the run loop.
//!
//! ```text
//!  power, x86: KVM ─▶ plan ─▶ Parts::claim ─▶ images, devices, machine ─▶ Parts::run ─▶ vmm ─▶ how it ended
//! ```

use crate::config::{ConfigError, VmConfig};
use crate::control::{Count, Load, RunDir, RunDirError, RunningVm, Server, Side, Steering};
use crate::devices::DeviceError;
use crate::exit_code::Outcome;
use crate::placement::{PlacementError, cpu_sets};
use arch_api::{Arch, HvError};
use devices::console::{Console, ConsoleError};
use devices::virtio::balloon::Balloon;
use devices::virtio::net::Net;
use kvm::OpenError;
use nix::sched::CpuSet;
use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use vcore::SharedTunables;
use vmm::{Options, RunError};

/// A guest could not be run, or not to its end. `P` and `B` are why an architecture has no such machine, and why it does not boot these
/// files.
#[derive(Debug, thiserror::Error)]
pub enum MachineError<P: Error + 'static, B: Error + 'static> {
    /// No KVM.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The configuration does not fit the host.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host cannot run such a machine.
    #[error(transparent)]
    Plan(P),
    /// Not with these files.
    #[error(transparent)]
    Boot(B),
    /// A disk, a network card or the like.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No console.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// KVM refused a part of the machine.
    #[error(transparent)]
    Hv(#[from] HvError),
    /// What all machines need beside themselves, and how they run.
    #[error(transparent)]
    Parts(#[from] PartsError),
}

impl<P: Error + 'static, B: Error + 'static> MachineError<P, B> {
    /// How the process ends for it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Open(_) | Self::Plan(_) => Outcome::Host,
            Self::Device(error) => error.outcome(),
            Self::Parts(error) => error.outcome(),
            Self::Config(_) | Self::Boot(_) | Self::Console(_) => Outcome::Usage,
            Self::Hv(_) => Outcome::Internal,
        }
    }
}

/// The machine's surroundings, or its run.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// The vCPUs cannot be where they are to be.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The name is taken, or there is no place for the control socket.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The control socket does not answer.
    #[error("cannot start the control socket's server")]
    Control(#[source] io::Error),
    /// While the guest ran.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl PartsError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Placement(_) | Self::RunDir(_) | Self::Run(RunError::Memory(_)) => Outcome::Usage,
            Self::Control(_) | Self::Run(_) => Outcome::Internal,
        }
    }
}

/// What a VM has of the host beside its machine.
pub struct Parts {
    placement: Vec<Option<CpuSet>>,
    run_dir: Option<RunDir>,
}

/// A machine that is ready to run.
pub struct Ready<'a, A> {
    /// The machine.
    pub machine: A,
    /// Its console.
    pub console: Arc<Console>,
    /// Its balloon.
    pub balloon: Option<Arc<Balloon>>,
    /// Its network cards.
    pub cards: Vec<Arc<Net>>,
    /// How many accesses found nothing.
    pub unclaimed: Count,
    /// Whose tunables and figures the control socket shows; cede's own tunables are given.
    pub side: Box<dyn FnOnce(Arc<SharedTunables>) -> Side + 'a>,
}

impl Parts {
    /// Finds the host's CPUs, and takes the name: it is this VM's from here on. What is wrong so far is the one thing to tell.
    ///
    /// # Errors
    /// [`PartsError`].
    pub fn claim(config: &VmConfig) -> Result<Self, PartsError> {
        let placement = cpu_sets(&config.placement, config.topology)?;
        let run_dir = RunDir::for_vm(config.run_dir.as_deref(), &config.name)?;
        Ok(Self { placement, run_dir })
    }

    /// Runs the machine to its end, and has it steered meanwhile.
    ///
    /// # Errors
    /// [`PartsError`]; nothing of the guest has run unless it is [`PartsError::Run`].
    pub fn run<A: Arch>(
        self,
        ready: Ready<'_, A>,
        config: &VmConfig,
        load: Option<Load>,
    ) -> Result<vmm::Outcome, PartsError> {
        let Ready { machine, console, balloon, cards, unclaimed, side } = ready;
        let tunables = Arc::<SharedTunables>::default();
        let steering = Arc::new(OnceLock::<Arc<Steering>>::new());
        let hangup = Arc::clone(&steering);
        let options = Options {
            reboot: config.reboot,
            tunables: Arc::clone(&tunables),
            placement: self.placement,
            on_hangup: load.is_some().then(|| {
                Box::new(move || {
                    if let Some(steering) = hangup.get() {
                        steering.hang_up();
                    }
                }) as _
            }),
        };
        let vm = vmm::Vm::new(machine, console, options)?;
        let control = Arc::new(RunningVm::new(vm.handle(), side(tunables), balloon, cards, unclaimed));
        let steering = steering.get_or_init(|| Arc::new(Steering::new(control, config.clone(), load)));
        // Ends before the VM's threads do.
        let _server = match self.run_dir {
            Some(dir) => Some(Server::start(dir, Arc::clone(steering)).map_err(PartsError::Control)?),
            None => None,
        };
        Ok(vm.run()?)
    }
}
