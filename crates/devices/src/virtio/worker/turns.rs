//! A worker's thread from inside: what it does from one turn to the next.
//!
//! ```text
//!            ┌────────────────── found ────────────────────┐
//!            ▼                                             │
//!  turn ─▶ inbox ─▶ settle ─▶ look, as long as Pace says ──┴─ nothing ─▶ arm ─ nothing ─▶ wait ─┐
//!   ▲                 │ unfinished                                        │ found               │ woken
//!   └─────────────────┴───────────────────────────────────────────────────┴─────────────────────┘
//! ```
//!
//! What must hold: no backend that looks is waited for without having been armed since its last call, so that whatever comes after `arm`
//! wakes the thread; and whatever came before was seen by it. (The driver publishes a chain and then reads whether to notify; `arm` asks
//! for the notification and then reads what is published; there is a full barrier between the two on both sides, so at
//! least one of them sees the other's.) While the thread looks, descriptors that no backend sees by itself are
//! asked for in each turn of the look, at the price of a system call; with none of them a look makes none.

use super::pace::Pace;
use super::runner::{Runner, Subscriber};
use super::{Message, refused};
use crate::virtio::device::Sight;
use event_manager::{EventManager, SubscriberId, SubscriberOps};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

/// A thread's backends, and how it waits.
pub struct Turns {
    running: HashMap<u64, SubscriberId>,
    manager: EventManager<Subscriber>,
    pace: Pace,
    clock: Instant,
}

impl Turns {
    pub fn new(manager: EventManager<Subscriber>, pace: Pace) -> Self {
        Self { running: HashMap::new(), manager, pace, clock: Instant::now() }
    }

    /// The thread. The inbox is the caller's, so that in a panic the backends go before what tells that they are gone.
    pub fn run(mut self, inbox: &Receiver<Message>) {
        let mut unfinished = false;
        loop {
            let turn = if unfinished { self.manager.run_with_timeout(0).map(|_| ()) } else { self.rest() };
            if let Err(error) = turn {
                tracing::error!(%error, "devices stop: cannot wait for events");
                return;
            }
            loop {
                match inbox.try_recv() {
                    Ok(Message::Start(id, work)) => {
                        let runner = Subscriber::Device(Runner::new(*work));
                        self.running.insert(id, self.manager.add_subscriber(runner));
                    }
                    Ok(Message::Stop(id, done)) => {
                        if let Some(subscriber) = self.running.remove(&id) {
                            drop(self.manager.remove_subscriber(subscriber));
                        }
                        drop(done);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            unfinished = false;
            let manager = &mut self.manager;
            self.running.retain(|_, subscriber| settle(manager, *subscriber, &mut unfinished));
        }
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Nothing is left to be done: looks for more, and then waits for it.
    fn rest(&mut self) -> event_manager::Result<()> {
        let (mut some_look, mut all_see) = (false, true);
        self.each(|runner| {
            some_look |= runner.sight() != Sight::Blind;
            all_see &= runner.sight() == Sight::All;
            false
        });
        if self.pace.idle(self.now()) && some_look {
            loop {
                let mut found = self.each(Runner::look);
                if !all_see {
                    found |= self.manager.run_with_timeout(0)? > 0;
                }
                let now = self.now();
                if found {
                    self.pace.busy(now);
                    return Ok(());
                }
                if !self.pace.goes_on(now) {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        self.pace.waits();
        let found = self.each(Runner::arm);
        if found {
            self.each(Runner::look);
        }
        if !(found && all_see) {
            self.manager.run_with_timeout(if found { 0 } else { -1 })?;
        }
        self.pace.busy(self.now());
        Ok(())
    }

    /// Has every backend do something, and says whether any answered with yes.
    fn each(&mut self, mut what: impl FnMut(&mut Runner) -> bool) -> bool {
        let mut any = false;
        for subscriber in self.running.values() {
            if let Ok(Subscriber::Device(runner)) = self.manager.subscriber_mut(*subscriber) {
                any |= what(runner);
            }
        }
        any
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
