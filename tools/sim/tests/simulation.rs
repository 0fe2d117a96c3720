//! The simulation against closed forms, against itself, and against a recording of itself.

use sim::engine::{Costs, Engine, Plan};
use sim::measure::Measured;
use sim::workload::{Load, Source, Workload, parse_recording, print_recording};
use vcore::Tunables;

/// An interval that neither grows nor shrinks.
fn fixed(halt_poll_ns: u32) -> Tunables {
    Tunables { halt_poll_ns, halt_poll_ns_grow: 0, halt_poll_ns_grow_start: 0, halt_poll_ns_shrink: 1 }
}

fn plan(workload: Workload, tunables: Tunables, costs: Costs) -> Plan {
    Plan { workload, vcores: 64, duration: 1_000_000_000, tunables, halt_poll_ns: 0, costs, seed: 3 }
}

/// For Poisson wakes of rate λ and a fixed poll of T, a poll succeeds with 1 - e^(-λT) and burns
/// (1 - e^(-λT)) / λ in the mean.
#[test]
fn poisson_agrees_with_theory_within_one_percent() {
    for (mean, poll) in [(50_000u64, 5_000u32), (50_000, 25_000), (50_000, 50_000), (50_000, 150_000)] {
        let plan = Plan { halt_poll_ns: poll, ..plan(Workload::poisson(mean), fixed(poll), Costs::FREE) };
        let mut engine = Engine::new(plan);
        let measured = engine.run();
        assert!(measured.attempted > 1_000_000, "{} periods", measured.attempted);
        let success = 1.0 - (-f64::from(poll) / mean as f64).exp();
        let burned = measured.polled_ns as f64 / measured.attempted as f64;
        for (what, got, theory) in
            [("success", measured.success_share(), success), ("burned", burned, success * mean as f64)]
        {
            assert!(
                (got / theory - 1.0).abs() < 0.01,
                "{what}: {got} instead of {theory}, polling {poll} of {mean}"
            );
        }
    }
}

#[test]
fn a_run_repeats_exactly() {
    for workload in Workload::all() {
        let run = || {
            let plan =
                Plan { duration: 50_000_000, ..plan(workload.clone(), Tunables::X86, Costs::MEASURED) };
            Engine::new(plan).run().clone()
        };
        let key = |m: &Measured| (m.events, m.steps, m.polled_ns, m.blocked_ns, m.latencies.quantile(0.99));
        assert_eq!(key(&run()), key(&run()), "{}", workload.name);
    }
}

/// A recording, through its text form, does to the vcores what the workload did.
#[test]
fn a_replay_repeats_what_was_recorded() {
    for name in ["periodic", "poisson", "bursts"] {
        let workload = Workload::named(name).expect("one of the five");
        let work = workload.threads[0].work;
        let short =
            |workload| Plan { duration: 100_000_000, ..plan(workload, Tunables::X86, Costs::MEASURED) };
        let mut first = Engine::new(short(workload)).recording_wakes();
        let original = first.run().clone();
        let recording = parse_recording(&print_recording(first.recording())).expect("its own form");
        let load = Load { source: Source::Replayed, work };
        let replayed = Workload { name: "replay", about: "", threads: vec![load] };
        let mut second = Engine::new(short(replayed)).with_replay(recording);
        let again = second.run();
        // The first cedes are spread by other draws, so the first few wakes may find a thread up.
        let close = |a: u64, b: u64| a.abs_diff(b) <= 64 + a / 200;
        assert!(close(original.latencies.count(), again.latencies.count()), "{name}");
        assert!(
            close(original.attempted, again.attempted),
            "{name}: {} {}",
            original.attempted,
            again.attempted
        );
        assert!(close(original.successful, again.successful), "{name}");
        assert_eq!(original.latencies.quantile(0.5), again.latencies.quantile(0.5), "{name}");
    }
}

#[test]
fn recordings_with_faults_are_refused() {
    for (text, message) in [
        ("1 0 0 external\n\n0 0 0 prod", "line 3 of the recording: time 0 lies before the line above"),
        ("1 0 8 external", "line 1 of the recording: thread 8 is not 0 to 7"),
        ("1 0 0 nothing # but this", "line 1 of the recording: unknown cause \"nothing\""),
        ("1 0 0", "line 1 of the recording: 3 fields instead of 4"),
        ("x 0 0 prod", "line 1 of the recording: \"x\" is not a number"),
    ] {
        let error = parse_recording(text).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// Polling longer never makes the median worse, and never burns less.
#[test]
fn more_polling_means_less_latency_and_more_burned() {
    for workload in Workload::all() {
        let run = |halt_poll_ns| {
            let plan = Plan {
                duration: 200_000_000,
                halt_poll_ns,
                ..plan(workload.clone(), fixed(halt_poll_ns), Costs::MEASURED)
            };
            Engine::new(plan).run().clone()
        };
        let all = [0, 20_000, 200_000, u32::MAX].map(run);
        for pair in all.windows(2) {
            assert!(pair[0].latencies.quantile(0.5) >= pair[1].latencies.quantile(0.5), "{}", workload.name);
            assert!(pair[0].burned_share() <= pair[1].burned_share(), "{}", workload.name);
        }
    }
}

/// Each thread is woken as often as its source says, give or take what finds it awake.
#[test]
fn sources_keep_their_rates() {
    let wakes = |name: &str| {
        let workload = Workload::named(name).expect("one of the five");
        Engine::new(plan(workload, Tunables::NO_POLL, Costs::FREE)).run().latencies.count() as f64 / 64.0
    };
    assert!((wakes("periodic") / 1_000.0 - 1.0).abs() < 0.01, "{}", wakes("periodic"));
    // 10 us of work per 100 us in the mean: one in e^0.1 finds the thread awake, or nearly so.
    assert!((wakes("poisson") / 9_090.0 - 1.0).abs() < 0.02, "{}", wakes("poisson"));
    // There and back in 2 * (15 us + 10 us), one wake on each side.
    assert!((wakes("pairs") / 20_000.0 - 1.0).abs() < 0.01, "{}", wakes("pairs"));
    assert!((wakes("bursts") / (32.0 / 0.005_775) - 1.0).abs() < 0.01, "{}", wakes("bursts"));
}
