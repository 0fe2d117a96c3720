//! `bench blk`: what a disk does, and what its requests cost.
//!
//! A guest goes through [`CASES`], each twice, which its script (`tools/lab/guest-bench-blk`) announces on its console:
//!
//! ```text
//!  bench-begin           requests from here on
//!  bench-end             up to here
//!  bench-fio …           per line   what fio printed
//!  bench-done
//!  bench-count           a pause, then the requests that are counted in the host
//!  bench-end, bench-fio …, bench-done
//! ```

/// Requests begin.
pub const BEGIN: &str = "bench-begin";
/// They are over.
pub const END: &str = "bench-end";
/// Begins each line of fio's.
pub const FIO: &str = "bench-fio ";
/// fio has ended.
pub const DONE: &str = "bench-done";
/// The requests to count begin after a pause of [`PAUSE_SECONDS`].
pub const COUNT: &str = "bench-count";
/// Within which counting has to begin.
pub const PAUSE_SECONDS: u64 = 2;

/// What fio does in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name in a table.
    pub title: &'static str,
    /// As fio's `rw` says it.
    pub rw: &'static str,
    /// Requests in flight.
    pub depth: u32,
}

/// In the guest's order.
pub const CASES: [Case; 4] = [
    Case { title: "read, 1 in flight", rw: "randread", depth: 1 },
    Case { title: "write, 1 in flight", rw: "randwrite", depth: 1 },
    Case { title: "read, 32 in flight", rw: "randread", depth: 32 },
    Case { title: "write, 32 in flight", rw: "randwrite", depth: 32 },
];
