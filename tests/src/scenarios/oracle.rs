//! The kernel as the oracle of the poll arithmetic: POWER8's halt polling, replayed by vcore.
//!
//! The host records every idle period of a guest on the kernel plane from the guest's beginning on, and is stopped as
//! a whole before the kernel's totals are read, so events and totals are about the same periods.

use anyhow::{Context, Result, ensure};
use sim::oracle::{COMPARED, Polls, Recording, replay};
use xtask::lab::Host;

use super::{Body, Scenario};
use crate::host::LabHost;

pub(super) fn table() -> Vec<Scenario> {
    vec![Scenario::at(Host::Powernv8, "kernel_polls_as_vcore_does", Body::Steps(kernel_polls_as_vcore_does))]
}

/// What the host polls by, in nanoseconds. The payload's phases lie around the maximum, so that polls succeed, fail, grow and
/// shrink. Most intervals are long enough for what the trace itself takes, some ten microseconds per period in the emulated
/// host, to be nothing beside them.
const TUNABLES: [(&str, u32); 4] = [
    ("halt_poll_ns", 24_000_000),
    ("halt_poll_ns_grow", 2),
    ("halt_poll_ns_grow_start", 6_000_000),
    ("halt_poll_ns_shrink", 2),
];

/// Totals may differ by one part in so many: the trace shows microseconds.
const PARTS: u64 = 100;

/// Fewer say nothing.
const ENOUGH: u64 = 100;

const PREPARE: &str = "\
mkdir /sys/kernel/tracing/instances/oracle &&
cd /sys/kernel/tracing/instances/oracle &&
echo mono >trace_clock &&
echo 8192 >buffer_size_kb &&
echo 1 >events/kvm_hv/kvmppc_vcore_wakeup/enable &&
echo 1 >events/kvm_hv/kvmppc_vcore_blocked/enable &&
cd /lab";

/// SIGSTOP takes the vCPU out of KVM; its last idle period is then over and counted.
const RECORD: &str = "\
kill -STOP $pid
while ! grep -q '^State:.T' /proc/$pid/status; do usleep 10000; done
sleep 1
cat /sys/kernel/tracing/instances/oracle/per_cpu/cpu*/stats | grep '^overrun' | sed 's/^/# /'
for tunable in halt_poll_ns halt_poll_ns_grow halt_poll_ns_grow_start halt_poll_ns_shrink; do
    echo \"$tunable=$(cat /sys/module/kvm/parameters/$tunable)\"
done
cd /sys/kernel/debug/kvm/$pid-*
for total in halt_*; do case $total in *hist) ;; *) echo \"$total $(cat $total)\" ;; esac; done
cat /sys/kernel/tracing/instances/oracle/trace
cd /lab";

const REMOVE: &str = "\
rmdir /sys/kernel/tracing/instances/oracle
kill -KILL $pid";

fn kernel_polls_as_vcore_does(host: &mut LabHost) -> Result<()> {
    host.ok(PREPARE)?;
    let before = set(host, &TUNABLES.map(|(name, value)| (name, value.to_string())))?;
    host.start("--kernel /lab/loads --memory 64M --cpus 1")?;
    host.expect("loads: done\n")?;
    let text = host.ok(RECORD)?;
    host.ok(REMOVE)?;
    host.wait()?;
    set(host, &before)?;
    ensure!(
        text.lines().filter(|line| line.starts_with("# overrun: ")).all(|line| line == "# overrun: 0"),
        "events were lost"
    );
    compare(&Recording::parse(&text)?)
}

/// Sets KVM's parameters, and gives what they were.
fn set(host: &mut LabHost, values: &[(&'static str, String)]) -> Result<Vec<(&'static str, String)>> {
    let mut before = Vec::new();
    for (name, value) in values {
        let path = format!("/sys/module/kvm/parameters/{name}");
        before.push((*name, host.ok(&format!("cat {path}"))?.trim().to_owned()));
        host.ok(&format!("echo {value} >{path}"))?;
    }
    Ok(before)
}

fn compare(recording: &Recording) -> Result<()> {
    let replayed = replay(recording, Polls::Timed);
    ensure!(
        replayed.disagreed == 0,
        "vcore would not have polled {} times where KVM did",
        replayed.disagreed
    );
    for name in COMPARED {
        let kernel = *recording.totals.get(name).with_context(|| format!("KVM has no total {name}"))?;
        let ours = replayed.totals[name];
        ensure!(kernel >= ENOUGH, "{name}: {kernel} is too little to compare");
        ensure!(ours.abs_diff(kernel) <= kernel / PARTS, "{name}: {kernel} by KVM, {ours} by vcore");
    }
    Ok(())
}
