//! Which of the guest's threads are started, as RTAS sees them.
//!
//! ```text
//!            start-cpu, reset (boot CPU)
//!  Stopped ────────────────────────────▶ Running
//!     ▲                                    │ stop-self
//!     └──────────── Stopping ◀─────────────┘
//!       its thread has left the guest
//! ```

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What `query-cpu-stopped-state` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CpuState {
    /// Can be started.
    Stopped = 0,
    /// Called stop-self, is still leaving the guest.
    Stopping = 1,
    /// Runs, or is about to.
    Running = 2,
}

/// One vCPU's share of the state.
#[derive(Debug)]
struct Cpu {
    server: u32,
    state: AtomicU8,
    /// Waits in H_JOIN.
    joined: AtomicBool,
    /// The LPCR generation that its registers hold.
    lpcr_seen: AtomicU32,
}

/// All vCPUs.
///
/// The partition-wide bits of LPCR (ILE, AIL) live here too: H_SET_MODE stores them and bumps the
/// generation, and each vCPU's own thread writes its register before it next enters the guest.
#[derive(Debug)]
pub struct Cpus {
    cpus: Vec<Cpu>,
    /// Two vCPUs that join at once do so in turn, so that one of them is the last.
    joining: Mutex<()>,
    lpcr: AtomicU64,
    generation: AtomicU32,
}

impl Cpus {
    /// All stopped, with these interrupt server numbers in ascending order.
    #[must_use]
    pub fn new(servers: &[u32]) -> Self {
        let cpu = |&server| Cpu {
            server,
            state: AtomicU8::new(CpuState::Stopped as u8),
            joined: AtomicBool::new(false),
            lpcr_seen: AtomicU32::new(0),
        };
        Self {
            cpus: servers.iter().map(cpu).collect(),
            joining: Mutex::default(),
            lpcr: AtomicU64::new(0),
            generation: AtomicU32::new(1),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// The interrupt server number of vCPU `index`.
    #[must_use]
    pub fn server(&self, index: usize) -> u32 {
        self.cpus[index].server
    }

    /// The vCPU with interrupt server number `server`.
    #[must_use]
    pub fn by_server(&self, server: u64) -> Option<usize> {
        self.cpus.binary_search_by_key(&server, |c| u64::from(c.server)).ok()
    }

    /// What `query-cpu-stopped-state` answers for vCPU `index`.
    #[must_use]
    pub fn state(&self, index: usize) -> CpuState {
        match self.cpus[index].state.load(Ordering::Acquire) {
            0 => CpuState::Stopped,
            1 => CpuState::Stopping,
            _ => CpuState::Running,
        }
    }

    /// Claims a stopped vCPU for its start. Only one of several callers gets it.
    #[must_use]
    pub fn try_start(&self, index: usize) -> bool {
        let (from, to) = (CpuState::Stopped as u8, CpuState::Running as u8);
        // Acquire: pairs with the Release of `set`, so the new run sees what the old one left.
        self.cpus[index].state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Records a state that the vCPU's own thread, or a reset, decided.
    pub fn set(&self, index: usize, state: CpuState) {
        self.cpus[index].state.store(state as u8, Ordering::Release);
    }

    /// vCPU `index` joins. False if it is the last that runs: then it does not.
    #[must_use]
    pub fn try_join(&self, index: usize) -> bool {
        let _turn = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        // Of one that is stopping no call returns any more: it prods nobody.
        let joined = |other: usize| {
            self.cpus[other].joined.load(Ordering::Relaxed) || self.state(other) != CpuState::Running
        };
        let last = (0..self.len()).all(|other| other == index || joined(other));
        self.cpus[index].joined.store(!last, Ordering::Relaxed);
        !last
    }

    /// vCPU `index` waits in H_JOIN no longer: it was prodded, or is about to enter the guest.
    pub fn unjoin(&self, index: usize) {
        let joined = &self.cpus[index].joined;
        // Relaxed: the flag says nothing of other memory. The load spares the entry into the guest a store.
        if joined.load(Ordering::Relaxed) {
            joined.store(false, Ordering::Relaxed);
        }
    }

    /// Changes the partition-wide LPCR bits in `mask`.
    pub fn set_lpcr(&self, mask: u64, value: u64) {
        let update = |old: u64| Some((old & !mask) | (value & mask));
        // Both outcomes are Ok: the closure always returns Some.
        let _ = self.lpcr.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        // Release: whoever sees the new generation sees the new bits.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The bits that vCPU `index` has to write to its LPCR, if they changed since it last asked.
    #[must_use]
    pub fn lpcr_update(&self, index: usize) -> Option<u64> {
        // Acquire: pairs with the Release of `set_lpcr`.
        let generation = self.generation.load(Ordering::Acquire);
        let seen = &self.cpus[index].lpcr_seen;
        // Relaxed: only the vCPU's own thread touches its `seen`.
        if seen.load(Ordering::Relaxed) == generation {
            return None;
        }
        seen.store(generation, Ordering::Relaxed);
        Some(self.lpcr.load(Ordering::Relaxed))
    }

    /// Everything stopped, LPCR bits clear.
    pub fn reset(&self) {
        for index in 0..self.cpus.len() {
            self.set(index, CpuState::Stopped);
            self.unjoin(index);
        }
        self.set_lpcr(u64::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lpcr;

    #[test]
    fn servers_are_found_and_nothing_else() {
        let cpus = Cpus::new(&[0, 4, 8]);
        assert_eq!((cpus.len(), cpus.is_empty()), (3, false));
        let found = [0, 1, 4, 8, 9, 4 | 1 << 32, u64::MAX].map(|server| cpus.by_server(server));
        assert_eq!(found, [Some(0), None, Some(1), Some(2), None, None, None]);
        assert_eq!(cpus.server(2), 8);
    }

    /// However changes and readers meet, each vCPU ends up with the last value, and no change is half done.
    #[test]
    fn every_vcpu_gets_the_last_lpcr() {
        let cpus = Cpus::new(&[0, 1]);
        let changes = [(lpcr::ILE, lpcr::ILE), (lpcr::AIL, lpcr::AIL_3)];
        let held = std::thread::scope(|scope| {
            for (mask, value) in changes {
                let cpus = &cpus;
                scope.spawn(move || {
                    for round in 0..=2000 {
                        cpus.set_lpcr(mask, if round % 2 == 0 { value } else { 0 });
                    }
                });
            }
            let readers = [0, 1].map(|index| {
                let cpus = &cpus;
                scope.spawn(move || {
                    let mut held = 0;
                    for _ in 0..2000 {
                        held = cpus.lpcr_update(index).unwrap_or(held);
                        assert!([0, lpcr::AIL_3].contains(&(held & lpcr::AIL)), "{held:#x}");
                    }
                    held
                })
            });
            readers.map(|reader| reader.join().unwrap())
        });
        for (index, held) in held.into_iter().enumerate() {
            assert_eq!(cpus.lpcr_update(index).unwrap_or(held), lpcr::ILE | lpcr::AIL_3);
        }
    }

    /// Those that are stopped, or on their way to it, can prod nobody.
    #[test]
    fn the_last_that_runs_does_not_join() {
        let cpus = Cpus::new(&[0, 1, 2]);
        cpus.set(0, CpuState::Running);
        assert!(!cpus.try_join(0), "alone");
        for (state, may_join) in
            [(CpuState::Running, true), (CpuState::Stopping, false), (CpuState::Stopped, false)]
        {
            cpus.set(1, state);
            assert_eq!(cpus.try_join(0), may_join, "beside one that is {state:?}");
            cpus.unjoin(0);
        }
    }

    #[test]
    fn whoever_enters_the_guest_has_not_joined_and_a_reset_forgets() {
        let cpus = Cpus::new(&[0, 1]);
        let start = || [0, 1].into_iter().for_each(|index| cpus.set(index, CpuState::Running));
        start();
        assert!(cpus.try_join(0));
        cpus.unjoin(0);
        assert!(cpus.try_join(1));
        assert!(!cpus.try_join(0));
        cpus.reset();
        start();
        assert!(cpus.try_join(0));
    }

    #[test]
    fn of_all_who_join_at_once_one_is_the_last() {
        let cpus = Cpus::new(&[0, 1, 2, 3]);
        for _ in 0..200 {
            cpus.reset();
            (0..4).for_each(|index| cpus.set(index, CpuState::Running));
            let joined = std::thread::scope(|scope| {
                let cpus = &cpus;
                let joins = [0, 1, 2, 3].map(|index| scope.spawn(move || cpus.try_join(index)));
                joins.map(|join| join.join().unwrap())
            });
            assert_eq!(joined.iter().filter(|joined| !**joined).count(), 1);
        }
    }
}
