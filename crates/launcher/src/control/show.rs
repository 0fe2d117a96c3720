//! What the commands print.

use super::protocol::{Ballooned, Info, Named, Stat};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The counters of the table: a heading that fits, and KVM's name.
const COLUMNS: [(&str, &str); 8] = [
    ("attempted", "halt_attempted_poll"),
    ("successful", "halt_successful_poll"),
    ("invalid", "halt_poll_invalid"),
    ("waits", "halt_successful_wait"),
    ("wakeups", "halt_wakeup"),
    ("success ns", "halt_poll_success_ns"),
    ("fail ns", "halt_poll_fail_ns"),
    ("wait ns", "halt_wait_ns"),
];

/// Tunables as they are written, `halt_poll_ns=10000 …`.
#[must_use]
pub fn tunables(tunables: Option<&Named>) -> String {
    let Some(tunables) = tunables else { return "no tunables".into() };
    let text: Vec<String> = tunables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    text.join(" ")
}

/// What the guest is asked to give back, and what it has given, in whole MiB.
#[must_use]
pub fn balloon(Ballooned { target, actual }: &Ballooned) -> String {
    format!("asked for {}M, given {}M", target >> 20, actual >> 20)
}

/// Whose counter it is.
#[derive(Clone, Copy)]
enum Of {
    /// The vCPU of this number.
    Vcpu(u32),
    /// The device in this place.
    Device(usize),
}

fn counter(stat: &Stat, of: Of, name: &str) -> Option<u64> {
    let counters = match of {
        Of::Vcpu(number) => &stat.vcpus.iter().find(|vcpu| vcpu.vcpu == number)?.stats,
        Of::Device(place) => &stat.devices.get(place)?.counters,
    };
    counters.get(name).copied()
}

/// The figures since the VM started.
#[must_use]
pub fn totals(stat: &Stat) -> String {
    text(stat, stat.unclaimed_accesses, |of, name| counter(stat, of, name))
}

/// The figures per second between two times of the same VM. `None` if they are not: it was started anew, or
/// no time has gone by.
#[must_use]
pub fn rates(before: &Stat, after: &Stat) -> Option<String> {
    let elapsed = after.uptime_ns.checked_sub(before.uptime_ns).filter(|&ns| ns > 0)?;
    if before.info.pid != after.info.pid {
        return None;
    }
    let rate = |old: u64, new: u64| {
        let grown = new.saturating_sub(old);
        let rate = (u128::from(grown) * 1_000_000_000 + u128::from(elapsed / 2)) / u128::from(elapsed);
        u64::try_from(rate).ok()
    };
    let unclaimed = rate(before.unclaimed_accesses, after.unclaimed_accesses).unwrap_or(u64::MAX);
    Some(text(after, unclaimed, |of, name| rate(counter(before, of, name)?, counter(after, of, name)?)))
}

/// What runs, its vCPUs, its devices; and the accesses that found nothing, if there were any.
fn text(stat: &Stat, unclaimed: u64, value: impl Fn(Of, &str) -> Option<u64>) -> String {
    let state = if stat.info.paused { "paused" } else { "running" };
    let tunables = tunables(stat.tunables.as_ref());
    let mut text = format!("{}: plane {}, {state}, {tunables}\n", stat.info.name, stat.info.plane);
    text += &vcpus(stat, &value);
    if !stat.devices.is_empty() {
        text += "\n\n";
        text += &devices(stat, &value);
    }
    if unclaimed > 0 {
        // Writing to a String cannot fail.
        _ = write!(text, "\n\nunclaimed accesses  {unclaimed}");
    }
    text
}

fn dash(value: Option<u64>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// A heading, a row for each vCPU, and their sum. A figure that there is none of is a dash.
fn vcpus(stat: &Stat, value: impl Fn(Of, &str) -> Option<u64>) -> String {
    let mut rows = vec![["vcpu", "core", "state", "interval"].map(String::from).to_vec()];
    rows[0].extend(COLUMNS.map(|(heading, _)| heading.to_owned()));
    let mut sums: [Option<u64>; COLUMNS.len()] = [None; COLUMNS.len()];
    for vcpu in &stat.vcpus {
        let mut row = vec![
            vcpu.vcpu.to_string(),
            format!("{}.{}", vcpu.vcore, vcpu.thread),
            vcpu.state.clone(),
            dash(vcpu.halt_poll_ns.map(u64::from)),
        ];
        for (sum, (_, name)) in sums.iter_mut().zip(COLUMNS) {
            let value = value(Of::Vcpu(vcpu.vcpu), name);
            *sum = value.map_or(*sum, |value| Some(sum.unwrap_or(0).saturating_add(value)));
            row.push(dash(value));
        }
        rows.push(row);
    }
    let mut all = ["all", "", "", ""].map(String::from).to_vec();
    all.extend(sums.map(dash));
    rows.push(all);

    // The first three are words, the others figures.
    aligned(&rows, 3)
}

/// A heading with the name of every counter that one of them has, and a row for each device.
fn devices(stat: &Stat, value: impl Fn(Of, &str) -> Option<u64>) -> String {
    let names: BTreeSet<&str> =
        stat.devices.iter().flat_map(|device| device.counters.keys()).map(String::as_str).collect();
    let mut rows = vec![vec!["device".to_owned()]];
    rows[0].extend(names.iter().map(ToString::to_string));
    for (place, device) in stat.devices.iter().enumerate() {
        let mut row = vec![device.device.clone()];
        row.extend(names.iter().map(|name| dash(value(Of::Device(place), name))));
        rows.push(row);
    }
    aligned(&rows, 1)
}

/// The VMs that run, a line each under a heading.
#[must_use]
pub fn list(infos: &[Info]) -> String {
    let mut rows = vec![["name", "pid", "plane", "vcpus", "state"].map(String::from).to_vec()];
    rows.extend(infos.iter().map(|info| {
        let state = if info.paused { "paused" } else { "running" };
        let (pid, vcpus) = (info.pid.to_string(), info.vcpu_count.to_string());
        vec![info.name.clone(), pid, info.plane.clone(), vcpus, state.to_owned()]
    }));
    aligned(&rows, 5)
}

/// Rows with their columns two spaces apart; the first `left` columns begin at the left, the others end at the
/// right. The last line is not ended.
fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut lines = Vec::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            _ = if column < left {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}
