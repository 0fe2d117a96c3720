//! A VM's lives, on real threads: boot, start, park, reboot and every end.

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use arch_api::{Nap, Stop, Until};
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use support::{Counter, Faults, Guest, Log, Program, Step, console, endless, run_steered, within};
use vmm::{Options, Outcome, Vm};

fn run_with(log: &Arc<Log>, guest: Guest, reboot: bool) -> Result<Outcome, String> {
    run_steered(log, guest, Options { reboot, ..Options::default() }, |_| {})
}

fn run(log: &Arc<Log>, programs: Vec<Program>, reboot: bool) -> Result<Outcome, String> {
    run_with(log, Guest::new(log, programs), reboot)
}

const POWER_OFF: Step = Step::Stop(Stop::PowerOff);
const REBOOT: Step = Step::Stop(Stop::Reboot);

#[test]
fn each_end_has_its_outcome() {
    for (stop, outcome) in [
        (Stop::PowerOff, Outcome::PoweredOff),
        (Stop::Panic, Outcome::Panicked),
        (Stop::Reboot, Outcome::RebootRequested),
    ] {
        let log = Log::new(1);
        assert_eq!(run(&log, vec![vec![Step::Work(3), Step::Stop(stop)]], false), Ok(outcome));
        assert_eq!(log.boots.load(SeqCst), 1);
    }
}

#[test]
fn a_reboot_boots_again_with_empty_memory() {
    let log = Log::new(2);
    let first = vec![Step::Start(1, vec![Step::Idle]), REBOOT];
    let programs = vec![first.clone(), first, vec![POWER_OFF]];
    assert_eq!(run(&log, programs, true), Ok(Outcome::PoweredOff));
    assert_eq!(log.boots.load(SeqCst), 3);
    assert_eq!(log.entered[0].load(SeqCst), 3);
}

#[test]
fn two_who_ask_for_a_reboot_get_one() {
    let log = Log::new(2);
    let ready = Counter::default();
    let meet = || vec![Step::Count(Arc::clone(&ready)), Step::Until(Arc::clone(&ready), 2), REBOOT];
    let first = [vec![Step::Start(1, meet())], meet()].concat();
    let programs = vec![first, vec![Step::Work(50), POWER_OFF]];
    assert_eq!(run(&log, programs, true), Ok(Outcome::PoweredOff));
    assert_eq!(log.boots.load(SeqCst), 2);
}

#[test]
fn parked_vcpus_start_again() {
    let log = Log::new(4);
    let mut program = Vec::new();
    for _ in 0..20 {
        let done = Counter::default();
        for index in 1..4 {
            let other = vec![Step::Work(2), Step::Count(Arc::clone(&done)), Step::Park];
            program.extend([Step::WhenParked(index), Step::Start(index, other)]);
        }
        program.push(Step::Until(done, 3));
    }
    program.push(POWER_OFF);
    assert_eq!(run(&log, vec![program], false), Ok(Outcome::PoweredOff));
    for index in 1..4 {
        assert_eq!(log.entered[index].load(SeqCst), 20);
    }
}

#[test]
fn the_end_reaches_vcpus_that_sleep_in_the_guest() {
    let log = Log::new(4);
    let asleep = Counter::default();
    let sleeper = || vec![Step::Count(Arc::clone(&asleep)), Step::Idle];
    let mut program: Program = (1..4).map(|index| Step::Start(index, sleeper())).collect();
    program.extend([Step::Until(Arc::clone(&asleep), 3), POWER_OFF]);
    assert_eq!(run(&log, vec![program], false), Ok(Outcome::PoweredOff));
}

#[test]
fn one_vcpu_that_fails_ends_all() {
    let table = [(Step::Fail, "vCPU 1 cannot continue: as asked"), (Step::Refuse, "KVM_RUN failed")];
    for (failure, text) in table {
        let log = Log::new(3);
        let program = vec![
            Step::Start(2, vec![Step::Work(usize::MAX)]),
            Step::Start(1, vec![Step::Work(10), failure]),
            Step::Idle,
        ];
        assert_eq!(run(&log, vec![program], true), Err(text.into()));
        assert_eq!(log.boots.load(SeqCst), 1);
    }
}

#[test]
fn a_vcpu_that_cannot_enter_or_leave_ends_the_vm() {
    let faults =
        [Faults { enter: Some(1), ..Faults::default() }, Faults { leave: Some(1), ..Faults::default() }];
    for (faults, text) in faults.into_iter().zip(["enter failed", "leave failed"]) {
        let log = Log::new(2);
        let guest =
            Guest::new(&log, [vec![Step::Start(1, vec![Step::Park]), Step::Idle]]).with_faults(faults);
        assert_eq!(run_with(&log, guest, true), Err(text.into()));
    }
}

/// vCPU 1 is brought out to reboot and cannot be taken offline: the next life would start on half a machine.
#[test]
fn a_vcpu_that_cannot_leave_for_a_reboot_ends_the_vm() {
    let log = Log::new(2);
    let asleep = Counter::default();
    let first = vec![
        Step::Start(1, vec![Step::Count(Arc::clone(&asleep)), Step::Idle]),
        Step::Until(asleep, 1),
        REBOOT,
    ];
    let guest = Guest::new(&log, [first, vec![POWER_OFF]])
        .with_faults(Faults { leave: Some(1), ..Faults::default() });
    assert_eq!(run_with(&log, guest, true), Err("leave failed".into()));
    assert_eq!(log.boots.load(SeqCst), 1);
}

#[test]
fn a_reset_that_fails_ends_the_vm_at_any_boot() {
    for boot in [1, 2] {
        let log = Log::new(2);
        let faults = Faults { reset: Some(boot), ..Faults::default() };
        let guest = Guest::new(&log, [vec![Step::Start(1, vec![Step::Idle]), REBOOT]]).with_faults(faults);
        assert_eq!(run_with(&log, guest, true), Err("the machine could not be reset".into()));
        assert_eq!(log.boots.load(SeqCst), boot);
    }
}

#[test]
fn a_vm_that_cannot_be_made_leaves_nothing() {
    let log = Log::new(3);
    let guest = Guest::new(&log, [vec![]]).with_faults(Faults { create: Some(2), ..Faults::default() });
    assert_eq!(run_with(&log, guest, true), Err("KVM_CREATE_VCPU failed".into()));
}

#[test]
fn a_vm_that_never_runs_ends_its_threads() {
    let log = Log::new(3);
    let guest = Guest::new(&log, [vec![POWER_OFF]]);
    within(60, "dropping the VM", move || {
        drop(Vm::new(guest, console(), Options { reboot: false, ..Options::default() }).unwrap())
    });
    assert_eq!(Arc::strong_count(&log), 1);
    assert_eq!(log.boots.load(SeqCst), 0);
}

/// The kick signal is blocked already the second time, as it may be by whoever started the process.
#[test]
fn one_thread_may_have_one_vm_after_another() {
    for _ in 0..2 {
        let log = Log::new(2);
        let guests = [(); 2].map(|()| Guest::new(&log, [vec![Step::Start(1, vec![Step::Idle]), POWER_OFF]]));
        let outcomes = within(60, "two VMs", move || {
            guests
                .map(|guest| Vm::new(guest, console(), Options { reboot: true, ..Options::default() })?.run())
        });
        for outcome in outcomes {
            assert_eq!(outcome.map_err(|error| format!("{error:?}")), Ok(Outcome::PoweredOff));
        }
        log.assert_quiet();
    }
}

#[test]
fn a_sync_brings_the_others_past_prepare() {
    let log = Log::new(2);
    let asleep = Counter::default();
    let prepared = Arc::clone(&log.prepared[1]);
    let program = vec![
        Step::Start(1, vec![Step::Count(Arc::clone(&asleep)), Step::Idle]),
        Step::Until(asleep, 1),
        Step::Sync,
        Step::Until(Arc::clone(&prepared), 2),
        Step::Sync,
        Step::Until(prepared, 3),
        POWER_OFF,
    ];
    assert_eq!(run(&log, vec![program], false), Ok(Outcome::PoweredOff));
}

#[test]
fn a_load_outside_memory_reads_what_the_architecture_says() {
    let log = Log::new(1);
    assert_eq!(run(&log, vec![vec![Step::Load, Step::Work(1), POWER_OFF]], false), Ok(Outcome::PoweredOff));
    assert_eq!(*log.loaded.lock().unwrap(), [[0x5a; 8]]);
}

fn nap() -> impl Strategy<Value = Step> {
    let until = prop_oneof![Just(Until::Event), Just(Until::Prod)];
    let nap = (prop::option::of(0u64..200_000), until).prop_map(|(timeout, until)| Nap { timeout, until });
    prop_oneof![
        nap.clone().prop_map(Step::Cede),
        nap.prop_map(Step::CedeEvent),
        Just(Step::Cede(endless(Until::EventOrAskAgain))),
        (1usize..4, 0u64..100_000).prop_map(|(times, ns)| Step::Ask(times, ns)),
    ]
}

/// Any guest of four vCPUs: what they do to each other while one of them ends the life.
fn program(depth: u32) -> BoxedStrategy<Program> {
    let plain = prop_oneof![
        4 => (0usize..20).prop_map(Step::Work),
        2 => Just(Step::Sync),
        1 => Just(Step::Load),
        1 => Just(Step::Park),
        2 => nap(),
        2 => (0usize..4).prop_map(Step::Interrupt),
        2 => (0usize..4).prop_map(Step::Prod),
        1 => prop::option::of(0usize..4).prop_map(Step::Confer),
    ];
    if depth == 0 {
        return prop::collection::vec(plain, 0..5).boxed();
    }
    let start = (0usize..4, program(depth - 1)).prop_map(|(index, program)| Step::Start(index, program));
    let end = prop_oneof![Just(REBOOT), Just(POWER_OFF), Just(Step::Idle), Just(Step::Park)];
    let steps = prop::collection::vec(prop_oneof![3 => plain, 3 => start], 0..8);
    (steps, end).prop_map(|(steps, end)| [steps, vec![end]].concat()).boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_guest_hangs_the_run_loop(
        first in program(2),
        second in program(2),
        threads in select(&[1usize, 2, 4][..]),
        raises in any::<bool>(),
        pauses in 0usize..20,
    ) {
        let log = Log::new(4);
        // vCPU 3 ends each life, unless another does it before: the others may all sleep or be parked.
        let ender = |stop| Step::Start(3, vec![Step::Work(30), Step::Stop(stop)]);
        let programs = vec![
            [vec![ender(Stop::Reboot)], first].concat(),
            [vec![ender(Stop::Reboot)], second].concat(),
            vec![ender(Stop::PowerOff), Step::Idle],
        ];
        let guest = Guest::new(&log, programs).with_threads(threads);
        let guest = if raises { guest.with_raisers() } else { guest };
        let options = Options { reboot: true, ..Options::default() };
        let outcome = run_steered(&log, guest, options, move |handle| {
            for _ in 0..pauses {
                handle.pause();
                handle.resume();
            }
        });
        prop_assert_eq!(outcome, Ok(Outcome::PoweredOff));
    }
}
