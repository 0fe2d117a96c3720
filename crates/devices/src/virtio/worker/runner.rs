//! A backend among the descriptors that wake it.

use crate::virtio::device::{Backend, Interrupts, NeedsReset, Sight, Work};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// What a thread waits for.
pub enum Subscriber {
    /// Its inbox.
    Bell(Arc<EventFd>),
    /// A device.
    Device(Runner),
}

impl MutEventSubscriber for Subscriber {
    fn process(&mut self, events: Events, _: &mut EventOps) {
        match self {
            // The inbox is read after every turn.
            Self::Bell(bell) => _ = bell.read(),
            Self::Device(runner) => runner.process(events.data() as usize),
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        // The inbox is there before the thread, which sees to it.
        if let Self::Device(runner) = self {
            runner.begin(ops);
        }
    }
}

struct Source {
    fd: RawFd,
    /// Whether the backend is woken by it now.
    heard: bool,
}

/// A backend at work. Descriptors are told apart by a number: the doorbells come first, then the sources.
pub struct Runner {
    name: String,
    backend: Box<dyn Backend>,
    doorbells: Vec<(u16, Arc<EventFd>)>,
    sources: Vec<Source>,
    interrupts: Arc<dyn Interrupts>,
    broken: Option<NeedsReset>,
}

impl Runner {
    /// Nothing is called yet.
    pub fn new(work: Work) -> Self {
        let Work { name, backend, doorbells, interrupts } = work;
        let sources = backend.sources().iter().map(|fd| Source { fd: fd.as_raw_fd(), heard: true }).collect();
        Self { name, backend, doorbells, sources, interrupts, broken: None }
    }

    fn begin(&mut self, ops: &mut EventOps) {
        // A doorbell wakes the thread each time it is rung, and so need not be read: what comes after it was seen rings again.
        let rung = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let doorbells = self.doorbells.iter().map(|(_, event)| (event.as_raw_fd(), rung));
        let sources = self.sources.iter().map(|source| (source.fd, EventSet::IN));
        for (number, (fd, events)) in (0..).zip(doorbells.chain(sources)) {
            if let Err(error) = ops.add(Events::with_data_raw(fd, number, events)) {
                return self.refuse(io::Error::other(error));
            }
        }
        self.notify_all();
    }

    /// The host does not let the thread wait for a descriptor.
    pub fn refuse(&mut self, source: io::Error) {
        self.broken.get_or_insert(NeedsReset::Host { what: "cannot wait for a queue or a source", source });
    }

    fn notify_all(&mut self) {
        for at in 0..self.doorbells.len() {
            let queue = self.doorbells[at].0;
            self.call(|backend| backend.notified(queue));
        }
    }

    fn process(&mut self, number: usize) {
        match self.doorbells.get(number) {
            Some((queue, _)) => {
                let queue = *queue;
                self.call(|backend| backend.notified(queue));
            }
            None => {
                let source = number - self.doorbells.len();
                self.call(|backend| backend.ready(source));
            }
        }
    }

    fn call(&mut self, what: impl FnOnce(&mut dyn Backend) -> Result<(), NeedsReset>) {
        if self.broken.is_none() {
            self.broken = what(&mut *self.backend).err();
        }
    }

    /// Lets a backend that left chains behind go on. Says whether it has to once more.
    pub fn go_on(&mut self) -> bool {
        if self.broken.is_some() || !self.backend.unfinished() {
            return false;
        }
        self.notify_all();
        self.broken.is_none() && self.backend.unfinished()
    }

    /// What the backend sees when it looks.
    pub fn sight(&self) -> Sight {
        if self.broken.is_some() { Sight::Blind } else { self.backend.sight() }
    }

    /// Lets the backend look for work, and do it. Says whether there was some, or it broke.
    pub fn look(&mut self) -> bool {
        self.ask(|backend| backend.look())
    }

    /// Lets the backend ask for notifications, before the thread waits. Says whether there is work already, or it broke.
    pub fn arm(&mut self) -> bool {
        self.ask(|backend| backend.arm())
    }

    fn ask(&mut self, what: impl FnOnce(&mut dyn Backend) -> Result<bool, NeedsReset>) -> bool {
        let mut answer = true;
        if self.broken.is_some() {
            return false;
        }
        self.call(|backend| {
            answer = what(backend)?;
            Ok(())
        });
        answer
    }

    /// The sources that the backend wants to be woken by again, and no longer (`false`).
    pub fn take_changes(&mut self) -> Vec<(Events, bool)> {
        let first = self.doorbells.len();
        let mut changes = Vec::new();
        if self.broken.is_some() {
            return changes;
        }
        for (index, source) in self.sources.iter_mut().enumerate() {
            let heard = self.backend.listens(index);
            if heard != source.heard {
                source.heard = heard;
                // Not heard is not in the set: an error or a hang-up would wake it all the same.
                let events = Events::with_data_raw(source.fd, (first + index) as u32, EventSet::IN);
                changes.push((events, heard));
            }
        }
        changes
    }

    /// Whether the backend ended with [`NeedsReset`].
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Drops the backend and tells the driver.
    pub fn give_up(self) {
        let Self { name, backend, interrupts, broken, .. } = self;
        drop(backend);
        if let Some(reason) = broken {
            let reason: &dyn std::error::Error = &reason;
            tracing::warn!(reason, "{name} stops until its driver resets it");
            interrupts.needs_reset();
        }
    }
}
