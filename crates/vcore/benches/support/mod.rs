//! What the benchmarks share.

pub mod cpu;
pub mod pairs;
