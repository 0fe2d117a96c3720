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

mod runner;
#[cfg(test)]
mod tests;

use super::device::{Running, Work, Workers};
use event_manager::{EventManager, EventSet, Events, SubscriberId, SubscriberOps};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use runner::{Runner, Subscriber};
use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The threads of a VM's devices.
pub struct Threads {
    /// Those that are shared. None where each device has its own.
    pool: Vec<Arc<Thread>>,
    /// Where threads may run. They are made on vCPUs' threads, which may be bound to a processor.
    cpus: Option<CpuSet>,
}

impl Threads {
    /// A thread for each device. The threads may run where the caller may.
    #[must_use]
    pub fn for_each() -> Self {
        Self { pool: Vec::new(), cpus: own_cpus() }
    }

    /// `count` threads that all devices share.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn pool(count: NonZeroUsize) -> io::Result<Self> {
        let cpus = own_cpus();
        let pool = (0..count.get()).map(|index| Thread::spawn(&format!("virtio{index}"), cpus));
        Ok(Self { pool: pool.collect::<io::Result<_>>()?, cpus })
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
            None => Thread::spawn(&work.name, self.cpus)?,
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
    fn spawn(name: &str, cpus: Option<CpuSet>) -> io::Result<Arc<Self>> {
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
            run(&inbox, manager);
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

/// The thread. The manager comes after the inbox, so that in a panic the backends go before what tells that they are gone.
fn run(inbox: &Receiver<Message>, mut manager: EventManager<Subscriber>) {
    let mut running: HashMap<u64, SubscriberId> = HashMap::new();
    let mut unfinished = false;
    loop {
        if let Err(error) = manager.run_with_timeout(if unfinished { 0 } else { -1 }) {
            tracing::error!(%error, "devices stop: cannot wait for events");
            return;
        }
        loop {
            match inbox.try_recv() {
                Ok(Message::Start(id, work)) => {
                    running.insert(id, manager.add_subscriber(Subscriber::Device(Runner::new(*work))));
                }
                Ok(Message::Stop(id, done)) => {
                    if let Some(subscriber) = running.remove(&id) {
                        drop(manager.remove_subscriber(subscriber));
                    }
                    drop(done);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        unfinished = false;
        running.retain(|_, subscriber| settle(&mut manager, *subscriber, &mut unfinished));
    }
}

/// What a turn leaves to be done for a backend. Says whether it still runs.
fn settle(manager: &mut EventManager<Subscriber>, id: SubscriberId, unfinished: &mut bool) -> bool {
    let Ok(Subscriber::Device(runner)) = manager.subscriber_mut(id) else { return false };
    *unfinished |= runner.go_on();
    let changes = runner.take_changes();
    let mut refusal = None;
    for (events, heard) in changes {
        let ops = manager.event_ops(id);
        let changed = ops.and_then(|mut ops| if heard { ops.add(events) } else { ops.remove(events) });
        refusal = changed.err().or(refusal);
    }
    let Ok(Subscriber::Device(runner)) = manager.subscriber_mut(id) else { return false };
    if let Some(error) = refusal {
        runner.refuse(refused(error));
    }
    let is_broken = runner.is_broken();
    if is_broken {
        if let Ok(Subscriber::Device(runner)) = manager.remove_subscriber(id) {
            runner.give_up();
        }
    }
    !is_broken
}
