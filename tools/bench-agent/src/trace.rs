//! The guest's first hypercall, as KVM's own trace event tells it, whichever monitor runs the guest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Monitor;

const EVENT: &str = "kvm_hcall_enter";
/// Far more than any monitor needs.
const LIMIT: Duration = Duration::from_secs(120);
const TURN: Duration = Duration::from_millis(500);

/// A tracing instance of our own with one event, until it is dropped. The event costs one record per
/// hypercall, and the probe makes one.
pub struct FirstHcall {
    dir: PathBuf,
    pipe: File,
}

impl FirstHcall {
    /// Begins to watch. No other guest may run.
    pub fn watch() -> Result<Self> {
        let dir = PathBuf::from("/sys/kernel/tracing/instances/bench");
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let set = |file: &str, value: &str| {
            fs::write(dir.join(file), value).with_context(|| format!("cannot set {file} to {value}"))
        };
        set("trace_clock", "mono")?;
        // A reader is told of the first event, not of a buffer that fills.
        set("buffer_percent", "0")?;
        set(&format!("events/kvm_hv/{EVENT}/enable"), "1")?;
        let pipe = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(dir.join("trace_pipe"))?;
        Ok(Self { dir, pipe })
    }

    /// Waits for the event and gives its CLOCK_MONOTONIC time in nanoseconds.
    pub fn wait(&mut self, monitor: &mut Monitor) -> Result<u64> {
        let mut text = Vec::new();
        for _ in 0..LIMIT.as_millis() / TURN.as_millis() {
            self.poll()?;
            let mut buffer = [0; 4096];
            match self.pipe.read(&mut buffer) {
                Ok(count) => text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot read the trace"),
            }
            if let Some(at) = first_time(&String::from_utf8_lossy(&text)) {
                return Ok(at);
            }
            if let Some(status) = monitor.ended()? {
                anyhow::bail!("it ended ({status}) before its guest began");
            }
        }
        anyhow::bail!("no guest instruction within {} s", LIMIT.as_secs());
    }

    fn poll(&self) -> Result<()> {
        let mut fd = libc::pollfd { fd: self.pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, as the count says.
        let result = unsafe { libc::poll(&mut fd, 1, TURN.as_millis() as libc::c_int) };
        ensure!(result >= 0, io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for FirstHcall {
    fn drop(&mut self) {
        // The instance goes once nobody reads it; a leftover would make the next `watch` fail and say so.
        if let Ok(null) = File::open("/dev/null") {
            self.pipe = null;
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// The time of the first event: `comm-tid [cpu] flags seconds.micros: event: …`.
fn first_time(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains(EVENT))?;
    let (before, _) = line.split_once(&format!(": {EVENT}:"))?;
    let (seconds, micros) = before.split_whitespace().last()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_events_time_is_read() {
        let text = "           vcpu0-123     [001] .....    45.000678: kvm_hcall_enter: VCPU 0: hcall=H_CONFER GPR4-7=…\n\
                    \x20          vcpu0-123     [001] .....    46.000000: kvm_hcall_enter: VCPU 0: hcall=H_CEDE GPR4-7=…\n";
        assert_eq!(first_time(text), Some(45_000_678_000));
        assert_eq!(first_time("CPU:1 [LOST 3 EVENTS]\n"), None);
    }
}
