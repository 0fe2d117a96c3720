//! `cargo xtask bench idle`: what a guest costs that has little or nothing to do, and how soon it wakes.
//!
//! docs/benchmarks.md says what is measured and why so.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_agent::idle::{Plan, Subject};
use clap::Args;
use serde_json::json;

use super::report::{Ratio, Report};
use super::{agent, foreign, qemu, words};
use crate::lab::{Host, Run, cpio, fetch, initramfs};
use crate::{cross, paths};

/// What a subject may take in a round, where the lab is slow: POWER8's guests take several times as long as others.
const SUBJECT_LIMIT: Duration = Duration::from_secs(300);

/// Memory of the host besides the guest's.
const HOST_MIB: u32 = 1024;

/// The kernel's own polling, for the whole host. POWER9 and later have none, whatever it says.
const KERNEL_HALT_POLL_NS: &str = "/sys/module/kvm/parameters/halt_poll_ns";

/// Options of the bench
#[derive(Args, Debug)]
pub struct Options {
    /// The emulated host's kind
    #[arg(long, value_enum, default_value = "powernv9")]
    host: Host,
    /// Rounds after the warm-up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The guest's memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory: u32,
    /// Turns in a batch of the ping-pong, and turns whose system calls are counted
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// For how long the idle guest is watched
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The longest poll of subjects that poll, instead of their default
    #[arg(long, value_name = "NS")]
    halt_poll_ns: Option<u32>,
    /// Measure only these subjects; may be given more than once
    #[arg(long = "subject", value_name = "NAME")]
    subjects: Vec<String>,
    /// Let the guest's kernel spin before it cedes, as it does by default; else it cedes at once
    #[arg(long)]
    snooze: bool,
}

/// A subject: who runs the guest, and whether it may poll.
struct Row {
    name: &'static str,
    monitor: Monitor,
    polls: bool,
    /// Only where the kernel has a polling of its own.
    kernel_polls: bool,
}

enum Monitor {
    /// cede, on a plane.
    Cede(&'static str),
    /// QEMU, on the kernel's sleep and, where it has one, its polling.
    Qemu,
}

/// The first is what the others are compared with.
const SUBJECTS: &[Row] = &[
    Row { name: "kernel", monitor: Monitor::Cede(KERNEL), polls: true, kernel_polls: false },
    Row { name: "kernel, polling off", monitor: Monitor::Cede(KERNEL), polls: false, kernel_polls: true },
    Row { name: "vmm", monitor: Monitor::Cede(VMM), polls: true, kernel_polls: false },
    Row { name: "vmm, polling off", monitor: Monitor::Cede(VMM), polls: false, kernel_polls: false },
    Row { name: "QEMU/KVM", monitor: Monitor::Qemu, polls: true, kernel_polls: false },
];

const KERNEL: &str = "kernel";
const VMM: &str = "vmm";

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let image = fetch::image()?;
    let qemu = qemu::get()?;
    let cyclictest = foreign::program("rt-tests-ppc64el", "rt-tests", "usr/bin/cyclictest")?;
    cross::build_cede()?;
    let binary = cross::build("bench-agent")?;
    let dir = super::directory()?;
    let initrd = dir.join("idle-initrd");
    let mut archive = initramfs::guest_archive(&image)?;
    archive.extend(tools(&binary, &cyclictest)?);
    fs::write(&initrd, archive).with_context(|| format!("cannot write {}", initrd.display()))?;

    let subjects = subjects(options)?;
    let plan = Plan { rounds: options.runs, seconds: options.seconds, turns: options.turns, subjects };
    let mut run = Run::new(options.host)
        .memory(&format!("{}M", options.memory + HOST_MIB))
        .qemu_option("-mem-prealloc")
        .time_limit(SUBJECT_LIMIT * plan.subjects.len() as u32 * (options.runs + 1))
        .file(&binary, "bench-agent")
        .file(&initrd, "initrd")
        .command(agent::command("idle", &plan)?);
    for (source, name) in &qemu.files {
        run = run.file(source, name);
    }
    let records = agent::records(run.start()?, options.runs)?;

    let Options { runs, memory, turns, seconds, halt_poll_ns, snooze, .. } = options;
    let (host, kernel) = (options.host.name(), agent::kernel_version(&image.vmlinux())?);
    let (qemu, cyclictest) = (qemu.version, cyclictest.version);
    let polls = halt_poll_ns.map_or_else(|| "each its default".to_owned(), |ns| format!("{ns} ns"));
    let cedes = if *snooze { "as it does by default" } else { "at once" };
    let report = Report {
        heading: vec![
            format!(
                "{host} lab host and guest: Linux {kernel}; guest: {memory} MiB, 2 vCPUs; QEMU {qemu}; rt-tests {cyclictest}"
            ),
            format!("halt_poll_ns: {polls}; the guest cedes {cedes}"),
            format!("{runs} rounds after a warm-up, all in turn: median (min to max)"),
        ],
        conditions: json!({
            "host": host, "kernel": kernel, "qemu": qemu, "rt-tests": cyclictest, "runs": runs, "memory_mib": memory,
            "cpus": 2, "turns": turns, "seconds": seconds, "halt_poll_ns": halt_poll_ns, "snooze": snooze,
        }),
        subjects: plan.subjects.iter().map(|subject| subject.name.as_str()).collect(),
        ratio: Ratio::OtherToFirst,
    };
    report.write(&records, &dir.join("idle.json"))?;
    Ok(ExitCode::SUCCESS)
}

/// What the guest gets besides the lab's initrd, in /bench.
fn tools(agent: &std::path::Path, cyclictest: &foreign::Program) -> Result<Vec<u8>> {
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

/// The rows that were asked for, on a host that offers them.
fn subjects(options: &Options) -> Result<Vec<Subject>> {
    let kernel_polls = options.host == Host::Powernv8;
    let rows: Vec<&Row> = SUBJECTS.iter().filter(|row| kernel_polls || !row.kernel_polls).collect();
    for name in &options.subjects {
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        ensure!(
            names.contains(&name.as_str()),
            "no subject {name:?} on this host: there are {}",
            names.join("; ")
        );
    }
    let wanted =
        |row: &Row| options.subjects.is_empty() || options.subjects.iter().any(|name| name == row.name);
    Ok(rows.into_iter().filter(|row| wanted(row)).map(|row| subject(row, options, kernel_polls)).collect())
}

fn subject(row: &Row, options: &Options, kernel_polls: bool) -> Subject {
    let idle = if options.snooze { "" } else { "cpuidle.off=1 " };
    let cmdline = format!("console=hvc0 quiet {idle}lab.run=sh /bench/run {}", options.turns);
    let halt_poll_ns = if row.polls { options.halt_poll_ns } else { Some(0) };
    let settings = halt_poll_ns.filter(|_| kernel_polls);
    let settings = settings.map(|ns| (KERNEL_HALT_POLL_NS.to_owned(), ns.to_string())).into_iter().collect();
    let kernel = "/lab/vmlinux";
    let (command, environment) = match row.monitor {
        Monitor::Cede(plane) => {
            let memory = format!("{}M", options.memory);
            let mut command = words(&["cede", "run", "--kernel", kernel, "--initrd", "/lab/initrd"]);
            command.extend(words(&[
                "--cmdline",
                &cmdline,
                "--memory",
                &memory,
                "--cpus",
                "2",
                "--no-reboot",
            ]));
            command.extend(words(&["--plane", plane]));
            if let (VMM, Some(ns)) = (plane, halt_poll_ns) {
                command.extend(words(&["--vcore", &format!("halt_poll_ns={ns}")]));
            }
            (command, Vec::new())
        }
        Monitor::Qemu => {
            let guest = qemu::Guest { memory_mib: options.memory, cpus: 2, kernel, cmdline: &cmdline };
            (qemu::command(&guest), qemu::environment())
        }
    };
    Subject { name: row.name.to_owned(), command, environment, settings }
}
