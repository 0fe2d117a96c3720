//! `count`: what a process does within some seconds, as one line of JSON.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::hist::Hists;

/// Counts and prints.
pub fn run(pid: u32, seconds: f64) -> Result<()> {
    let hists = Hists::start(pid)?;
    thread::sleep(Duration::try_from_secs_f64(seconds)?);
    println!("{}", serde_json::to_string(&hists.stop()?)?);
    Ok(())
}
