//! The payload `idle`: every way into H_CEDE and out of it, under QEMU's own hypervisor and on cede's planes.
//!
//! What it prints depends on nothing but what happened, so every hypervisor has to print the same lines. Cases that one of
//! them cannot pass are left out there by `skip=`; `payloads/README.md` says why each.

use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::idle;
use xtask::lab::Host;

use super::{Body, Guest, Place, Scenario};

/// All cases passed on four CPUs, 10^5 random steps among them. The checksum is that of QEMU's own hypervisor too.
const FOUR_CPUS: &[&str] = &[
    "idle: 4 cpus\n",
    "idle: cede-decrementer: ok\n",
    "idle: decrementer-window: ok\n",
    "idle: prod-after: ok\n",
    "idle: random: ok, 100000 steps, checksum 0x9fbe2ea50d819498\n",
    "idle: done\n",
];

/// 20,000 random steps, by the vCPUs that make them.
const TWO_CPUS_SHORT: &[&str] =
    &["idle: 2 cpus\n", "idle: random: ok, 20000 steps, checksum 0x7db2e82d2a6d7eda\n", "idle: done\n"];
const FOUR_CPUS_SHORT: &[&str] =
    &["idle: 4 cpus\n", "idle: random: ok, 20000 steps, checksum 0x23f87ddc1d8f8d15\n", "idle: done\n"];
const ONE_CPU_SHORT: &[&str] =
    &["idle: 1 cpus\n", "idle: random: ok, 20000 steps, checksum 0x1b3d100b838736a4\n", "idle: done\n"];

/// What KVM has no code for, and what cede has to ask KVM about: there may be no such instruction.
const JOIN: &[&str] = &["idle: join: ok\n", "idle: doorbell: ", "idle: done\n"];

/// Without the cases that POWER10's kernel cannot pass.
const WITHOUT_RANDOM: &[&str] =
    &["idle: 4 cpus\n", "idle: ipi: ok\n", "idle: stop-start: ok\n", "idle: done\n"];

/// One run under cede.
struct Row {
    host: Host,
    title: &'static str,
    flags: &'static str,
    cmdline: &'static str,
    shows: &'static [&'static str],
}

const fn row(
    host: Host,
    title: &'static str,
    flags: &'static str,
    cmdline: &'static str,
    shows: &'static [&'static str],
) -> Row {
    Row { host, title, flags, cmdline, shows }
}

const SHORT: &str = "steps=20000";
const ALL: &str = "";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(Host::Powernv8, "idle_kernel_plane", "--irqchip xics --plane kernel --cpus 4", "steps=20000 skip=confer-nobody", FOUR_CPUS_SHORT),
    row(Host::Powernv8, "idle_vmm_plane", "--irqchip xics --plane vmm --cpus 4", SHORT, FOUR_CPUS_SHORT),
    row(Host::Powernv9, "idle_kernel_plane", "--irqchip xics --plane kernel --cpus 4", SHORT, FOUR_CPUS_SHORT),
    row(Host::Powernv9, "idle_kernel_plane_threads", "--irqchip xics --plane kernel --cpus 4 --threads 2", SHORT, FOUR_CPUS_SHORT),
    row(Host::Powernv9, "idle_vmm_plane", "--irqchip xics --plane vmm --cpus 4", ALL, FOUR_CPUS),
    row(Host::Powernv9, "idle_vmm_plane_threads", "--irqchip xics --plane vmm --cpus 4 --threads 2", SHORT, FOUR_CPUS_SHORT),
    row(Host::Powernv9, "idle_vmm_plane_two_cpus", "--irqchip xics --plane vmm --cpus 2", SHORT, TWO_CPUS_SHORT),
    row(Host::Powernv9, "idle_vmm_plane_join", "--irqchip xics --plane vmm --cpus 4 --threads 2", "test=join,doorbell", JOIN),
    row(Host::Powernv9, "idle_vmm_plane_one_cpu", "--irqchip xics --plane vmm --cpus 1", SHORT, ONE_CPU_SHORT),
    row(Host::Powernv10, "idle_kernel_plane", "--irqchip xics --plane kernel --cpus 4", "skip=cede-pending,ring,random", WITHOUT_RANDOM),
    row(Host::Powernv10, "idle_vmm_plane", "--irqchip xics --plane vmm --cpus 4", SHORT, FOUR_CPUS_SHORT),
];

pub(super) fn table() -> Vec<Scenario> {
    let native = |title, body| Scenario {
        place: Place::Native,
        title,
        limit: Duration::ZERO,
        ignored: false,
        body: Body::Alone(body),
    };
    let mut table = vec![
        native("idle_power8", || under_tcg("power8", 4, 1, "", FOUR_CPUS)),
        native("idle_power9", || under_tcg("power9", 4, 1, "", FOUR_CPUS)),
        native("idle_power10", || under_tcg("power10", 4, 1, "", FOUR_CPUS)),
        native("idle_short", || {
            under_tcg("power9", 1, 1, SHORT, ONE_CPU_SHORT)?;
            under_tcg("power9", 2, 1, SHORT, TWO_CPUS_SHORT)?;
            under_tcg("power9", 4, 2, SHORT, FOUR_CPUS_SHORT)
        }),
        native("idle_join_and_doorbell", || {
            under_tcg("power9", 4, 2, "test=join,doorbell", JOIN_AND_DOORBELL)
        }),
    ];
    table.extend(ROWS.iter().map(|row| {
        let Row { host, title, flags, cmdline, shows } = *row;
        let guest = Guest { kernel: "/lab/idle", flags, cmdline, shows, hides: &["FAIL"], exit: 0 };
        Scenario::at(host, title, Body::Guest(guest)).within(400)
    }));
    table
}

const JOIN_AND_DOORBELL: &[&str] = &["idle: join: ok\n", "idle: doorbell: ok\n", "idle: done\n"];

/// The oracle itself: QEMU's own hypervisor on this machine.
fn under_tcg(cpu: &str, cpus: u32, threads: u32, cmdline: &str, shows: &[&str]) -> Result<()> {
    let cmdline = format!("{cmdline} {}", idle::TCG_SKIPS);
    let text = idle::tcg(&idle::built()?, cpu, &idle::smp(cpus, threads), &cmdline)?;
    for line in shows {
        ensure!(text.contains(line), "under QEMU the guest did not print {line:?}:\n{text}");
    }
    ensure!(!text.contains("FAIL"), "a case failed under QEMU:\n{text}");
    Ok(())
}
