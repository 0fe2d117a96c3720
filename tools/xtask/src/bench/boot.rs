//! `cargo xtask bench boot`: what a monitor costs until its guest runs, and beside it.
//!
//! docs/benchmarks.md says what is measured and why so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_agent::{Plan, Probe, Record, Subject};
use clap::Args;

use super::report::{self, Conditions};
use super::{probe, qemu};
use crate::lab::{Event, Host, Run, Session, Stream, fetch};
use crate::{cross, paths};

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
    let agent = cross::build("bench-agent")?;
    let dir = paths::root().join("target/bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let page = dir.join("probe.bin");
    fs::write(&page, probe::page())?;

    let plan = plan(options, probe::offset(&image.vmlinux())?);
    // All of the emulated machine's memory is there from the start: else a page that nobody has used before
    // costs more than another, and it is chance who gets it.
    let mut run = Run::new(Host::Powernv9)
        .memory(&format!("{}M", options.memory + HOST_MIB))
        .qemu_option("-mem-prealloc")
        .time_limit(ROUND_LIMIT * (options.runs + 1))
        .file(&agent, "bench-agent")
        .file(&page, "probe.bin")
        .file(&image.qemu_data().join("vof.bin"), &in_qemu("share/vof.bin"))
        .command(["sh", "-c", SCRIPT, "sh", &serde_json::to_string(&plan)?]);
    if let Some(other) = &options.against {
        run = run.file(other, "cede-against");
    }
    for (source, name) in &qemu.files {
        run = run.file(source, &in_qemu(name));
    }
    let records = collect(run.start()?, options.runs)?;
    let conditions = Conditions {
        qemu: qemu.version,
        kernel: kernel_version(&image.vmlinux())?,
        runs: options.runs,
        memory_mib: options.memory,
        cpus: options.cpus,
    };
    report::write(&conditions, &records, &dir.join("boot.json"))?;
    Ok(ExitCode::SUCCESS)
}

/// The program loader's path is written into QEMU's binary.
const SCRIPT: &str =
    "mkdir -p /lib64 && ln -s /lab/qemu/lib/ld64.so.2 /lib64/ && exec /lab/bench-agent \"$1\"";

fn in_qemu(name: &str) -> String {
    format!("{}/{name}", qemu::DIRECTORY)
}

fn plan(options: &Options, offset: u64) -> Plan {
    let kernel = "/lab/vmlinux".to_owned();
    let probe = Probe {
        kernel: kernel.clone(),
        page: "/lab/probe.bin".to_owned(),
        offset,
        into: "/run/probe".to_owned(),
    };
    let mut subjects = vec![cede(report::OURS, "cede", options, &probe), qemu_pseries(options, &probe)];
    if options.against.is_some() {
        subjects.push(cede(report::AGAINST, "/lab/cede-against", options, &probe));
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

/// The capabilities are those that an emulated processor cannot have; the rest makes it as small as QEMU
/// comes.
fn qemu_pseries(options: &Options, probe: &Probe) -> Subject {
    let command = |firmware: &[&str]| {
        let mut command = words(&[
            "/lab/qemu/qemu-system-ppc64",
            "-L",
            "/lab/qemu/share",
            "-M",
            "pseries,accel=kvm,x-vof=on,cap-ccf-assist=off,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken",
            "-cpu",
            "host",
            "-m",
            &format!("{}M", options.memory),
            "-smp",
            &options.cpus.to_string(),
            "-nodefaults",
            "-vga",
            "none",
            "-nographic",
            "-no-reboot",
            "-serial",
            "stdio",
            "-kernel",
            &probe.kernel,
            "-initrd",
            "/lab/initrd",
            "-append",
            CMDLINE,
        ]);
        command.extend(words(firmware));
        command
    };
    Subject {
        name: report::REFERENCE.to_owned(),
        probe: command(&["-bios", &probe.page]),
        guest: command(&[]),
        environment: vec![("LD_LIBRARY_PATH".to_owned(), "/lab/qemu/lib".to_owned())],
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Reads the agent's records as they come.
fn collect(mut session: Session, runs: u32) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    let mut text = Vec::new();
    loop {
        match session.event()? {
            Event::Output(Stream::Out, bytes) => {
                text.extend_from_slice(&bytes);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let record: Record =
                        serde_json::from_slice(&line).context("the agent said something else")?;
                    if records.last().is_none_or(|last| last.round != record.round) {
                        eprintln!("bench: round {} of {runs}: {}", record.round, record.figure.title());
                    }
                    records.push(record);
                }
            }
            Event::Output(Stream::Err, bytes) => eprint!("{}", String::from_utf8_lossy(&bytes)),
            Event::Output(Stream::Console, _) => {}
            Event::Exit(code) => {
                ensure!(code == 0, "the agent failed in the lab host");
                return Ok(records);
            }
        }
    }
}

/// As Debian names it in the file's name.
fn kernel_version(vmlinux: &Path) -> Result<String> {
    let path = fs::canonicalize(vmlinux)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(name.strip_prefix("vmlinux-").unwrap_or(&name).to_owned())
}
