//! Log lines on standard error.

use std::io::{self, Write};
use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is what [`crate::cli::Logging::filter`] made.
pub fn start(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(|| Lines(io::stderr()))
        .init();
}

/// Ends lines as the terminal needs it: while it is raw, a line feed alone leaves the cursor in its column.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if devices::console::terminal_is_raw() {
            self.0.write_all(&with_carriage_returns(bytes))?;
        } else {
            self.0.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn with_carriage_returns(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    for &byte in bytes {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_for_a_raw_terminal() {
        assert_eq!(with_carriage_returns(b"one\ntwo\n"), b"one\r\ntwo\r\n");
    }

    #[test]
    fn a_cooked_terminal_gets_them_unchanged() {
        let mut out = Vec::new();
        Lines(&mut out).write_all(b"one\ntwo\n").unwrap();
        assert_eq!(out, b"one\ntwo\n");
    }
}
