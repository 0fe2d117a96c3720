//! `cargo xtask bench net`: how soon a guest answers another, how much goes through, and what it costs.
//!
//! docs/benchmarks.md says what is measured and why so.

use std::process::ExitCode;

use anyhow::Result;
use bench_agent::{Plan, Subject};
use clap::Args;
use serde_json::json;

use super::subjects::{Common, DEFAULT_NS, Guest, Lab, Row};
use super::words;
use crate::lab::{fetch, root};

/// The system's disk, which both guests read and nobody writes to.
const ROOT: &str = "/dev/lab/root";

/// Of the client and of the server.
const ADDRESSES: [&str; 2] = ["10.9.0.2", "10.9.0.3"];

/// Long enough for an emulated host to do something within.
const LONG_NS: u32 = 2_000_000;

/// Options of the bench
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    subjects: Common,
    /// vCPUs of each guest
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// How long round trips are measured, once more counted, and the stream lasts
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// The host's kernel moves the packets (vhost-net) and not the monitors
    #[arg(long)]
    vhost: bool,
}

/// Measures and reports.
pub fn run(options: &Options) -> Result<ExitCode> {
    let initrd = super::initrd(&fetch::image()?, "net")?;
    let rows = options.subjects.rows(&["qemu", "kernel", "assist", "vmm"], &[0, DEFAULT_NS, LONG_NS]);
    // A bridge and two taps for each plane, whose guests stay.
    let mut planes: Vec<&str> = rows.iter().map(Row::plane).collect();
    planes.dedup();
    let bridges: Vec<String> = planes
        .iter()
        .map(|plane| format!("lab-bridge {plane} {} {}", tap(plane, 0), tap(plane, 1)))
        .collect();
    let subjects = rows.iter().map(|row| subject(row, options)).collect();
    let plan = Plan { rounds: options.subjects.runs, subjects };
    let lab = Lab {
        bench: "net",
        options: &options.subjects,
        initrd: &initrd,
        guests: 2 * planes.len() as u32,
        subjects: &plan.subjects,
    };
    let disk = root::disk()?;
    let found = lab.measure(&plan, &bridges.join(" && "), |run| run.block(&disk, "root"))?;

    let Options { cpus, seconds, vhost, .. } = options;
    let who = if *vhost { "vhost-net" } else { "the monitors" };
    let heading = [format!(
        "{seconds} s of round trips, and of one stream; {who} moved the packets; guests that cede at once"
    )];
    let conditions = json!({ "cpus": cpus, "seconds": seconds, "vhost": vhost });
    lab.report(&found, &format!("two guests, each of {cpus} vCPUs and"), &heading, conditions)?;
    Ok(ExitCode::SUCCESS)
}

/// The tap of guest `n` of a plane.
fn tap(plane: &str, n: usize) -> String {
    format!("{plane}{n}")
}

fn subject(row: &Row, options: &Options) -> Subject {
    let [client, server] = ADDRESSES;
    let roles = [format!("client {client} {server} {}", options.seconds), format!("server {server}")];
    // That they do not run while others are measured is no lockup.
    let kernel =
        "console=hvc0 quiet cpuidle.off=1 net.ifnames=0 nowatchdog rcupdate.rcu_cpu_stall_suppress=1";
    let cmdlines = roles.map(|role| format!("{kernel} lab.run=sh /bench/run {role}"));
    let guests = [0, 1].map(|n| guest(n, row.plane(), &cmdlines[n], options));
    row.subject(&options.subjects, &guests)
}

fn guest<'a>(n: usize, plane: &str, cmdline: &'a str, options: &Options) -> Guest<'a> {
    let (tap, mac) = (tap(plane, n), format!("52:54:00:00:00:0{}", n + 1));
    let root = format!("if=none,id=root,format=raw,readonly=on,file={ROOT}");
    let vhost = if options.vhost { "on" } else { "off" };
    let port = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost={vhost}");
    // Its ROM is for machines that boot from networks.
    let card = format!("virtio-net-pci,netdev=net,mac={mac},romfile=");
    let qemu =
        words(&["-drive", &root, "-device", "virtio-blk-pci,drive=root", "-netdev", &port, "-device", &card]);
    let vhost = if options.vhost { ",vhost" } else { "" };
    let (disk, net) = (format!("path={ROOT},readonly"), format!("tap={tap},mac={mac}{vhost}"));
    let cede = words(&["--disk", &disk, "--net", &net]);
    Guest { name: Some(tap), cpus: options.cpus, cmdline, qemu, cede }
}
