//! The simulator's command line: it parses, runs and prints.

#![forbid(unsafe_code)]

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use sim::engine::{Costs, Engine, Plan};
use sim::measure::Measured;
use sim::oracle::{COMPARED, Polls, Recording, replay};
use sim::plot::{Point, Series, svg};
use sim::workload::{Load, Source, Workload, parse_recording, print_recording};
use std::path::PathBuf;
use vcore::Tunables;

#[derive(Parser)]
#[command(name = "cede-sim", about = "What a polling policy costs and gains, in virtual time")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every policy under every workload: wake-up latency and burned CPU time.
    Compare(World),
    /// The same as a picture, mean burned CPU against median latency.
    Plot {
        #[command(flatten)]
        world: World,
        /// The SVG file to write.
        #[arg(long, default_value = "docs/vcore-latency.svg")]
        out: PathBuf,
    },
    /// Polls for a fixed time under Poisson wakes, beside what theory says.
    ClosedForm,
    /// How fast the simulator is: many vcores, one core.
    Speed {
        /// How many vcores.
        #[arg(long, default_value_t = 100_000)]
        vcores: u32,
        /// Virtual milliseconds.
        #[arg(long, default_value_t = 10)]
        ms: u64,
    },
    /// Writes the wakes of a workload to a file that `replay` reads.
    Record {
        #[command(flatten)]
        world: World,
        /// The recording to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Every policy under recorded wakes.
    Replay {
        #[command(flatten)]
        world: World,
        /// Lines of `TIME_NS VCORE THREAD external|decrementer|doorbell|prod`.
        file: PathBuf,
        /// How long a thread runs per wake-up, in nanoseconds.
        #[arg(long, default_value_t = 10_000)]
        work: u64,
        /// Threads per vcore.
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// The kernel's own idle periods by vcore's arithmetic, beside the kernel's own totals.
    Oracle {
        /// What a POWER8 host recorded; the module `oracle` has the form.
        file: PathBuf,
    },
}

#[derive(Args, Clone)]
struct World {
    /// How many vcores.
    #[arg(long, default_value_t = 64)]
    vcores: u32,
    /// Virtual milliseconds.
    #[arg(long, default_value_t = 2_000)]
    ms: u64,
    /// One workload instead of all: periodic, poisson, pairs, bursts, smt.
    #[arg(long)]
    workload: Option<String>,
    /// One policy instead of the usual ones, as `"halt_poll_ns=50000 halt_poll_ns_grow=2"`.
    #[arg(long)]
    tunables: Option<String>,
    /// Nanoseconds from a wake to a polling thread being up.
    #[arg(long, default_value_t = Costs::MEASURED.wake_polling)]
    wake_polling: u64,
    /// Nanoseconds from a wake to a sleeping thread being up.
    #[arg(long, default_value_t = Costs::MEASURED.wake_asleep)]
    wake_asleep: u64,
    /// Nanoseconds of CPU time per sleep.
    #[arg(long, default_value_t = Costs::MEASURED.sleep_cpu)]
    sleep_cpu: u64,
    /// Of the random draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl World {
    fn workloads(&self) -> anyhow::Result<Vec<Workload>> {
        let Some(name) = &self.workload else { return Ok(Workload::all()) };
        let names: Vec<&str> = Workload::all().iter().map(|workload| workload.name).collect();
        let found = Workload::named(name);
        Ok(vec![found.with_context(|| format!("no workload {name:?}: there are {}", names.join(", ")))?])
    }

    fn policies(&self) -> anyhow::Result<Vec<(String, Tunables)>> {
        if let Some(text) = &self.tunables {
            let tunables = Tunables::X86.with(text).context("--tunables")?;
            return Ok(vec![("given".to_owned(), tunables)]);
        }
        let up_to =
            |us: u32| (format!("up to {us} us"), Tunables { halt_poll_ns: us * 1_000, ..Tunables::X86 });
        Ok(vec![
            ("never".to_owned(), Tunables::NO_POLL),
            up_to(10),
            up_to(50),
            up_to(100),
            up_to(200),
            up_to(1_000),
            ("always".to_owned(), fixed(u32::MAX)),
        ])
    }

    fn plan(&self, workload: &Workload, tunables: Tunables) -> Plan {
        let always = if tunables.halt_poll_ns_grow == 0 { tunables.halt_poll_ns } else { 0 };
        Plan {
            workload: workload.clone(),
            vcores: self.vcores,
            duration: self.ms * 1_000_000,
            tunables,
            halt_poll_ns: always,
            costs: Costs {
                wake_polling: self.wake_polling,
                wake_asleep: self.wake_asleep,
                sleep_cpu: self.sleep_cpu,
            },
            seed: self.seed,
        }
    }
}

/// An interval that neither grows nor shrinks.
fn fixed(halt_poll_ns: u32) -> Tunables {
    Tunables { halt_poll_ns, halt_poll_ns_grow: 0, halt_poll_ns_grow_start: 0, halt_poll_ns_shrink: 1 }
}

fn header() {
    println!(
        "{:10} {:14} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9}",
        "workload", "polls", "p50 us", "p90 us", "p99 us", "p99.9 us", "wakes", "success", "burned"
    );
}

fn row(workload: &str, policy: &str, measured: &Measured) {
    let us = |share| measured.latencies.quantile(share) as f64 / 1_000.0;
    println!(
        "{workload:10} {policy:14} {:9.2} {:9.2} {:9.2} {:9.2} {:10} {:7.1} % {:7.1} %",
        us(0.5),
        us(0.9),
        us(0.99),
        us(0.999),
        measured.latencies.count(),
        measured.success_share() * 100.0,
        measured.burned_share() * 100.0
    );
}

fn compare(world: &World) -> anyhow::Result<()> {
    header();
    for workload in world.workloads()? {
        for (policy, tunables) in world.policies()? {
            row(workload.name, &policy, Engine::new(world.plan(&workload, tunables)).run());
        }
    }
    Ok(())
}

fn plot(world: &World, out: &PathBuf) -> anyhow::Result<()> {
    let mut series = Vec::new();
    for workload in world.workloads()? {
        let mut points = Vec::new();
        for (label, tunables) in world.policies()? {
            let mut engine = Engine::new(world.plan(&workload, tunables));
            let measured = engine.run();
            let latency_us = measured.latencies.quantile(0.5) as f64 / 1_000.0;
            points.push(Point { burned: measured.burned_share(), latency_us, label });
        }
        series.push(Series { name: format!("{}: {}", workload.name, workload.about), points });
    }
    let title = "Median wake-up latency against CPU time burned, as a share of idle time";
    std::fs::write(out, svg(title, &series)).with_context(|| format!("cannot write {}", out.display()))
}

fn closed_form() {
    println!(
        "{:>12} {:>12} {:>10} {:>10} {:>12} {:>12}",
        "mean gap us", "poll us", "success", "theory", "burned ns", "theory"
    );
    for (mean, poll) in [(100_000, 10_000), (100_000, 50_000), (100_000, 100_000), (100_000, 300_000)] {
        let plan = Plan {
            workload: Workload::poisson(mean),
            vcores: 100,
            duration: 1_000_000_000,
            tunables: fixed(poll),
            halt_poll_ns: poll,
            costs: Costs::FREE,
            seed: 7,
        };
        let mut engine = Engine::new(plan);
        let measured = engine.run();
        let (rate, length) = (1.0 / mean as f64, f64::from(poll));
        let success = 1.0 - (-rate * length).exp();
        println!(
            "{:12} {:12} {:10.5} {success:10.5} {:12.1} {:12.1}",
            mean / 1_000,
            poll / 1_000,
            measured.success_share(),
            measured.polled_ns as f64 / measured.attempted as f64,
            success / rate
        );
    }
}

/// CPU time of this process, which other tasks on the machine do not lengthen.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let ns = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
    ns.unwrap_or_default() as f64 / 1e9
}

fn speed(vcores: u32, ms: u64) {
    println!(
        "{:10} {:>12} {:>12} {:>9} {:>12} {:>12}",
        "workload", "events", "steps", "CPU s", "events/s", "steps/s"
    );
    for workload in Workload::all() {
        let plan = Plan {
            workload: workload.clone(),
            vcores,
            duration: ms * 1_000_000,
            tunables: Tunables::X86,
            halt_poll_ns: 0,
            costs: Costs::MEASURED,
            seed: 1,
        };
        let mut engine = Engine::new(plan);
        let begun = cpu_seconds();
        let measured = engine.run();
        let s = cpu_seconds() - begun;
        println!(
            "{:10} {:12} {:12} {s:9.2} {:12.0} {:12.0}",
            workload.name,
            measured.events,
            measured.steps,
            measured.events as f64 / s,
            measured.steps as f64 / s
        );
    }
}

fn record(world: &World, out: &PathBuf) -> anyhow::Result<()> {
    let [workload] = &world.workloads()?[..] else { bail!("name one workload to record with --workload") };
    let tunables = world.policies()?[0].1;
    let mut engine = Engine::new(world.plan(workload, tunables)).recording_wakes();
    engine.run();
    std::fs::write(out, print_recording(engine.recording()))
        .with_context(|| format!("cannot write {}", out.display()))
}

fn replay_wakes(world: &World, file: &PathBuf, load: Load, threads: usize) -> anyhow::Result<()> {
    if !(1..=8).contains(&threads) {
        bail!("a vcore has 1 to 8 threads, not {threads}");
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let recording = parse_recording(&text).with_context(|| format!("{}", file.display()))?;
    let workload = Workload { name: "replay", about: "recorded wakes", threads: vec![load; threads] };
    header();
    for (policy, tunables) in world.policies()? {
        let engine = Engine::new(world.plan(&workload, tunables));
        row(workload.name, &policy, engine.with_replay(recording.clone()).run());
    }
    Ok(())
}

fn oracle(file: &PathBuf) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let recording = Recording::parse(&text).with_context(|| format!("{}", file.display()))?;
    let (full, timed) = (replay(&recording, Polls::Full), replay(&recording, Polls::Timed));
    println!("{} idle periods; the two disagree about {}", recording.periods(), timed.disagreed);
    println!("{:22} {:>14} {:>14} {:>10} {:>14} {:>10}", "", "kernel", "timed polls", "", "full polls", "");
    for name in COMPARED {
        let kernel = recording.totals.get(name).copied().with_context(|| format!("no total of {name}"))?;
        let off = |value: u64| (value as f64 / kernel.max(1) as f64 - 1.0) * 100.0;
        let (full, timed) = (full.totals[name], timed.totals[name]);
        println!("{name:22} {kernel:14} {timed:14} {:+8.3} % {full:14} {:+8.3} %", off(timed), off(full));
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Compare(world) => compare(&world),
        Command::Plot { world, out } => plot(&world, &out),
        Command::ClosedForm => {
            closed_form();
            Ok(())
        }
        Command::Speed { vcores, ms } => {
            speed(vcores, ms);
            Ok(())
        }
        Command::Record { world, out } => record(&world, &out),
        Command::Replay { world, file, work, threads } => {
            replay_wakes(&world, &file, Load { source: Source::Replayed, work }, threads)
        }
        Command::Oracle { file } => oracle(&file),
    }
}
