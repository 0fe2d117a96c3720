//! `cargo xtask bench boot`: what a monitor costs until its guest runs, and beside it.
//!
//! docs/benchmarks.md says what is measured and why so.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bench_agent::boot::{Plan, Probe, Subject};
use clap::Args;
use serde_json::json;

use super::report::{Ratio, Report};
use super::{agent, probe, qemu, words};
use crate::cross;
use crate::lab::{Host, Run, fetch};

/// A round takes some 30 s where the lab is slow.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

/// The host's memory besides the guest's.
const HOST_MIB: u32 = 1024;

/// What the guest's init prints first, and before it does what `lab.run` says.
const USER_SPACE: &str = "lab-begin";
const IDLE: &str = "lab-run";

/// Options of the bench
#[derive(Args, Debug)]
pub struct Options {
    /// Rounds after the warm-up
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The guest's memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// The guest's vCPUs
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Measure another cede binary for POWER too, to compare two versions
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let image = fetch::image()?;
    let qemu = qemu::get()?;
    cross::build_cede()?;
    let binary = cross::build("bench-agent")?;
    let dir = super::directory()?;
    let page = dir.join("probe.bin");
    fs::write(&page, probe::page())?;

    let plan = plan(options, probe::offset(&image.vmlinux())?);
    // All of the emulated machine's memory is there from the start: else a page that nobody has used before
    // costs more than another, and it is chance who gets it.
    let mut run = Run::new(Host::Powernv9)
        .memory(&format!("{}M", options.memory + HOST_MIB))
        .qemu_option("-mem-prealloc")
        .time_limit(ROUND_LIMIT * (options.runs + 1))
        .file(&binary, "bench-agent")
        .file(&page, "probe.bin")
        .command(agent::command("boot", &plan)?);
    if let Some(other) = &options.against {
        run = run.file(other, "cede-against");
    }
    for (source, name) in &qemu.files {
        run = run.file(source, name);
    }
    let records = agent::records(run.start()?, options.runs)?;
    let Options { runs, memory, cpus, .. } = options;
    let (kernel, version) = (agent::kernel_version(&image.vmlinux())?, qemu.version);
    let report = Report {
        heading: vec![
            format!(
                "powernv9 lab host and guest: Linux {kernel}; guest: {memory} MiB, {cpus} vCPUs; QEMU {version}"
            ),
            format!("{runs} rounds after a warm-up, cede and QEMU in turn: median (min to max)"),
        ],
        conditions: json!({
            "qemu": version, "kernel": kernel, "runs": runs, "memory_mib": memory, "cpus": cpus,
        }),
        subjects: plan.subjects.iter().map(|subject| subject.name.as_str()).collect(),
        ratio: Ratio::FirstToOther,
    };
    report.write(&records, &dir.join("boot.json"))?;
    Ok(ExitCode::SUCCESS)
}

fn plan(options: &Options, offset: u64) -> Plan {
    let kernel = "/lab/vmlinux".to_owned();
    let probe = Probe {
        kernel: kernel.clone(),
        page: "/lab/probe.bin".to_owned(),
        offset,
        into: "/run/probe".to_owned(),
    };
    let mut subjects = vec![cede("cede", "cede", options, &probe), qemu_pseries(options, &probe)];
    if options.against.is_some() {
        subjects.push(cede("other cede", "/lab/cede-against", options, &probe));
    }
    Plan {
        rounds: options.runs,
        ram: u64::from(options.memory) << 20,
        probe,
        user_space: USER_SPACE.to_owned(),
        idle: IDLE.to_owned(),
        subjects,
    }
}

const CMDLINE: &str = "console=hvc0 quiet lab.run=sleep 3600";

fn cede(name: &str, program: &str, options: &Options, probe: &Probe) -> Subject {
    let command = |kernel: &str| {
        words(&[
            program,
            "run",
            "--kernel",
            kernel,
            "--initrd",
            "/lab/initrd",
            "--cmdline",
            CMDLINE,
            "--memory",
            &format!("{}M", options.memory),
            "--cpus",
            &options.cpus.to_string(),
            "--no-reboot",
        ])
    };
    Subject {
        name: name.to_owned(),
        probe: command(&probe.into),
        guest: command(&probe.kernel),
        environment: Vec::new(),
    }
}

fn qemu_pseries(options: &Options, probe: &Probe) -> Subject {
    let guest = qemu::Guest {
        memory_mib: options.memory,
        cpus: options.cpus,
        kernel: &probe.kernel,
        cmdline: CMDLINE,
    };
    let mut with_probe = qemu::command(&guest);
    with_probe.extend(words(&["-bios", &probe.page]));
    Subject {
        name: "qemu".to_owned(),
        probe: with_probe,
        guest: qemu::command(&guest),
        environment: qemu::environment(),
    }
}
