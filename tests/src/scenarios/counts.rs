//! What an idle period costs the host in system calls and context switches, which does not depend on how fast the host is.
//!
//! The payload `loads` idles again and again for milliseconds; `bench-agent count` counts in the host for some seconds what
//! cede does meanwhile. KVM hits `kvmppc_vcore_blocked` twice for each cede that finds nothing pending, on either plane.

use anyhow::{Context, Result, ensure};
use bench_agent::Counts;
use xtask::lab::Host;

use super::{Body, Scenario};
use crate::host::LabHost;

/// The most that an idle period may cost on average. Preemptions depend on what else the host does and do not count.
struct Bound {
    syscalls: f64,
    switches: f64,
}

/// KVM does everything by itself, and a sleep is one switch away.
const KERNEL: Bound = Bound { syscalls: 0.1, switches: 1.5 };

/// KVM_RUN, and what goes with it: how long until the decrementer expires, the sleep itself, the clock of the sleep. KVM's own
/// sleep, out of which the signal comes, may be a switch too.
const VMM: Bound = Bound { syscalls: 8.0, switches: 2.5 };

/// Fewer idle periods say nothing.
const ENOUGH: u64 = 50;

pub(super) fn table() -> Vec<Scenario> {
    use Host::Powernv9;
    vec![
        Scenario::at(
            Powernv9,
            "idle_period_costs_nothing_on_the_kernel_plane",
            Body::Steps(|host| idle_period_costs(host, "kernel", &KERNEL)),
        ),
        Scenario::at(
            Powernv9,
            "idle_period_costs_little_on_the_vmm_plane",
            Body::Steps(|host| idle_period_costs(host, "vmm", &VMM)),
        ),
    ]
}

fn idle_period_costs(host: &mut LabHost, plane: &str, bound: &Bound) -> Result<()> {
    host.start(&format!("--kernel /lab/loads --memory 64M --cpus 1 --plane {plane} --cmdline rounds=100"))?;
    host.expect("loads: begin\n")?;
    let counted = host.ok("/lab/bench-agent count --pid $pid --seconds 4")?;
    host.ok("kill -KILL $pid")?;
    host.wait()?;
    let counts: Counts = serde_json::from_str(&counted).with_context(|| format!("no counts: {counted}"))?;
    let periods = counts.event("kvm_hv:kvmppc_vcore_blocked") / 2;
    ensure!(periods >= ENOUGH, "{periods} idle periods are too few: {counted}");
    for (what, count, most) in [
        ("system calls", counts.all_syscalls(), bound.syscalls),
        ("voluntary context switches", counts.voluntary_switches, bound.switches),
    ] {
        let each = count as f64 / periods as f64;
        ensure!(each <= most, "{each:.2} {what} for each of {periods} idle periods, not {most}: {counted}");
    }
    Ok(())
}
