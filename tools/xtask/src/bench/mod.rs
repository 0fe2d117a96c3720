//! `cargo xtask bench`. A bench reports; a slow result is no failure.

mod agent;
mod blk;
mod boot;
mod foreign;
mod idle;
mod irq;
mod net;
mod probe;
pub(crate) mod qemu;
mod report;
mod subjects;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::lab::fetch::Image;
use crate::lab::{cpio, initramfs};
use crate::paths;

/// Measure cede
#[derive(Subcommand, Debug)]
pub enum Bench {
    /// A disk's requests per second and what they cost, next to QEMU's virtio-blk, on an emulated POWER host
    ///
    /// fio in the same guest under QEMU and under each plane of cede, in one boot of the host, in turn. The report is
    /// target/bench/blk.json too.
    Blk(blk::Options),
    /// Start-up and memory, next to QEMU's pseries machine, on an emulated POWER9 host
    ///
    /// Both run under the same KVM in one boot of the host, in turn. The emulated host's absolute times mean
    /// nothing; the ratios do. The report is target/bench/boot.json too.
    Boot(boot::Options),
    /// What a guest costs that has little or nothing to do, and how soon it wakes, on an emulated POWER host
    ///
    /// The same guest under each plane of cede and under QEMU, in one boot of the host, in turn. The report is
    /// target/bench/idle.json too.
    Idle(idle::Options),
    /// From a device's raise to the vCPU that handles it: straight there, and with a thread in between
    ///
    /// On this machine, or KVM's ways in the lab. The report is target/bench/irq.json too, or irq-lab.json.
    Irq(irq::Options),
    /// How soon a guest answers another by way of a bridge, how much goes through, and what it costs, on an emulated POWER host
    ///
    /// sockperf and iperf3 in the same guests under QEMU and under cede with several settings, in one boot of the host, in
    /// turn. The report is target/bench/net.json too.
    Net(net::Options),
    /// The scheduler of virtual cores, on this machine
    Vcore {
        /// What `cargo bench` takes behind `--`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

/// Does what the command line asks.
pub fn main(bench: Bench) -> Result<ExitCode> {
    match bench {
        Bench::Blk(options) => blk::run(&options),
        Bench::Boot(options) => boot::run(&options),
        Bench::Idle(options) => idle::run(&options),
        Bench::Irq(options) => irq::run(&options),
        Bench::Net(options) => net::run(&options),
        Bench::Vcore { arguments } => vcore(&arguments),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Where reports go.
fn directory() -> Result<PathBuf> {
    let dir = paths::root().join("target/bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The lab's initrd with what the guest of bench `name` does in /bench: `tools/lab/guest-bench-NAME`, and what that reads.
fn initrd(image: &Image, name: &str) -> Result<PathBuf> {
    let mut archive = initramfs::guest_archive(image)?;
    let mut ours = cpio::Archive::new(Vec::new());
    let source = |what: &str| paths::root().join(format!("tools/lab/guest-bench-{what}"));
    ours.file("bench/run", &source(name))?;
    ours.file("bench/root", &source("root"))?;
    archive.extend(ours.finish()?);
    let initrd = directory()?.join(format!("{name}-initrd"));
    fs::write(&initrd, archive).with_context(|| format!("cannot write {}", initrd.display()))?;
    Ok(initrd)
}

fn vcore(arguments: &[String]) -> Result<ExitCode> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["bench", "--package", "cede-vcore", "--"])
        .args(arguments)
        .current_dir(paths::root())
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
