//! The bare-metal guests of `tests/payloads`: entry in either byte order, the end by a panic or by force, and random calls.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::{Body, Guest, Scenario};
use crate::host::LabHost;

pub(super) fn table() -> Vec<Scenario> {
    use Host::{Powernv8, Powernv9};
    vec![
        payload(
            Powernv9,
            "big_endian_entry",
            Guest {
                kernel: "/lab/be-hello",
                flags: "",
                cmdline: "",
                shows: &["be-hello: entered at 0x0, ", "be-hello: big-endian, fdt at 0x", ", magic ok\n"],
                hides: &[],
                exit: 0,
            },
        ),
        payload(
            Powernv9,
            "dynamic_image_at_4_mib",
            Guest {
                kernel: "/lab/dyn-hello",
                flags: "",
                cmdline: "",
                shows: &["dyn-hello: loaded at 0x400000, ", "dyn-hello: relocated, fdt magic ok\n"],
                hides: &[],
                exit: 0,
            },
        ),
        payload(
            Powernv9,
            "payload_panic",
            Guest {
                kernel: "/lab/panic",
                flags: "",
                cmdline: "",
                shows: &["panic: calling ibm,os-term\n", "cede: the guest panicked\n"],
                hides: &[],
                exit: 4,
            },
        ),
        Scenario::at(Powernv9, "stop_a_hang", Body::Steps(stop_a_hang)),
        fuzz(Powernv9, "random_calls_xive", "--memory 64M", "count=100000 seed=1", DONE_100000),
        fuzz(
            Powernv9,
            "random_calls_xics",
            "--memory 64M --irqchip xics",
            "count=100000 seed=2",
            DONE_100000,
        ),
        fuzz(Powernv9, "random_calls_four_cpus", "--memory 64M --cpus 4", "count=100000 seed=3", DONE_100000),
        fuzz(Powernv8, "random_calls", "--memory 64M", "count=100000 seed=4", DONE_100000),
    ]
}

const DONE_100000: &[&str] = &["fuzz: 100000 of 100000\n", "fuzz: done 100000\n"];

fn payload(host: Host, title: &'static str, guest: Guest) -> Scenario {
    Scenario::at(host, title, Body::Guest(guest))
}

fn fuzz(
    host: Host,
    title: &'static str,
    flags: &'static str,
    cmdline: &'static str,
    shows: &'static [&'static str],
) -> Scenario {
    payload(
        host,
        title,
        Guest { kernel: "/lab/fuzz", flags, cmdline, shows, hides: &["fuzz: FAIL"], exit: 0 },
    )
    .within(400)
}

/// A guest that never exits to cede by itself, and never answers the power button.
fn stop_a_hang(host: &mut LabHost) -> Result<()> {
    host.start("--kernel /lab/hang")?;
    host.expect("hang: looping")?;
    host.ok("kill -TERM $pid; sleep 1; kill -0 $pid; kill -TERM $pid")?;
    let ended = host.wait()?;
    ensure!(ended.code == 6, "cede ended with {} after two signals", ended.code);
    Ok(())
}
