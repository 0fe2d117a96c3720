//! A device goes to work and stops.
//!
//! ```text
//!  Idle ──DRIVER_OK──▶ Starting ──▶ Running ──0 written to the status──▶ Stopping ──the backend is gone──▶ Idle
//!   ▲                     │  └──0 written──▶ Stopping ─┘ as soon as it runs
//!   └─────────────────────┘ refused: NEEDS_RESET
//! ```
//!
//! Always true:
//! - No vCPU waits for a backend: while it stops the status reads as it was, which the driver has to wait out (4.1.4.3.1);
//!   what it writes meanwhile is lost.
//! - The status becomes 0 after the backend was dropped.
//! - The lock is held across no call of the device or the worker.

use super::Host;
use super::common::{Common, Effect};
use super::signals::Signals;
use crate::virtio::{Activation, Device, Interrupts, Ring, Running, Work};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vmm_sys_util::eventfd::EventFd;

/// A device, what its driver has negotiated, and where its work stands.
pub struct Lifecycle {
    pub device: Arc<dyn Device>,
    host: Host,
    doorbells: Vec<Arc<EventFd>>,
    signals: Arc<Signals>,
    state: Mutex<State>,
    /// Told when the phase becomes idle.
    idle: Condvar,
    /// Whether the log has heard of a driver's mistake.
    complained: AtomicBool,
}

struct State {
    common: Common,
    phase: Phase,
}

enum Phase {
    Idle,
    Starting,
    Running(Box<dyn Running>),
    Stopping,
}

impl Lifecycle {
    pub fn new(
        device: Arc<dyn Device>,
        host: Host,
        doorbells: Vec<Arc<EventFd>>,
        signals: Arc<Signals>,
    ) -> Self {
        let common = Common::new(device.features(), device.queues(), host.translated);
        let state = Mutex::new(State { common, phase: Phase::Idle });
        Self {
            device,
            host,
            doorbells,
            signals,
            state,
            idle: Condvar::new(),
            complained: AtomicBool::new(false),
        }
    }

    /// Reads the common configuration.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        self.state().common.read(offset, data, &self.signals);
    }

    /// Writes the common configuration, and does what follows from it.
    pub fn write(self: &Arc<Self>, offset: u64, data: &[u8]) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Stopping) {
            return;
        }
        match state.common.write(offset, data, &self.signals) {
            Ok(Effect::Nothing) => {}
            Ok(Effect::Activate) => self.activate(state),
            Ok(Effect::Reset) => self.stop(state),
            Err(violation) => {
                let ready = !matches!(state.phase, Phase::Idle);
                drop(state);
                self.break_down(&violation, ready);
            }
        }
    }

    /// Begins the device's reset.
    pub fn begin_reset(self: &Arc<Self>) {
        let state = self.state();
        if !matches!(state.phase, Phase::Stopping) {
            self.stop(state);
        }
    }

    /// Resets the device. Whether that was done by `deadline`; if not, it is stopping still.
    pub fn reset(self: &Arc<Self>, deadline: Instant) -> bool {
        self.begin_reset();
        let left = deadline.saturating_duration_since(Instant::now());
        let working = |state: &mut State| !matches!(state.phase, Phase::Idle);
        let waited = self.idle.wait_timeout_while(self.state(), left, working);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn activate(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        // A device that is broken already stays so.
        if self.signals.broken() || !matches!(state.phase, Phase::Idle) {
            return;
        }
        let mut memory = self.host.memory.clone();
        memory.set_iommu_enabled(state.common.translated());
        let features = state.common.features();
        let queues = match state.common.queues(&memory) {
            Ok(queues) => queues,
            Err(violation) => {
                drop(state);
                return self.break_down(&violation, true);
            }
        };
        state.phase = Phase::Starting;
        drop(state);

        let ring = |(index, queue): (usize, Option<_>)| {
            queue.map(|queue| Ring::new(index as u16, queue, memory.clone(), self.signals.clone()))
        };
        let rings = queues.into_iter().enumerate().map(ring).collect();
        let started = self.start(Activation {
            memory: memory.clone(),
            features,
            rings,
            interrupts: self.signals.clone(),
        });
        self.started(started);
    }

    fn start(&self, activation: Activation) -> io::Result<Box<dyn Running>> {
        let enabled = |(index, ring): (usize, &Option<Ring>)| ring.is_some().then_some(index);
        let enabled: Vec<_> = activation.rings.iter().enumerate().filter_map(enabled).collect();
        let doorbells = enabled.into_iter().map(|index| (index as u16, self.doorbells[index].clone()));
        let doorbells = doorbells.collect();
        let name = self.device.name().to_owned();
        let backend = self.device.activate(activation)?;
        self.host.workers.start(Work { name, backend, doorbells, interrupts: self.signals.clone() })
    }

    /// The end of [`Phase::Starting`].
    fn started(self: &Arc<Self>, started: io::Result<Box<dyn Running>>) {
        let mut state = self.state();
        let reset = matches!(state.phase, Phase::Stopping);
        match started {
            Ok(running) if reset => {
                drop(state);
                self.end(running);
            }
            Ok(running) => state.phase = Phase::Running(running),
            Err(_) if reset => self.finish(state),
            Err(error) => {
                state.phase = Phase::Idle;
                // A reset that waits would else not hear of it.
                self.idle.notify_all();
                drop(state);
                self.break_down(&error, true);
            }
        }
    }

    fn stop(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        match std::mem::replace(&mut state.phase, Phase::Stopping) {
            Phase::Idle => self.finish(state),
            // Whoever starts it finds that it has to stop.
            Phase::Starting | Phase::Stopping => {}
            Phase::Running(running) => {
                drop(state);
                self.end(running);
            }
        }
    }

    fn end(self: &Arc<Self>, running: Box<dyn Running>) {
        let lifecycle = self.clone();
        running.stop(Box::new(move || lifecycle.finish(lifecycle.state())));
    }

    /// Nothing of the device is at work: the state after a reset.
    fn finish(&self, mut state: MutexGuard<'_, State>) {
        state.common.reset();
        self.signals.reset();
        state.phase = Phase::Idle;
        self.idle.notify_all();
    }

    /// The device needs a reset. A driver that is `ready` is told.
    fn break_down(&self, why: &dyn std::fmt::Display, ready: bool) {
        let device = self.device.name();
        match self.complained.swap(true, Ordering::Relaxed) {
            false => tracing::warn!(device, "needs a reset: {why}"),
            // A guest can have this as often as it likes.
            true => tracing::debug!(device, "needs a reset: {why}"),
        }
        if ready {
            self.signals.needs_reset();
        } else {
            self.signals.set_broken();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
