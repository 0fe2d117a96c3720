//! `bench boot` in the host: starts each monitor in turn and says what it cost.
//!
//! First come the rounds of probes, for each monitor some for the times and one for the counts (counting
//! costs time). Then come the rounds of guests that boot to user space and idle: memory that guests' code was
//! in is dear to write in an emulator that keeps its translations, so no probe may come after a guest.
//! Nothing else runs on the host meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bench_agent::Figure;
use bench_agent::boot::{self as figures, Plan, Probe, Subject};

use crate::console::Console;
use crate::counter::Counter;
use crate::memory;
use crate::process::{Monitor, monotonic};
use crate::rounds;
use crate::trace::FirstHcall;

/// What the guest still does once it says that it idles is over by then.
const SETTLE: Duration = Duration::from_secs(2);

/// Far more than a guest needs to boot.
const LIMIT: Duration = Duration::from_secs(120);

/// Of the times, in a round: a probe is short, and whatever else the machine does shows in it.
const PROBES: usize = 3;

/// Does what the plan says.
pub fn run(plan: &Plan) -> Result<()> {
    make_probe(&plan.probe)?;
    fn name(subject: &Subject) -> &str {
        &subject.name
    }
    rounds::run(plan.rounds, &plan.subjects, name, |subject| {
        let mut values = Vec::new();
        for _ in 0..PROBES {
            values.extend(probe_times(subject)?);
        }
        values.extend(probe_counts(subject)?);
        Ok(values)
    })?;
    rounds::run(plan.rounds, &plan.subjects, name, |subject| guest(plan, subject))
}

/// The kernel with the probe's page in place of its first.
fn make_probe(probe: &Probe) -> Result<()> {
    fs::copy(&probe.kernel, &probe.into).with_context(|| format!("cannot copy {}", probe.kernel))?;
    let page = fs::read(&probe.page).with_context(|| format!("cannot read {}", probe.page))?;
    let kernel = File::options().write(true).open(&probe.into)?;
    Ok(kernel.write_all_at(&page, probe.offset)?)
}

fn probe_times(subject: &Subject) -> Result<Vec<(Figure, f64)>> {
    let mut first = FirstHcall::watch()?;
    let mut monitor = Monitor::start(&subject.probe, &subject.environment)?;
    let at = first.wait(&mut monitor)?;
    // The guest has ceded for good: no time of its own is in this.
    let cpu = monitor.cpu_time()?;
    Ok(vec![
        (figures::FIRST_INSTRUCTION_CPU, cpu as f64),
        (figures::FIRST_INSTRUCTION_WALL, at.saturating_sub(monitor.exec.wall) as f64),
    ])
}

fn probe_counts(subject: &Subject) -> Result<Vec<(Figure, f64)>> {
    let syscalls = Counter::trace_event("raw_syscalls/sys_enter")?;
    let instructions = Counter::instructions()?;
    let mut first = FirstHcall::watch()?;
    let mut monitor = Monitor::start(&subject.probe, &subject.environment)?;
    first.wait(&mut monitor)?;
    Ok(vec![
        (figures::FIRST_INSTRUCTION_INSTRUCTIONS, instructions.read()? as f64),
        (figures::FIRST_INSTRUCTION_SYSCALLS, syscalls.read()? as f64),
        (figures::FIRST_INSTRUCTION_FAULTS, monitor.page_faults()? as f64),
    ])
}

fn guest(plan: &Plan, subject: &Subject) -> Result<Vec<(Figure, f64)>> {
    let mut monitor = Monitor::start(&subject.guest, &subject.environment)?;
    let mut console = Console::new(monitor.console()?);
    console.until(&plan.user_space, LIMIT)?;
    let (wall, cpu) = (monotonic()?, monitor.cpu_time()?);
    console.until(&plan.idle, LIMIT)?;
    thread::sleep(SETTLE);
    let memory = memory::beyond(monitor.pid(), plan.ram)?;
    Ok(vec![
        (figures::USER_SPACE_WALL, wall.saturating_sub(monitor.exec.wall) as f64),
        (figures::USER_SPACE_CPU, cpu as f64),
        (figures::MEMORY_RSS, memory.rss as f64),
        (figures::MEMORY_PSS, memory.pss as f64),
        (figures::MEMORY_PAGE_TABLES, memory.page_tables as f64),
    ])
}
