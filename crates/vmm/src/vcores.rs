//! The VM's virtual cores: which vCPU is which thread of which vcore, and how a thread in the guest is reached.
//!
//! Every vCPU thread tells its vcore where it is ([`Seat`]); everybody else reaches it through [`Vcores`]: device threads
//! and other vCPUs by [`Scheduler`], the control loop by an exit request. What a request is for stands elsewhere and is
//! set before it (the VM halts, LPCR has changed, an interrupt is pending in the controller); the vCPU that is
//! called looks there.
//!
//! A thread in the guest hears of an interrupt through its [`Raise`], which leaves it there, and of everything else by
//! the kick signal. The signal comes too late when the thread has just left; then it ends the next run at once, which
//! costs an exit and does no harm.

use arch_api::{Raise, Scheduler};
use std::sync::{Arc, OnceLock};
use vcore::word::MAX_THREADS;
use vcore::{
    Cause, FutexPort, Kick, Look, Polled, SharedTunables, Snapshot, Thread, ThreadMask, ThreadState, Vcore,
};

/// How one vCPU's thread is reached while it is in the guest.
struct Reach {
    tid: libc::pid_t,
    raise: Option<Arc<dyn Raise>>,
}

type Reaches = Arc<[OnceLock<Reach>]>;

/// Kicks the threads of one vcore.
pub struct Kicker {
    first: usize,
    reaches: Reaches,
}

impl Kick for Kicker {
    fn kick(&self, threads: ThreadMask, cause: Cause) {
        for thread in threads.iter() {
            // A thread that is in the guest has said before how it is reached.
            let Some(reach) = self.reaches[self.first + thread.number()].get() else { continue };
            match (cause, &reach.raise) {
                (Cause::External, Some(raise)) => raise.raise(),
                _ => send_kick(reach.tid),
            }
        }
    }
}

/// The signal that brings a vCPU thread out of the guest. Every thread has it blocked; the hypervisor lets it
/// through only while the vCPU runs, so no handler exists and a kick between two runs is not lost. A standard signal,
/// so that however many are sent before the thread takes it, it takes one.
#[must_use]
pub fn kick_signal() -> libc::c_int {
    libc::SIGUSR1
}

fn send_kick(tid: libc::pid_t) {
    // SAFETY: no pointers. Should the thread have ended, the number names none of ours, or a new one of ours, which has
    // the signal blocked as well. Fails only for that, and then there is nobody to kick.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, kick_signal()) };
}

/// All vcores of a VM.
pub struct Vcores {
    vcores: Box<[Vcore<FutexPort<Kicker>>]>,
    reaches: Reaches,
    threads: usize,
}

impl Vcores {
    /// `count` vCPUs, all offline, `threads` to a vcore, with the VM's tunables.
    pub fn new(count: usize, threads: usize, tunables: &Arc<SharedTunables>) -> Self {
        let reaches: Reaches = (0..count).map(|_| OnceLock::new()).collect();
        let vcore = |first: usize| {
            let kicker = Kicker { first, reaches: Arc::clone(&reaches) };
            let port = FutexPort::new(first as u32, threads.min(count - first), Arc::clone(tunables), kicker);
            // Its threads come online as they are started.
            Vcore::new(0, port)
        };
        Self { vcores: (0..count).step_by(threads).map(vcore).collect(), reaches, threads }
    }

    fn place(&self, vcpu: usize) -> (&Vcore<FutexPort<Kicker>>, Thread) {
        let thread = Thread::new(vcpu % self.threads).expect("a vcore has at most eight threads");
        (&self.vcores[vcpu / self.threads], thread)
    }

    /// The place of `vcpu`, for the calling thread, which is the vCPU's own from here on.
    pub fn sit(self: &Arc<Self>, vcpu: usize, raise: Option<Arc<dyn Raise>>) -> Seat {
        // SAFETY: no arguments; it cannot fail.
        let tid = unsafe { libc::gettid() };
        // A vCPU has one thread, which sits down once.
        let _ = self.reaches[vcpu].set(Reach { tid, raise });
        let thread = self.place(vcpu).1;
        Seat { vcores: Arc::clone(self), vcore: vcpu / self.threads, thread }
    }

    /// Calls every vCPU into the host, from the guest or from a nap.
    pub fn request_exit(&self) {
        for vcore in &self.vcores {
            vcore.request_exit(ThreadMask(u8::MAX >> (MAX_THREADS - self.threads)));
        }
    }

    /// What `vcpu` does and has done.
    pub fn status(&self, vcpu: usize) -> VcpuStatus {
        use vcore::Port;
        let (vcore, thread) = self.place(vcpu);
        let word = vcore.word();
        VcpuStatus {
            vcore: vcpu / self.threads,
            thread: thread.number(),
            state: word.thread_state(thread),
            polling: word.poller() == Some(thread),
            halt_poll_ns: vcore.halt_poll_ns(),
            snapshot: vcore.port().stats(thread).snapshot(),
        }
    }
}

/// A vCPU as its scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuStatus {
    /// The number of its vcore.
    pub vcore: usize,
    /// Its number within the vcore.
    pub thread: usize,
    /// Where it is.
    pub state: ThreadState,
    /// Whether it polls for its vcore.
    pub polling: bool,
    /// The vcore's present polling interval in nanoseconds.
    pub halt_poll_ns: u32,
    /// Its counters.
    pub snapshot: Snapshot,
}

impl Scheduler for Vcores {
    fn interrupt(&self, vcpu: usize) {
        let (vcore, thread) = self.place(vcpu);
        vcore.wake(thread, Cause::External);
    }

    fn prod(&self, vcpu: usize) {
        let (vcore, thread) = self.place(vcpu);
        vcore.prod(thread);
        // A thread that counts as running may sleep in the hypervisor, if what tells us of its cedes is lost. An interrupt
        // reaches it there, a prod would not.
        if vcore.word().thread_state(thread) == ThreadState::Running {
            if let Some(reach) = self.reaches[vcpu].get() {
                send_kick(reach.tid);
            }
        }
    }

    fn confer(&self, vcpu: usize, target: Option<usize>) {
        let (vcore, thread) = self.place(vcpu);
        let can_use = || {
            target.is_none_or(|target| {
                let (vcore, thread) = self.place(target);
                matches!(vcore.word().thread_state(thread), ThreadState::Running | ThreadState::Host)
            })
        };
        vcore.confer(thread, can_use);
    }

    fn polls(&self) -> bool {
        use vcore::Port;
        // A VM has one set of tunables.
        self.vcores[0].port().tunables().halt_poll_ns() != 0
    }

    fn interval(&self, vcpu: usize) -> u32 {
        self.place(vcpu).0.next_interval()
    }

    fn poll(&self, vcpu: usize, timeout: u64, look: &mut dyn FnMut() -> Look) -> Polled {
        use vcore::Port;
        let (vcore, thread) = self.place(vcpu);
        let deadline = vcore.port().now().saturating_add(timeout);
        // The calling thread handles an exit, so it is in the host; were it not, KVM's sleep is always right.
        vcore.poll_before_sleep(thread, Some(deadline), look).unwrap_or(Polled::Asleep)
    }

    fn slept(&self, vcpu: usize) {
        let (vcore, thread) = self.place(vcpu);
        vcore.slept(thread);
    }
}

/// A vCPU's place in its vcore, which its own thread holds.
pub struct Seat {
    vcores: Arc<Vcores>,
    vcore: usize,
    thread: Thread,
}

impl Seat {
    /// The vcore and which thread of it.
    pub fn vcore(&self) -> (&Vcore<FutexPort<Kicker>>, Thread) {
        (&self.vcores.vcores[self.vcore], self.thread)
    }
}
