//! `cargo xtask bench irq`: from a device's raise to the vCPU that handles it.
//!
//! docs/benchmarks.md says what is measured and why so. On this machine crates/irq/benches/irq.rs measures it, in a host of
//! the lab crates/kvm/examples/raise.rs.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_agent::Record;
use clap::Args;
use serde_json::json;

use super::report::{Ratio, Report};
use super::{agent, words};
use crate::lab::{Host, Run};
use crate::{cross, paths};

/// The ways on this machine; the first is what the others are measured by.
const NATIVE: [&str; 3] = ["fast path", "worker", "poll loop"];

/// The ways to KVM.
const LAB: [&str; 3] = ["KVM_IRQ_LINE", "worker", "KVM_IRQFD"];

/// What a round may take in the lab, and a turn in it.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
const TURN_LIMIT: Duration = Duration::from_millis(300);

/// Options of the bench
#[derive(Args, Debug)]
pub struct Options {
    /// Rounds after the warm-up
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Interrupts in a batch
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Measure KVM's ways instead, in the lab: an emulated host of this kind, POWER9 or later
    #[arg(long, value_enum)]
    host: Option<Host>,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let Options { runs, turns, host } = options;
    let (records, place, subjects, file) = match host {
        None => {
            let cpus = std::thread::available_parallelism()?;
            (native(*runs, *turns)?, format!("this machine, {cpus} CPUs"), NATIVE, "irq.json")
        }
        Some(host) => {
            let place = format!("{}, emulated, 2 processors", host.name());
            (in_the_lab(*host, *runs, *turns)?, place, LAB, "irq-lab.json")
        }
    };
    let report = Report {
        heading: vec![
            format!("{place}; {turns} interrupts in a batch"),
            format!("{runs} rounds after a warm-up, the ways in turn: median (min to max)"),
        ],
        conditions: json!({ "place": place, "runs": runs, "turns": turns }),
        subjects: subjects.to_vec(),
        ratio: Ratio::FirstToOther,
    };
    report.write(&records, &super::directory()?.join(file))?;
    Ok(ExitCode::SUCCESS)
}

fn in_the_lab(host: Host, runs: u32, turns: u32) -> Result<Vec<Record>> {
    let program = cross::build_example("cede-kvm", "raise")?;
    let (runs_text, turns_text) = (runs.to_string(), turns.to_string());
    let session = Run::new(host)
        .bare()
        .memory("1G")
        .time_limit((ROUND_LIMIT + TURN_LIMIT * turns) * (runs + 1))
        .file(&program, "raise")
        .command(words(&["/lab/raise", "--rounds", &runs_text, "--turns", &turns_text]))
        .start()?;
    agent::records(session, runs)
}

fn native(runs: u32, turns: u32) -> Result<Vec<Record>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["bench", "--package", "cede-irq", "--bench", "irq", "--"])
        .args(["--rounds", &runs.to_string(), "--turns", &turns.to_string()])
        .current_dir(paths::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the bench failed");
    let text = String::from_utf8(output.stdout).context("the bench said something else")?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("the bench said {line:?}")))
        .collect()
}
