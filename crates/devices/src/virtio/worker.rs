//! The threads that run backends: one for each device, or a pool that they share.
//!
//! ```text
//!  start ──▶ inbox ──▶ waiting ──doorbell, source──▶ turn ──▶ waiting
//!                         │                            │ NeedsReset: the backend is dropped, the driver is told
//!  stop ───▶ inbox ───────┴──▶ the backend is dropped ─┴──▶ done
//! ```
//!
//! What must hold: a backend is called and dropped on one thread. `done` comes after the drop, whatever happened before, also where the
//! thread has ended. A turn takes every descriptor that is ready once, and gives every backend that is
//! [`unfinished`](super::Backend::unfinished) one more call, so none starves the others. Signals stay blocked here as they
//! are where the threads are made.

mod pace;
mod runner;
#[cfg(test)]
mod tests;
mod turns;

use super::device::{Running, Work, Workers};
use event_manager::{EventManager, EventSet, Events, SubscriberOps};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use pace::Pace;
use runner::Subscriber;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use turns::Turns;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The threads of a VM's devices.
pub struct Threads {
    /// Those that are shared. None where each device has its own.
    pool: Vec<Arc<Thread>>,
    /// Where threads may run. They are made on vCPUs' threads, which may be bound to a processor.
    cpus: Option<CpuSet>,
    poll_ns: u32,
}

impl Threads {
    /// A thread for each device. The threads may run where the caller may. A thread without work looks for more for up to
    /// `poll_ns` nanoseconds before it waits to be woken; 0: it waits at once.
    #[must_use]
    pub fn for_each(poll_ns: u32) -> Self {
        Self { pool: Vec::new(), cpus: own_cpus(), poll_ns }
    }

    /// `count` threads that all devices share; `poll_ns` as of [`for_each`](Self::for_each).
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn pool(count: NonZeroUsize, poll_ns: u32) -> io::Result<Self> {
        let cpus = own_cpus();
        let pool = (0..count.get()).map(|index| Thread::spawn(&format!("virtio{index}"), cpus, poll_ns));
        Ok(Self { pool: pool.collect::<io::Result<_>>()?, cpus, poll_ns })
    }
}

fn own_cpus() -> Option<CpuSet> {
    // A host with more processors than the set has room for: threads stay where they are made.
    sched_getaffinity(Pid::from_raw(0)).ok()
}

impl Workers for Threads {
    fn start(&self, work: Work) -> io::Result<Box<dyn Running>> {
        // Every backend that runs holds its thread.
        let thread = match self.pool.iter().min_by_key(|thread| Arc::strong_count(thread)) {
            Some(thread) => Arc::clone(thread),
            None => Thread::spawn(&work.name, self.cpus, self.poll_ns)?,
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        thread.tell(Message::Start(id, Box::new(work)));
        Ok(Box::new(Handle { id, thread, done: None }))
    }
}

/// A backend that was started. It ends with this.
struct Handle {
    id: u64,
    thread: Arc<Thread>,
    done: Option<Done>,
}

impl Running for Handle {
    fn stop(mut self: Box<Self>, done: Box<dyn FnOnce() + Send>) {
        self.done = Some(Done(Some(done)));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.thread.tell(Message::Stop(self.id, self.done.take()));
    }
}

/// What is called when a backend is gone: by `drop`, so that it is called too where nobody is left to do it.
struct Done(Option<Box<dyn FnOnce() + Send>>);

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done();
        }
    }
}

enum Message {
    Start(u64, Box<Work>),
    Stop(u64, Option<Done>),
}

/// A thread, from outside. It ends when this is dropped.
struct Thread {
    inbox: Option<Sender<Message>>,
    bell: Arc<EventFd>,
}

impl Thread {
    fn spawn(name: &str, cpus: Option<CpuSet>, poll_ns: u32) -> io::Result<Arc<Self>> {
        let bell = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        let mut manager = EventManager::new().map_err(refused)?;
        let (sender, inbox) = channel();
        let subscriber = manager.add_subscriber(Subscriber::Bell(Arc::clone(&bell)));
        let mut waiting = manager.event_ops(subscriber).map_err(refused)?;
        waiting.add(Events::new(&*bell, EventSet::IN)).map_err(refused)?;
        let builder = std::thread::Builder::new().name(name.replace('\0', "?"));
        builder.spawn(move || {
            if let Some(cpus) = cpus {
                // Where it may not run there it runs anywhere.
                let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
            }
            Turns::new(manager, Pace::new(poll_ns)).run(&inbox);
        })?;
        Ok(Arc::new(Self { inbox: Some(sender), bell }))
    }

    fn tell(&self, message: Message) {
        if let Some(inbox) = &self.inbox {
            // A thread that has ended has dropped all it had; so is the message, and what it says to call is called.
            let _ = inbox.send(message);
        }
        self.ring();
    }

    fn ring(&self) {
        // It fails where the count is at its limit, and then it rings anyway.
        let _ = self.bell.write(1);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.inbox = None;
        self.ring();
    }
}

fn refused(error: event_manager::Error) -> io::Error {
    io::Error::other(error)
}
