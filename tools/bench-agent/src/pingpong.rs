//! The ping-pong in the guest: two processes, each bound to a CPU, send each other a byte through two pipes.
//!
//! Both sleep in read(2) in turn, so with nothing else to do each CPU is idle until the other one wakes it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bench_agent::idle::{Batch, PINGPONG};

/// This process' CPU, and the other's.
const CPUS: [usize; 2] = [0, 1];

/// Plays `batches` times `turns` turns after a batch that does not count, and prints each batch.
pub fn run(turns: usize, batches: usize) -> Result<()> {
    ensure!(turns > 0, "a batch has one turn or more");
    bind(CPUS[0])?;
    let mut other = Command::new("/proc/self/exe")
        .args(["echo", &CPUS[1].to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the other process")?;
    let (to, from) = (other.stdin.take(), other.stdout.take());
    let (mut to, mut from) = (to.context("no pipe there")?, from.context("no pipe back")?);
    let mut lengths = Vec::with_capacity(turns);
    for batch in 0..=batches {
        lengths.clear();
        let begin = Instant::now();
        for _ in 0..turns {
            let sent = Instant::now();
            to.write_all(&[0])?;
            from.read_exact(&mut [0])?;
            lengths.push(sent.elapsed().as_nanos() as u64);
        }
        let summary = summary(&mut lengths, begin.elapsed().as_secs_f64());
        if batch > 0 {
            println!("{PINGPONG}{}", serde_json::to_string(&summary)?);
        }
    }
    // The end of its input is its own.
    drop(to);
    ensure!(other.wait()?.success(), "the other process failed");
    Ok(())
}

/// Sends back what comes, on CPU `cpu`.
pub fn echo(cpu: usize) -> Result<()> {
    bind(cpu)?;
    // Without the buffers and locks of std's own streams.
    let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut to = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut byte = [0];
    while from.read(&mut byte)? == 1 {
        to.write_all(&byte)?;
    }
    Ok(())
}

fn summary(lengths: &mut [u64], seconds: f64) -> Batch {
    lengths.sort_unstable();
    let count = lengths.len();
    Batch {
        median_ns: lengths[(count - 1) / 2].midpoint(lengths[count / 2]),
        p99_ns: lengths[(count * 99).div_ceil(100) - 1],
        turns_per_second: count as f64 / seconds,
    }
}

fn bind(cpu: usize) -> Result<()> {
    // SAFETY: a cpu_set_t is bits, of which none set is a valid value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    ensure!(cpu < 8 * size_of_val(&set), "CPU {cpu} is more than a set holds");
    // SAFETY: the number is within the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is as long as its size says; 0 is this thread, the process' only one.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    ensure!(result == 0, "cannot bind to CPU {cpu}: {}", io::Error::last_os_error());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_summed_up() {
        let mut lengths: Vec<u64> = (1..=200).rev().collect();
        let batch = summary(&mut lengths, 2.0);
        assert_eq!(batch, Batch { median_ns: 100, p99_ns: 198, turns_per_second: 100.0 });
        assert_eq!(summary(&mut [7], 1.0).p99_ns, 7);
    }
}
