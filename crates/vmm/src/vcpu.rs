//! The vCPU thread: the only loop that runs guest code.

use crate::mailbox::Mailbox;
use arch_api::{Action, Arch, Exit, Fatal, Reply, Stop, Vcpu};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, clear_signal};

/// What a vCPU tells the control loop.
#[derive(Debug)]
pub enum Event {
    /// The guest came to its end by its own will.
    Stop(Stop),
    /// The VM cannot go on.
    Failed(Fatal),
}

/// What all vCPU threads and the control loop share.
///
/// `running` counts the vCPUs that were started and have not parked yet. It goes up before an entry is
/// posted, so nobody takes a vCPU that is about to enter for a parked one.
pub struct Shared<A: Arch> {
    pub arch: A,
    pub mailboxes: Vec<Mailbox<A::Entry>>,
    /// Everybody leaves the guest and parks.
    halt: AtomicBool,
    running: Mutex<usize>,
    all_parked: Condvar,
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The signal that brings a vCPU thread out of the guest. Every thread has it blocked; the hypervisor lets it
/// through only while the vCPU runs, so no handler exists and a kick between two runs is not lost.
pub fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process in release builds; elsewhere the counters stay meaningful.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A: Arch> Shared<A> {
    pub fn new(arch: A) -> Self {
        let mailboxes = (0..arch.vcpu_count()).map(|_| Mailbox::default()).collect();
        Self {
            arch,
            mailboxes,
            halt: AtomicBool::new(false),
            running: Mutex::new(0),
            all_parked: Condvar::new(),
            threads: Mutex::default(),
        }
    }

    /// Lets parked vCPU `index` enter the guest.
    pub fn start(&self, index: usize, entry: A::Entry) {
        *lock(&self.running) += 1;
        self.mailboxes[index].post(entry);
    }

    /// Brings every vCPU out of the guest and waits until all are parked.
    pub fn park_all(&self) {
        // Release: pairs with the Acquire in `guest_loop`, which the kick makes look.
        self.halt.store(true, Ordering::Release);
        self.kick_all();
        let mut running = lock(&self.running);
        while *running > 0 {
            running = self.all_parked.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        self.halt.store(false, Ordering::Release);
    }

    /// Brings every vCPU out of the guest once.
    fn kick_all(&self) {
        for thread in lock(&self.threads).iter() {
            // A thread that has ended has nothing to come out of.
            let _ = thread.kill(kick_signal());
        }
    }

    /// Ends all threads, which are parked, and waits for them.
    pub fn join(&self) {
        self.mailboxes.iter().for_each(Mailbox::close);
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A panic was reported by its hook already.
            let _ = thread.join();
        }
    }

    fn parked(&self) {
        let mut running = lock(&self.running);
        *running -= 1;
        if *running == 0 {
            self.all_parked.notify_all();
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
}

impl<A: Arch> VcpuThread<A> {
    pub fn run(mut self) {
        while let Some(entry) = self.shared.mailboxes[self.index].wait() {
            if let Some(event) = self.one_life(entry) {
                // The control loop outlives the vCPUs; if it is gone, so is everything else.
                let _ = self.events.send(event);
                let _ = self.bell.write(1);
            }
            self.shared.parked();
        }
    }

    /// From a start to the next park. Says what the control loop should know.
    fn one_life(&mut self, entry: A::Entry) -> Option<Event> {
        tracing::debug!(vcpu = self.index, ?entry, "enter");
        let arch = &self.shared.arch;
        let entered = arch.enter(self.index, &mut self.vcpu, entry);
        let lived = entered.and_then(|()| self.guest_loop());
        let left = self.shared.arch.leave(self.index, &mut self.vcpu);
        tracing::debug!(vcpu = self.index, "leave");
        match (lived, left) {
            (Ok(stop), Ok(())) => stop.map(Event::Stop),
            (Err(fatal), _) | (_, Err(fatal)) => Some(Event::Failed(fatal)),
        }
    }

    fn guest_loop(&mut self) -> Result<Option<Stop>, Fatal> {
        let shared = &*self.shared;
        let mut reply = Reply::None;
        // Acquire: pairs with the Release in `park_all`.
        while !shared.halt.load(Ordering::Acquire) {
            shared.arch.prepare(self.index, &mut self.vcpu)?;
            let exit = self.vcpu.run(std::mem::replace(&mut reply, Reply::None))?;
            let action = match exit {
                Exit::Interrupted => {
                    // The kick has done its work; a pending one would end the next run at once.
                    let _ = clear_signal(kick_signal());
                    continue;
                }
                Exit::MmioRead { .. } | Exit::MmioWrite { .. } => Action::Resume(unclaimed(self.index, exit)),
                exit => shared.arch.handle(self.index, &mut self.vcpu, exit)?,
            };
            match action {
                Action::Resume(r) => reply = r,
                Action::ResumeAndSync(r) => {
                    shared.kick_all();
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

/// An access to an address that nothing claims: a load reads all ones, as from an empty bus.
fn unclaimed(vcpu: usize, exit: Exit) -> Reply {
    tracing::debug!(vcpu, ?exit, "no device at this address");
    match exit {
        Exit::MmioRead { .. } => Reply::Mmio([0xff; 8]),
        _ => Reply::None,
    }
}
