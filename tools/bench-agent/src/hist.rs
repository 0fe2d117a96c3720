//! Trace events counted in the kernel, by the thread that they happened to.
//!
//! Owns a tracing instance in which each event has a hist trigger: nothing is recorded, so nothing overflows and
//! nobody has to read along, however many events there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use bench_agent::Counts;

const TRACING: &str = "/sys/kernel/tracing";

/// Event and its keys, that of the thread first; all events of kvm_hv are counted too.
const EVENTS: [(&str, &str, &str); 2] = [
    ("sched", "sched_switch", "prev_pid,prev_state"),
    // A perf event that signals a vCPU's thread costs one of these.
    ("signal", "signal_generate", "pid"),
];

/// KVM's own; enabling it changes what the processor counts, which is not for free.
const NOT_COUNTED: &str = "kvmppc_vcpu_stats";

/// `prev_state` of a thread that would have run on: TASK_RUNNING, and what the event has for a preemption.
const RUNNABLE: [u64; 2] = [0, 0x100];

/// Counts what the threads of one process do.
pub struct Hists {
    dir: PathBuf,
    pid: u32,
    threads: BTreeSet<u64>,
    begin: Instant,
}

impl Hists {
    /// Counts from here on.
    pub fn start(pid: u32) -> Result<Self> {
        let dir = Path::new(TRACING).join(format!("instances/count-{pid}"));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let hists = Self { dir, pid, threads: threads(pid)?, begin: Instant::now() };
        hists.trigger("raw_syscalls", "sys_enter", "common_pid,id")?;
        for (system, event, key) in EVENTS {
            hists.trigger(system, event, key)?;
        }
        for event in hists.kvm_events()? {
            hists.trigger("kvm_hv", &event, "common_pid")?;
        }
        Ok(hists)
    }

    /// What was counted since. A thread that came and went in between is not in it.
    pub fn stop(mut self) -> Result<Counts> {
        let seconds = self.begin.elapsed().as_secs_f64();
        self.threads.extend(threads(self.pid)?);
        let mut counts = Counts { seconds, ..Counts::default() };
        for (keys, hits) in self.read("raw_syscalls", "sys_enter")? {
            if let [thread, nr] = keys[..] {
                if self.threads.contains(&thread) {
                    *counts.syscalls.entry(syscall_name(nr)).or_default() += hits;
                }
            }
        }
        let kvm = self.kvm_events()?;
        let others = EVENTS.iter().map(|(system, event, _)| (*system, *event));
        for (system, event) in others.chain(kvm.iter().map(|event| ("kvm_hv", event.as_str()))) {
            let hists = self.read(system, event)?;
            let mut hits = 0;
            for (keys, count) in hists.iter().filter(|(keys, _)| self.threads.contains(&keys[0])) {
                hits += count;
                if event == "sched_switch" && !RUNNABLE.contains(&keys[1]) {
                    counts.voluntary_switches += count;
                }
            }
            if hits > 0 {
                counts.events.insert(format!("{system}:{event}"), hits);
            }
        }
        Ok(counts)
    }

    fn trigger(&self, system: &str, event: &str, keys: &str) -> Result<()> {
        let path = self.dir.join(format!("events/{system}/{event}/trigger"));
        fs::write(&path, format!("hist:keys={keys}\n"))
            .with_context(|| format!("cannot count {system}:{event} by {}", path.display()))
    }

    fn read(&self, system: &str, event: &str) -> Result<Vec<(Vec<u64>, u64)>> {
        let path = self.dir.join(format!("events/{system}/{event}/hist"));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.lines().filter_map(entry).collect())
    }

    fn kvm_events(&self) -> Result<Vec<String>> {
        let dir = self.dir.join("events/kvm_hv");
        let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut events = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && name != NOT_COUNTED {
                events.push(name);
            }
        }
        events.sort();
        Ok(events)
    }
}

impl Drop for Hists {
    fn drop(&mut self) {
        // The triggers go with it; a leftover would make the next `start` fail and say so.
        let _ = fs::remove_dir(&self.dir);
    }
}

fn threads(pid: u32) -> Result<BTreeSet<u64>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The keys' values and the count of `{ common_pid: 120, id: 54 } hitcount: 3`.
fn entry(line: &str) -> Option<(Vec<u64>, u64)> {
    let (keys, rest) = line.strip_prefix("{ ")?.split_once('}')?;
    let keys = keys.split(',').map(|key| key.rsplit(':').next()?.trim().parse().ok());
    let hits = rest.trim().strip_prefix("hitcount:")?.split_whitespace().next()?.parse().ok()?;
    Some((keys.collect::<Option<_>>()?, hits))
}

macro_rules! syscalls {
    ($($constant:ident $name:literal)*) => { &[$((libc::$constant, $name)),*] };
}

/// Those that a monitor may make while its guest runs; the others are told by their number.
const SYSCALLS: &[(libc::c_long, &str)] = syscalls! {
    SYS_read "read" SYS_write "write" SYS_readv "readv" SYS_writev "writev" SYS_preadv "preadv" SYS_pwritev "pwritev"
    SYS_preadv2 "preadv2" SYS_pwritev2 "pwritev2" SYS_io_uring_enter "io_uring_enter" SYS_ioctl "ioctl" SYS_futex "futex"
    SYS_poll "poll" SYS_ppoll "ppoll" SYS_pselect6 "pselect6" SYS_epoll_wait "epoll_wait"
    SYS_epoll_pwait "epoll_pwait" SYS_epoll_ctl "epoll_ctl" SYS_recvmsg "recvmsg" SYS_sendmsg "sendmsg"
    SYS_rt_sigprocmask "rt_sigprocmask" SYS_rt_sigtimedwait "rt_sigtimedwait" SYS_rt_sigpending "rt_sigpending"
    SYS_rt_sigreturn "rt_sigreturn" SYS_rt_sigaction "rt_sigaction" SYS_rt_tgsigqueueinfo "rt_tgsigqueueinfo"
    SYS_tgkill "tgkill" SYS_gettid "gettid" SYS_getpid "getpid" SYS_nanosleep "nanosleep"
    SYS_clock_nanosleep "clock_nanosleep" SYS_clock_gettime "clock_gettime" SYS_timer_settime "timer_settime"
    SYS_timerfd_settime "timerfd_settime" SYS_getrusage "getrusage" SYS_sched_yield "sched_yield"
    SYS_restart_syscall "restart_syscall" SYS_madvise "madvise" SYS_mmap "mmap" SYS_munmap "munmap"
    SYS_mprotect "mprotect" SYS_brk "brk" SYS_openat "openat" SYS_close "close" SYS_fcntl "fcntl"
};

fn syscall_name(nr: u64) -> String {
    let found = SYSCALLS.iter().find(|(number, _)| u64::try_from(*number) == Ok(nr));
    found.map_or_else(|| format!("number {nr}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_keys_and_a_count() {
        let line = "{ common_pid:        120, id:         54 } hitcount:          3";
        assert_eq!(entry(line), Some((vec![120, 54], 3)));
        assert_eq!(entry("{ prev_pid:          0 } hitcount:       7711"), Some((vec![0], 7711)));
        for other in ["# event histogram", "", "Totals:", "    Hits: 93"] {
            assert_eq!(entry(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_system_call_without_a_name_keeps_its_number() {
        assert_eq!(syscall_name(libc::SYS_futex as u64), "futex");
        assert_eq!(syscall_name(9999), "number 9999");
    }
}
