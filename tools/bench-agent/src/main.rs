//! The benches' half that runs in the lab host, and in its guests.
//!
//! | command | runs in | does |
//! |---|---|---|
//! | `boot PLAN` | the host | starts each monitor in turn and says what it cost |
//! | `idle PLAN` | the host | the same with guests that idle |
//! | `blk PLAN` | the host | the same with guests that read and write a disk |
//! | `net PLAN` | the host | the same with two guests on a bridge |
//! | `count --pid P --seconds S` | the host | counts what a process does; [`bench_agent::Counts`] as JSON |
//! | `lose-events --pid P` | the host | takes a process's perf events away; prints how many |
//! | `pingpong --turns N --batches B` | the guest | two processes on two CPUs, in turn |
//! | `echo CPU` | the guest | the second of them |

mod blk;
mod boot;
mod console;
mod count;
mod counter;
mod cyclictest;
mod each;
mod fio;
mod hist;
mod idle;
mod lose;
mod memory;
mod net;
mod pingpong;
mod process;
mod rounds;
mod settings;
mod sockperf;
mod trace;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: bench-agent boot PLAN | idle PLAN | blk PLAN | net PLAN | count --pid P --seconds S | lose-events --pid P | \
                     pingpong --turns N --batches B | echo CPU";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["boot", plan] => boot::run(&read(plan)?),
        ["idle", plan] => idle::run(&read(plan)?),
        ["blk", plan] => blk::run(&read(plan)?),
        ["net", plan] => net::run(&read(plan)?),
        ["count", "--pid", pid, "--seconds", seconds] => count::run(number(pid)?, number(seconds)?),
        ["lose-events", "--pid", pid] => lose::run(number(pid)?),
        ["pingpong", "--turns", turns, "--batches", batches] => {
            pingpong::run(number(turns)?, number(batches)?)
        }
        ["echo", cpu] => pingpong::echo(number(cpu)?),
        _ => bail!(USAGE),
    }
}

fn read<'a, Plan: serde::Deserialize<'a>>(plan: &'a str) -> Result<Plan> {
    serde_json::from_str(plan).context("the plan is not what this agent reads")
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N> {
    text.parse().ok().with_context(|| format!("{text:?} is not a number that fits; {USAGE}"))
}
