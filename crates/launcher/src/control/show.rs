//! What the commands print.

use super::protocol::{Ballooned, Info, Named, Stat, Vcpu};
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

/// The figures since the VM started.
#[must_use]
pub fn totals(stat: &Stat) -> String {
    table(stat, |vcpu, name| vcpu.stats.get(name).copied())
}

/// The figures per second between two times of the same VM. `None` if they are not: it was started anew, or
/// no time has gone by.
#[must_use]
pub fn rates(before: &Stat, after: &Stat) -> Option<String> {
    let elapsed = after.uptime_ns.checked_sub(before.uptime_ns).filter(|&ns| ns > 0)?;
    if before.info.pid != after.info.pid {
        return None;
    }
    Some(table(after, |vcpu, name| {
        let old = before.vcpus.iter().find(|old| old.vcpu == vcpu.vcpu)?;
        let grown = vcpu.stats.get(name)?.saturating_sub(*old.stats.get(name)?);
        let rate = (u128::from(grown) * 1_000_000_000 + u128::from(elapsed / 2)) / u128::from(elapsed);
        u64::try_from(rate).ok()
    }))
}

/// A heading, a row for each vCPU, and their sum. A figure that there is none of is a dash.
fn table(stat: &Stat, value: impl Fn(&Vcpu, &str) -> Option<u64>) -> String {
    let dash = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
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
            let value = value(vcpu, name);
            *sum = value.map_or(*sum, |value| Some(sum.unwrap_or(0).saturating_add(value)));
            row.push(dash(value));
        }
        rows.push(row);
    }
    let mut all = ["all", "", "", ""].map(String::from).to_vec();
    all.extend(sums.map(dash));
    rows.push(all);

    let state = if stat.info.paused { "paused" } else { "running" };
    let mut text = format!(
        "{}: plane {}, {state}, {}\n",
        stat.info.name,
        stat.info.plane,
        tunables(stat.tunables.as_ref())
    );
    // The first three are words, the others figures.
    text.push_str(&aligned(&rows, 3));
    text
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
