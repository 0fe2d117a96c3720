//! The payload `phases` on the assist plane: events at every phase of a nap, with polls so long that one which waits for
//! the end of a poll is told from one that a slow machine takes long over.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::vmm_plane::figure;
use super::{Body, Scenario};
use crate::host::LabHost;

/// Polls of two seconds, from the second cede on.
const POLLING: &str = "--vcore 'halt_poll_ns=2000000000 halt_poll_ns_grow_start=2000000000'";

/// No event may take half of a poll; a nap lasts longer than one. What KVM loses on an emulated host whoever polls
/// (`payloads/README.md`) the decrementer finds: on POWER9 an event right after its queue was moved, on POWER10 any.
fn cmdline(host: Host) -> String {
    let lost = if host == Host::Powernv10 { "100,100" } else { "0,5" };
    format!("late=1000000 nap=2500000 steps={ROUNDS} passes=1 lost={lost}")
}

/// Events of the case `ipi`, one to a nap.
const ROUNDS: u64 = 200;

pub(super) fn table() -> Vec<Scenario> {
    use Host::{Powernv9, Powernv10};
    let scenario = |host, title, body| Scenario::at(host, title, Body::Steps(body));
    vec![
        scenario(Powernv9, "phases_two_cpus", |lab| phases(lab, Powernv9, "--cpus 2")),
        scenario(Powernv9, "phases_threads", |lab| phases(lab, Powernv9, "--cpus 4 --threads 2")),
        scenario(Powernv10, "phases_two_cpus", |lab| phases(lab, Powernv10, "--cpus 2")),
        scenario(Powernv10, "phases_threads", |lab| phases(lab, Powernv10, "--cpus 4 --threads 2")),
    ]
}

/// All cases pass, and the events of the first one met polls.
fn phases(lab: &mut LabHost, host: Host, flags: &str) -> Result<()> {
    let cmdline = cmdline(host);
    lab.start(&format!(
        "--plane assist {POLLING} {flags} --name ada --kernel /lab/phases --cmdline '{cmdline}'"
    ))?;
    lab.expect("phases: ipi: ok\n")?;
    // On a busy machine a poll ends when another task wants the CPU, so by far not every nap is polled.
    for name in ["halt_attempted_poll", "halt_successful_poll"] {
        let polls = figure(lab, name)?;
        ensure!(polls >= ROUNDS / 20, "{name} is {polls} after {ROUNDS} naps");
    }
    let ended = lab.wait()?;
    ensure!(ended.code == 0, "cede ended with {}", ended.code);
    let threads = flags.contains("--threads");
    for case in ["device-like", "decrementer", "requeue", "reset", "lies", "scribble", "two-threads"] {
        let passed = if case == "two-threads" && !threads { "ok, skipped" } else { "ok\n" };
        let line = format!("phases: {case}: {passed}");
        ensure!(ended.text.contains(&line), "{line:?} is not in:\n{}", ended.text);
    }
    ensure!(
        ended.text.contains("phases: done\n") && !ended.text.contains("FAIL"),
        "a case failed:\n{}",
        ended.text
    );
    Ok(())
}
