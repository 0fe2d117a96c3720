//! The half of the bench that runs in the lab host: starts each monitor in turn and says what it cost.
//!
//! First come the rounds of probes, for each monitor some for the times and one for the counts (counting
//! costs time). Then come the rounds of guests that boot to user space and idle: memory that guests' code was
//! in is dear to write in an emulator that keeps its translations, so no probe may come after a guest.
//! Nothing else runs on the host meanwhile.

mod counter;
mod memory;
mod process;
mod trace;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench_agent::{Figure, Plan, Probe, Record, Subject};

use counter::Counter;
use process::{Monitor, monotonic};
use trace::FirstHcall;

/// What the guest still does once it says that it idles is over by then.
const SETTLE: Duration = Duration::from_secs(2);

/// Of the times, in a round: a probe is short, and whatever else the machine does shows in it.
const PROBES: usize = 3;

fn main() -> Result<()> {
    let plan = std::env::args().nth(1).context("usage: bench-agent PLAN, which is JSON")?;
    let plan: Plan = serde_json::from_str(&plan).context("the plan is not what this agent reads")?;
    make_probe(&plan.probe)?;
    rounds(&plan, |subject| {
        let mut figures = Vec::new();
        for _ in 0..PROBES {
            figures.extend(probe_times(subject)?);
        }
        figures.extend(probe_counts(subject)?);
        Ok(figures)
    })?;
    rounds(&plan, |subject| guest(&plan, subject))
}

/// Measures each monitor in turn, and all again in reverse order, and so on.
fn rounds(plan: &Plan, measure: impl Fn(&Subject) -> Result<Vec<(Figure, u64)>>) -> Result<()> {
    let mut subjects: Vec<&Subject> = plan.subjects.iter().collect();
    for round in 0..=plan.rounds {
        for subject in &subjects {
            let figures = measure(subject).with_context(|| format!("{} failed", subject.name))?;
            for (figure, value) in figures {
                let record = Record { subject: subject.name.clone(), round, figure, value };
                println!("{}", serde_json::to_string(&record)?);
            }
        }
        subjects.reverse();
    }
    Ok(())
}

/// The kernel with the probe's page in place of its first.
fn make_probe(probe: &Probe) -> Result<()> {
    fs::copy(&probe.kernel, &probe.into).with_context(|| format!("cannot copy {}", probe.kernel))?;
    let page = fs::read(&probe.page).with_context(|| format!("cannot read {}", probe.page))?;
    let kernel = File::options().write(true).open(&probe.into)?;
    Ok(kernel.write_all_at(&page, probe.offset)?)
}

fn probe_times(subject: &Subject) -> Result<Vec<(Figure, u64)>> {
    let mut first = FirstHcall::watch()?;
    let mut monitor = Monitor::start(&subject.probe, &subject.environment)?;
    let at = first.wait(&mut monitor)?;
    // The guest has ceded for good: no time of its own is in this.
    let cpu = monitor.cpu_time()?;
    Ok(vec![
        (Figure::FirstInstructionCpu, cpu),
        (Figure::FirstInstructionWall, at.saturating_sub(monitor.exec.wall)),
    ])
}

fn probe_counts(subject: &Subject) -> Result<Vec<(Figure, u64)>> {
    let syscalls = Counter::trace_event("raw_syscalls/sys_enter")?;
    let instructions = Counter::instructions()?;
    let mut first = FirstHcall::watch()?;
    let mut monitor = Monitor::start(&subject.probe, &subject.environment)?;
    first.wait(&mut monitor)?;
    Ok(vec![
        (Figure::FirstInstructionInstructions, instructions.read()?),
        (Figure::FirstInstructionSyscalls, syscalls.read()?),
        (Figure::FirstInstructionFaults, monitor.page_faults()?),
    ])
}

fn guest(plan: &Plan, subject: &Subject) -> Result<Vec<(Figure, u64)>> {
    let mut monitor = Monitor::start(&subject.guest, &subject.environment)?;
    let mut console = BufReader::new(monitor.console()?);
    let mut seen = String::new();
    wait_for_line(&mut console, &plan.user_space, &mut seen)?;
    let (wall, cpu) = (monotonic()?, monitor.cpu_time()?);
    wait_for_line(&mut console, &plan.idle, &mut seen)?;
    thread::sleep(SETTLE);
    let memory = memory::beyond(monitor.pid(), plan.ram)?;
    Ok(vec![
        (Figure::UserSpaceWall, wall.saturating_sub(monitor.exec.wall)),
        (Figure::UserSpaceCpu, cpu),
        (Figure::MemoryRss, memory.rss),
        (Figure::MemoryPss, memory.pss),
        (Figure::MemoryPageTables, memory.page_tables),
    ])
}

/// Reads on until a line begins with `prefix`.
fn wait_for_line(console: &mut impl BufRead, prefix: &str, seen: &mut String) -> Result<()> {
    loop {
        let mut line = Vec::new();
        if console.read_until(b'\n', &mut line)? == 0 {
            bail!("the guest ended without a line {prefix:?}; its console was:\n{seen}");
        }
        let line = String::from_utf8_lossy(&line);
        seen.push_str(&line);
        if line.starts_with(prefix) {
            return Ok(());
        }
    }
}
