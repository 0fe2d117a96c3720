//! The poll before a sleep that is the hypervisor's: what ends it, and what is learnt. Time is the test's own.

#![cfg(all(target_os = "linux", not(loom)))]

use std::cell::Cell;
use vcore::sync::AtomicU32;
use vcore::{
    Cause, Causes, Entry, Look, Polled, Port, SharedTunables, Stats, Thread, ThreadMask, ThreadState,
    Tunables, Vcore, Waited,
};

/// A world in which each look at the clock takes 100 ns, and nobody sleeps.
struct World {
    now: Cell<u64>,
    /// From then on another task wants the CPU.
    crowded_from: Cell<u64>,
    tunables: SharedTunables,
    stats: Stats,
}

impl Port for World {
    fn now(&self) -> u64 {
        self.now.set(self.now.get() + 100);
        self.now.get()
    }

    fn wait(&self, _: &AtomicU32, _: u32, _: Thread, _: Option<u64>) -> Waited {
        unreachable!("the sleep is the hypervisor's")
    }

    fn wake(&self, _: &AtomicU32, _: ThreadMask) {
        unreachable!("nobody sleeps here")
    }

    fn kick(&self, _: ThreadMask, _: Cause) {
        unreachable!("the thread is in the host")
    }

    fn may_poll(&self, _: Thread, now: u64) -> bool {
        now < self.crowded_from.get()
    }

    fn keep_polling(&self, _: Thread, _: u64, now: u64) -> bool {
        now < self.crowded_from.get()
    }

    fn yield_cpu(&self) {}

    fn tunables(&self) -> &SharedTunables {
        &self.tunables
    }

    fn stats(&self, _: Thread) -> &Stats {
        &self.stats
    }

    fn vcpu_id(&self, _: Thread) -> u32 {
        0
    }
}

const MAX: u32 = 40_000;

fn me() -> Thread {
    Thread::new(0).unwrap()
}

/// A vCPU that polls for 10 us, of 40 at most.
fn vcpu() -> Vcore<World> {
    let tunables = Tunables { halt_poll_ns: MAX, halt_poll_ns_grow_start: 10_000, ..Tunables::X86 };
    let world = World {
        now: Cell::new(0),
        crowded_from: Cell::new(u64::MAX),
        tunables: SharedTunables::new(tunables),
        stats: Stats::new(),
    };
    Vcore::new(1, world).starting_with(10_000)
}

fn poll(vcore: &Vcore<World>, deadline: Option<u64>, look: impl FnMut() -> Look) -> Polled {
    let polled = vcore.poll_before_sleep(me(), deadline, look).unwrap();
    assert_eq!(vcore.word().thread_state(me()), ThreadState::Host);
    polled
}

/// The hypervisor's sleep, so long.
fn sleep(vcore: &Vcore<World>, ns: u64) {
    let now = &vcore.port().now;
    now.set(now.get() + ns);
    vcore.slept(me());
}

#[test]
fn what_arrives_ends_the_poll_and_the_interval_stays() {
    let vcore = vcpu();
    let mut turns = 0;
    let polled = poll(&vcore, None, || {
        turns += 1;
        if turns == 5 { Look::Arrived } else { Look::Nothing }
    });
    assert_eq!((polled, turns), (Polled::Awake, 5));
    let stats = vcore.port().stats.snapshot();
    assert_eq!((stats.halt_attempted_poll, stats.halt_successful_poll, stats.halt_poll_invalid), (1, 1, 0));
    assert!(stats.halt_poll_success_ns < 1_000, "{stats:?}");
    assert_eq!(vcore.halt_poll_ns(), 10_000);
}

#[test]
fn a_poll_without_an_event_ends_with_its_interval_and_the_sleep_teaches() {
    // (how long it sleeps, the interval afterwards): short enough for a longer poll, and too long for any.
    for (ns, interval) in [(1_000, 20_000), (1_000_000, 5_000)] {
        let vcore = vcpu();
        assert_eq!(poll(&vcore, None, || Look::Nothing), Polled::Asleep);
        let polled = vcore.port().now.get();
        assert!((10_000..11_000).contains(&polled), "it took {polled}");
        sleep(&vcore, ns);
        assert_eq!(vcore.halt_poll_ns(), interval);
        let stats = vcore.port().stats.snapshot();
        assert_eq!((stats.halt_successful_wait, stats.halt_wakeup, stats.halt_successful_poll), (1, 1, 0));
        assert!(stats.halt_poll_fail_ns >= 10_000 && stats.halt_wait_ns >= ns, "{stats:?}");
    }
}

#[test]
fn without_an_interval_the_sleep_alone_teaches() {
    let vcore = vcpu().starting_with(0);
    assert_eq!(poll(&vcore, None, || panic!("no time to look")), Polled::Asleep);
    sleep(&vcore, 3_000);
    assert_eq!(vcore.halt_poll_ns(), 10_000, "grow_start");
    assert_eq!(vcore.port().stats.snapshot().halt_attempted_poll, 0);
}

#[test]
fn the_decrementer_an_exit_request_and_a_task_that_wants_the_cpu_end_the_poll() {
    let vcore = vcpu();
    assert_eq!(poll(&vcore, Some(3_000), || Look::Nothing), Polled::Awake);
    assert!((3_000..3_500).contains(&vcore.port().now.get()), "the decrementer is not late");

    let mut turns = 0;
    let polled = poll(&vcore, None, || {
        turns += 1;
        if turns == 3 {
            vcore.request_exit(me().mask());
        }
        Look::Nothing
    });
    assert_eq!((polled, turns), (Polled::Awake, 3));
    assert_eq!(
        vcore.enter(me()),
        Ok(Entry::Host(Causes::only(Cause::Exit))),
        "it is still there to be taken"
    );
    let stats = vcore.port().stats.snapshot();
    assert_eq!((stats.halt_successful_poll, stats.halt_poll_invalid), (2, 1));

    vcore.port().crowded_from.set(vcore.port().now.get() + 1_000);
    assert_eq!(poll(&vcore, None, || Look::Nothing), Polled::Asleep);
    assert_eq!(poll(&vcore, None, || panic!("no poll begins")), Polled::Asleep);
    assert_eq!(poll(&vcore, None, || panic!("nor here")), Polled::Asleep);

    let vcore = vcpu();
    assert_eq!(poll(&vcore, None, || Look::GiveUp), Polled::Asleep);
    assert!(vcore.port().now.get() < 1_000);
}

#[test]
fn an_idle_period_that_nobody_closes_is_forgotten() {
    let vcore = vcpu();
    assert_eq!(poll(&vcore, None, || Look::Nothing), Polled::Asleep);
    // The guest found something to do, for long.
    vcore.port().now.set(1_000_000_000);
    assert_eq!(poll(&vcore, None, || Look::Nothing), Polled::Asleep);
    sleep(&vcore, 1_000);
    assert_eq!(vcore.halt_poll_ns(), 20_000, "the second period was short");
}

#[test]
fn who_is_not_in_the_host_is_refused() {
    let vcore = vcpu();
    assert_eq!(vcore.enter(me()), Ok(Entry::Guest));
    let error = vcore.poll_before_sleep(me(), None, || Look::Arrived).unwrap_err();
    assert_eq!(error.state, ThreadState::Running);
}
