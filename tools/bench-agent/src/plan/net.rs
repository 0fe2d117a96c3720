//! `bench net`: how soon a guest answers another by way of a bridge, how much goes through, and what it costs.
//!
//! A subject's guests are the client and the server, in this order. They boot once; while others are measured they are stopped.
//! In each of its turns the client goes through phases, which its script (`tools/lab/guest-bench-net`) and sockperf announce on
//! its console. It begins none before it is told to, by a line:
//!
//! ```text
//!  bench-ready ◀── a line
//!  sockperf: Starting test   round trips from here on
//!  sockperf: Test end        up to here
//!  sockperf: …               what it found
//!  bench-ready ◀── a line
//!  …                         the same again, counted in the host
//!  bench-ready ◀── a line
//!  bench-iperf3 …            per line   what iperf3 printed of a stream
//!  bench-ready
//! ```

use crate::{Figure, Unit};

/// What was before is over, and what comes waits for a line.
pub const READY: &str = "bench-ready";
/// Round trips begin.
pub const BEGIN: &str = "sockperf: Starting test";
/// They are over.
pub const END: &str = "sockperf: Test end";
/// Begins each line of iperf3's.
pub const IPERF3: &str = "bench-iperf3 ";

/// What half of the round trips did not exceed.
pub const RTT_MEDIAN: Figure = Figure::new("round trip, median", Unit::Microseconds);
/// What 99 of 100 did not exceed.
pub const RTT_P99: Figure = Figure::new("round trip, p99", Unit::Microseconds);
/// CPU time of both monitors and their guests.
pub const RTT_CPU: Figure = Figure::new("per round trip, CPU time of the monitors", Unit::Microseconds);
/// CPU time of all that the host does.
pub const RTT_HOST: Figure = Figure::new("per round trip, CPU time of the host", Unit::Microseconds);
/// Idle periods of both guests that began with a poll.
pub const RTT_POLLS: Figure = Figure::new("per round trip, polls", Unit::Number);
/// Those of them that ended by a wake-up.
pub const RTT_SUCCESSES: Figure = Figure::new("per round trip, successful polls", Unit::Number);
/// What one stream brings in a second, as the receiver counts it.
pub const STREAM_RATE: Figure = Figure::new("stream, Mbit/s", Unit::Number);
/// CPU time of both monitors and their guests.
pub const STREAM_CPU: Figure = Figure::new("stream, CPU time of the monitors per MiB", Unit::Milliseconds);
