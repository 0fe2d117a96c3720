//! The goals, as ratios in one run: rounds of every contestant in turn, so that what disturbs the
//! machine disturbs them all, and the table (count, mean, std, min, quartiles,
//! max) over the rounds.
//!
//! `cargo bench -p cede-vcore --bench ratios [-- --rounds N] [-- --json]`

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use support::cpu::{me, pin};
use support::pairs::{
    BenchVcore, EventListener, POLL, Pair, Parker, ParkingLot, RawFutex, StdCondvar, vcore, vcore_of,
};
use vcore::{Cause, SharedTunables, Tunables};

/// Counts every allocation of the process.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all of it is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Something that is done many times per round.
struct Contestant {
    name: String,
    turns: u32,
    turn: Box<dyn FnMut()>,
    /// Nanoseconds per turn, one entry per round.
    rounds: Vec<f64>,
    allocations: u64,
}

impl Contestant {
    fn new(name: impl Into<String>, turns: u32, turn: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), turns, turn: Box::new(turn), rounds: Vec::new(), allocations: 0 }
    }

    fn round(&mut self) {
        (self.turn)();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let begun = Instant::now();
        for _ in 0..self.turns {
            (self.turn)();
        }
        let ns = begun.elapsed().as_nanos() as f64 / f64::from(self.turns);
        self.allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
        self.rounds.push(ns);
    }

    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    fn mean(&self) -> f64 {
        self.rounds.iter().sum::<f64>() / self.rounds.len() as f64
    }

    fn std(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.rounds.iter().map(|ns| (ns - mean).powi(2)).sum();
        (squares / (self.rounds.len().max(2) - 1) as f64).sqrt()
    }
}

fn uncontended(vcpus: u32) -> Contestant {
    let all: Vec<BenchVcore> = (0..vcpus).map(|id| vcore(id, Tunables::NO_POLL)).collect();
    let mut next = 0;
    Contestant::new(format!("wake+cede, {vcpus} vCPUs in turn"), 40_960, move || {
        let vcore = &all[next];
        next = if next + 1 == all.len() { 0 } else { next + 1 };
        vcore.wake(me(), Cause::External);
        let _ = black_box(vcore.cede(me(), None));
    })
}

/// Many threads, all of them asleep on the caller's CPU; one turn wakes one of them and waits for
/// its answer.
fn asleep<P: Parker + Send + 'static>(name: &str, vcpus: u32, make: impl Fn() -> P) -> Contestant {
    let all: &'static [P] = (0..vcpus).map(|_| make()).collect::<Vec<_>>().leak();
    let caller: &'static P = Box::leak(Box::new(make()));
    for vcpu in all {
        let spawned = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            pin(0);
            loop {
                vcpu.wait();
                caller.wake();
            }
        });
        spawned.expect("the machine allows so many threads");
    }
    let mut next = 0;
    Contestant::new(format!("one of {vcpus} asleep, {name}"), 2_048, move || {
        next = (next + 1_021) % all.len();
        all[next].wake();
        caller.wait();
    })
}

/// Two threads on two CPUs.
fn pair<P: Parker + Send + 'static>(name: &str, sides: [P; 2]) -> Contestant {
    let pair = Pair::new(1, sides);
    Contestant::new(format!("two CPUs, {name}"), 500, move || pair.turn())
}

/// Two threads on one CPU: the futex path without the time that an idle CPU takes to wake up.
fn same_cpu<P: Parker + Send + 'static>(name: &str, sides: [P; 2]) -> Contestant {
    let pair = Pair::new(0, sides);
    Contestant::new(format!("one CPU, {name}"), 2_000, move || pair.turn())
}

fn print(all: &[Contestant]) {
    println!("nanoseconds per turn, over {} rounds", all[0].rounds.len());
    println!(
        "{:44} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "", "mean", "std", "min", "25%", "50%", "75%", "max", "allocs"
    );
    for one in all {
        let [min, q1, q2, q3, max] = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| one.quantile(share));
        println!(
            "{:44} {:9.1} {:9.1} {min:9.1} {q1:9.1} {q2:9.1} {q3:9.1} {max:9.1} {:6}",
            one.name,
            one.mean(),
            one.std(),
            one.allocations
        );
    }
}

fn json(all: &[Contestant], ratios: &[(String, f64, Option<f64>)]) {
    for one in all {
        let [min, q1, q2, q3, max] = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| one.quantile(share));
        println!(
            r#"{{"name":"{}","unit":"ns","count":{},"mean":{:.1},"std":{:.1},"min":{min:.1},"p25":{q1:.1},"p50":{q2:.1},"p75":{q3:.1},"max":{max:.1},"allocations":{}}}"#,
            one.name,
            one.rounds.len(),
            one.mean(),
            one.std(),
            one.allocations
        );
    }
    for (name, ratio, goal) in ratios {
        let goal = goal.map_or("null".to_owned(), |goal| goal.to_string());
        println!(r#"{{"name":"{name}","unit":"ratio","p50":{ratio:.3},"goal":{goal}}}"#);
    }
}

/// The median over the rounds of `a` / `b` in the same round.
fn ratio(a: &Contestant, b: &Contestant) -> f64 {
    let mut each: Vec<f64> = a.rounds.iter().zip(&b.rounds).map(|(a, b)| a / b).collect();
    each.sort_by(f64::total_cmp);
    each[each.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rounds = args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1)?.parse().ok());
    pin(0);
    let vm = Arc::new(SharedTunables::new(Tunables::NO_POLL));
    let asleep_vcore = || vcore_of(0, &vm);
    let mut all = vec![
        uncontended(1),
        uncontended(64),
        uncontended(2_048),
        pair("raw futex", [RawFutex::default(), RawFutex::default()]),
        pair("vcore asleep", [asleep_vcore(), asleep_vcore()]),
        pair("vcore polling", [vcore(0, POLL), vcore(1, POLL)]),
        pair("std Condvar", [StdCondvar::default(), StdCondvar::default()]),
        pair("parking_lot", [ParkingLot::default(), ParkingLot::default()]),
        pair("event-listener", [EventListener::default(), EventListener::default()]),
        same_cpu("raw futex", [RawFutex::default(), RawFutex::default()]),
        same_cpu("vcore asleep", [asleep_vcore(), asleep_vcore()]),
        same_cpu("std Condvar", [StdCondvar::default(), StdCondvar::default()]),
        same_cpu("parking_lot", [ParkingLot::default(), ParkingLot::default()]),
        same_cpu("event-listener", [EventListener::default(), EventListener::default()]),
        asleep("raw futex", 1, RawFutex::default),
        asleep("vcore", 1, asleep_vcore),
        asleep("raw futex", 2_048, RawFutex::default),
        asleep("vcore", 2_048, asleep_vcore),
    ];
    let count = all.len();
    for round in 0..rounds.unwrap_or(100) {
        // Another one first each time: what runs before a contestant colours the CPU's idle state.
        (0..count).for_each(|place| all[(place + round * 7) % count].round());
    }
    let against = |a: usize, b: usize, goal: Option<f64>| {
        (format!("{} / {}", all[a].name, all[b].name), ratio(&all[a], &all[b]), goal)
    };
    let ratios = [
        against(2, 0, None),
        against(4, 3, Some(1.1)),
        against(5, 3, Some(0.3)),
        against(6, 3, None),
        against(7, 3, None),
        against(8, 3, None),
        against(10, 9, Some(1.1)),
        against(11, 9, None),
        against(12, 9, None),
        against(13, 9, None),
        against(16, 14, None),
        against(17, 15, None),
        against(17, 16, None),
    ];
    if args.iter().any(|arg| arg == "--json") {
        return json(&all, &ratios);
    }
    print(&all);
    println!("\nmedian of the ratio in each round");
    for (name, ratio, goal) in &ratios {
        let goal = goal.map_or(String::new(), |goal| format!("   goal: at most {goal}"));
        println!("{name:64} {ratio:6.3}{goal}");
    }
}
