//! `bench net` in the host: two guests under each subject, one of which asks the other.
//!
//! ```text
//!  boot ──READY──▶ stopped ◀───────────────────────────┐
//!                    └─ the subject's turn ──▶ measured ┘
//! ```
//! Only the pair that is measured runs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bench_agent::net::{self as figures, BEGIN, END, IPERF3, READY};
use bench_agent::{Plan, Subject, Tunables};
use serde_json::Value;

use crate::console::Console;
use crate::each;
use crate::hist::Hists;
use crate::process::Monitor;
use crate::rounds::{self, Values};
use crate::sockperf::{self, RoundTrips};

/// Far more than a phase of the guests takes where nothing hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// Does what the plan says.
pub fn run(plan: &Plan) -> Result<()> {
    let mut pairs: BTreeMap<&[Vec<String>], Pair> = BTreeMap::new();
    rounds::guests(plan, |subject| {
        // Not by `entry`: a pair that does not boot is none.
        if !pairs.contains_key(&subject.guests[..]) {
            pairs.insert(&subject.guests, Pair::boot(subject)?);
        }
        let pair = pairs.get_mut(&subject.guests[..]).context("the pair has just booted")?;
        pair.turn(subject.tunables.as_ref())
    })
}

/// Two guests under one monitor; the server's console is read lest it wait for somebody who does.
struct Pair {
    client: Monitor,
    server: Monitor,
    console: Console,
    _server: Console,
}

/// CPU time in nanoseconds.
struct CpuTime {
    /// Of both monitors, their guests included.
    monitors: u64,
    /// Of all that the host did.
    host: u64,
}

impl Pair {
    fn boot(subject: &Subject) -> Result<Self> {
        let [client, server] = &subject.guests[..] else {
            bail!("{} guests instead of two", subject.guests.len())
        };
        let mut server = Monitor::start(server, &subject.environment)?;
        let mut client = Monitor::start_to_be_told(client, &subject.environment)?;
        let (_server, mut console) = (Console::new(server.console()?), Console::new(client.console()?));
        console.until(READY, LIMIT)?;
        let pair = Self { client, server, console, _server };
        pair.each(Monitor::pause)?;
        Ok(pair)
    }

    fn turn(&mut self, tunables: Option<&Tunables>) -> Result<Values> {
        self.each(Monitor::resume)?;
        if let Some(tunables) = tunables {
            set(tunables)?;
        }
        let mut values = self.round_trips(tunables)?;
        values.extend(self.counted()?);
        values.extend(self.stream()?);
        self.each(Monitor::pause)?;
        Ok(values)
    }

    fn round_trips(&mut self, tunables: Option<&Tunables>) -> Result<Values> {
        let polls = || tunables.map(|tunables| polls(&tunables.vms)).transpose();
        self.client.tell("")?;
        self.console.until(BEGIN, LIMIT)?;
        let (before, polls_before) = (self.cpu_time()?, polls()?);
        self.console.until(END, LIMIT)?;
        let (after, polls_after) = (self.cpu_time()?, polls()?);
        let trips = self.sockperf()?;
        let mut values = vec![
            (figures::RTT_MEDIAN, trips.median_ns),
            (figures::RTT_P99, trips.p99_ns),
            (figures::RTT_CPU, (after.monitors - before.monitors) as f64 / trips.count),
            (figures::RTT_HOST, (after.host - before.host) as f64 / trips.count),
        ];
        if let Some((before, after)) = polls_before.zip(polls_after) {
            let figures = [figures::RTT_POLLS, figures::RTT_SUCCESSES];
            for (figure, (before, after)) in figures.into_iter().zip(before.into_iter().zip(after)) {
                values.push((figure, (after - before) as f64 / trips.count));
            }
        }
        Ok(values)
    }

    /// Apart, since counting costs time.
    fn counted(&mut self) -> Result<Values> {
        let hists = [Hists::start(self.client.pid())?, Hists::start(self.server.pid())?];
        self.client.tell("")?;
        self.console.until(END, LIMIT)?;
        let [client, server] = hists.map(Hists::stop);
        let trips = self.sockperf()?;
        Ok(each::of(&client?.and(server?), trips.count, |what| format!("per round trip, {what}")))
    }

    fn stream(&mut self) -> Result<Values> {
        let before = self.cpu_time()?;
        self.client.tell("")?;
        let lines = self.console.until(READY, LIMIT)?;
        let cpu = self.cpu_time()?.monitors - before.monitors;
        let stream = sockperf::stream(lines.iter().filter_map(|line| line.strip_prefix(IPERF3)));
        let stream = stream.with_context(|| format!("the guest printed:\n{}", lines.join("\n")))?;
        Ok(vec![
            (figures::STREAM_RATE, stream.mbit_per_second),
            (figures::STREAM_CPU, cpu as f64 / stream.mib),
        ])
    }

    fn sockperf(&mut self) -> Result<RoundTrips> {
        let lines = self.console.until(READY, LIMIT)?;
        sockperf::round_trips(&lines).with_context(|| format!("the guest printed:\n{}", lines.join("\n")))
    }

    fn cpu_time(&self) -> Result<CpuTime> {
        let monitors = self.client.cpu_time()? + self.server.cpu_time()?;
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let host = busy(&stat).context("/proc/stat is not as proc(5) says")?;
        Ok(CpuTime { monitors, host })
    }

    fn each(&self, act: impl Fn(&Monitor) -> Result<()>) -> Result<()> {
        [&self.client, &self.server].into_iter().try_for_each(act)
    }
}

/// The time of all CPUs that were not idle, of /proc/stat's first line.
fn busy(stat: &str) -> Option<u64> {
    /// `USER_HZ`.
    const TICK_NS: u64 = 10_000_000;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    // user, nice, system, idle, iowait, irq, softirq; user has the guests' time in it.
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else { return None };
    Some((user + nice + system + irq + softirq) * TICK_NS)
}

fn set(tunables: &Tunables) -> Result<()> {
    tunables.vms.iter().try_for_each(|vm| cede(&["set", vm, &tunables.values]).map(drop))
}

/// Polls that VMs began, and those of them that succeeded.
fn polls(vms: &[String]) -> Result<[u64; 2]> {
    let mut sums = [0; 2];
    for vm in vms {
        let said = cede(&["stat", vm, "--json"])?;
        let stat: Value = serde_json::from_slice(&said).context("cede stat prints no JSON")?;
        for vcpu in stat["vcpus"].as_array().context("cede stat has no vCPUs")? {
            for (sum, name) in sums.iter_mut().zip(["halt_attempted_poll", "halt_successful_poll"]) {
                *sum += vcpu["stats"][name].as_u64().with_context(|| format!("cede stat has no {name}"))?;
            }
        }
    }
    Ok(sums)
}

/// What it prints.
fn cede(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("cede").args(arguments).output().context("cannot run cede")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cede {} failed: {said}", arguments.join(" "));
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_not_idle() {
        let stat = "cpu  10 2 30 400 5 6 7 0 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0\n";
        assert_eq!(busy(stat), Some(55 * 10_000_000));
        assert_eq!(busy("cpu  10 2\n"), None);
    }
}
