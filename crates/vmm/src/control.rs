//! The control loop: signals, console input, and what the vCPUs report.

use crate::handle::Handle;
use crate::memory::{self, MemoryError};
use crate::vcores::{Vcores, kick_signal};
use crate::vcpu::{Event, Shared, VcpuThread};
use arch_api::{Arch, Fatal, HvError, Stop};
use devices::console::{Console, Pump};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CpuSet;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use vcore::SharedTunables;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{Error as SignalError, block_signal};

/// What the run loop does where there is a choice.
#[derive(Default)]
pub struct Options {
    /// Boot again when the guest asks for it, instead of ending.
    pub reboot: bool,
    /// The scheduler's tunables. Whoever keeps the other end changes them while the VM runs.
    pub tunables: Arc<SharedTunables>,
    /// The host's CPUs for each vCPU's thread, by index; where there are none the host chooses.
    pub placement: Vec<Option<CpuSet>>,
    /// What SIGHUP does, on the control loop's thread. Without it SIGHUP is a signal to stop like the others.
    pub on_hangup: Option<Box<dyn Fn() + Send>>,
}

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off.
    PoweredOff,
    /// The guest told us that it panicked.
    Panicked,
    /// The guest asked for a reboot, and [`Options::reboot`] is off.
    RebootRequested,
    /// The user quit at the console.
    Quit,
    /// A second signal stopped the VM.
    Terminated,
}

/// The VM could not be made, or not be kept running.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The hypervisor refused.
    #[error(transparent)]
    Hv(#[from] HvError),
    /// A vCPU or the machine cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The host refused a thread, a descriptor or a signal.
    #[error("cannot set up {what}")]
    Host {
        /// What was being set up.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn host<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> RunError {
    move |source| RunError::Host { what, source: source.into() }
}

/// A virtual machine with its threads, all parked.
pub struct Vm<A: Arch> {
    shared: Arc<Shared<A>>,
    memory: GuestMemoryMmap,
    console: Arc<Console>,
    signals: SignalFd,
    events: Receiver<Event>,
    bell: Arc<EventFd>,
    options: Options,
}

impl<A: Arch> Vm<A> {
    /// Maps memory, makes the vCPUs and their threads. Nothing of the guest has run when it returns.
    ///
    /// SIGTERM, SIGINT, SIGHUP and what brings vCPUs out of the guest are blocked in the calling thread and all that it makes from here on; so
    /// this is to be called before any other thread exists.
    ///
    /// # Errors
    /// [`RunError`]; everything that was made is gone again.
    pub fn new(mut arch: A, console: Arc<Console>, options: Options) -> Result<Self, RunError> {
        let signals = take_signals()?;
        let memory = memory::map(&arch.ram())?;
        let count = arch.vcpu_count();
        let vcores = Arc::new(Vcores::new(count, arch.threads(), &options.tunables));
        arch.attach(memory.clone(), Arc::clone(&vcores) as _)?;
        let vcpus = (0..count).map(|index| arch.create_vcpu(index)).collect::<Result<Vec<_>, _>>()?;

        let bell = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(host("an eventfd"))?);
        let (sender, events) = mpsc::channel();
        let shared = Arc::new(Shared::new(arch, vcores));
        let vm = Self { shared, memory, console, signals, events, bell, options };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let thread = VcpuThread {
                index,
                vcpu,
                shared: Arc::clone(&vm.shared),
                events: sender.clone(),
                bell: Arc::clone(&vm.bell),
                cpus: vm.options.placement.get(index).copied().flatten(),
            };
            let builder = std::thread::Builder::new().name(format!("vcpu{index}")).stack_size(VCPU_STACK);
            let handle = builder.spawn(move || thread.run()).map_err(host("a vCPU thread"))?;
            vm.shared.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(handle);
        }
        Ok(vm)
    }

    /// For other threads to watch and steer it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            gate: Arc::clone(&self.shared.gate),
            vcores: Arc::clone(&self.shared.vcores),
            vcpus: self.shared.mailboxes.len(),
        }
    }

    /// Boots the guest and runs it to its end.
    ///
    /// # Errors
    /// [`RunError`] when the VM cannot go on. The threads have ended either way.
    pub fn run(&self) -> Result<Outcome, RunError> {
        let result = self.lives();
        self.shared.park_all();
        self.shared.arch.quiesce();
        result
    }

    fn lives(&self) -> Result<Outcome, RunError> {
        // A guest that reboots instead of powering off was asked all the same: the next signal stops it.
        let mut asked = false;
        loop {
            for (vcpu, entry) in self.shared.arch.reset()? {
                self.shared.start(vcpu, entry);
            }
            let outcome = self.control(&mut asked)?;
            if outcome != Outcome::RebootRequested || !self.options.reboot {
                return Ok(outcome);
            }
            tracing::info!("the guest reboots");
            self.shared.park_all();
            // A second wish to end means nothing to the next life. A vCPU that did not park as it should does.
            for event in self.events.try_iter() {
                if let Event::Failed(fatal) = event {
                    return Err(fatal.into());
                }
            }
            // A device that writes late would write into the next life.
            self.shared.arch.quiesce();
            memory::discard(&self.memory).map_err(host("zeroed guest memory"))?;
        }
    }

    /// From a boot to the next event that ends it.
    fn control(&self, asked: &mut bool) -> Result<Outcome, RunError> {
        loop {
            let ready = self.wait()?;
            if ready.signal && self.stop_came()? {
                if std::mem::replace(asked, true) {
                    return Ok(Outcome::Terminated);
                }
                tracing::warn!("asking the guest to power off; a second signal stops it at once");
                // A guest that cannot be asked can still be stopped.
                if let Err(error) = self.shared.arch.power_button() {
                    tracing::error!(error = %error.source, "the guest could not be asked: {error}");
                }
            }
            if ready.bell {
                // Only the counter is cleared here; what was reported is in the channel.
                let _ = self.bell.read();
                match self.events.try_recv() {
                    Ok(Event::Failed(fatal)) => return Err(fatal.into()),
                    Ok(Event::Stop(Stop::PowerOff)) => return Ok(Outcome::PoweredOff),
                    Ok(Event::Stop(Stop::Panic)) => return Ok(Outcome::Panicked),
                    Ok(Event::Stop(Stop::Reboot)) => return Ok(Outcome::RebootRequested),
                    Err(_) => {}
                }
            }
            if ready.console && self.console.pump().map_err(host("console input"))? == Pump::Quit {
                return Ok(Outcome::Quit);
            }
        }
    }

    /// Takes one signal, and says whether it asks the VM to stop.
    fn stop_came(&self) -> Result<bool, RunError> {
        let Some(signal) = self.signals.read_signal().map_err(host("signals"))? else { return Ok(false) };
        match &self.options.on_hangup {
            Some(hangup) if signal.ssi_signo == Signal::SIGHUP as u32 => {
                hangup();
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn wait(&self) -> Result<Ready, RunError> {
        // SAFETY: the eventfd is open as long as `self.bell`, which outlives this call.
        let bell = unsafe { BorrowedFd::borrow_raw(self.bell.as_raw_fd()) };
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [self.signals.as_fd(), bell, self.console.poll_fd()].map(input);
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(host("poll")(error)),
        }
        let any = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let [signal, bell, console] = &fds;
        Ok(Ready { signal: any(signal), bell: any(bell), console: any(console) })
    }
}

impl<A: Arch> Drop for Vm<A> {
    fn drop(&mut self) {
        self.shared.join();
    }
}

struct Ready {
    signal: bool,
    bell: bool,
    console: bool,
}

/// A vCPU's thread handles one exit at a time with shallow calls.
const VCPU_STACK: usize = 256 << 10;

fn take_signals() -> Result<SignalFd, RunError> {
    let mut ours = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ours.add(signal);
    }
    ours.thread_block().map_err(host("signals"))?;
    // SIGIO is how the hypervisor's events come out, where cedes are told by one: the kernel's default for O_ASYNC.
    for signal in [kick_signal(), libc::SIGIO] {
        match block_signal(signal) {
            // Blocked before: by an earlier VM, or by whoever started the process.
            Ok(()) | Err(SignalError::SignalAlreadyBlocked(_)) => {}
            Err(error) => return Err(host("signals")(io::Error::other(error.to_string()))),
        }
    }
    SignalFd::with_flags(&ours, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(host("signals"))
}
