//! Level sources: any thread says whether its device asserts, one thread tells the interrupt controller.
//!
//! ```text
//!  device thread ─ assert ───┐                    one word a source            the worker
//!  vCPU thread ─── deassert ─┼─▶ inputs, changed ──unpark──▶ takes "changed" and the inputs, in one step
//!  another device ─ assert ──┘                               └─▶ Line: asserted while any input is
//! ```
//!
//! An event may come from any thread because it stands for itself; a level is the last that was set, and two threads that told
//! the controller themselves could tell it in the other order. What holds:
//! 1. **The controller ends with the newest level.** A change is in the word before the worker is told, and marks the word as
//!    changed. The worker takes the mark and the inputs in one step, so a change is either in what it takes or marks the word
//!    again, and then the worker is told again.
//! 2. **Never an older level after a newer one**: one thread tells, and what it takes only gets newer.
//! 3. **No change is slept through.** Who marks a word unparks the worker; the worker parks only after a turn that began after
//!    its last wake, and an unpark before the park makes the park return.
//! 4. **What a device did before it asserted is there for the handler**: a change is Release, the worker's step Acquire, also
//!    where the input does not change.
//! 5. **Memory is bounded**: a word for each source. Levels that came and went before the worker looked have not been.
//!
//! Devices that share a source have an input each, and the source is asserted while any of them is, as wires are.

use crate::sync::{AtomicBool, AtomicU64, JoinHandle, Mutex, Ordering, Thread, park, spawn, update};
use crate::{Line, Sink};
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError};

/// Not yet seen by the worker.
const CHANGED: u64 = 1 << 63;

/// How many inputs a source can have.
const INPUTS: u32 = CHANGED.trailing_zeros();

struct Source {
    line: Line,
    /// A bit for each input that is asserted, and [`CHANGED`].
    word: AtomicU64,
    /// How many inputs were given out.
    inputs: Mutex<u32>,
}

impl Source {
    /// Takes what has changed, if anything has. By the worker.
    fn take(&self) -> Option<bool> {
        // Most turns are on account of one source: the others' words are not written.
        if self.word.load(Ordering::Relaxed) & CHANGED == 0 {
            return None;
        }
        // Acquire: pairs with the Release of an input's change.
        Some(self.word.fetch_and(!CHANGED, Ordering::AcqRel) & !CHANGED != 0)
    }
}

struct Shared {
    sources: Box<[Source]>,
    worker: OnceLock<Thread>,
    stopping: AtomicBool,
}

impl Shared {
    fn tell_worker(&self) {
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    /// The worker's life.
    fn work(&self) {
        let mut told = vec![false; self.sources.len()];
        loop {
            // Acquire: pairs with the Release of `stop`. Before the turn, which then sees all that was set before the end.
            let stopping = self.stopping.load(Ordering::Acquire);
            for (source, told) in self.sources.iter().zip(&mut told) {
                if let Some(level) = source.take().filter(|level| level != told) {
                    *told = level;
                    if let Err(error) = source.line.set(level) {
                        tracing::debug!(%error, gsi = source.line.gsi(), "a level was not taken");
                    }
                }
            }
            if stopping {
                return;
            }
            park();
        }
    }
}

/// Level sources and their worker. Dropping it ends the worker; inputs that still exist have no effect any more.
pub struct Levels {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Levels {
    /// Starts the worker of these sources, all of which are deasserted.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(lines: impl IntoIterator<Item = Line>) -> io::Result<Self> {
        let source = |line| Source { line, word: AtomicU64::new(0), inputs: Mutex::new(0) };
        let sources = lines.into_iter().map(source).collect();
        let shared = Arc::new(Shared { sources, worker: OnceLock::new(), stopping: AtomicBool::new(false) });
        let worker = spawn("levels", {
            let shared = Arc::clone(&shared);
            move || shared.work()
        })?;
        // Nobody has an input yet, so nobody has missed it.
        let _ = shared.worker.set(worker.thread().clone());
        Ok(Self { shared, worker: Mutex::new(Some(worker)) })
    }

    /// A new input of the source whose line has number `gsi`: a line whose level any thread may set.
    ///
    /// # Panics
    /// When there is no such source, or it has 63 inputs: the machine's layout is wrong.
    #[must_use]
    pub fn input(&self, gsi: u32) -> Line {
        let place = self.shared.sources.iter().position(|source| source.line.gsi() == gsi);
        let place = place.unwrap_or_else(|| panic!("{gsi:#x} is no level source"));
        let mut inputs = self.shared.sources[place].inputs.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(*inputs < INPUTS, "source {gsi:#x} has too many inputs");
        let bit = 1 << *inputs;
        *inputs += 1;
        Line::new(Arc::new(Input { shared: Arc::clone(&self.shared), place, bit }), gsi)
    }

    /// Ends the worker, after it has told the controller of every change that was made before. Not by the worker.
    pub fn stop(&self) {
        // Release: pairs with the worker's look.
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.tell_worker();
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if worker.is_some_and(|worker| worker.join().is_err()) {
            tracing::error!("the worker of level interrupts has panicked");
        }
    }
}

impl Drop for Levels {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shared.sources.iter().map(|source| &source.line)).finish()
    }
}

/// One device's share in a level source.
struct Input {
    shared: Arc<Shared>,
    place: usize,
    bit: u64,
}

impl Sink for Input {
    fn set(&self, _: u32, level: bool) -> io::Result<()> {
        let set = |word| {
            let new = if level { word | self.bit } else { word & !self.bit };
            if new == word { word } else { new | CHANGED }
        };
        let old = update(&self.shared.sources[self.place].word, set);
        // Marked by somebody before: the worker was told and has not looked.
        if old & CHANGED == 0 && set(old) != old {
            self.shared.tell_worker();
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::tests::Recorder;

    #[test]
    fn a_source_is_asserted_while_any_input_is() {
        let recorder = Arc::new(Recorder::default());
        let levels = Levels::start([recorder.line(8), recorder.line(9)]).unwrap();
        let (first, second) = (levels.input(9), levels.input(9));
        first.set(true).unwrap();
        recorder.wait_for(&[(9, true)]);
        second.set(true).unwrap();
        first.set(false).unwrap();
        second.set(true).unwrap();
        levels.input(8).set(true).unwrap();
        recorder.wait_for(&[(9, true), (8, true)]);
        second.set(false).unwrap();
        recorder.wait_for(&[(9, true), (8, true), (9, false)]);
        levels.stop();
        assert_eq!(recorder.taken(), [(9, true), (8, true), (9, false)]);
    }

    #[test]
    fn what_was_set_before_the_end_is_told_and_nothing_after() {
        for _ in 0..200 {
            let recorder = Arc::new(Recorder::default());
            let levels = Levels::start([recorder.line(9)]).unwrap();
            let input = levels.input(9);
            input.set(true).unwrap();
            drop(levels);
            input.set(false).unwrap();
            assert_eq!(recorder.taken(), [(9, true)]);
        }
    }

    #[test]
    fn a_sink_that_refuses_does_not_end_the_worker() {
        let recorder = Arc::new(Recorder::default());
        let levels = Levels::start([recorder.line(9)]).unwrap();
        let input = levels.input(9);
        recorder.refuse();
        input.set(true).unwrap();
        recorder.wait_for(&[(9, true)]);
        input.set(false).unwrap();
        recorder.wait_for(&[(9, true), (9, false)]);
    }

    #[test]
    fn threads_that_set_levels_leave_the_newest() {
        const TURNS: u32 = 20_000;
        let recorder = Arc::new(Recorder::default());
        let levels = Levels::start([recorder.line(8), recorder.line(9)]).unwrap();
        std::thread::scope(|scope| {
            for (gsi, last) in [(8, true), (9, false), (9, false)] {
                let input = levels.input(gsi);
                scope.spawn(move || {
                    for turn in 0..TURNS {
                        input.set(turn % 2 == 0).unwrap();
                    }
                    input.set(last).unwrap();
                });
            }
        });
        levels.stop();
        let taken = recorder.taken();
        let of = |gsi| taken.iter().filter(move |(g, _)| *g == gsi).map(|(_, level)| *level);
        assert_eq!(of(8).next_back(), Some(true));
        assert!(!of(9).next_back().unwrap_or(false));
        for gsi in [8, 9] {
            assert!(of(gsi).zip(of(gsi).skip(1)).all(|(a, b)| a != b), "nothing is told twice");
        }
    }

    #[test]
    #[should_panic(expected = "0xa is no level source")]
    fn there_are_no_other_sources() {
        let levels = Levels::start([Arc::new(Recorder::default()).line(9)]).unwrap();
        let _ = levels.input(10);
    }
}
