//! What a cede and a wake cost, with criterion. `benches/ratios.rs` sets them against each other.

#![allow(missing_docs, reason = "criterion_group! makes a public function without any")]

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use support::cpu::{me, pin};
use support::pairs::{
    BenchVcore, EventListener, POLL, Pair, Parker, ParkingLot, RawFutex, StdCondvar, vcore,
};
use vcore::{Cause, Tunables};

fn uncontended(c: &mut Criterion) {
    pin(0);
    let mut group = c.benchmark_group("uncontended");
    let one = vcore(0, Tunables::NO_POLL);
    group.bench_function("wake then cede", |b| {
        b.iter(|| {
            one.wake(me(), Cause::External);
            black_box(one.cede(me(), None))
        });
    });
    group.bench_function("enter then leave", |b| b.iter(|| (black_box(one.enter(me())), one.leave(me()))));
    for vcpus in [1, 64, 2_048] {
        let all: Vec<BenchVcore> = (0..vcpus).map(|id| vcore(id, Tunables::NO_POLL)).collect();
        group.bench_function(BenchmarkId::new("wake then cede, round robin", vcpus), |b| {
            let mut next = all.iter().cycle();
            b.iter(|| {
                let vcore = next.next().expect("a cycle has no end");
                vcore.wake(me(), Cause::External);
                black_box(vcore.cede(me(), None))
            });
        });
    }
    group.finish();
}

fn pair<P: Parker + Send + 'static>(c: &mut Criterion, name: &str, sides: [P; 2]) {
    pin(0);
    let pair = Pair::new(1, sides);
    c.bench_function(&format!("there and back/{name}"), |b| b.iter(|| pair.turn()));
}

fn pairs(c: &mut Criterion) {
    pair(c, "raw futex", [RawFutex::default(), RawFutex::default()]);
    pair(c, "vcore, asleep", [vcore(0, Tunables::NO_POLL), vcore(1, Tunables::NO_POLL)]);
    pair(c, "vcore, polling", [vcore(0, POLL), vcore(1, POLL)]);
    pair(c, "std Condvar", [StdCondvar::default(), StdCondvar::default()]);
    pair(c, "parking_lot", [ParkingLot::default(), ParkingLot::default()]);
    pair(c, "event-listener", [EventListener::default(), EventListener::default()]);
}

criterion_group!(benches, uncontended, pairs);
criterion_main!(benches);
