//! The assist plane: KVM's XIVE and KVM's sleep, with cede's poll before it. A stock Debian guest whose vCPUs poll long enough to
//! meet their interrupts while they do, and one that is watched, tuned, paused and resumed.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::boot::{FOUR_THREADS, cpus, three_cpus};
use super::lifecycle::reboot;
use super::vmm_plane::{FOUR_CORES, ONE_CPU, grows, restless, steered, stop};
use super::{Body, Guest, Refusal, Scenario};
use crate::host::LabHost;

/// Polls last as long as an emulated guest's short sleeps do.
macro_rules! polling {
    ($flags:literal) => {
        concat!("--plane assist --vcore 'halt_poll_ns=5000000 halt_poll_ns_grow_start=1000000' ", $flags)
    };
}

/// Of a restless guest every sleep is shorter, on a slow machine too, so that polling pays and every cede comes out.
const LONG: u32 = 100_000_000;

pub(super) fn table() -> Vec<Scenario> {
    use Host::{Powernv8, Powernv9, Powernv10, PseriesNested};
    let mut table = Vec::new();
    for host in [Powernv9, Powernv10] {
        table.extend([
            cpus(host, "assist_plane_one_cpu", polling!(""), ONE_CPU, &[]),
            cpus(
                host,
                "assist_plane_three_cpus",
                polling!("--cpus 3"),
                three_cpus!["MMU\t\t: Radix\n", " XIVE-IPI "],
                &[" XICS ", "hotplug: FAIL"],
            ),
            cpus(host, "assist_plane_four_cpus", "--plane assist --cpus 4", FOUR_CORES, &["hotplug: FAIL"])
                .within(300),
            cpus(
                host,
                "assist_plane_threads",
                polling!("--cpus 4 --threads 2"),
                FOUR_THREADS,
                &["hotplug: FAIL"],
            )
            .within(300),
            Scenario::at(host, "assist_plane_reboot", Body::Steps(|host| reboot(host, polling!("")))),
            Scenario::at(
                host,
                "assist_plane_steered",
                Body::Steps(|host| steered(host, "assist", [LONG, 2 * LONG])),
            ),
        ]);
    }
    table.extend([
        cpus(
            Powernv9,
            "assist_plane_hash",
            polling!("--cpus 3 --mmu hash"),
            three_cpus!["MMU\t\t: Hash\n", " XIVE-IPI "],
            &[" XICS ", "hotplug: FAIL"],
        ),
        Scenario::at(Powernv9, "assist_plane_events_lost", Body::Steps(events_lost)),
        Scenario::at(
            Powernv9,
            "assist_plane_random_calls",
            Body::Guest(Guest {
                kernel: "/lab/fuzz",
                flags: polling!("--memory 64M --cpus 4"),
                cmdline: "count=100000 seed=5",
                shows: &["fuzz: 100000 of 100000\n", "fuzz: done 100000\n"],
                hides: &["fuzz: FAIL"],
                exit: 0,
            }),
        )
        .within(400),
        refused(
            Powernv9,
            "refuses_assist_plane_with_xics",
            "cede run --plane assist --kernel /lab/vmlinux --irqchip xics",
            &["XIVE's queues", "ask for xive", "--plane kernel"],
        ),
        refused(
            Powernv8,
            "refuses_assist_plane",
            "cede run --plane assist --kernel /lab/vmlinux",
            &["XIVE's queues", "a POWER8 guest does not know it", "--plane kernel"],
        ),
        refused(
            PseriesNested,
            "refuses_assist_plane",
            "cede run --plane assist --kernel /lab/vmlinux",
            &["XIVE's queues", "KVM_CAP_PPC_IRQ_XIVE", "--plane kernel"],
        ),
    ]);
    table
}

/// The reason, and another plane as the remedy.
fn refused(
    host: Host,
    title: &'static str,
    command: &'static str,
    says: &'static [&'static str],
) -> Scenario {
    let refusal = Refusal { prepare: "true", command, restore: "true", says, exit: 3 };
    Scenario::at(host, title, Body::Refusal(refusal))
}

/// The perf events are taken from the process: nothing polls any more, and the guest goes on and ends as it should.
fn events_lost(host: &mut LabHost) -> Result<()> {
    restless(host, "--plane assist", LONG)?;
    ensure!(grows(host, "halt_attempted_poll")?, "the vCPUs do not poll");
    ensure!(
        host.ok("/lab/bench-agent lose-events --pid $pid")? == "4\n",
        "the process has not two events a vCPU"
    );
    host.ok("usleep 200000")?;
    ensure!(!grows(host, "halt_attempted_poll")?, "cedes come out without an event");
    let printed = stop(host)?;
    ensure!(printed.contains("reboot: Power down"), "the guest did not power itself off");
    Ok(())
}
