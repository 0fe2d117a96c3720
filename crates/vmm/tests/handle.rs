//! What others may do to a VM while it runs: pause it, look at it; and where its threads are.

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use arch_api::{Stop, Until};
use nix::sched::CpuSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use support::{Counter, Guest, Log, Step, console, endless, own_cpus, run_steered, within};
use vcore::{SharedTunables, ThreadState, Tunables};
use vmm::{Handle, Options, Outcome, Vm};

const POWER_OFF: Step = Step::Stop(Stop::PowerOff);
const REBOOT: Step = Step::Stop(Stop::Reboot);

fn options() -> Options {
    Options { reboot: true, ..Options::default() }
}

fn states(handle: &Handle) -> Vec<ThreadState> {
    handle.status().into_iter().map(|status| status.state).collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Four vCPUs: 0 waits in the guest for `go`, 1 naps for any event, 2 for a prod, 3 comes out all the time.
fn busy_guest(log: &Arc<Log>, go: &Counter) -> Guest {
    let joined = Counter::default();
    let waiter = vec![Step::Cede(endless(Until::Prod)), Step::Count(Arc::clone(&joined)), Step::Idle];
    let program = vec![
        Step::Start(1, vec![Step::Cede(endless(Until::Event)), Step::Idle]),
        Step::Start(2, waiter),
        Step::Start(3, vec![Step::Work(usize::MAX)]),
        Step::Until(Arc::clone(go), 1),
        Step::Expect(Arc::clone(&joined), 0),
        Step::Prod(2),
        Step::Until(joined, 1),
        POWER_OFF,
    ];
    Guest::new(log, [program])
}

const BUSY: [ThreadState; 3] = [ThreadState::Running, ThreadState::Napping, ThreadState::Napping];

#[test]
fn a_pause_holds_all_who_run_and_nap_and_a_resume_goes_on() {
    for threads in [1, 2, 4] {
        let (log, go) = (Log::new(4), Counter::default());
        let guest = busy_guest(&log, &go).with_threads(threads);
        let seen = Arc::downgrade(&log);
        let outcome = run_steered(&log, guest, options(), move |handle| {
            wait_until("all are where they are to be", || states(handle)[..3] == BUSY);
            for _ in 0..3 {
                assert!(!handle.is_paused());
                handle.pause();
                assert!(handle.is_paused());
                let log = seen.upgrade().unwrap();
                let runs = log.runs.load(SeqCst);
                assert_eq!(log.inside.load(SeqCst), 0, "a vCPU runs");
                assert_eq!(states(handle), [ThreadState::Host; 4]);
                go.store(1, SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(log.runs.load(SeqCst), runs, "a vCPU ran");
                go.store(0, SeqCst);
                handle.resume();
                wait_until("vCPU 3 goes on", || log.runs.load(SeqCst) > runs + 10);
            }
            wait_until("the wait for a prod goes on", || states(handle)[2] == ThreadState::Napping);
            go.store(1, SeqCst);
        });
        assert_eq!(outcome, Ok(Outcome::PoweredOff));
    }
}

#[test]
fn a_vm_that_is_paused_before_it_runs_starts_with_its_resume() {
    let log = Log::new(2);
    let guest = Guest::new(&log, [vec![POWER_OFF]]);
    let seen = Arc::clone(&log);
    let outcome = within(60, "the VM", move || {
        let vm = Vm::new(guest, console(), options()).unwrap();
        let handle = vm.handle();
        handle.pause();
        let resumer = std::thread::spawn(move || {
            wait_until("it boots", || seen.entered[0].load(SeqCst) == 1);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(seen.runs.load(SeqCst), 0, "it ran");
            handle.resume();
        });
        let outcome = vm.run().unwrap();
        resumer.join().unwrap();
        outcome
    });
    assert_eq!(outcome, Outcome::PoweredOff);
    log.assert_quiet();
}

/// Whoever pauses meets the end of a life at any point of it; nobody waits for a vCPU that has parked for good.
#[test]
fn pauses_during_reboots_and_the_end_do_not_hang() {
    let log = Log::new(3);
    let nap = || vec![Step::Cede(endless(Until::Prod))];
    let first = vec![Step::Start(1, nap()), Step::Start(2, vec![Step::Work(usize::MAX)])];
    let life = |stop| [first.clone(), vec![Step::Work(5), stop]].concat();
    let programs: Vec<_> = (0..40).map(|_| life(REBOOT)).chain([life(POWER_OFF)]).collect();
    let seen = Arc::downgrade(&log);
    let outcome = run_steered(&log, Guest::new(&log, programs), options(), move |handle| {
        // The VM and with it the log's other owners are gone when it has ended.
        let runs = || seen.upgrade().is_some_and(|log| log.boots.load(SeqCst) <= 40);
        let pausers = [(); 2].map(|()| {
            let handle = handle.clone();
            std::thread::spawn(move || {
                for _ in 0..200 {
                    handle.pause();
                    handle.resume();
                }
            })
        });
        pausers.into_iter().for_each(|pauser| pauser.join().unwrap());
        while runs() {
            handle.pause();
            handle.resume();
        }
        for _ in 0..10 {
            handle.pause();
            assert!(states(handle).iter().all(|state| *state != ThreadState::Running));
            handle.resume();
        }
    });
    assert_eq!(outcome, Ok(Outcome::PoweredOff));
    assert_eq!(log.boots.load(SeqCst), 41);
}

#[test]
fn a_handle_outlives_its_vm() {
    let log = Log::new(2);
    let guest = Guest::new(&log, [vec![POWER_OFF]]);
    let handle = within(60, "the VM", move || {
        let vm = Vm::new(guest, console(), options()).unwrap();
        vm.run().unwrap();
        vm.handle()
    });
    within(60, "a pause of nothing", move || {
        handle.pause();
        assert_eq!(states(&handle), [ThreadState::Offline; 2]);
        handle.resume();
    });
}

#[test]
fn the_status_shows_where_each_vcpu_is_and_what_it_did() {
    let (log, go) = (Log::new(4), Counter::default());
    let waits = 5;
    let naps = vec![Step::Ask(1, 1_000_000); waits];
    let program = vec![
        Step::Start(2, [naps, vec![Step::Cede(endless(Until::Event)), Step::Idle]].concat()),
        Step::Until(Arc::clone(&go), 1),
        POWER_OFF,
    ];
    let tunables = Arc::new(SharedTunables::new(Tunables::NO_POLL));
    let guest = Guest::new(&log, [program]).with_threads(2);
    let outcome = run_steered(&log, guest, Options { tunables, ..options() }, move |handle| {
        let offline = ThreadState::Offline;
        let expected = [ThreadState::Running, offline, ThreadState::Napping, offline];
        let waited = |handle: &Handle| handle.status()[2].snapshot.halt_successful_wait;
        wait_until("vCPU 2 naps for the last time", || {
            states(handle) == expected && waited(handle) == waits as u64
        });
        let status = handle.status();
        let places: Vec<_> = status.iter().map(|status| (status.vcore, status.thread)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert!(status[2].snapshot.halt_wait_ns >= waits as u64 * 1_000_000, "{:?}", status[2]);
        assert!(status.iter().all(|status| !status.polling && status.halt_poll_ns == 0));
        for quiet in [0, 1, 3] {
            assert_eq!(status[quiet].snapshot, Default::default(), "vCPU {quiet} has not napped");
        }
        go.store(1, SeqCst);
    });
    assert_eq!(outcome, Ok(Outcome::PoweredOff));
}

fn only(cpu: usize) -> CpuSet {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).unwrap();
    cpus
}

/// Boots three vCPUs whose threads are placed like this and says where they may run.
fn places(placement: Vec<Option<CpuSet>>) -> Vec<Vec<usize>> {
    let log = Log::new(3);
    let mut program = Vec::new();
    for index in 1..3 {
        program.extend([Step::Start(index, vec![Step::Where, Step::Park]), Step::WhenParked(index)]);
    }
    program.extend([Step::Where, POWER_OFF]);
    let options = Options { placement, ..options() };
    assert_eq!(run_steered(&log, Guest::new(&log, [program]), options, |_| {}), Ok(Outcome::PoweredOff));
    let places = log.places.lock().unwrap();
    places.values().cloned().collect()
}

#[test]
fn threads_run_where_they_are_placed() {
    let ours = own_cpus();
    assert_eq!(places(vec![]), [(); 3].map(|()| ours.clone()), "left to the host");
    let [first, .., last] = ours[..] else { return println!("skipped: one CPU is no choice") };
    let placed = places(vec![Some(only(last)), Some(only(first))]);
    assert_eq!(placed, [vec![last], vec![first], ours]);
}

/// It is said in the log, and the VM runs all the same.
#[test]
fn a_place_that_does_not_exist_is_no_place() {
    let ours = own_cpus();
    let nowhere = only(CpuSet::count() - 1);
    assert!(!ours.contains(&(CpuSet::count() - 1)));
    assert_eq!(places(vec![Some(nowhere)])[0], ours);
}
