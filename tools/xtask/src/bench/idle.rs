//! `cargo xtask bench idle`: what a guest costs that has little or nothing to do, and how soon it wakes.
//!
//! docs/benchmarks.md says what is measured and why so.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_agent::idle::Plan;
use clap::Args;
use serde_json::json;

use super::foreign;
use super::subjects::{Common, DEFAULT_NS, Guest, Lab};
use crate::lab::{cpio, fetch, initramfs};
use crate::{cross, paths};

/// Options of the bench
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    subjects: Common,
    /// Turns in a batch of the ping-pong, and turns whose system calls are counted
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// For how long the idle guest is watched
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Let the guest's kernel spin before it cedes, as it does by default; else it cedes at once
    #[arg(long)]
    snooze: bool,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let cyclictest = foreign::program("rt-tests-ppc64el", "rt-tests", "usr/bin/cyclictest")?;
    let initrd = super::directory()?.join("idle-initrd");
    let mut archive = initramfs::guest_archive(&fetch::image()?)?;
    archive.extend(tools(&cross::build("bench-agent")?, &cyclictest)?);
    fs::write(&initrd, archive).with_context(|| format!("cannot write {}", initrd.display()))?;

    let Options { subjects, turns, seconds, snooze } = options;
    let idle = if *snooze { "" } else { "cpuidle.off=1 " };
    let cmdline = format!("console=hvc0 quiet {idle}lab.run=sh /bench/run {turns}");
    let guest = [Guest { name: None, cpus: 2, cmdline: &cmdline, qemu: Vec::new(), cede: Vec::new() }];
    let rows = subjects.rows(&["kernel", "assist", "vmm", "qemu"], &[DEFAULT_NS, 0]);
    let guests = bench_agent::Plan {
        rounds: subjects.runs,
        subjects: rows.iter().map(|row| row.subject(subjects, &guest)).collect(),
    };
    let plan = Plan { seconds: *seconds, turns: *turns, guests };
    let lab =
        Lab { bench: "idle", options: subjects, initrd: &initrd, guests: 1, subjects: &plan.guests.subjects };
    let found = lab.measure(&plan, "true", |run| run)?;
    let cyclictest = cyclictest.version;
    let cedes = if *snooze { "as it does by default" } else { "at once" };
    let heading = [format!("the guest cedes {cedes}; rt-tests {cyclictest}")];
    let conditions = json!({
        "rt-tests": cyclictest, "cpus": 2, "turns": turns, "seconds": seconds, "snooze": snooze,
    });
    lab.report(&found, "a guest of 2 vCPUs and", &heading, conditions)?;
    Ok(ExitCode::SUCCESS)
}

/// What the guest gets besides the lab's initrd, in /bench.
fn tools(agent: &Path, cyclictest: &foreign::Program) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::new(Vec::new());
    archive.file("bench/run", &paths::root().join("tools/lab/guest-bench"))?;
    archive.file("bench/bench-agent", agent)?;
    archive.file("bench/cyclictest", &cyclictest.path)?;
    for (name, path) in &cyclictest.libraries {
        archive.file(&format!("bench/lib/{name}"), path)?;
    }
    archive.symlink("lib64/ld64.so.2", &format!("/bench/lib/{}", foreign::LOADER))?;
    Ok(archive.finish()?)
}
