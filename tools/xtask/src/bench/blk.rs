//! `cargo xtask bench blk`: what a disk does under each monitor, and what its requests cost.
//!
//! docs/benchmarks.md says what is measured and why so.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_agent::Plan;
use bench_agent::blk::CASES;
use clap::Args;
use serde_json::json;

use super::subjects::{Common, DEFAULT_NS, Guest, Lab};
use super::words;
use crate::lab::{fetch, root};

/// The disk, in MiB: memory of the host.
const DISK_MIB: u32 = 64;

/// The guests' disks in the host: the system's, which nobody writes to, and the one that is measured.
const ROOT: &str = "/dev/lab/root";
const DISK: &str = "/dev/ram0";

/// Options of the bench
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    subjects: Common,
    /// How long each case is measured, and once more counted
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How QEMU does its requests
    #[arg(long, value_name = "ENGINE", default_value = "io_uring", value_parser = ["io_uring", "native", "threads"])]
    aio: String,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let image = fetch::image()?;
    let initrd = super::initrd(&image, "blk")?;
    let module = super::directory()?.join("brd.ko");
    fs::write(&module, image.module("brd")?).with_context(|| format!("cannot write {}", module.display()))?;

    let Options { subjects, seconds, aio } = options;
    let cases: String = CASES.iter().map(|case| format!(" {}:{}", case.rw, case.depth)).collect();
    let cmdline = format!("console=hvc0 quiet lab.run=sh /bench/run {seconds}{cases}");
    let rows = subjects.rows(&["qemu", "kernel", "vmm"], &[DEFAULT_NS]);
    let guest = [guest(&cmdline, aio)];
    let plan = Plan {
        rounds: subjects.runs,
        subjects: rows.iter().map(|row| row.subject(subjects, &guest)).collect(),
    };
    // Filled, lest a page that was never written cost more, or less, than another.
    let prepare = format!(
        "insmod /lab/brd.ko rd_nr=1 rd_size={} && dd if=/dev/zero of={DISK} bs=1M count={DISK_MIB} 2>/dev/null",
        DISK_MIB << 10
    );
    let lab = Lab { bench: "blk", options: subjects, initrd: &initrd, guests: 1, subjects: &plan.subjects };
    let disk = root::disk()?;
    let found = lab.measure(&plan, &prepare, |run| run.block(&disk, "root").file(&module, "brd.ko"))?;
    let heading = [format!(
        "fio, 4 KiB at random places of {DISK_MIB} MiB of the host's memory (brd), {seconds} s each; host's page cache left out; \
         QEMU: iothread, aio={aio}"
    )];
    let conditions = json!({ "aio": aio, "cpus": 2, "disk_mib": DISK_MIB, "seconds": seconds });
    lab.report(&found, "a guest of 2 vCPUs and", &heading, conditions)?;
    Ok(ExitCode::SUCCESS)
}

fn guest<'a>(cmdline: &'a str, aio: &str) -> Guest<'a> {
    let root = format!("if=none,id=root,format=raw,readonly=on,file={ROOT}");
    let disk = format!("if=none,id=disk,format=raw,cache=none,aio={aio},file={DISK}");
    let mut qemu = words(&["-drive", &root, "-device", "virtio-blk-pci,drive=root"]);
    qemu.extend(words(&["-object", "iothread,id=worker", "-drive", &disk]));
    qemu.extend(words(&["-device", "virtio-blk-pci,drive=disk,iothread=worker"]));
    let (root, disk) = (format!("path={ROOT},readonly"), format!("path={DISK},direct"));
    let cede = words(&["--disk", &root, "--disk", &disk]);
    Guest { name: None, cpus: 2, cmdline, qemu, cede }
}
