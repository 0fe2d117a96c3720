//! The assist plane: KVM keeps the interrupt controller (XIVE) and the sleep, and cede polls before KVM sleeps.
//!
//! A vCPU's life under it, each step on its own thread:
//!
//! ```text
//!            halt_poll_ns 0                        every cede comes out
//!   off ◀──────────────────────▶ watching ◀────────────────────────────────┐
//!                                  │  ▲                                     │
//!                  does not pay    │  │ pays: the interval is not 0         │
//!                                  ▼  │                                     │
//!                                sampling: most cedes pass unseen           │
//!                                     │ a cede comes out                    │
//!                                     ▼                                     │
//!                           event since the entry? ──yes──▶ back into the guest, which takes it and cedes again
//!                                     │ no
//!                                     ▼
//!                                   poll ──event, decrementer, exit request─┘
//!                                     │ nothing
//!                                     ▼
//!                                sleeping: back into the guest, which cedes again, and KVM sleeps
//!                                     │ the sleep is over: its length is learnt
//!                                     └──▶ watching or sampling
//! ```
//!
//! **What is polled.** The guest gives each of its event queues to the XIVE by H_INT_SET_QUEUE_CONFIG, which comes through here
//! ([`Assist::queue`]). The controller writes an entry there when an interrupt is triggered, whoever triggers it and
//! whether or not the vCPU runs. So the poller watches one word of guest memory a queue: the entry that comes next,
//! whose top bit flips ([`queue`]).
//!
//! **Why no interrupt is lost.** The poller takes nothing away: an event that it sees, or overlooks, stays pending in the
//! controller, and KVM looks there whenever it enters the guest or before it sleeps. What could go wrong is that one waits
//! for the end of a poll, whose length is bounded.
//!
//! **Why none waits.** KVM has looked at the controller for the last time when it reports the cede. An event between that look
//! and the poller's first one would lie behind the position at which the poller begins, and be taken for old. Hence
//! positions are noted before the guest is entered, and the poll begins only if they are the same after the cede: then
//! no event has come since the entry, those that come from here on flip the word, and there is nothing between. If they differ, the
//! event may have been served while the guest ran, or may have come in between; nobody can tell, so the guest is entered once
//! more. If it has something to do it does it. If not it cedes again, this time most likely with nothing since the entry.
//!
//! The queue's memory and the VPA are the guest's, which may write there what it likes. What is read from them decides how long
//! its own vCPU polls, and nothing else.
//!
//! **What a poll does not hear**, because KVM keeps it to itself: H_PROD of the polling vCPU, and doorbells of its siblings. They
//! wait for its end, which is `halt_poll_ns` at most.

pub mod queue;

use arch_api::ppc64::{Vcpu, Watch};
use arch_api::{HvError, Look, Polled, Scheduler};
use queue::{Next, Queue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use vcore::Sampling;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Priorities that a guest may use.
const PRIORITIES: usize = 7;

/// Where the VPA counts how often the vCPU was dispatched and yielded: odd while it is not in the guest.
const VPA_YIELD_COUNT: u64 = 0x100;

/// No queue, and no VPA.
const NONE: u64 = u64::MAX;

/// The positions of a vCPU's queues.
#[derive(Debug, PartialEq, Eq)]
struct Positions {
    /// How often one of them had been changed.
    changes: u32,
    /// By priority; `None` where there is no queue.
    next: [Option<Next>; PRIORITIES],
}

/// Where a vCPU is in the drawing above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Nothing of its idling comes out.
    Off,
    /// Some cedes come out.
    Sampling,
    /// Every cede comes out, and positions are noted before each entry.
    Watching,
    /// The end of the sleep comes out.
    Sleeping,
    /// The events cannot be had any more.
    Broken,
}

impl Stage {
    fn from_u8(stage: u8) -> Self {
        let all = [Self::Off, Self::Sampling, Self::Watching, Self::Sleeping, Self::Broken];
        all[usize::from(stage).min(all.len() - 1)]
    }
}

/// What belongs to one vCPU. `queues`, `changes`, `vpa` and `online` are read by others; the rest is its own thread's, and
/// atomic only because the machine is shared.
#[derive(Debug)]
struct Seat {
    /// Guest physical addresses of its queues, by priority.
    queues: [AtomicU64; PRIORITIES],
    /// How often one of them was changed. Release after, acquire before the addresses are read: who sees the count of a change
    /// sees the address.
    changes: AtomicU32,
    /// Guest physical address of its virtual processor area.
    vpa: AtomicU64,
    online: AtomicBool,
    stage: AtomicU8,
    unseen: AtomicU32,
    /// Positions before the last entry, packed, and the count of changes that they go with.
    entered: [AtomicU32; PRIORITIES],
    entered_changes: AtomicU32,
}

impl Seat {
    fn new() -> Self {
        Self {
            queues: [const { AtomicU64::new(NONE) }; PRIORITIES],
            changes: AtomicU32::new(0),
            vpa: AtomicU64::new(NONE),
            online: AtomicBool::new(false),
            stage: AtomicU8::new(Stage::Off as u8),
            unseen: AtomicU32::new(0),
            entered: [const { AtomicU32::new(0) }; PRIORITIES],
            entered_changes: AtomicU32::new(0),
        }
    }

    fn stage(&self) -> Stage {
        Stage::from_u8(self.stage.load(Ordering::Relaxed))
    }

    fn sampling(&self) -> Sampling {
        Sampling::with_unseen(self.unseen.load(Ordering::Relaxed))
    }

    fn learn(&self, pays: bool) {
        self.unseen.store(self.sampling().after(pays).unseen(), Ordering::Relaxed);
    }

    /// Where its queues are now.
    fn positions(&self, memory: &GuestMemoryMmap) -> Positions {
        let changes = self.changes.load(Ordering::Acquire);
        let next = std::array::from_fn(|priority| {
            let address = self.queues[priority].load(Ordering::Relaxed);
            let guess = Next::unpack(self.entered[priority].load(Ordering::Relaxed));
            (address != NONE).then(|| Queue::new(memory, address).next(guess))
        });
        Positions { changes, next }
    }

    fn note(&self, positions: &Positions) {
        for (entered, next) in self.entered.iter().zip(&positions.next) {
            entered.store(next.map_or(0, Next::pack), Ordering::Relaxed);
        }
        self.entered_changes.store(positions.changes, Ordering::Relaxed);
    }

    fn noted(&self) -> Positions {
        let next = self.entered.each_ref().map(|word| Next::unpack(word.load(Ordering::Relaxed)));
        Positions { changes: self.entered_changes.load(Ordering::Relaxed), next }
    }
}

/// The assist plane of one machine.
pub struct Assist {
    scheduler: Arc<dyn Scheduler>,
    memory: GuestMemoryMmap,
    threads: usize,
    seats: Box<[Seat]>,
    /// Of each core, whether one of its vCPUs polls.
    polling: Box<[AtomicBool]>,
}

impl Assist {
    /// For so many vCPUs, `threads` to a core.
    pub fn new(vcpus: usize, threads: usize, memory: GuestMemoryMmap, scheduler: Arc<dyn Scheduler>) -> Self {
        let seats = (0..vcpus).map(|_| Seat::new()).collect();
        let polling = (0..vcpus.div_ceil(threads)).map(|_| AtomicBool::new(false)).collect();
        Self { scheduler, memory, threads, seats, polling }
    }

    /// The guest has given vCPU `index` a queue, or with `None` taken it away, which KVM knows already. From any vCPU's
    /// thread. A poll that watches the old one ends.
    pub fn queue(&self, index: usize, priority: u8, address: Option<u64>) {
        let seat = &self.seats[index];
        seat.queues[usize::from(priority)].store(address.unwrap_or(NONE), Ordering::Relaxed);
        seat.changes.fetch_add(1, Ordering::Release);
    }

    /// Every queue is gone (H_INT_RESET, power-on).
    pub fn reset(&self) {
        for index in 0..self.seats.len() {
            (0..PRIORITIES as u8).for_each(|priority| self.queue(index, priority, None));
        }
    }

    /// vCPU `index` starts.
    pub fn online(&self, index: usize) {
        let seat = &self.seats[index];
        seat.unseen.store(0, Ordering::Relaxed);
        seat.vpa.store(NONE, Ordering::Relaxed);
        seat.online.store(true, Ordering::Relaxed);
    }

    /// vCPU `index` stops.
    pub fn offline(&self, index: usize) {
        self.seats[index].online.store(false, Ordering::Relaxed);
    }

    /// Before every entry into the guest.
    pub fn prepare(&self, index: usize, vcpu: &mut impl Vcpu) {
        let seat = &self.seats[index];
        match seat.stage() {
            Stage::Broken => {}
            Stage::Off if self.scheduler.polls() => self.look_again(seat, vcpu),
            Stage::Off => {}
            _ if !self.scheduler.polls() => self.set(seat, vcpu, Stage::Off, Watch::Off),
            Stage::Watching => seat.note(&seat.positions(&self.memory)),
            Stage::Sampling | Stage::Sleeping => {}
        }
    }

    /// The vCPU has ceded, and is to be entered again when this returns. It may have something to do then; if not it
    /// cedes once more, and KVM sleeps.
    ///
    /// # Errors
    /// When the hypervisor refuses a register.
    pub fn ceded(&self, index: usize, vcpu: &mut impl Vcpu) -> Result<(), HvError> {
        let seat = &self.seats[index];
        let stage = seat.stage();
        if !matches!(stage, Stage::Sampling | Stage::Watching) {
            return Ok(());
        }
        if self.threads > 1 {
            seat.vpa.store(vcpu.vpa()?, Ordering::Relaxed);
        }
        if self.scheduler.interval(index) == 0 {
            // Nothing to poll for yet; how long it sleeps tells what to do the next time.
            let _ = self.scheduler.poll(index, 0, &mut || Look::Nothing);
            self.let_sleep(seat, vcpu);
            return Ok(());
        }
        if stage == Stage::Sampling {
            // Positions of the entry are not known.
            self.set(seat, vcpu, Stage::Watching, Watch::Cedes { unseen: 0 });
            return Ok(());
        }
        let positions = seat.positions(&self.memory);
        if positions != seat.noted() {
            return Ok(());
        }
        let Some(_turn) = self.turn(index) else {
            seat.learn(false);
            self.look_again(seat, vcpu);
            return Ok(());
        };
        let Ok(timeout @ 1..) = u64::try_from(vcpu.decrementer_ns()?) else { return Ok(()) };
        let polled = self.scheduler.poll(index, timeout, &mut || self.look(index, &positions));
        match polled {
            Polled::Awake => seat.learn(true),
            Polled::Asleep => self.let_sleep(seat, vcpu),
        }
        Ok(())
    }

    /// The vCPU has slept in KVM.
    pub fn woken(&self, index: usize, vcpu: &mut impl Vcpu) {
        let seat = &self.seats[index];
        if seat.stage() == Stage::Sleeping {
            self.scheduler.slept(index);
            seat.learn(self.scheduler.interval(index) > 0);
            self.look_again(seat, vcpu);
        }
    }

    /// The vCPU has come out for something else than its idling: it does not sleep, as it was thought to.
    pub fn busy(&self, index: usize, vcpu: &mut impl Vcpu) {
        let seat = &self.seats[index];
        if seat.stage() == Stage::Sleeping {
            self.look_again(seat, vcpu);
        }
    }

    fn look_again(&self, seat: &Seat, vcpu: &mut impl Vcpu) {
        let unseen = seat.sampling().unseen();
        let stage = if unseen == 0 { Stage::Watching } else { Stage::Sampling };
        self.set(seat, vcpu, stage, Watch::Cedes { unseen });
    }

    fn let_sleep(&self, seat: &Seat, vcpu: &mut impl Vcpu) {
        self.set(seat, vcpu, Stage::Sleeping, Watch::Wake);
    }

    fn set(&self, seat: &Seat, vcpu: &mut impl Vcpu, stage: Stage, watch: Watch) {
        let stage = match vcpu.watch(watch) {
            Ok(()) => stage,
            Err(error) => {
                tracing::warn!(error = %error.source, "{}; this vCPU does not poll any more", error.call);
                Stage::Broken
            }
        };
        seat.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// What a poller sees.
    fn look(&self, index: usize, positions: &Positions) -> Look {
        let seat = &self.seats[index];
        for (position, address) in positions.next.iter().zip(&seat.queues) {
            let Some(next) = position else { continue };
            let address = address.load(Ordering::Relaxed);
            if address != NONE && Queue::new(&self.memory, address).arrived(*next) {
                return Look::Arrived;
            }
        }
        let changed = seat.changes.load(Ordering::Acquire) != positions.changes;
        if changed || self.siblings(index).any(|sibling| self.runs(sibling)) {
            Look::GiveUp
        } else {
            Look::Nothing
        }
    }

    /// The right to poll for the core of vCPU `index`, unless a sibling runs or polls already.
    fn turn(&self, index: usize) -> Option<Turn<'_>> {
        if self.siblings(index).any(|sibling| self.runs(sibling)) {
            return None;
        }
        let core = &self.polling[index / self.threads];
        (!core.swap(true, Ordering::Relaxed)).then_some(Turn(core))
    }

    fn siblings(&self, index: usize) -> impl Iterator<Item = &Seat> {
        let first = index / self.threads * self.threads;
        let core = self.seats.iter().enumerate().skip(first).take(self.threads);
        core.filter(move |&(sibling, _)| sibling != index).map(|(_, seat)| seat)
    }

    /// Whether a sibling is in the guest, as its VPA says; one that has none counts as running.
    fn runs(&self, sibling: &Seat) -> bool {
        if !sibling.online.load(Ordering::Relaxed) {
            return false;
        }
        let vpa = sibling.vpa.load(Ordering::Relaxed);
        let at = vpa.checked_add(VPA_YIELD_COUNT).filter(|_| vpa != 0).map(GuestAddress);
        let count = at.and_then(|at| self.memory.load::<u32>(at, Ordering::Relaxed).ok());
        count.is_none_or(|count| u32::from_be(count) % 2 == 0)
    }
}

/// The right to poll for a core.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
