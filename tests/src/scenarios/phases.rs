//! The payload `phases` on the assist plane: events at every phase of a nap, with polls so long that one which waits for
//! the end of a poll is told from one that a slow machine takes long over.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::vmm_plane::figure;
use super::{Body, Scenario};
use crate::host::LabHost;

/// Polls of three seconds, from the second cede on; the decrementer is more than four away.
const POLLING: &str = "--vcore 'halt_poll_ns=3000000000 halt_poll_ns_grow_start=3000000000'";

/// No event may take half of a poll.
const CMDLINE: &str = "late=1500000 steps=200 passes=2";

/// Events of the case `ipi`, one to a nap.
const ROUNDS: u64 = 200 * 2;

pub(super) fn table() -> Vec<Scenario> {
    let mut table = Vec::new();
    for host in [Host::Powernv9, Host::Powernv10] {
        table.extend([
            Scenario::at(host, "phases_two_cpus", Body::Steps(|host| phases(host, "--cpus 2"))),
            Scenario::at(host, "phases_threads", Body::Steps(|host| phases(host, "--cpus 4 --threads 2"))),
        ]);
    }
    table
}

/// All cases pass, and the events of the first one met polls.
fn phases(host: &mut LabHost, flags: &str) -> Result<()> {
    host.start(&format!(
        "--plane assist {POLLING} {flags} --name ada --kernel /lab/phases --cmdline '{CMDLINE}'"
    ))?;
    host.expect("phases: ipi: ok\n")?;
    // On a busy machine a poll ends when another task wants the CPU, so by far not every nap is polled.
    for name in ["halt_attempted_poll", "halt_successful_poll"] {
        let polls = figure(host, name)?;
        ensure!(polls >= ROUNDS / 20, "{name} is {polls} after {ROUNDS} naps");
    }
    let ended = host.wait()?;
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
