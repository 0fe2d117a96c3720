//! Who is woken when.
//!
//! A workload gives every thread of every vcore a [`Source`]: when it is woken next, and how long
//! it then runs before it cedes again. Random ones draw from a generator with a fixed seed, so a
//! run repeats exactly.

use vcore::{Cause, Thread};

/// A pseudo-random generator (splitmix64): enough for loads, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that starts from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A draw below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A draw from the exponential distribution with that mean.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // 53 bits, never 0, so the logarithm is finite.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        (-uniform.ln() * mean as f64).round() as u64
    }
}

/// What wakes a thread. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its own decrementer, every `period`.
    Periodic {
        /// From one tick to the next.
        period: u64,
    },
    /// External interrupts that come independently of each other.
    Poisson {
        /// The mean time between two.
        mean: u64,
    },
    /// `count` external interrupts at distances of `gap`, then none for `pause`.
    Burst {
        /// Interrupts in a burst.
        count: u32,
        /// Between two of a burst.
        gap: u64,
        /// Between two bursts.
        pause: u64,
    },
    /// The vcore beside it (0 and 1, 2 and 3 …): each answers the other, `delay` after its work.
    Pair {
        /// The way from one to the other.
        delay: u64,
    },
    /// Nothing but what is replayed.
    Replayed,
}

/// What a thread does: it is woken by a source, and works for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// What wakes it.
    pub source: Source,
    /// How long it runs per wake-up, in nanoseconds.
    pub work: u64,
}

/// A load for a whole machine.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What the command line calls it.
    pub name: &'static str,
    /// One line for the reader.
    pub about: &'static str,
    /// The loads of a vcore's threads, so also how many there are.
    pub threads: Vec<Load>,
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

impl Workload {
    /// The five kinds, with figures of everyday guests.
    pub fn all() -> Vec<Self> {
        let load = |source, work| Load { source, work };
        let one = |name, about, source, work| Self { name, about, threads: vec![load(source, work)] };
        let quiet = load(Source::Periodic { period: 4 * MS }, 5 * US);
        let network = load(Source::Poisson { mean: 60 * US }, 10 * US);
        let disk = load(Source::Burst { count: 8, gap: 20 * US, pause: 2 * MS }, 10 * US);
        vec![
            one("periodic", "a timer tick every 1 ms", Source::Periodic { period: MS }, 5 * US),
            one(
                "poisson",
                "interrupts at random, 100 us apart in the mean",
                Source::Poisson { mean: 100 * US },
                10 * US,
            ),
            one(
                "pairs",
                "requests and responses between two vcores",
                Source::Pair { delay: 15 * US },
                10 * US,
            ),
            one(
                "bursts",
                "32 interrupts 25 us apart, then 5 ms of silence",
                Source::Burst { count: 32, gap: 25 * US, pause: 5 * MS },
                8 * US,
            ),
            Self {
                name: "smt",
                about: "four threads: two quiet, one for the network, one for the disk",
                threads: vec![quiet, network, disk, quiet],
            },
        ]
    }

    /// The kind with that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|workload| workload.name == name)
    }

    /// One thread per vcore with Poisson wakes and next to no work, as closed forms assume.
    pub fn poisson(mean: u64) -> Self {
        let load = Load { source: Source::Poisson { mean }, work: 1 };
        Self { name: "poisson", about: "for closed forms", threads: vec![load] }
    }
}

/// A wake that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When, in nanoseconds from the start of the recording.
    pub time: u64,
    /// Which vcore.
    pub vcore: u32,
    /// Which of its threads.
    pub thread: Thread,
    /// Why.
    pub cause: Cause,
}

/// A recording could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} of the recording: {what}; a line is `TIME_NS VCORE THREAD external|decrementer|doorbell|prod`"
)]
pub struct ParseRecordingError {
    line: usize,
    what: String,
}

/// Reads a recording: one wake per line, in the order of time; empty lines and `#` are skipped.
pub fn parse_recording(text: &str) -> Result<Vec<Recorded>, ParseRecordingError> {
    let mut all: Vec<Recorded> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_text = line.split('#').next().unwrap_or_default();
        let fields: Vec<&str> = line_text.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        let recorded = parse_line(&fields).map_err(|what| ParseRecordingError { line: index + 1, what })?;
        if all.last().is_some_and(|last| last.time > recorded.time) {
            let what = format!("time {} lies before the line above", recorded.time);
            return Err(ParseRecordingError { line: index + 1, what });
        }
        all.push(recorded);
    }
    Ok(all)
}

fn parse_line(fields: &[&str]) -> Result<Recorded, String> {
    let [time, vcore, thread, cause] = fields else {
        return Err(format!("{} fields instead of 4", fields.len()));
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
    let vcore = u32::try_from(number(vcore)?).map_err(|_| format!("vcore {vcore} is out of range"))?;
    let thread =
        Thread::new(number(thread)? as usize).ok_or_else(|| format!("thread {thread} is not 0 to 7"))?;
    let cause = match *cause {
        "external" => Cause::External,
        "decrementer" => Cause::Decrementer,
        "doorbell" => Cause::Doorbell,
        "prod" => Cause::Prod,
        other => return Err(format!("unknown cause {other:?}")),
    };
    Ok(Recorded { time: number(time)?, vcore, thread, cause })
}

/// The text form of a recording.
pub fn print_recording(all: &[Recorded]) -> String {
    let line = |one: &Recorded| {
        let cause = format!("{:?}", one.cause).to_lowercase();
        format!("{} {} {} {cause}\n", one.time, one.vcore, one.thread.number())
    };
    all.iter().map(line).collect()
}
