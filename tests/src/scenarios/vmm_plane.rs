//! The vmm plane: cede's scheduler handles H_CEDE and its XICS is the guest's. A stock Debian guest on every kind of host,
//! and a running guest that is watched, tuned, paused and resumed.

use anyhow::{Context, Result, ensure};
use xtask::lab::Host;

use super::boot::{FOUR_THREADS, cpus, three_cpus};
use super::lifecycle::{reboot, terminate};
use super::{Body, DEBIAN, Guest, Scenario};
use crate::host::LabHost;

pub(super) fn table() -> Vec<Scenario> {
    use Host::{Powernv8, Powernv9, Powernv10, PseriesNested};
    let mut table = vec![
        cpus(
            Powernv8,
            "vmm_plane_three_cpus",
            "--plane vmm --cpus 3 --memory 256M",
            three_cpus!["MMU\t\t: Hash\n", "POWER8", " XICS "],
            &[" XIVE", "hotplug: FAIL"],
        )
        .within(900),
        Scenario::at(
            Powernv8,
            "vmm_plane_steered",
            Body::Steps(|host| steered(host, "vmm", [2_000_000, 3_000_000])),
        )
        .within(900),
        Scenario::at(PseriesNested, "vmm_plane_two_cpus", Body::Guest(NESTED)).within(400),
    ];
    for host in [Powernv9, Powernv10] {
        table.extend([
            cpus(host, "vmm_plane_one_cpu", "--plane vmm", ONE_CPU, &[]),
            cpus(
                host,
                "vmm_plane_three_cpus",
                "--plane vmm --cpus 3",
                three_cpus!["MMU\t\t: Radix\n", " XICS "],
                &[" XIVE", "hotplug: FAIL"],
            ),
            cpus(host, "vmm_plane_four_cpus", "--plane vmm --cpus 4", FOUR_CORES, &["hotplug: FAIL"])
                .within(300),
            cpus(
                host,
                "vmm_plane_threads",
                "--plane vmm --cpus 4 --threads 2",
                FOUR_THREADS,
                &["hotplug: FAIL"],
            )
            .within(300),
            Scenario::at(host, "vmm_plane_reboot", Body::Steps(|host| reboot(host, "--plane vmm"))),
            Scenario::at(
                host,
                "vmm_plane_steered",
                Body::Steps(|host| steered(host, "vmm", [2_000_000, 3_000_000])),
            ),
            Scenario::at(host, "vmm_plane_event_lost", Body::Steps(event_lost)),
        ]);
    }
    table.push(cpus(
        Powernv9,
        "vmm_plane_hash",
        "--plane vmm --cpus 3 --mmu hash",
        three_cpus!["MMU\t\t: Hash\n", "POWER9", " XICS "],
        &[" XIVE", "hotplug: FAIL"],
    ));
    table.push(Scenario::at(Powernv9, "kernel_plane_steered", Body::Steps(steered_on_the_kernel_plane)));
    table
}

/// Without `hotplug.sh`, as on the kernel's plane there.
const NESTED: Guest = Guest {
    kernel: DEBIAN,
    flags: "--plane vmm --cpus 2",
    cmdline: "console=hvc0 quiet lab.run=sh /tests/cpus.sh",
    shows: &["cpus: online 0-1\n", "cpus: 0 ran a process\n", "cpus: 1 ran a process\n", "lab-exit 0\n"],
    hides: &[],
    exit: 0,
};

pub(super) const ONE_CPU: &[&str] =
    &["cpus: online 0\n", "cpus: 0 ran a process\n", "hotplug: done, online 0\n", "lab-exit 0\n"];

/// Four cores of one thread.
pub(super) const FOUR_CORES: &[&str] = &[
    "cpus: online 0-3\n",
    "cpus: in cpuinfo 4\n",
    "cpus: 1 ran a process\n",
    "cpus: 2 ran a process\n",
    "cpus: 3 ran a process\n",
    "hotplug: round 2, 1 came back\n",
    "hotplug: round 2, 2 came back\n",
    "hotplug: round 2, 3 came back\n",
    "hotplug: done, online 0-3\n",
    "lab-exit 0\n",
];

/// A guest that wakes up often, for ever.
const RESTLESS: &str = "console=hvc0 quiet lab.run=echo restless; while :; do usleep 3000; done";

const CONFIG: &str = "/tmp/vm.toml";

/// Starts it with these flags, from a file that says nothing but how long to poll.
pub(super) fn restless(host: &mut LabHost, flags: &str, halt_poll_ns: u32) -> Result<()> {
    configure(host, halt_poll_ns)?;
    host.start(&format!(
        "--config {CONFIG} --name ada --kernel {DEBIAN} --initrd /tmp/initrd --cpus 2 --memory 256M {flags} --cmdline '{RESTLESS}'"
    ))?;
    host.expect("\nrestless")?;
    Ok(())
}

fn configure(host: &mut LabHost, halt_poll_ns: u32) -> Result<()> {
    host.ok(&format!("printf '[vcore]\\nhalt_poll_ns = {halt_poll_ns}\\n' >{CONFIG}")).map(drop)
}

/// One of the figures of all vCPUs in `cede stat --json`.
fn figure(host: &mut LabHost, name: &str) -> Result<u64> {
    let text = host.ok("cede stat ada --json")?;
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
    let vcpus = value["vcpus"].as_array().with_context(|| format!("no vCPUs: {text}"))?;
    let figures: Option<Vec<u64>> = vcpus.iter().map(|vcpu| vcpu["stats"][name].as_u64()).collect();
    Ok(figures.with_context(|| format!("no {name}: {text}"))?.iter().sum())
}

/// Until the figure has grown, for a second and a half at most, so that a guest that has stopped shows.
pub(super) fn grows(host: &mut LabHost, name: &str) -> Result<bool> {
    grown(host, |host| figure(host, name))
}

fn grown(host: &mut LabHost, figure: impl Fn(&mut LabHost) -> Result<u64>) -> Result<bool> {
    let before = figure(host)?;
    for _ in 0..15 {
        host.ok("usleep 100000")?;
        if figure(host)? > before {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the guest runs, whoever handles its idling: its vCPUs' threads go to sleep again and again.
fn lives(host: &mut LabHost) -> Result<bool> {
    grown(host, |host| {
        let text = host.ok("cat /proc/$pid/task/*/status | grep ^voluntary_ctxt_switches")?;
        let counts = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Ok(counts.sum())
    })
}

/// It polls, as the file says; polls no longer when told so; stands still while paused; goes on; takes the file's new
/// word at SIGHUP; and powers off.
pub(super) fn steered(host: &mut LabHost, plane: &str, [first, second]: [u32; 2]) -> Result<()> {
    restless(host, &format!("--plane {plane}"), first)?;
    let table = host.ok("cede stat ada; stat -c %a /run/cede/ada /run/cede/ada/control.sock")?;
    let running = format!("plane {plane}, running, halt_poll_ns={first} ");
    for text in [&running, "\n700\n600\n"] {
        ensure!(table.contains(text), "{text:?} is not in:\n{table}");
    }
    ensure!(grows(host, "halt_attempted_poll")?, "the vCPUs do not poll");
    ensure!(figure(host, "halt_successful_wait")? > 0, "the vCPUs never slept");

    let set = host.ok("cede set ada halt_poll_ns=0")?;
    ensure!(set.contains("halt_poll_ns=0 "), "cede set says:\n{set}");
    // A poll that had begun ends.
    host.ok("usleep 100000")?;
    ensure!(!grows(host, "halt_attempted_poll")?, "the vCPUs poll though they are not to");
    ensure!(lives(host)?, "the guest has stopped");
    let bad = host.sh("cede set ada halt_poll_ns=soon 2>&1")?;
    ensure!(bad.code == 2 && bad.text.contains("halt_poll_ns"), "{bad:?}");

    ensure!(host.ok("cede pause ada && cede list")?.contains("paused"), "the VM is not listed as paused");
    ensure!(!lives(host)?, "the guest runs while it is paused");
    host.ok("cede resume ada")?;
    ensure!(lives(host)?, "the guest does not run after the pause");

    configure(host, second)?;
    host.ok("kill -HUP $pid")?;
    ensure!(grows(host, "halt_attempted_poll")?, "the file was not read again");
    ensure!(
        host.ok("cede stat ada")?.contains(&format!("halt_poll_ns={second} ")),
        "the file's new value does not count"
    );
    stop(host).map(drop)
}

/// The same commands on KVM's own plane, where a POWER9 has no halt polling to set.
fn steered_on_the_kernel_plane(host: &mut LabHost) -> Result<()> {
    restless(host, "--plane kernel", 2_000_000)?;
    ensure!(host.ok("cede stat ada")?.contains("plane kernel, running"), "the plane is not shown");
    ensure!(
        figure(host, "halt_attempted_poll")? == 0,
        "Linux polls on POWER9: then more is to be shown here"
    );
    ensure!(grows(host, "halt_wakeup")?, "KVM's figures do not grow");
    let set = host.sh("cede set ada halt_poll_ns=1 2>&1")?;
    ensure!(set.code == 2 && set.text.contains("--plane vmm"), "{set:?}");
    host.ok("cede pause ada")?;
    ensure!(!grows(host, "halt_wakeup")?, "the guest runs while it is paused");
    host.ok("cede resume ada")?;
    ensure!(grows(host, "halt_wakeup")?, "the guest does not run after the pause");
    stop(host).map(drop)
}

/// The perf events are taken from the process: the guest does not notice, one warning tells, and cedes come out again.
fn event_lost(host: &mut LabHost) -> Result<()> {
    restless(host, "--plane vmm", 2_000_000)?;
    ensure!(
        host.ok("/lab/bench-agent lose-events --pid $pid")? == "2\n",
        "the process has not one event a vCPU"
    );
    host.expect("is lost, KVM sleeps by itself when the guest idles; it was opened again")?;
    ensure!(grows(host, "halt_attempted_poll")?, "cedes do not come out again");
    // Another tracer of the same event takes nothing away, nor does tracefs when it goes.
    host.ok("echo 1 >/sys/kernel/tracing/events/kvm_hv/enable; sleep 1; echo 0 >/sys/kernel/tracing/events/kvm_hv/enable")?;
    host.ok("umount /sys/kernel/tracing")?;
    let polls = grows(host, "halt_attempted_poll")?;
    host.ok("mount -t tracefs nodev /sys/kernel/tracing")?;
    ensure!(polls, "cedes do not come out without tracefs");
    let printed = stop(host)?;
    ensure!(printed.matches(" WARN ").count() <= 3, "more than one warning a vCPU:\n{printed}");
    Ok(())
}

/// Stops it; gives what it printed.
pub(super) fn stop(host: &mut LabHost) -> Result<String> {
    let printed = terminate(host)?;
    ensure!(host.sh("test -e /run/cede/ada")?.code == 1, "the run directory is left");
    Ok(printed)
}
