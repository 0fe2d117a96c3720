//! `bench idle`: what a guest costs that has little or nothing to do, and how soon it wakes.
//!
//! A guest goes through phases, which its script (`tools/lab/guest-bench`) announces on its console:
//!
//! ```text
//!  bench-pingpong JSON   per batch      two processes on two vCPUs send each other a byte
//!  bench-cyclictest …    per line       what cyclictest printed
//!  bench-count           a pause, then the turns that are counted in the host
//!  bench-counted         they are over
//!  bench-idle            nothing from here on
//! ```

use serde::{Deserialize, Serialize};

use crate::{Figure, Unit};

/// Begins the line of each batch; [`Batch`] as JSON follows.
pub const PINGPONG: &str = "bench-pingpong ";
/// Begins each line of cyclictest's.
pub const CYCLICTEST: &str = "bench-cyclictest ";
/// The turns to count begin after a pause.
pub const COUNT: &str = "bench-count";
/// They are over.
pub const COUNTED: &str = "bench-counted";
/// The guest has nothing to do from here on.
pub const IDLE: &str = "bench-idle";

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How long the idle guest is watched, in seconds: once for its CPU time, once again to count.
    pub seconds: u64,
    /// Turns between [`COUNT`] and [`COUNTED`].
    pub turns: u32,
    /// And under whom.
    pub guests: crate::Plan,
}

/// What one batch of turns took. A turn is there and back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The median turn in nanoseconds.
    pub median_ns: u64,
    /// What 99 of 100 turns did not exceed.
    pub p99_ns: u64,
    /// All turns by the time of the batch.
    pub turns_per_second: f64,
}

/// The median turn of a batch.
pub const TURN_MEDIAN: Figure = Figure::new("ping-pong, median turn", Unit::Microseconds);
/// The 99th percentile of a batch.
pub const TURN_P99: Figure = Figure::new("ping-pong, p99 turn", Unit::Microseconds);
/// Turns per second in a batch.
pub const TURNS_PER_SECOND: Figure = Figure::new("ping-pong, turns per second", Unit::Count);
/// CPU time of the monitor, its guest's included, per second of idling.
pub const IDLE_CPU: Figure = Figure::new("idle, CPU time per second", Unit::Milliseconds);
/// Times that a thread of the monitor gave up its CPU by itself, per second of idling.
pub const IDLE_VOLUNTARY: Figure = Figure::new("idle, voluntary context switches per second", Unit::Number);
/// Times that a guest was left, per second of idling.
pub const IDLE_EXITS: Figure = Figure::new("idle, guest exits per second", Unit::Number);
/// System calls per second of idling.
pub const IDLE_SYSCALLS: Figure = Figure::new("idle, system calls per second", Unit::Number);
/// System calls of the monitor per turn.
pub const TURN_SYSCALLS: Figure = Figure::new("per turn, system calls", Unit::Number);
/// Context switches of the monitor's threads per turn.
pub const TURN_SWITCHES: Figure = Figure::new("per turn, context switches", Unit::Number);
/// Those in which the thread gave up its CPU by itself.
pub const TURN_VOLUNTARY: Figure = Figure::new("per turn, voluntary context switches", Unit::Number);
