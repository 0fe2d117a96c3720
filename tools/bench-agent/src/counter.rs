//! Counting a trace event by perf.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::FromRawFd;

use anyhow::{Context, Result};

/// The head of `struct perf_event_attr` up to and including version 0's end, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

const PERF_TYPE_HARDWARE: u32 = 0;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const HW_INSTRUCTIONS: u64 = 1;
const DISABLED: u64 = 1 << 0;
const INHERIT: u64 = 1 << 1;
const ENABLE_ON_EXEC: u64 = 1 << 12;

/// PERF_FLAG_FD_CLOEXEC.
const FD_CLOEXEC: libc::c_ulong = 1 << 3;

/// Counts an event in the processes and threads that are started while it exists, each from its exec on.
pub struct Counter(File);

impl Counter {
    /// Counts the trace event `system/name`.
    pub fn trace_event(event: &str) -> Result<Self> {
        let path = format!("/sys/kernel/tracing/events/{event}/id");
        let id = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let id = id.trim().parse().with_context(|| format!("{path} holds no number"))?;
        Self::of_children(PERF_TYPE_TRACEPOINT, id).with_context(|| format!("cannot count {event}"))
    }

    /// Counts the instructions that the processor completes for them, in user space and in the kernel.
    pub fn instructions() -> Result<Self> {
        Self::of_children(PERF_TYPE_HARDWARE, HW_INSTRUCTIONS).context("cannot count instructions")
    }

    fn of_children(kind: u32, config: u64) -> Result<Self> {
        let attr = PerfEventAttr {
            kind,
            size: size_of::<PerfEventAttr>() as u32,
            config,
            flags: DISABLED | INHERIT | ENABLE_ON_EXEC,
            ..Default::default()
        };
        let (this_process, any_cpu, no_group) = (0, -1, -1);
        // SAFETY: `attr` is as long as its size says; the other arguments are numbers.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                this_process,
                any_cpu,
                no_group,
                FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: perf_event_open gave a descriptor that nothing else owns.
        Ok(Self(unsafe { File::from_raw_fd(fd as libc::c_int) }))
    }

    /// The events so far, the running children's included.
    pub fn read(&self) -> Result<u64> {
        let mut value = [0; 8];
        (&self.0).read_exact(&mut value).context("cannot read a counter")?;
        Ok(u64::from_ne_bytes(value))
    }
}
