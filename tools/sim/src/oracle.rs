//! The kernel as the oracle of the poll arithmetic: idle periods that KVM had on POWER8, by this project's rules.
//!
//! KVM tells by trace events what its vcores went through, and by its statistics what it made of it. [`replay`] gives
//! the same idle periods to a [`Machine`], which decides by itself whether it polls and for how long, and counts as
//! `cede` counts; its totals can then be held against the kernel's.
//!
//! What the events of `arch/powerpc/kvm/book3s_hv.c` (`kvmppc_vcore_blocked`, Linux 6.12) say:
//!
//! | event | when | what it has |
//! |---|---|---|
//! | `kvmppc_vcore_wakeup` | at the end of every idle period, after the interval was adjusted | `poll` or `wait`; `ns`: from the start of the poll to the wake-up, also where there was no poll |
//! | `kvmppc_vcore_blocked`, `Enter` | immediately after the clock was read for the end of the poll, before the sleep | its time |
//!
//! So a successful poll's length is there to the nanosecond. Whether a poll was attempted is not in any event: it
//! follows from the interval, hence from all periods before, and is what the replay shows. The length of a poll that
//! failed is not in `kvmppc_vcore_wakeup` either. It is the interval where the kernel polls to its end ([`Polls::Full`]),
//! and the kernel does not quite: it goes on past the end by a look at the vCPUs and the way to the clock, or for
//! as long as its CPU is taken away, and stops early when another task wants the CPU. The time between the two events
//! ([`Polls::Timed`]) has all of that, rounded to the microseconds that the trace shows.

use std::collections::BTreeMap;

use vcore::tunables::ParseTunablesError;
use vcore::{Cause, Event, Machine, Outcome, Snapshot, Stats, Thread, Tunables};

/// One idle period of a vcore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Its length in nanoseconds.
    pub block_ns: u64,
    /// How much of it the vcore slept, by the trace's clock; nothing if it did not sleep.
    pub slept_ns: Option<u64>,
}

/// What a host recorded while one VM ran, from the VM's beginning on.
///
/// As text, in any order but for the events': a line `NAME=VALUE` for each tunable, `NAME VALUE` for each of the
/// kernel's totals, and the lines of the `trace` file with `trace_clock` set to `mono`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The host's tunables.
    pub tunables: Option<Tunables>,
    /// The kernel's totals for the VM, by name.
    pub totals: BTreeMap<String, u64>,
    /// The idle periods of each vcore, which is known by the thread that runs it.
    pub vcores: BTreeMap<u32, Vec<Idle>>,
}

/// A recording could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRecordingError {
    /// A line of none of the three forms, or with a number that is none.
    #[error("line {line}: {text:?} is no tunable, no total and no event")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is there.
        text: String,
    },
    /// A tunable that vcore does not have.
    #[error("line {line}: {source}")]
    Tunable {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: ParseTunablesError,
    },
    /// A sleep ended that never began: the beginning of the recording is missing.
    #[error("line {line}: thread {thread} wakes from a sleep that the recording does not have")]
    NoSleep {
        /// Counted from 1.
        line: usize,
        /// The vcore's thread.
        thread: u32,
    },
    /// No line says what the tunables were.
    #[error("the recording has no tunables")]
    NoTunables,
}

impl Recording {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, ParseRecordingError> {
        let mut recording = Self::default();
        let mut tunables = None;
        let mut asleep: BTreeMap<u32, u64> = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let wrong = || ParseRecordingError::Line { line, text: text.to_owned() };
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if let Some(event) = TraceEvent::parse(text) {
                let TraceEvent { thread, at, what } = event;
                match what {
                    What::SleepBegins => drop(asleep.insert(thread, at)),
                    What::SleepEnds => {}
                    What::Wakeup { block_ns, waited } => {
                        let slept = asleep.remove(&thread).filter(|_| waited);
                        if waited && slept.is_none() {
                            return Err(ParseRecordingError::NoSleep { line, thread });
                        }
                        let slept_ns = slept.map(|from| at.saturating_sub(from));
                        recording.vcores.entry(thread).or_default().push(Idle { block_ns, slept_ns });
                    }
                }
            } else if text.contains('=') && !text.contains(' ') {
                let so_far = tunables.unwrap_or(Tunables::POWERPC);
                let next = so_far.with(text);
                tunables = Some(next.map_err(|source| ParseRecordingError::Tunable { line, source })?);
            } else {
                let (name, value) = text.split_once(' ').ok_or_else(wrong)?;
                recording.totals.insert(name.to_owned(), value.trim().parse().map_err(|_| wrong())?);
            }
        }
        recording.tunables = Some(tunables.ok_or(ParseRecordingError::NoTunables)?);
        Ok(recording)
    }

    /// All idle periods.
    pub fn periods(&self) -> usize {
        self.vcores.values().map(Vec::len).sum()
    }
}

/// A line of the `trace` file: `COMM-TID [CPU] FLAGS SECONDS.MICROS: EVENT: …`.
struct TraceEvent {
    thread: u32,
    at: u64,
    what: What,
}

enum What {
    SleepBegins,
    SleepEnds,
    Wakeup { block_ns: u64, waited: bool },
}

impl TraceEvent {
    fn parse(line: &str) -> Option<Self> {
        let (task, rest) = line.split_once(" [")?;
        let thread = task.trim_end().rsplit_once('-')?.1.parse().ok()?;
        let (before, rest) = rest.split_once(": kvmppc_vcore_")?;
        let (seconds, micros) = before.rsplit_once(' ')?.1.split_once('.')?;
        let at = seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1_000;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let what = match words[..] {
            ["blocked:", "Enter", ..] => What::SleepBegins,
            ["blocked:", "Exit", ..] => What::SleepEnds,
            ["wakeup:", how @ ("poll" | "wait"), "time", ns, "ns,", ..] => {
                What::Wakeup { block_ns: ns.parse().ok()?, waited: how == "wait" }
            }
            _ => return None,
        };
        Some(Self { thread, at, what })
    }
}

/// How long a poll took that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polls {
    /// As long as the interval says.
    Full,
    /// As long as the trace's clock says.
    Timed,
}

/// What the replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Totals by the kernel's names, over all vcores.
    pub totals: BTreeMap<&'static str, u64>,
    /// Periods that polled with success in the kernel, and in which the machine's interval was 0: there the two
    /// disagree about the arithmetic itself. A cede that found something pending at once is none.
    pub disagreed: u64,
}

/// The totals that the events determine. The waker counts `halt_wakeup`, and no event tells of it.
pub const COMPARED: [&str; 6] = [
    "halt_attempted_poll",
    "halt_successful_poll",
    "halt_successful_wait",
    "halt_poll_success_ns",
    "halt_poll_fail_ns",
    "halt_wait_ns",
];

/// Gives the recorded idle periods to machines, one for each vcore, that begin as KVM's vcores do: without an interval.
pub fn replay(recording: &Recording, polls: Polls) -> Replayed {
    let tunables = recording.tunables.unwrap_or(Tunables::POWERPC);
    let mut replayed = Replayed::default();
    for periods in recording.vcores.values() {
        let mut vcore = Replay::new(tunables);
        for idle in periods {
            vcore.idle(*idle, polls);
        }
        replayed.disagreed += vcore.disagreed;
        for (name, value) in vcore.totals() {
            *replayed.totals.entry(name).or_default() += value;
        }
    }
    replayed
}

/// One vcore of one thread.
struct Replay {
    machine: Machine,
    stats: Stats,
    tunables: Tunables,
    now: u64,
    disagreed: u64,
}

impl Replay {
    fn new(tunables: Tunables) -> Self {
        Self { machine: Machine::new(1, 0), stats: Stats::new(), tunables, now: 0, disagreed: 0 }
    }

    fn totals(&self) -> Vec<(&'static str, u64)> {
        let snapshot: Snapshot = self.stats.snapshot();
        snapshot.named().into_iter().filter(|(name, _)| COMPARED.contains(name)).collect()
    }

    fn idle(&mut self, idle: Idle, polls: Polls) {
        let thread = Thread::new(0).expect("a vcore has a thread 0");
        let (start, end) = (self.now, self.now + idle.block_ns);
        let interval = u64::from(self.machine.halt_poll_ns());
        if idle.slept_ns.is_none() && interval == 0 {
            // Something was pending before the vcore slept: to the machine that is no idle period at all.
            self.disagreed += u64::from(idle.block_ns > 0);
            return;
        }
        if self.step(start, Event::Cede { thread, poll: true }) == Outcome::Poll {
            self.stats.poll_attempted();
            if let Some(slept) = idle.slept_ns {
                let poll_end = match polls {
                    Polls::Full => (start + interval).min(end),
                    Polls::Timed => end.saturating_sub(slept).max(start),
                };
                self.step(poll_end, Event::PollEnd(thread));
            }
        }
        self.step(end, Event::Post { threads: thread.mask(), cause: Cause::External });
        self.step(end, Event::Unnap(thread));
        // Periods need not follow each other closely, only in order.
        self.now = end + 1;
    }

    fn step(&mut self, now: u64, event: Event) -> Outcome {
        let (machine, actions) = self.machine.step(now, event, &self.tunables);
        self.machine = machine;
        if let Some(ns) = actions.poll_failed_ns {
            self.stats.poll_failed(ns);
        }
        if let Some(block) = actions.block {
            self.stats.block_ended(&block);
        }
        actions.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDING: &str = "\
halt_poll_ns=100000
halt_poll_ns_grow=2
halt_poll_ns_grow_start=10000
halt_poll_ns_shrink=2
halt_attempted_poll 3
# TASK-PID
           vcpu0-176     [000] .....    10.000000: kvmppc_vcore_blocked: Enter runner_vcpu=0 runnable=1 tgid=174
           vcpu0-176     [000] .....    10.000050: kvmppc_vcore_blocked: Exit runner_vcpu=0 runnable=1 tgid=174
           vcpu0-176     [000] .....    10.000051: kvmppc_vcore_wakeup: wait time 51000 ns, tgid=174
           vcpu0-176     [001] .....    10.000100: kvmppc_vcore_wakeup: poll time 7000 ns, tgid=174
           vcpu0-176     [001] .....    10.001000: kvmppc_vcore_blocked: Enter runner_vcpu=0 runnable=1 tgid=174
           vcpu0-176     [001] .....    10.001500: kvmppc_vcore_wakeup: wait time 511000 ns, tgid=174
           vcpu0-176     [001] .....    10.002000: kvmppc_vcore_blocked: Enter runner_vcpu=0 runnable=1 tgid=174
           vcpu0-176     [001] .....    10.002050: kvmppc_vcore_wakeup: wait time 56000 ns, tgid=174
";

    #[test]
    fn periods_are_read_and_replayed() {
        let recording = Recording::parse(RECORDING).unwrap();
        assert_eq!(recording.periods(), 4);
        assert_eq!(recording.totals["halt_attempted_poll"], 3);
        // 51 us without an interval: it becomes 10 us. A poll of 7 us. 511 us, more than the maximum: polled 10 us at
        // least, then 5 us. 56 us with 5 us.
        let full = replay(&recording, Polls::Full);
        let of = |replayed: &Replayed| COMPARED.map(|name| replayed.totals[name]);
        assert_eq!(of(&full), [3, 1, 3, 7_000, 15_000, 51_000 + 501_000 + 51_000]);
        let timed = replay(&recording, Polls::Timed);
        assert_eq!(of(&timed), [3, 1, 3, 7_000, 17_000, 51_000 + 500_000 + 50_000]);
        assert_eq!((full.disagreed, timed.disagreed), (0, 0));
    }

    #[test]
    fn a_poll_that_the_machine_would_not_have_begun_shows() {
        let line = "vcpu0-176 [000] ..... 1.000000: kvmppc_vcore_wakeup: poll time NS ns, tgid=174\n";
        for (ns, disagreed) in [("0", 0), ("5000", 1)] {
            let text = format!("halt_poll_ns=100000\n{}", line.replace("NS", ns));
            let replayed = replay(&Recording::parse(&text).unwrap(), Polls::Full);
            assert_eq!(replayed.disagreed, disagreed);
            assert_eq!(replayed.totals["halt_attempted_poll"], 0);
        }
    }

    #[test]
    fn a_recording_that_lacks_something_is_refused() {
        let parse = |text: &str| Recording::parse(text).unwrap_err();
        assert_eq!(parse("halt_attempted_poll 3"), ParseRecordingError::NoTunables);
        assert!(matches!(parse("halt_poll_ms=3"), ParseRecordingError::Tunable { line: 1, .. }));
        assert!(matches!(parse("halt_poll_ns=3\nwhat is this"), ParseRecordingError::Line { line: 2, .. }));
        let wakeup =
            "halt_poll_ns=3\nvcpu0-176 [000] ..... 1.000000: kvmppc_vcore_wakeup: wait time 5 ns, tgid=174";
        assert_eq!(parse(wakeup), ParseRecordingError::NoSleep { line: 2, thread: 176 });
    }
}
