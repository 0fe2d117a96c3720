//! `bench blk` in the host: boots a guest with a disk under each subject in turn, and follows its cases.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench_agent::blk::{BEGIN, CASES, COUNT, Case, DONE, END, FIO, PAUSE_SECONDS};
use bench_agent::{Figure, Plan, Subject, Unit};

use crate::console::Console;
use crate::each;
use crate::fio::{self, Job};
use crate::hist::Hists;
use crate::process::Monitor;
use crate::rounds;

/// Far more than a phase of the guest takes where nothing hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// Does what the plan says.
pub fn run(plan: &Plan) -> Result<()> {
    rounds::guests(plan, guest)
}

fn guest(subject: &Subject) -> Result<Vec<(Figure, f64)>> {
    let mut monitor = Monitor::guest(subject)?;
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
        let requests = result(&mut console, case)?.requests;
        values.extend(each::of(&counts, requests, |what| format!("{}: {what} per request", case.title)));
    }
    Ok(values)
}

fn result(console: &mut Console, case: &Case) -> Result<Job> {
    let lines = console.until(DONE, LIMIT)?;
    let printed = lines.iter().filter_map(|line| line.strip_prefix(FIO));
    fio::job(printed).with_context(|| format!("{}; the guest printed:\n{}", case.title, lines.join("\n")))
}
