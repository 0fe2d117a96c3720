//! Naps on real threads: what ends them, and what does not.

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use arch_api::{Nap, Stop, Until};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use support::{Counter, Guest, Log, Program, Step, endless, run_steered};
use vmm::{Options, Outcome};

const POWER_OFF: Step = Step::Stop(Stop::PowerOff);
const MS: u64 = 1_000_000;
const HOUR: u64 = 3_600_000 * MS;
const EVERY_UNTIL: [Until; 3] = [Until::Event, Until::EventOrAskAgain, Until::Prod];

fn run(guest: Guest, log: &Arc<Log>) {
    let options = Options { reboot: true, ..Options::default() };
    assert_eq!(run_steered(log, guest, options, |_| {}), Ok(Outcome::PoweredOff));
}

/// A nap of the caller's own, long enough for others to have done what they were about to.
fn a_while() -> Step {
    Step::Cede(Nap { timeout: Some(20 * MS), until: Until::Event })
}

/// vCPU 1 naps by `cede` and vCPU 0 ends that by `end`, again and again, at any time before or after the nap begins.
fn rounds(cede: &Step, end: &Step) -> Program {
    const ROUNDS: usize = 50;
    let (ready, done) = (Counter::default(), Counter::default());
    let (mut napper, mut program) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        napper.extend([Step::Count(Arc::clone(&ready)), cede.clone(), Step::Count(Arc::clone(&done))]);
        let late = if round % 10 == 0 { a_while() } else { Step::Work(round % 4) };
        program.extend([Step::Until(Arc::clone(&ready), round), late, end.clone()]);
        program.push(Step::Until(Arc::clone(&done), round));
    }
    [vec![Step::Start(1, napper)], program, vec![POWER_OFF]].concat()
}

#[test]
fn an_interrupt_or_a_prod_ends_a_nap_and_is_not_lost_before_it() {
    for until in EVERY_UNTIL {
        for cede in [Step::Cede(endless(until)), Step::CedeEvent(endless(until))] {
            for end in [Step::Interrupt(1), Step::Prod(1)] {
                if until == Until::Prod && matches!(end, Step::Interrupt(_)) {
                    continue;
                }
                for threads in [1, 2] {
                    let log = Log::new(2);
                    run(Guest::new(&log, [rounds(&cede, &end)]).with_threads(threads), &log);
                    assert_eq!(log.asked[1].load(SeqCst), 0, "nothing was to be asked");
                }
            }
        }
    }
}

/// While it runs it hears of it by its pin, and is not brought out.
#[test]
fn an_interrupt_of_a_vcpu_that_can_be_raised_ends_its_nap() {
    let log = Log::new(2);
    let program = rounds(&Step::Cede(endless(Until::Event)), &Step::Interrupt(1));
    run(Guest::new(&log, [program]).with_raisers(), &log);
}

#[test]
fn a_nap_is_as_long_as_its_timeout() {
    for cede in [Step::Cede, Step::CedeEvent] {
        let log = Log::new(1);
        let nap = Nap { timeout: Some(30 * MS), until: Until::Event };
        let start = Instant::now();
        run(Guest::new(&log, [vec![cede(nap), POWER_OFF]]), &log);
        assert!(start.elapsed() >= Duration::from_millis(30), "{:?}", start.elapsed());
    }
}

#[test]
fn a_timeout_of_nothing_is_no_nap() {
    let log = Log::new(1);
    let nap = Nap { timeout: Some(0), until: Until::Event };
    run(Guest::new(&log, [vec![Step::Cede(nap), Step::CedeEvent(nap), Step::Ask(3, 0), POWER_OFF]]), &log);
    assert_eq!(log.asked[0].load(SeqCst), 3);
}

#[test]
fn neither_interrupts_nor_a_sync_nor_a_timeout_end_a_wait_for_a_prod() {
    let log = Log::new(2);
    let (ready, done) = (Counter::default(), Counter::default());
    let napper = vec![
        Step::Count(Arc::clone(&ready)),
        Step::Cede(endless(Until::Prod)),
        Step::Count(Arc::clone(&done)),
    ];
    let program = vec![
        Step::Start(1, napper),
        Step::Until(ready, 1),
        Step::Interrupt(1),
        a_while(),
        Step::Interrupt(1),
        Step::Sync,
        a_while(),
        Step::Expect(Arc::clone(&done), 0),
        Step::Prod(1),
        Step::Until(done, 1),
        POWER_OFF,
    ];
    run(Guest::new(&log, [program]), &log);
}

/// Of a vCPU that runs, too: it keeps the prod for its next wait.
#[test]
fn a_prod_before_the_wait_ends_it() {
    let log = Log::new(2);
    let program = vec![Step::Prod(0), Step::Cede(endless(Until::Prod)), POWER_OFF];
    run(Guest::new(&log, [program]), &log);
}

#[test]
fn the_architecture_is_asked_when_the_bound_has_passed() {
    let log = Log::new(1);
    run(Guest::new(&log, [vec![Step::Ask(3, MS), Step::Work(1), Step::Ask(2, MS), POWER_OFF]]), &log);
    assert_eq!(log.asked[0].load(SeqCst), 5);
}

#[test]
fn the_architecture_is_not_asked_when_there_was_an_event() {
    let log = Log::new(2);
    let program = rounds(&Step::Ask(1, HOUR), &Step::Interrupt(1));
    run(Guest::new(&log, [program]), &log);
    assert_eq!(log.asked[1].load(SeqCst), 0);
}

#[test]
fn the_end_and_a_reboot_reach_vcpus_that_nap() {
    for threads in [1, 2, 4] {
        let log = Log::new(4);
        let ready = Counter::default();
        let nappers = (1..).zip(EVERY_UNTIL).map(|(index, until)| {
            Step::Start(index, vec![Step::Count(Arc::clone(&ready)), Step::Cede(endless(until)), Step::Idle])
        });
        let first: Program = nappers.collect();
        let life = |boot: usize, stop| {
            [first.clone(), vec![Step::Until(Arc::clone(&ready), 3 * boot), a_while(), Step::Stop(stop)]]
                .concat()
        };
        let programs = [life(1, Stop::Reboot), life(2, Stop::Reboot), life(3, Stop::PowerOff)];
        run(Guest::new(&log, programs).with_threads(threads), &log);
        assert_eq!(log.boots.load(SeqCst), 3);
    }
}

/// Of vCPUs that were woken in their last life nothing is left in the next.
#[test]
fn a_vcpu_that_starts_again_naps_again() {
    let log = Log::new(2);
    let done = Counter::default();
    let napper = vec![Step::Cede(endless(Until::Event)), Step::Count(Arc::clone(&done)), Step::Park];
    let program = vec![
        Step::Start(1, vec![Step::Park]),
        Step::WhenParked(1),
        Step::Interrupt(1),
        Step::Prod(1),
        Step::Start(1, napper.clone()),
        Step::WhenParked(1),
        Step::Start(1, napper),
        a_while(),
        Step::Expect(Arc::clone(&done), 1),
        Step::Interrupt(1),
        Step::Until(done, 2),
        POWER_OFF,
    ];
    run(Guest::new(&log, [program]), &log);
}

#[test]
fn a_vcpu_in_the_guest_is_raised_or_if_nobody_can_kicked() {
    for raises in [true, false] {
        let log = Log::new(2);
        let ready = Counter::default();
        let told = if raises { &log.raised[1] } else { &log.kicked[1] };
        let program = vec![
            Step::Start(1, vec![Step::Count(Arc::clone(&ready)), Step::Idle]),
            Step::Until(ready, 1),
            Step::Interrupt(1),
            Step::Until(Arc::clone(told), 1),
            Step::Expect(Arc::clone(&log.raised[1]), usize::from(raises)),
            Step::Expect(Arc::clone(&log.kicked[1]), usize::from(!raises)),
            POWER_OFF,
        ];
        let guest = Guest::new(&log, [program]);
        run(if raises { guest.with_raisers() } else { guest }, &log);
    }
}

#[test]
fn a_confer_to_anybody_comes_back() {
    let log = Log::new(2);
    let nap = Step::Cede(Nap { timeout: Some(MS), until: Until::Event });
    let program = vec![
        Step::Confer(None),
        Step::Confer(Some(1)),
        Step::Confer(Some(0)),
        Step::Prod(0),
        Step::Confer(None),
        nap,
        POWER_OFF,
    ];
    run(Guest::new(&log, [program]), &log);
}
