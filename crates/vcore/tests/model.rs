//! The state machine against a simple, independent model, over random sequences of events.
//!
//! The model is written from the rules of H_CEDE, H_PROD and halt polling with one record per
//! thread and no bits; it shares no code with the crate but the names of events and outcomes.

#![cfg(not(loom))]

use proptest::prelude::*;
use vcore::machine::{Delivery, PeriodChange, transition};
use vcore::poll::Block;
use vcore::{Cause, Event, Machine, Outcome, Thread, ThreadMask, Tunables, Word};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Offline,
    Host,
    Guest,
    Nap,
}

#[derive(Clone, Debug)]
struct ModelThread {
    place: Place,
    pending: Vec<Cause>,
}

/// The vcore as a list of threads, and the idle period as an optional record.
#[derive(Clone, Debug)]
struct Model {
    threads: Vec<ModelThread>,
    period: Option<Period>,
    interval: u64,
}

#[derive(Clone, Debug)]
struct Period {
    since: u64,
    poller: Option<usize>,
    slept_at: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Told {
    Refused,
    Done,
    Entered,
    Awake(Vec<Cause>),
    Poll,
    Sleep,
    Reach(Vec<usize>, Vec<usize>),
}

impl Model {
    fn new(threads: usize) -> Self {
        let place = |n| if n < threads { Place::Host } else { Place::Offline };
        let threads = (0..8).map(|n| ModelThread { place: place(n), pending: vec![] }).collect();
        Self { threads, period: None, interval: 0 }
    }

    fn everyone_naps(&self) -> bool {
        let mut online = self.threads.iter().filter(|t| t.place != Place::Offline).peekable();
        online.peek().is_some() && online.all(|t| t.place == Place::Nap)
    }

    fn someone_is_woken(&self) -> bool {
        self.threads.iter().any(|t| t.place == Place::Nap && !t.pending.is_empty())
    }

    fn take(&mut self, n: usize, which: impl Fn(Cause) -> bool) -> Vec<Cause> {
        let all = std::mem::take(&mut self.threads[n].pending);
        let (mut taken, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| which(*c));
        self.threads[n].pending = left;
        taken.sort_by_key(|c| *c as u8);
        taken
    }

    /// Wakes thread `n` if it has a reason to, and ends the period if there is one.
    fn get_up(&mut self, now: u64, n: usize, tunables: &Tunables) -> (Told, Option<Block>) {
        if self.threads[n].pending.is_empty() {
            return (Told::Sleep, None);
        }
        let causes = self.take(n, |_| true);
        self.threads[n].place = Place::Host;
        let valid = causes.iter().any(|c| *c != Cause::Exit);
        (Told::Awake(causes), self.end_period(now, valid, tunables))
    }

    fn end_period(&mut self, now: u64, valid: bool, tunables: &Tunables) -> Option<Block> {
        let period = self.period.take()?;
        let block = Block {
            start: period.since,
            poll_end: period.slept_at.unwrap_or(period.since),
            end: now,
            waited: period.slept_at.is_some(),
            valid,
        };
        // The arithmetic has its own test (tests/poll_table.rs).
        self.interval = u64::from(vcore::poll::adjust(self.interval as u32, &block, tunables));
        Some(block)
    }

    fn step(&mut self, now: u64, event: Event, tunables: &Tunables) -> (Told, Option<Block>) {
        if let Event::Post { threads, cause } = event {
            return (self.post(threads, cause), None);
        }
        let n = event.thread().unwrap().number();
        match (event, self.threads[n].place) {
            (Event::Online(_), Place::Offline) => {
                self.threads[n].place = Place::Host;
                (Told::Done, self.end_period(now, false, tunables))
            }
            (Event::Offline(_), Place::Host) => {
                self.threads[n].place = Place::Offline;
                self.threads[n].pending.retain(|c| *c == Cause::Exit);
                if self.everyone_naps() {
                    self.open_period(now, None, tunables);
                }
                (Told::Done, None)
            }
            (Event::Enter(_), Place::Host) => {
                let causes = self.take(n, |c| c != Cause::Prod);
                if causes.is_empty() {
                    self.threads[n].place = Place::Guest;
                    return (Told::Entered, None);
                }
                (Told::Awake(causes), None)
            }
            (Event::Leave(_), Place::Guest) => {
                self.threads[n].place = Place::Host;
                (Told::Done, None)
            }
            (Event::Cede { poll, .. }, Place::Host | Place::Guest) => {
                (self.cede(now, n, poll, tunables), None)
            }
            (Event::Unnap(_), Place::Nap) => self.get_up(now, n, tunables),
            (Event::Expire(_), Place::Nap) => {
                self.add(n, Cause::Decrementer);
                self.get_up(now, n, tunables)
            }
            (Event::PollEnd(_), Place::Nap) => {
                if self.threads[n].pending.is_empty() {
                    let woken = self.someone_is_woken();
                    if let Some(period) = self.period.as_mut().filter(|p| p.poller == Some(n)) {
                        period.poller = None;
                        period.slept_at = (!woken).then_some(now);
                    }
                }
                self.get_up(now, n, tunables)
            }
            (Event::TakeProd(_), _) => (Told::Awake(self.take(n, |c| c == Cause::Prod)), None),
            _ => (Told::Refused, None),
        }
    }

    fn add(&mut self, n: usize, cause: Cause) {
        if !self.threads[n].pending.contains(&cause) {
            self.threads[n].pending.push(cause);
        }
    }

    fn post(&mut self, threads: ThreadMask, cause: Cause) -> Told {
        let poller = self.period.as_ref().and_then(|p| p.poller);
        let (mut wake, mut kick) = (vec![], vec![]);
        for n in threads.iter().map(Thread::number) {
            self.add(n, cause);
            match self.threads[n].place {
                Place::Nap if poller != Some(n) => wake.push(n),
                Place::Guest if cause != Cause::Prod => kick.push(n),
                _ => {}
            }
        }
        Told::Reach(wake, kick)
    }

    fn cede(&mut self, now: u64, n: usize, poll: bool, tunables: &Tunables) -> Told {
        let causes = self.take(n, |_| true);
        if !causes.is_empty() {
            self.threads[n].place = Place::Host;
            return Told::Awake(causes);
        }
        self.threads[n].place = Place::Nap;
        if !self.everyone_naps() {
            return Told::Sleep;
        }
        let may = poll && self.interval.min(u64::from(tunables.halt_poll_ns)) > 0 && !self.someone_is_woken();
        self.open_period(now, may.then_some(n), tunables);
        if may { Told::Poll } else { Told::Sleep }
    }

    fn open_period(&mut self, now: u64, poller: Option<usize>, tunables: &Tunables) {
        self.interval = self.interval.min(u64::from(tunables.halt_poll_ns));
        let slept_at = poller.is_none().then_some(now);
        self.period = Some(Period { since: now, poller, slept_at });
    }
}

fn told(outcome: Outcome) -> Told {
    match outcome {
        Outcome::Done => Told::Done,
        Outcome::Entered => Told::Entered,
        Outcome::Awake(causes) => Told::Awake(causes.iter().collect()),
        Outcome::Poll => Told::Poll,
        Outcome::Sleep => Told::Sleep,
        Outcome::Refused => Told::Refused,
        Outcome::Post(Delivery { wake, kick }) => {
            let list = |mask: ThreadMask| mask.iter().map(Thread::number).collect();
            Told::Reach(list(wake), list(kick))
        }
    }
}

/// Mostly the first three, so that they meet.
fn thread() -> impl Strategy<Value = Thread> {
    prop_oneof![4 => 0usize..3, 1 => 0usize..8].prop_map(|n| Thread::new(n).unwrap())
}

/// How many threads are online at first: often few, so that vcores do fall idle.
fn online() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1usize..=3, 1 => 1usize..=8]
}

fn cause() -> impl Strategy<Value = Cause> {
    prop::sample::select(Cause::ALL.to_vec())
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => thread().prop_map(Event::Online),
        1 => thread().prop_map(Event::Offline),
        6 => thread().prop_map(Event::Enter),
        2 => thread().prop_map(Event::Leave),
        12 => (thread(), prop::bool::weighted(0.8)).prop_map(|(thread, poll)| Event::Cede { thread, poll }),
        6 => (thread(), cause()).prop_map(|(thread, cause)| Event::Post { threads: thread.mask(), cause }),
        1 => (any::<u8>(), cause()).prop_map(|(mask, cause)| Event::Post { threads: ThreadMask(mask), cause }),
        6 => thread().prop_map(Event::Unnap),
        2 => thread().prop_map(Event::Expire),
        4 => thread().prop_map(Event::PollEnd),
        2 => thread().prop_map(Event::TakeProd),
    ]
}

fn tunables() -> impl Strategy<Value = Tunables> {
    let max = prop_oneof![Just(0u32), 1u32..400, Just(u32::MAX)];
    (max, 0u32..4, 0u32..300, 0u32..4).prop_map(|(max, grow, start, shrink)| Tunables {
        halt_poll_ns: max,
        halt_poll_ns_grow: grow,
        halt_poll_ns_grow_start: start,
        halt_poll_ns_shrink: shrink,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn machine_agrees_with_the_model(
        online in online(),
        sets in prop::collection::vec(tunables(), 1..3),
        events in prop::collection::vec((event(), 0u64..200), 1..300),
    ) {
        let (mut machine, mut model, mut now) = (Machine::new(online, 0), Model::new(online), 0);
        for (index, (event, wait)) in events.iter().enumerate() {
            now += wait;
            // Change the tunables while it runs, once if there are two sets.
            let tunables = &sets[index * sets.len() / events.len()];
            let before = machine.word();
            let (next, actions) = machine.step(now, *event, tunables);
            let (expected, block) = model.step(now, *event, tunables);
            machine = next;
            prop_assert_eq!(told(actions.outcome), expected, "{:?} on {:?}", event, before);
            prop_assert_eq!(actions.block, block, "{:?} on {:?}", event, before);
            prop_assert_eq!(u64::from(machine.halt_poll_ns()), model.interval, "{:?} on {:?}", event, before);
            prop_assert!(machine.word().check(), "{:?} on {:?} broke {:?}", event, before, machine.word());
            prop_assert_eq!(machine.word().poller().map(Thread::number), model.period.as_ref().and_then(|p| p.poller));
        }
    }

    /// No transition touches another thread's state or causes.
    #[test]
    fn siblings_are_never_touched(online in online(), events in prop::collection::vec(event(), 1..200)) {
        let mut word = Word::with_threads(online);
        for event in events {
            let (next, _) = transition(word, event);
            if let Some(own) = event.thread() {
                for other in Thread::all().filter(|t| *t != own) {
                    prop_assert_eq!(word.thread_state(other), next.thread_state(other));
                    prop_assert_eq!(word.causes(other), next.causes(other));
                }
            }
            word = next;
        }
    }

    /// What lets a waker do with one `fetch_or`: a post sets its bits and nothing else, in every word.
    #[test]
    fn post_is_an_or(online in online(), events in prop::collection::vec(event(), 0..60), mask: u8, cause in cause()) {
        let mut word = Word::with_threads(online);
        for event in events {
            word = transition(word, event).0;
        }
        let threads = ThreadMask(mask);
        let from_empty = transition(Word::default(), Event::Post { threads, cause }).0;
        let (next, _) = transition(word, Event::Post { threads, cause });
        prop_assert_eq!(next.bits(), word.bits() | from_empty.bits());
        prop_assert!(next.check());
    }

    /// Every cause that was posted is handed out once: what is taken plus what is left is what was set.
    #[test]
    fn causes_are_neither_lost_nor_doubled(online in online(), events in prop::collection::vec(event(), 1..300)) {
        let mut word = Word::with_threads(online);
        let mut waiting = [[false; 5]; 8];
        for event in events {
            let (next, outcome) = transition(word, event);
            match (event, outcome) {
                (Event::Post { threads, cause }, _) => {
                    threads.iter().for_each(|t| waiting[t.number()][cause as usize] = true);
                }
                (Event::Offline(t), Outcome::Done) => {
                    waiting[t.number()][..4].fill(false);
                }
                (Event::Expire(t), Outcome::Awake(_)) => waiting[t.number()][Cause::Decrementer as usize] = true,
                _ => {}
            }
            if let (Some(t), Outcome::Awake(causes)) = (event.thread(), outcome) {
                for cause in causes.iter() {
                    prop_assert!(std::mem::take(&mut waiting[t.number()][cause as usize]), "{:?} twice", cause);
                }
            }
            for t in Thread::all() {
                for cause in Cause::ALL {
                    prop_assert_eq!(next.causes(t).contains(cause), waiting[t.number()][cause as usize]);
                }
            }
            word = next;
        }
    }
}

#[test]
fn only_the_last_cede_opens_a_period() {
    let mut word = Word::with_threads(8);
    for thread in Thread::all() {
        let (next, outcome) = transition(word, Event::Cede { thread, poll: true });
        let last = thread.number() == 7;
        assert_eq!(outcome, if last { Outcome::Poll } else { Outcome::Sleep });
        let change = if last { PeriodChange::Opened } else { PeriodChange::None };
        assert_eq!(PeriodChange::between(word, next), change);
        word = next;
    }
}

#[test]
fn a_prod_does_not_hold_up_an_entry() {
    let thread = Thread::new(0).unwrap();
    let prod = Event::Post { threads: thread.mask(), cause: Cause::Prod };
    let (word, _) = transition(Word::with_threads(1), prod);
    let (word, outcome) = transition(word, Event::Enter(thread));
    assert_eq!(outcome, Outcome::Entered);
    let (_, outcome) = transition(word, Event::Cede { thread, poll: true });
    assert!(matches!(outcome, Outcome::Awake(causes) if causes.contains(Cause::Prod)));
}
