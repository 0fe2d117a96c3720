//! The guest's console, as the monitor prints it.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Lines, and all of them so far, to show when one does not come.
pub struct Console {
    lines: Receiver<String>,
    seen: String,
}

impl Console {
    /// Reads what a monitor prints from here on. The reader ends with the monitor.
    pub fn new(stdout: ChildStdout) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            while matches!(stdout.read_until(b'\n', &mut line), Ok(1..)) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { lines, seen: String::new() }
    }

    /// Reads on until a line begins with `end`, and gives the lines before it. A guest that takes longer than `limit`
    /// is taken to hang.
    pub fn until(&mut self, end: &str, limit: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut before = Vec::new();
        loop {
            let line = match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(why) => {
                    let why = match why {
                        RecvTimeoutError::Timeout => {
                            format!("printed no line {end:?} within {} s", limit.as_secs())
                        }
                        RecvTimeoutError::Disconnected => format!("ended without a line {end:?}"),
                    };
                    bail!("the guest {why}; its console was:\n{}", self.seen);
                }
            };
            self.seen.push_str(&line);
            let line = line.trim_end();
            if line.starts_with(end) {
                return Ok(before);
            }
            before.push(line.to_owned());
        }
    }
}
