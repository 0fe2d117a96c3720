use super::*;
use crate::fake::{FakeScheduler, FakeVcpu, Told};

const QUEUE: u64 = 0x10_0000;
const VPA: u64 = 0x20_0000;
const EVERY: Watch = Watch::Cedes { unseen: 0 };

/// Two vCPUs whose queue of priority 6 is at `QUEUE` and behind, and which poll for five turns.
struct Rig {
    assist: Assist,
    scheduler: Arc<FakeScheduler>,
    memory: GuestMemoryMmap,
    vcpus: [FakeVcpu; 2],
}

impl Rig {
    fn new(threads: usize, halt_poll_ns: u32) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x30_0000)]).unwrap();
        let scheduler = Arc::<FakeScheduler>::default();
        scheduler.halt_poll_ns.store(halt_poll_ns, Ordering::Relaxed);
        scheduler.turns.store(5, Ordering::Relaxed);
        let assist = Assist::new(2, threads, memory.clone(), Arc::clone(&scheduler) as _);
        let mut vcpus = <[FakeVcpu; 2]>::default();
        for (index, vcpu) in vcpus.iter_mut().enumerate() {
            (vcpu.decrementer_ns, vcpu.vpa) = (1_000, VPA + 0x1000 * index as u64);
            assist.online(index);
            assist.queue(index, 6, Some(Self::queue(index)));
        }
        Self { assist, scheduler, memory, vcpus }
    }

    fn queue(index: usize) -> u64 {
        QUEUE + 0x1_0000 * index as u64
    }

    /// The controller writes entry `entry` of the queue of vCPU `index`, the first time round.
    fn event(&self, index: usize, entry: u64) {
        let at = GuestAddress(Self::queue(index) + 4 * entry);
        self.memory.store(0x8000_0007u32.to_be(), at, Ordering::Release).unwrap();
    }

    /// vCPU `index` is in the guest, or not, as its VPA says.
    fn dispatched(&self, index: usize, runs: bool) {
        let at = GuestAddress(VPA + 0x1000 * index as u64 + VPA_YIELD_COUNT);
        self.memory.store((6 + u32::from(!runs)).to_be(), at, Ordering::Release).unwrap();
    }

    fn prepare(&mut self, index: usize) {
        self.assist.prepare(index, &mut self.vcpus[index]);
    }

    /// It runs and cedes. What the scheduler is told, and what comes out from then on.
    fn cede(&mut self, index: usize) -> (Vec<Told>, Option<Watch>) {
        self.prepare(index);
        self.ceded(index)
    }

    fn ceded(&mut self, index: usize) -> (Vec<Told>, Option<Watch>) {
        self.vcpus[index].watched.clear();
        self.assist.ceded(index, &mut self.vcpus[index]).unwrap();
        (self.scheduler.told(), self.vcpus[index].watched.pop())
    }

    fn woken(&mut self, index: usize) -> (Vec<Told>, Option<Watch>) {
        self.vcpus[index].watched.clear();
        self.assist.woken(index, &mut self.vcpus[index]);
        (self.scheduler.told(), self.vcpus[index].watched.pop())
    }

    fn poll(polled: Polled) -> Vec<Told> {
        vec![Told::Poll { vcpu: 0, timeout: 1_000, polled }]
    }
}

/// The first entry after polling began switches it on, and has nothing noted yet.
fn watching(threads: usize) -> Rig {
    let mut rig = Rig::new(threads, 10_000);
    rig.prepare(0);
    assert_eq!(rig.vcpus[0].watched, [EVERY]);
    rig.prepare(0);
    rig
}

#[test]
fn a_poll_that_finds_nothing_lets_kvm_sleep_and_learns_from_the_sleep() {
    let mut rig = watching(1);
    assert_eq!(rig.cede(0), (Rig::poll(Polled::Asleep), Some(Watch::Wake)));
    // It cedes again, and sleeps.
    rig.prepare(0);
    assert_eq!(rig.woken(0), (vec![Told::Slept(0)], Some(EVERY)), "the interval is not 0");
    assert_eq!(rig.cede(0), (Rig::poll(Polled::Asleep), Some(Watch::Wake)));
}

#[test]
fn an_event_that_comes_during_the_poll_ends_it() {
    let mut rig = watching(1);
    rig.prepare(0);
    // Between the last look at the positions and the first one of the poll.
    let positions = rig.assist.seats[0].positions(&rig.memory);
    let look = |rig: &Rig| rig.assist.look(0, &positions);
    assert_eq!(look(&rig), Look::Nothing);
    rig.event(1, 0);
    assert_eq!(look(&rig), Look::Nothing, "the other vCPU's");
    rig.event(0, 0);
    assert_eq!(look(&rig), Look::Arrived);
}

#[test]
fn an_event_since_the_entry_sends_the_guest_back_and_the_next_cede_polls() {
    let mut rig = watching(1);
    rig.prepare(0);
    rig.event(0, 0);
    assert_eq!(rig.ceded(0), (vec![], None), "served or not: the guest knows");
    assert_eq!(rig.cede(0).0, Rig::poll(Polled::Asleep));
}

#[test]
fn an_expired_decrementer_is_no_reason_to_poll() {
    for expired in [0, -1] {
        let mut rig = watching(1);
        rig.vcpus[0].decrementer_ns = expired;
        assert_eq!(rig.cede(0), (vec![], None));
    }
}

#[test]
fn without_an_interval_cedes_are_sampled_and_their_sleep_is_measured() {
    let mut rig = watching(1);
    // The VM polls, but this vCPU has found no reason to.
    rig.assist.seats[0].learn(false);
    let assist_only = |rig: &Rig, ns| rig.scheduler.halt_poll_ns.store(ns, Ordering::Relaxed);
    rig.prepare(0);
    assist_only(&rig, 0);
    let opened = vec![Told::Poll { vcpu: 0, timeout: 0, polled: Polled::Asleep }];
    assert_eq!(rig.ceded(0), (opened, Some(Watch::Wake)));
    assert_eq!(rig.woken(0), (vec![Told::Slept(0)], Some(Watch::Cedes { unseen: 3 })));
    // The length of a sleep has let it grow. What came since the entry is not known.
    assist_only(&rig, 10_000);
    assert_eq!(rig.ceded(0), (vec![], Some(EVERY)));
    assert_eq!(rig.cede(0).0, Rig::poll(Polled::Asleep));
}

#[test]
fn a_guest_that_does_something_else_than_sleep_is_watched_again() {
    let mut rig = watching(1);
    rig.cede(0);
    rig.vcpus[0].watched.clear();
    rig.assist.busy(0, &mut rig.vcpus[0]);
    assert_eq!(rig.vcpus[0].watched, [EVERY]);
    rig.assist.busy(0, &mut rig.vcpus[0]);
    assert_eq!(rig.vcpus[0].watched, [EVERY], "once");
    assert_eq!(rig.woken(0), (vec![], None), "a signal that was under way");
}

#[test]
fn polling_is_switched_off_and_on_while_the_vm_runs() {
    let mut rig = watching(1);
    for (ns, watch) in [(0, Watch::Off), (7, EVERY)] {
        rig.vcpus[0].watched.clear();
        rig.scheduler.halt_poll_ns.store(ns, Ordering::Relaxed);
        (0..3).for_each(|_| rig.prepare(0));
        assert_eq!(rig.vcpus[0].watched, [watch]);
    }
}

#[test]
fn a_queue_that_moves_or_goes_ends_the_poll() {
    for address in [None, Some(QUEUE + 0x8_0000)] {
        let mut rig = watching(1);
        rig.prepare(0);
        let positions = rig.assist.seats[0].positions(&rig.memory);
        rig.assist.queue(0, 6, address);
        assert_eq!(rig.assist.look(0, &positions), Look::GiveUp);
        assert_eq!(rig.ceded(0), (vec![], None), "and none begins with the old one's position");
    }
    let mut rig = watching(1);
    rig.assist.reset();
    rig.prepare(0);
    assert_eq!(rig.ceded(0).0, Rig::poll(Polled::Asleep), "a guest without queues has its decrementer");
}

#[test]
fn who_has_a_sibling_in_the_guest_does_not_poll() {
    let mut rig = watching(2);
    // It has never come out, so that its area is not known.
    assert_eq!(rig.cede(0), (vec![], Some(Watch::Cedes { unseen: 1 })));
    rig.prepare(1);
    rig.dispatched(0, false);
    assert_eq!(rig.cede(1).0, [Told::Poll { vcpu: 1, timeout: 1_000, polled: Polled::Asleep }]);
    for (runs, told) in [(true, vec![]), (false, Rig::poll(Polled::Asleep))] {
        rig.dispatched(1, runs);
        assert_eq!(rig.cede(0), (vec![], Some(EVERY)), "positions first");
        assert_eq!(rig.cede(0).0, told);
        rig.assist.busy(0, &mut rig.vcpus[0]);
    }
}

#[test]
fn a_sibling_that_runs_ends_the_poll_and_an_offline_one_does_not_matter() {
    let mut rig = watching(2);
    rig.assist.seats[1].vpa.store(VPA + 0x1000, Ordering::Relaxed);
    let positions = rig.assist.seats[0].positions(&rig.memory);
    for (runs, seen) in [(false, Look::Nothing), (true, Look::GiveUp)] {
        rig.dispatched(1, runs);
        assert_eq!(rig.assist.look(0, &positions), seen);
    }
    rig.assist.offline(1);
    assert_eq!(rig.assist.look(0, &positions), Look::Nothing);
    assert!(rig.cede(0).0.len() == 1);
}

#[test]
fn one_vcpu_of_a_core_polls() {
    let rig = watching(2);
    rig.assist.offline(0);
    rig.assist.offline(1);
    let turn = rig.assist.turn(0);
    assert!(turn.is_some() && rig.assist.turn(1).is_none());
    drop(turn);
    assert!(rig.assist.turn(1).is_some());
}

/// Wherever its area is said to be, reading there is within memory or does not happen.
#[test]
fn an_area_outside_memory_counts_as_running() {
    let rig = watching(2);
    for vpa in [0, u64::MAX, u64::MAX - 1, 0x30_0000, 0x30_0000 - VPA_YIELD_COUNT, 1 << 60] {
        rig.assist.seats[1].vpa.store(vpa, Ordering::Relaxed);
        assert!(rig.assist.runs(&rig.assist.seats[1]), "{vpa:#x}");
    }
}

#[test]
fn a_vcpu_whose_events_are_gone_goes_on_without() {
    let mut rig = watching(1);
    rig.vcpus[0].unwatchable = true;
    assert_eq!(rig.cede(0), (Rig::poll(Polled::Asleep), None));
    rig.vcpus[0].unwatchable = false;
    assert_eq!(rig.cede(0), (vec![], None));
    assert_eq!(rig.woken(0), (vec![], None));
}
