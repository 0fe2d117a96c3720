//! A poller and a competing process on one CPU: what each way of noticing leaves to the competitor,
//! and what it costs in wake-up latency.
//!
//! A vCPU thread and a process that never sleeps share CPU 0; a waker on CPU 1 wakes the vCPU every
//! 100 us, well inside a poll window of 200 us, so a poller that does not yield burns all that the
//! scheduler gives it. The competitor's share is its progress against its progress alone.
//!
//! `cargo bench -p cede-vcore --bench contention [-- --seconds N]`

#[path = "support/cpu.rs"]
mod cpu;

use cpu::{me, pin};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vcore::futex::monotonic_ns;
use vcore::{
    Cause, FutexPort, NoKick, Port, SharedTunables, Stats, Thread, ThreadMask, Tunables, Vcore, Waited,
};

const PERIOD_NS: u64 = 100_000;

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    /// Never polls.
    NoPoll,
    /// Polls whatever happens.
    Deaf,
    /// The crate's own: `vcore::contention`.
    Crate,
    /// A sched_yield before each poll, and no poll if it took long.
    Yield,
}

/// The crate's port with another way of noticing.
struct Bench {
    port: FutexPort<NoKick>,
    policy: Policy,
}

impl Port for Bench {
    fn now(&self) -> u64 {
        self.port.now()
    }

    fn wait(&self, futex: &AtomicU32, expected: u32, thread: Thread, deadline: Option<u64>) -> Waited {
        self.port.wait(futex, expected, thread, deadline)
    }

    fn wake(&self, futex: &AtomicU32, threads: ThreadMask) {
        self.port.wake(futex, threads);
    }

    fn kick(&self, threads: ThreadMask, cause: Cause) {
        self.port.kick(threads, cause);
    }

    fn may_poll(&self, thread: Thread, now: u64) -> bool {
        match self.policy {
            Policy::NoPoll => false,
            Policy::Deaf => true,
            Policy::Crate => self.port.may_poll(thread, now),
            Policy::Yield => {
                std::thread::yield_now();
                self.port.now() - now < 20_000
            }
        }
    }

    fn keep_polling(&self, thread: Thread, before: u64, now: u64) -> bool {
        self.policy != Policy::Crate || self.port.keep_polling(thread, before, now)
    }

    fn yield_cpu(&self) {
        self.port.yield_cpu();
    }

    fn tunables(&self) -> &SharedTunables {
        self.port.tunables()
    }

    fn stats(&self, thread: Thread) -> &Stats {
        self.port.stats(thread)
    }

    fn vcpu_id(&self, thread: Thread) -> u32 {
        self.port.vcpu_id(thread)
    }
}

/// The competing process: pinned, it counts until its time is over and prints the count.
fn compete(seconds: f64) {
    pin(0);
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed().as_secs_f64() < seconds {
        (0..1_000).for_each(|n| count = std::hint::black_box(count + n % 2));
    }
    println!("{count}");
}

/// Starts the competitor; the result reads its count when it has ended.
fn competitor(seconds: f64) -> impl FnOnce() -> f64 {
    let exe = std::env::current_exe().expect("a running program has a path");
    let mut child = Command::new(exe)
        .args(["--compete", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    move || {
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("prints");
        child.wait().expect("ends");
        line.trim().parse().expect("prints a number")
    }
}

/// Wakes the vCPU every period until `stop`; returns how late each cede came back, sorted.
fn run(policy: Policy, stop: &AtomicBool) -> Vec<u64> {
    let fixed = Tunables { halt_poll_ns_grow_start: 200_000, halt_poll_ns_shrink: 1, ..Tunables::X86 };
    let port = FutexPort::new(0, 1, Arc::new(SharedTunables::new(fixed)), NoKick);
    let vcore: Vcore<_> = Vcore::new(1, Bench { port, policy }).starting_with(200_000);
    let sent = AtomicU64::new(0);
    let mut late = Vec::new();
    std::thread::scope(|scope| {
        let waker = scope.spawn(|| {
            pin(1);
            let mut next = monotonic_ns();
            while !stop.load(Ordering::Relaxed) {
                next += PERIOD_NS;
                while monotonic_ns() < next {
                    std::hint::spin_loop();
                }
                // Only the first of several wakes that are waiting is measured.
                let _ = sent.compare_exchange(0, monotonic_ns(), Ordering::Relaxed, Ordering::Relaxed);
                vcore.wake(me(), Cause::External);
            }
            vcore.request_exit(ThreadMask::ALL);
        });
        pin(0);
        while !vcore.cede(me(), None).expect("the thread is in the host").contains(Cause::Exit) {
            let at = sent.swap(0, Ordering::Relaxed);
            if at != 0 {
                late.push(monotonic_ns() - at);
            }
        }
        waker.join().expect("the waker does not panic");
    });
    late.sort_unstable();
    late
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)?.parse::<f64>().ok())
    };
    if let Some(seconds) = after("--compete") {
        return compete(seconds);
    }
    pin(0);
    let seconds = after("--seconds").unwrap_or(3.0);
    pin(1);
    println!(
        "{:34} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "", "competitor", "p50 us", "p90 us", "p99 us", "max us"
    );
    for (name, policy) in [
        ("never polls", Policy::NoPoll),
        ("polls whatever happens", Policy::Deaf),
        ("sched_yield before each poll", Policy::Yield),
        ("vcore::contention", Policy::Crate),
    ] {
        for competing in [false, true] {
            let stop = Arc::new(AtomicBool::new(false));
            // Alone just before, so that what else the machine does colours both.
            let alone = if competing { competitor(seconds)() } else { 0.0 };
            let count = competing.then(|| competitor(seconds));
            let timer = std::thread::spawn({
                let stop = stop.clone();
                move || {
                    std::thread::sleep(Duration::from_secs_f64(seconds));
                    stop.store(true, Ordering::Relaxed);
                }
            });
            let late = run(policy, &stop);
            timer.join().expect("the timer does not panic");
            let share = count.map_or("-".to_owned(), |count| format!("{:.1} %", count() / alone * 100.0));
            let us = |quantile: f64| late[((late.len() - 1) as f64 * quantile) as usize] as f64 / 1_000.0;
            println!(
                "{name:34} {share:>10} {:9.1} {:9.1} {:9.1} {:9.1}",
                us(0.5),
                us(0.9),
                us(0.99),
                us(1.0)
            );
        }
    }
}
