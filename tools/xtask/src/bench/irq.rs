//! `cargo xtask bench irq`: from a device's raise to the vCPU that handles it.
//!
//! docs/benchmarks.md says what is measured and why so; crates/irq/benches/irq.rs measures it, on this machine.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use bench_agent::Record;
use clap::Args;
use serde_json::json;

use super::report::{Ratio, Report};
use crate::paths;

/// The ways; the first is what the others are measured by.
const SUBJECTS: [&str; 3] = ["fast path", "worker", "poll loop"];

/// Options of the bench
#[derive(Args, Debug)]
pub struct Options {
    /// Rounds after the warm-up
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Interrupts in a batch
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let Options { runs, turns } = options;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["bench", "--package", "cede-irq", "--bench", "irq", "--"])
        .args(["--rounds", &runs.to_string(), "--turns", &turns.to_string()])
        .current_dir(paths::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the bench failed");
    let text = String::from_utf8(output.stdout).context("the bench said something else")?;
    let records: Vec<Record> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("the bench said {line:?}")))
        .collect::<Result<_>>()?;
    let cpus = std::thread::available_parallelism()?;
    let report = Report {
        heading: vec![
            format!("this machine, {cpus} CPUs; {turns} interrupts in a batch"),
            format!("{runs} rounds after a warm-up, the ways in turn: median (min to max)"),
        ],
        conditions: json!({ "cpus": cpus, "runs": runs, "turns": turns }),
        subjects: SUBJECTS.to_vec(),
        ratio: Ratio::FirstToOther,
    };
    report.write(&records, &super::directory()?.join("irq.json"))?;
    Ok(ExitCode::SUCCESS)
}
