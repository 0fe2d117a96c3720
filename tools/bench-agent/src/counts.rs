//! What a process did for a while: system calls by name, and trace events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of all threads of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// For how long, in seconds.
    pub seconds: f64,
    /// Calls by their name.
    pub syscalls: BTreeMap<String, u64>,
    /// Times that a thread gave up its CPU by itself; `sched:sched_switch` has also those in which it was preempted.
    pub voluntary_switches: u64,
    /// Trace events, as `system:event`; those that did not happen are left out.
    pub events: BTreeMap<String, u64>,
}

impl Counts {
    /// All system calls together.
    pub fn all_syscalls(&self) -> u64 {
        self.syscalls.values().sum()
    }

    /// How often an event happened.
    pub fn event(&self, name: &str) -> u64 {
        self.events.get(name).copied().unwrap_or_default()
    }

    /// The counts of two processes, over the same time, as if they were one.
    #[must_use]
    pub fn and(mut self, other: Counts) -> Self {
        for (mine, theirs) in [(&mut self.syscalls, other.syscalls), (&mut self.events, other.events)] {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
        self.voluntary_switches += other.voluntary_switches;
        self
    }
}
