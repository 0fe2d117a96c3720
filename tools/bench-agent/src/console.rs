//! The guest's console, as the monitor prints it.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;

use anyhow::{Result, bail};

/// Lines, and all of them so far, to show when one does not come.
pub struct Console {
    lines: BufReader<ChildStdout>,
    seen: String,
}

impl Console {
    /// Reads what a monitor prints from here on.
    pub fn new(stdout: ChildStdout) -> Self {
        Self { lines: BufReader::new(stdout), seen: String::new() }
    }

    /// Reads on until a line begins with `end`, and gives the lines before it.
    pub fn until(&mut self, end: &str) -> Result<Vec<String>> {
        let mut before = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.lines.read_until(b'\n', &mut line)? == 0 {
                bail!("the guest ended without a line {end:?}; its console was:\n{}", self.seen);
            }
            let line = String::from_utf8_lossy(&line);
            self.seen.push_str(&line);
            let line = line.trim_end();
            if line.starts_with(end) {
                return Ok(before);
            }
            before.push(line.to_owned());
        }
    }
}
