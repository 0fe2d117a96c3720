//! `bench idle` in the host: boots a guest under each subject in turn, and watches it through its phases.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_agent::idle::{self as figures, Batch, Plan};
use bench_agent::{Counts, Figure, Subject, Unit};

use crate::console::Console;
use crate::hist::Hists;
use crate::process::Monitor;
use crate::{cyclictest, rounds};

/// What the guest still does once it says that it idles is over by then.
const SETTLE: Duration = Duration::from_secs(2);

/// Far more than a phase of the guest takes where nothing hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// A call or an event that is rarer than this per turn has nothing to do with the turns.
const NEGLIGIBLE: f64 = 0.02;

/// Does what the plan says.
pub fn run(plan: &Plan) -> Result<()> {
    rounds::guests(&plan.guests, |subject| guest(plan, subject))
}

fn guest(plan: &Plan, subject: &Subject) -> Result<Vec<(Figure, f64)>> {
    let mut monitor = Monitor::guest(subject)?;
    let mut console = Console::new(monitor.console()?);
    let mut values = latencies(&console.until(figures::COUNT, LIMIT)?)?;

    let hists = Hists::start(monitor.pid())?;
    console.until(figures::COUNTED, LIMIT)?;
    values.extend(per_turn(&hists.stop()?, plan.turns));

    console.until(figures::IDLE, LIMIT)?;
    thread::sleep(SETTLE);
    let watch = Duration::from_secs(plan.seconds);
    let seconds = watch.as_secs_f64();
    let (cpu, switches) = (monitor.cpu_time()?, monitor.voluntary_switches()?);
    thread::sleep(watch);
    values.push((figures::IDLE_CPU, (monitor.cpu_time()? - cpu) as f64 / seconds));
    values.push((figures::IDLE_VOLUNTARY, (monitor.voluntary_switches()? - switches) as f64 / seconds));
    // Apart, since counting costs time.
    let hists = Hists::start(monitor.pid())?;
    thread::sleep(watch);
    let counts = hists.stop()?;
    values.push((figures::IDLE_EXITS, counts.event("kvm_hv:kvm_guest_exit") as f64 / counts.seconds));
    values.push((figures::IDLE_SYSCALLS, counts.all_syscalls() as f64 / counts.seconds));
    ensure!(monitor.ended()?.is_none(), "the monitor ended while its guest idled");
    Ok(values)
}

/// What the guest measured by itself.
fn latencies(lines: &[String]) -> Result<Vec<(Figure, f64)>> {
    let mut values = Vec::new();
    for line in lines.iter().filter_map(|line| line.strip_prefix(figures::PINGPONG)) {
        let batch: Batch = serde_json::from_str(line).with_context(|| format!("no batch: {line}"))?;
        values.push((figures::TURN_MEDIAN, batch.median_ns as f64));
        values.push((figures::TURN_P99, batch.p99_ns as f64));
        values.push((figures::TURNS_PER_SECOND, batch.turns_per_second));
    }
    ensure!(!values.is_empty(), "the guest played no ping-pong; it printed:\n{}", lines.join("\n"));
    let printed: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(figures::CYCLICTEST)).collect();
    values.extend(
        cyclictest::figures(&printed)
            .with_context(|| format!("cyclictest failed; the guest printed:\n{}", lines.join("\n")))?,
    );
    Ok(values)
}

/// Counts by the turns that they are for.
fn per_turn(counts: &Counts, turns: u32) -> Vec<(Figure, f64)> {
    let share = |count: u64| count as f64 / f64::from(turns);
    let mut values = vec![
        (figures::TURN_SYSCALLS, share(counts.all_syscalls())),
        (figures::TURN_SWITCHES, share(counts.event("sched:sched_switch"))),
        (figures::TURN_VOLUNTARY, share(counts.voluntary_switches)),
    ];
    for (name, count) in &counts.syscalls {
        values.push((Figure::named(format!("per turn, system call {name}"), Unit::Number), share(*count)));
    }
    for (name, count) in counts.events.iter().filter(|(name, _)| *name != "sched:sched_switch") {
        values.push((Figure::named(format!("per turn, {name}"), Unit::Number), share(*count)));
    }
    values.retain(|(figure, value)| {
        *value >= NEGLIGIBLE || [figures::TURN_SYSCALLS, figures::TURN_SWITCHES].contains(figure)
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_is_no_part_of_a_turn() {
        let syscalls = [("ioctl".to_owned(), 200), ("write".to_owned(), 1)].into();
        let events =
            [("sched:sched_switch".to_owned(), 400), ("kvm_hv:kvm_guest_exit".to_owned(), 100)].into();
        let values = per_turn(&Counts { seconds: 1.0, syscalls, voluntary_switches: 390, events }, 100);
        let shown: Vec<(&str, f64)> = values.iter().map(|(f, v)| (f.title.as_ref(), *v)).collect();
        let expected = [
            ("per turn, system calls", 2.01),
            ("per turn, context switches", 4.0),
            ("per turn, voluntary context switches", 3.9),
            ("per turn, system call ioctl", 2.0),
            ("per turn, kvm_hv:kvm_guest_exit", 1.0),
        ];
        assert_eq!(shown, expected);
    }
}
