//! Project tasks: the lab, the demo, tests and benches.

fn main() {}
