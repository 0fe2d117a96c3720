//! `cargo xtask bench blk`: what a disk does under each monitor, and what its requests cost.
//!
//! docs/benchmarks.md says what is measured and why so.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bench_agent::blk::{CASES, Plan, Subject};
use clap::Args;
use serde_json::json;

use super::report::{Ratio, Report};
use super::{agent, qemu, words};
use crate::cross;
use crate::lab::{Host, Run, fetch, root};

/// What a subject may take in a round, where the lab is slow.
const SUBJECT_LIMIT: Duration = Duration::from_secs(300);

/// Memory of the host besides the guest's, in MiB.
const HOST_MIB: u32 = 1024;

/// The disk, in MiB: memory of the host.
const DISK_MIB: u32 = 64;

/// The guests' disks in the host: the system's, which nobody writes to, and the one that is measured.
const ROOT: &str = "/dev/lab/root";
const DISK: &str = "/dev/ram0";

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
    /// How long each case is measured, and once more counted
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How QEMU does its requests
    #[arg(long, value_name = "ENGINE", default_value = "io_uring", value_parser = ["io_uring", "native", "threads"])]
    aio: String,
    /// Measure these subjects; may be given more than once. Beside those that are measured by default there are the planes
    /// without polling ("kernel, polling off") and with one queue ("kernel, 1 queue")
    #[arg(long = "subject", value_name = "NAME", default_values = ["QEMU/KVM", "kernel", "vmm"])]
    subjects: Vec<String>,
}

/// Who runs the guest.
enum Monitor {
    Qemu,
    /// cede: its plane, what its disk has beside path and direct, and other flags.
    Cede(&'static str, &'static str, &'static [&'static str]),
}

const POLLING_OFF: &[&str] = &["--device-poll-ns", "0"];

/// The first that is measured is what the others are compared with.
const SUBJECTS: [(&str, Monitor); 7] = [
    ("QEMU/KVM", Monitor::Qemu),
    ("kernel", Monitor::Cede("kernel", "", &[])),
    ("vmm", Monitor::Cede("vmm", "", &[])),
    ("kernel, polling off", Monitor::Cede("kernel", "", POLLING_OFF)),
    ("vmm, polling off", Monitor::Cede("vmm", "", POLLING_OFF)),
    ("kernel, 1 queue", Monitor::Cede("kernel", ",queues=1", &[])),
    ("vmm, 1 queue", Monitor::Cede("vmm", ",queues=1", &[])),
];

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let image = fetch::image()?;
    let qemu = qemu::get()?;
    cross::build_cede()?;
    let binary = cross::build("bench-agent")?;
    let dir = super::directory()?;
    let initrd = super::initrd(&image, "blk")?;
    let module = dir.join("brd.ko");
    fs::write(&module, image.module("brd")?).with_context(|| format!("cannot write {}", module.display()))?;

    let subjects = super::asked_for(&SUBJECTS, &options.subjects)?;
    let subjects = subjects.map(|(name, monitor)| subject(name, monitor, options)).collect();
    let plan = Plan { rounds: options.runs, subjects };
    // Filled, lest a page that was never written cost more, or less, than another.
    let prepare = format!(
        "insmod /lab/brd.ko rd_nr=1 rd_size={} && dd if=/dev/zero of={DISK} bs=1M count={DISK_MIB} 2>/dev/null",
        DISK_MIB << 10
    );
    let mut run = Run::new(options.host)
        .memory(&format!("{}M", options.memory + HOST_MIB))
        .qemu_option("-mem-prealloc")
        .time_limit(SUBJECT_LIMIT * plan.subjects.len() as u32 * (options.runs + 1))
        .block(&root::disk()?, "root")
        .file(&binary, "bench-agent")
        .file(&initrd, "initrd")
        .file(&module, "brd.ko")
        .command(agent::command_after(&prepare, "blk", &plan)?);
    for (source, name) in &qemu.files {
        run = run.file(source, name);
    }
    let records = agent::records(run.start()?, options.runs)?;

    let Options { runs, memory, seconds, aio, .. } = options;
    let (host, kernel) = (options.host.name(), agent::kernel_version(&image.vmlinux())?);
    let qemu = qemu.version;
    let report = Report {
        heading: vec![
            format!("{host} lab host and guest: Linux {kernel}; guest: {memory} MiB, 2 vCPUs; QEMU {qemu}"),
            format!(
                "fio, 4 KiB at random places of {DISK_MIB} MiB of the host's memory (brd), {seconds} s each; host's page cache left out; \
                 QEMU: iothread, aio={aio}"
            ),
            format!("{runs} rounds after a warm-up, all in turn: median (min to max)"),
        ],
        conditions: json!({
            "host": host, "kernel": kernel, "qemu": qemu, "aio": aio, "runs": runs, "memory_mib": memory, "cpus": 2,
            "disk_mib": DISK_MIB, "seconds": seconds,
        }),
        subjects: plan.subjects.iter().map(|subject| subject.name.as_str()).collect(),
        ratio: Ratio::OtherToFirst,
    };
    report.write(&records, &dir.join("blk.json"))?;
    Ok(ExitCode::SUCCESS)
}

fn subject(name: &str, monitor: &Monitor, options: &Options) -> Subject {
    let cases: String = CASES.iter().map(|case| format!(" {}:{}", case.rw, case.depth)).collect();
    let cmdline = format!("console=hvc0 quiet lab.run=sh /bench/run {}{cases}", options.seconds);
    let kernel = "/lab/vmlinux";
    let (command, environment) = match monitor {
        Monitor::Qemu => {
            let guest = qemu::Guest { memory_mib: options.memory, cpus: 2, kernel, cmdline: &cmdline };
            let mut command = qemu::command(&guest);
            let root = format!("if=none,id=root,format=raw,readonly=on,file={ROOT}");
            let disk = format!("if=none,id=disk,format=raw,cache=none,aio={},file={DISK}", options.aio);
            command.extend(words(&["-drive", &root, "-device", "virtio-blk-pci,drive=root"]));
            command.extend(words(&["-object", "iothread,id=worker", "-drive", &disk]));
            command.extend(words(&["-device", "virtio-blk-pci,drive=disk,iothread=worker"]));
            (command, qemu::environment())
        }
        Monitor::Cede(plane, of_disk, flags) => {
            let memory = format!("{}M", options.memory);
            let mut command = words(&["cede", "run", "--plane", plane, "--memory", &memory, "--cpus", "2"]);
            command.extend(words(&["--kernel", kernel, "--initrd", "/lab/initrd", "--cmdline", &cmdline]));
            let disks = [format!("path={ROOT},readonly"), format!("path={DISK},direct{of_disk}")];
            disks.iter().for_each(|disk| command.extend(words(&["--disk", disk])));
            command.extend(words(flags));
            command.push("--no-reboot".to_owned());
            (command, Vec::new())
        }
    };
    Subject { name: name.to_owned(), command, environment }
}
