//! `bench blk` in the host: boots a guest with a disk under each subject in turn, and follows its cases.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench_agent::blk::{BEGIN, CASES, COUNT, Case, DONE, END, FIO, PAUSE_SECONDS, Plan, Subject};
use bench_agent::{Counts, Figure, Unit};

use crate::console::Console;
use crate::fio::{self, Job};
use crate::hist::Hists;
use crate::process::Monitor;
use crate::rounds;

/// Far more than a phase of the guest takes where nothing hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// A call that is rarer than this per request has nothing to do with the requests.
const NEGLIGIBLE: f64 = 0.02;

/// Does what the plan says.
pub fn run(plan: &Plan) -> Result<()> {
    rounds::run(plan.rounds, &plan.subjects, |subject| subject.name.clone(), guest)
}

fn guest(subject: &Subject) -> Result<Vec<(Figure, f64)>> {
    eprintln!("bench: {}", subject.name);
    let mut monitor = Monitor::start(&subject.command, &subject.environment)?;
    let mut console = Console::new(monitor.console()?);
    let mut values = Vec::new();
    for case in &CASES {
        console.until(BEGIN, LIMIT)?;
        let before = monitor.cpu_time()?;
        console.until(END, LIMIT)?;
        let cpu = monitor.cpu_time()? - before;
        let job = result(&mut console, case)?;
        let figure = |what: &str, unit| Figure::named(format!("{}: {what}", case.title), unit);
        values.push((figure("IOPS", Unit::Count), job.iops));
        values.push((figure("latency, median", Unit::Microseconds), job.median_ns));
        values.push((figure("latency, p99", Unit::Microseconds), job.p99_ns));
        values.push((figure("CPU time per request", Unit::Microseconds), cpu as f64 / job.requests));

        // Apart, since counting costs time.
        console.until(COUNT, LIMIT)?;
        let begin = Instant::now();
        let hists = Hists::start(monitor.pid())?;
        ensure!(
            begin.elapsed() < Duration::from_secs(PAUSE_SECONDS),
            "counting began behind the first request"
        );
        console.until(END, LIMIT)?;
        let counts = hists.stop()?;
        values.extend(per_request(case, &counts, result(&mut console, case)?.requests));
    }
    Ok(values)
}

fn result(console: &mut Console, case: &Case) -> Result<Job> {
    let lines = console.until(DONE, LIMIT)?;
    let printed = lines.iter().filter_map(|line| line.strip_prefix(FIO));
    fio::job(printed).with_context(|| format!("{}; the guest printed:\n{}", case.title, lines.join("\n")))
}

/// Counts by the requests that they are for.
fn per_request(case: &Case, counts: &Counts, requests: f64) -> Vec<(Figure, f64)> {
    let all = [
        ("system calls", counts.all_syscalls()),
        ("guest exits", counts.event("kvm_hv:kvm_guest_exit")),
        ("voluntary context switches", counts.voluntary_switches),
    ];
    let all = all.map(|(what, count)| (what.to_owned(), count, 0.0));
    let calls = counts.syscalls.iter();
    let calls = calls.map(|(name, count)| (format!("system call {name}"), *count, NEGLIGIBLE));
    all.into_iter()
        .chain(calls)
        .map(|(what, count, least)| (what, count as f64 / requests, least))
        .filter(|(_, value, least)| value >= least)
        .map(|(what, value, _)| {
            (Figure::named(format!("{}: {what} per request", case.title), Unit::Number), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_is_no_part_of_a_request() {
        let syscalls = [("ioctl".to_owned(), 200), ("write".to_owned(), 1)].into();
        let events = [("kvm_hv:kvm_guest_exit".to_owned(), 400)].into();
        let values =
            per_request(&CASES[0], &Counts { seconds: 1.0, syscalls, voluntary_switches: 0, events }, 100.0);
        let shown: Vec<(&str, f64)> = values.iter().map(|(f, v)| (f.title.as_ref(), *v)).collect();
        let expected = [
            ("read, 1 in flight: system calls per request", 2.01),
            ("read, 1 in flight: guest exits per request", 4.0),
            ("read, 1 in flight: voluntary context switches per request", 0.0),
            ("read, 1 in flight: system call ioctl per request", 2.0),
        ];
        assert_eq!(shown, expected);
    }
}
