//! A stock Debian guest boots, on every host and with every interrupt controller and MMU that the host offers; its
//! CPUs work.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::{Body, DEBIAN, Guest, Scenario};
use crate::host::LabHost;

const DEBIAN_RAN: &str = "lab-exit 0\n";
/// A POWER8 guest enters every page of its memory into the hashed table when it boots, which takes an emulated host minutes
/// for a gigabyte.
const POWER8: &str = "--cpus 3 --memory 256M";

const RUN_CPUS: &str = "console=hvc0 quiet lab.run=sh /tests/cpus.sh; sh /tests/hotplug.sh";

/// What a guest with two CPUs shows when it has run `cpus.sh` and `hotplug.sh`.
macro_rules! two_cpus {
    ($($more:literal),*) => {
        &[
            $($more,)*
            "cpus: online 0-1\n",
            "cpus: in cpuinfo 2\n",
            "cpus: 0 ran a process\n",
            "cpus: 1 ran a process\n",
            "hotplug: round 1, 1 came back\n",
            "hotplug: round 2, 1 came back\n",
            "hotplug: done, online 0-1\n",
            "lab-exit 0\n",
        ]
    };
}

/// The same of three CPUs. `hotplug.sh` needs a third one where the emulated host delays external interrupts.
macro_rules! three_cpus {
    ($($more:literal),*) => {
        &[
            $($more,)*
            "cpus: online 0-2\n",
            "cpus: in cpuinfo 3\n",
            "cpus: 0 ran a process\n",
            "cpus: 1 ran a process\n",
            "cpus: 2 ran a process\n",
            "hotplug: round 2, 1 came back\n",
            "hotplug: round 2, 2 came back\n",
            "hotplug: done, online 0-2\n",
            "lab-exit 0\n",
        ]
    };
}
pub(super) use three_cpus;

pub(super) fn table() -> Vec<Scenario> {
    use Host::{Powernv8, Powernv9, Powernv10, PseriesNested};
    vec![
        cpus(
            Powernv8,
            "hash_xics_three_cpus",
            POWER8,
            three_cpus!["MMU\t\t: Hash\n", "POWER8", " XICS "],
            &[" XIVE", "hotplug: FAIL"],
        )
        .within(900),
        caps(Powernv8),
        cpus(
            Powernv9,
            "radix_xive_two_cpus",
            "--cpus 2",
            two_cpus!["MMU\t\t: Radix\n", "POWER9", " XIVE-IPI "],
            &[" XICS "],
        ),
        cpus(
            Powernv9,
            "radix_xics_two_cpus",
            "--cpus 2 --irqchip xics",
            two_cpus!["MMU\t\t: Radix\n", "POWER9", " XICS "],
            &[" XIVE"],
        ),
        cpus(
            Powernv9,
            "hash_xive_two_cpus",
            "--cpus 2 --mmu hash",
            two_cpus!["MMU\t\t: Hash\n", "POWER9", " XIVE-IPI "],
            &[" XICS "],
        ),
        cpus(
            Powernv9,
            "power8_compatible",
            "--cpus 2 --cpu power8",
            two_cpus!["MMU\t\t: Hash\n", "POWER8", " XICS "],
            &[" XIVE"],
        ),
        cpus(Powernv9, "threads", "--cpus 4 --threads 2", FOUR_THREADS, &["hotplug: FAIL"]).within(300),
        caps(Powernv9),
        cpus(
            Powernv10,
            "radix_xive_two_cpus",
            "--cpus 2",
            two_cpus!["MMU\t\t: Radix\n", "POWER10", " XIVE-IPI "],
            &[" XICS "],
        ),
        cpus(
            Powernv10,
            "radix_xics_two_cpus",
            "--cpus 2 --irqchip xics",
            two_cpus!["MMU\t\t: Radix\n", "POWER10", " XICS "],
            &[" XIVE"],
        ),
        caps(Powernv10),
        Scenario::at(PseriesNested, "radix_two_cpus", Body::Guest(NESTED)).within(400),
        caps(PseriesNested),
    ]
}

/// Without `hotplug.sh`: when a guest's CPU goes offline and comes back again and again, the emulated nested host itself can
/// stop, its own shell included.
const NESTED: Guest = Guest {
    kernel: DEBIAN,
    flags: "--cpus 2",
    cmdline: "console=hvc0 quiet lab.run=sh /tests/cpus.sh",
    shows: &[
        "MMU\t\t: Radix\n",
        "POWER9",
        "cpus: online 0-1\n",
        "cpus: 0 ran a process\n",
        "cpus: 1 ran a process\n",
        DEBIAN_RAN,
    ],
    hides: &[],
    exit: 0,
};

/// Two cores of two threads.
pub(super) const FOUR_THREADS: &[&str] = &[
    "cpus: online 0-3\n",
    "cpus: in cpuinfo 4\n",
    "cpus: 0 ran a process\n",
    "cpus: 1 ran a process\n",
    "cpus: 2 ran a process\n",
    "cpus: 3 ran a process\n",
    "cpus: 0 shares a core with 0-1\n",
    "cpus: 1 shares a core with 0-1\n",
    "cpus: 2 shares a core with 2-3\n",
    "cpus: 3 shares a core with 2-3\n",
    "hotplug: round 2, 1 came back\n",
    "hotplug: round 2, 2 came back\n",
    "hotplug: round 2, 3 came back\n",
    "hotplug: done, online 0-3\n",
    DEBIAN_RAN,
];

pub(super) fn cpus(
    host: Host,
    title: &'static str,
    flags: &'static str,
    shows: &'static [&'static str],
    hides: &'static [&'static str],
) -> Scenario {
    let guest = Guest { kernel: DEBIAN, flags, cmdline: RUN_CPUS, shows, hides, exit: 0 };
    Scenario::at(host, title, Body::Guest(guest))
}

/// `cede caps` names the host and what it chose for it.
fn caps(host: Host) -> Scenario {
    let body = match host {
        Host::Powernv8 => |host: &mut LabHost| caps_say(host, ["POWER8", "hash", "xics"]),
        Host::Powernv9 => |host: &mut LabHost| caps_say(host, ["POWER9", "radix", "xive"]),
        Host::Powernv10 => |host: &mut LabHost| caps_say(host, ["POWER10", "radix", "xive"]),
        Host::PseriesNested => |host: &mut LabHost| caps_say(host, ["POWER9", "radix", "xics"]),
    };
    Scenario::at(host, "caps", Body::Steps(body))
}

fn caps_say(host: &mut LabHost, words: [&str; 3]) -> Result<()> {
    let text = host.ok("cede caps")?;
    let (first, choices) = text.split_once("cede chooses:").unwrap_or((&text, ""));
    ensure!(first.starts_with(&format!("host: {}", words[0])), "not the host {}: {text}", words[0]);
    for (key, word) in [("mmu", words[1]), ("irqchip", words[2])] {
        ensure!(choices.contains(&format!("{key}: {word}, ")), "{word} was not chosen: {text}");
    }
    Ok(())
}
