//! The vCPU thread: the only loop that runs guest code.
//!
//! ```text
//!   parked ──entry──▶ in the host ──prepare, enter──▶ in the guest ──exit──▶ in the host ──handle──┐
//!     ▲                 │      ▲                                                  │ nap            │
//!     │                 │      │                                                  ▼                │
//!     │                 │      ├──────────────────────── woken ◀────────────── napping             │
//!     └──────park───────┘      └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The path of an idle period takes no lock, allocates nothing and needs no other thread than the one that wakes it: an
//! exit, the architecture's `handle`, the vcore's `cede`, `prepare`, and back.

use crate::gate::Gate;
use crate::mailbox::Mailbox;
use crate::vcores::{Seat, Vcores};
use arch_api::{Action, Arch, Exit, Fatal, Nap, Reply, Stop, Until, Vcpu};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use vcore::{Cause, Causes, Entry, Port, WrongState};
use vmm_sys_util::eventfd::EventFd;

/// What a vCPU tells the control loop.
#[derive(Debug)]
pub enum Event {
    /// The guest came to its end by its own will.
    Stop(Stop),
    /// The VM cannot go on.
    Failed(Fatal),
}

/// What all vCPU threads and the control loop share.
pub struct Shared<A: Arch> {
    pub arch: A,
    pub mailboxes: Vec<Mailbox<A::Entry>>,
    pub gate: Arc<Gate>,
    pub vcores: Arc<Vcores>,
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<A: Arch> Shared<A> {
    pub fn new(arch: A, vcores: Arc<Vcores>) -> Self {
        let mailboxes = (0..arch.vcpu_count()).map(|_| Mailbox::default()).collect();
        Self { arch, mailboxes, gate: Arc::default(), vcores, threads: Mutex::default() }
    }

    /// Lets parked vCPU `index` enter the guest.
    pub fn start(&self, index: usize, entry: A::Entry) {
        self.gate.started();
        self.mailboxes[index].post(entry);
    }

    /// Lets vCPU `index`, whose thread calls, nap until it has something to do. What that is, is known to those who have it:
    /// the interrupt controller, the hypervisor's decrementer, the gate.
    fn nap(&self, index: usize, vcpu: &mut A::Vcpu, seat: &Seat, mut nap: Nap) -> Result<(), Fatal> {
        let (vcore, thread) = seat.vcore();
        loop {
            let deadline = nap.timeout.map(|ns| vcore.port().now().saturating_add(ns));
            let causes = vcore.cede(thread, deadline).map_err(|error| wrong(index, error))?;
            match nap.until {
                Until::EventOrAskAgain if causes == Causes::only(Cause::Decrementer) => {
                    let Action::Nap { nap: next, .. } = self.arch.handle(index, vcpu, Exit::Ceded)? else {
                        return Ok(());
                    };
                    nap = next;
                }
                // Interrupts stay pending where they are until somebody prods; only a halt ends the wait without.
                Until::Prod if !causes.contains(Cause::Prod) && self.gate.pass() => {}
                Until::Event | Until::EventOrAskAgain | Until::Prod => return Ok(()),
            }
        }
    }

    /// Brings every vCPU out of the guest and waits until all are parked.
    pub fn park_all(&self) {
        self.gate.halt(|| self.vcores.request_exit());
    }

    /// Ends all threads, which are parked, and waits for them.
    pub fn join(&self) {
        self.mailboxes.iter().for_each(Mailbox::close);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic was reported by its hook already.
            let _ = thread.join();
        }
    }
}

/// A vCPU's thread, from its creation to the end of the VM.
pub struct VcpuThread<A: Arch> {
    pub index: usize,
    pub vcpu: A::Vcpu,
    pub shared: Arc<Shared<A>>,
    pub events: Sender<Event>,
    /// Wakes the control loop when an event was sent.
    pub bell: Arc<EventFd>,
    /// The host's CPUs that it may run on; `None` leaves them to the host.
    pub cpus: Option<CpuSet>,
}

impl<A: Arch> VcpuThread<A> {
    pub fn run(mut self) {
        if let Some(cpus) = &self.cpus {
            if let Err(error) = sched_setaffinity(Pid::from_raw(0), cpus) {
                tracing::warn!(vcpu = self.index, %error, "the vCPU's thread could not be pinned; it runs anywhere");
            }
        }
        let seat = self.shared.vcores.sit(self.index, self.shared.arch.raiser(self.index));
        while let Some(entry) = self.shared.mailboxes[self.index].wait() {
            if let Some(event) = self.one_life(&seat, entry) {
                // The control loop outlives the vCPUs; if it is gone, so is everything else.
                let _ = self.events.send(event);
                let _ = self.bell.write(1);
            }
            self.shared.gate.parked();
        }
    }

    /// From a start to the next park. Says what the control loop should know.
    fn one_life(&mut self, seat: &Seat, entry: A::Entry) -> Option<Event> {
        tracing::debug!(vcpu = self.index, ?entry, "enter");
        let (vcore, thread) = seat.vcore();
        let lived = vcore.online(thread).map_err(|error| wrong(self.index, error)).and_then(|()| {
            self.shared.arch.enter(self.index, &mut self.vcpu, entry)?;
            self.guest_loop(seat)
        });
        let left = self.shared.arch.leave(self.index, &mut self.vcpu);
        let offline = vcore.offline(thread).map_err(|error| wrong(self.index, error));
        tracing::debug!(vcpu = self.index, "leave");
        match (lived, left.and(offline)) {
            (Ok(stop), Ok(())) => stop.map(Event::Stop),
            (Err(fatal), _) | (_, Err(fatal)) => Some(Event::Failed(fatal)),
        }
    }

    fn guest_loop(&mut self, seat: &Seat) -> Result<Option<Stop>, Fatal> {
        let index = self.index;
        let shared = &*self.shared;
        let (vcore, thread) = seat.vcore();
        let mut reply = Reply::None;
        while shared.gate.pass() {
            shared.arch.prepare(index, &mut self.vcpu)?;
            // Something has come since: the gate or `prepare` know of it now.
            if let Entry::Host(_) = vcore.enter(thread).map_err(|error| wrong(index, error))? {
                continue;
            }
            let exit = self.vcpu.run(std::mem::replace(&mut reply, Reply::None));
            vcore.leave(thread).map_err(|error| wrong(index, error))?;
            let action = match exit? {
                Exit::Interrupted => continue,
                exit => shared.arch.handle(index, &mut self.vcpu, exit)?,
            };
            match action {
                Action::Resume(r) => reply = r,
                Action::Nap { nap, reply: r } => {
                    shared.nap(index, &mut self.vcpu, seat, nap)?;
                    reply = r;
                }
                Action::ResumeAndSync(r) => {
                    shared.vcores.request_exit();
                    reply = r;
                }
                Action::Start { vcpu, entry, reply: r } => {
                    shared.start(vcpu, entry);
                    reply = r;
                }
                Action::Park => return Ok(None),
                Action::Stop(stop) => return Ok(Some(stop)),
            }
        }
        Ok(None)
    }
}

/// A vCPU thread that does not know where it is: a defect, which ends the VM and not the process.
fn wrong(vcpu: usize, error: WrongState) -> Fatal {
    Fatal::Guest { vcpu, what: error.to_string() }
}
