//! What of a vCPU's idling brings its thread out of KVM_RUN, on the assist plane: KVM sleeps, and cede looks on.
//!
//! ```text
//!              ┌───────── Off ◀───────┐      no event is open
//!              ▼                      │
//!   Cedes { unseen } ◀────────────▶ Wake
//!   `before` on, its                `before` off,
//!   period unseen + 1               `after` on
//! ```
//!
//! What must hold: no more than one of the two is on, and what is not on sends nothing but what was under way. A loss of either
//! loses no wake-up of the guest, only what is learnt from it: KVM sleeps and wakes by itself.

use super::cede_event::{CedeEvent, Side};
use arch_api::ppc64::Watch;
use std::io;

/// The events of one vCPU's thread.
#[derive(Debug)]
pub(super) struct SleepWatch {
    tracepoint: u64,
    events: Option<Events>,
    watch: Watch,
}

#[derive(Debug)]
struct Events {
    before: CedeEvent,
    after: CedeEvent,
    period: u64,
}

impl SleepWatch {
    /// On this tracepoint; nothing is open yet.
    pub fn new(tracepoint: u64) -> Self {
        Self { tracepoint, events: None, watch: Watch::Off }
    }

    /// What it watches for.
    pub fn watch(&self) -> Watch {
        self.watch
    }

    /// Watches for this from here on. On the vCPU's thread.
    pub fn set(&mut self, watch: Watch) -> io::Result<()> {
        if watch == self.watch {
            return Ok(());
        }
        if watch == Watch::Off {
            // Closed, so that not even the thread's switches cost more than without.
            self.events = None;
            self.watch = watch;
            return Ok(());
        }
        let events = match &mut self.events {
            Some(events) => events,
            none => none.insert(Events {
                before: CedeEvent::open_disabled(self.tracepoint, Side::Before)?,
                after: CedeEvent::open_disabled(self.tracepoint, Side::After)?,
                period: 1,
            }),
        };
        match self.watch {
            Watch::Off => {}
            Watch::Cedes { .. } => events.before.disable()?,
            Watch::Wake => events.after.disable()?,
        }
        match watch {
            Watch::Off => {}
            Watch::Cedes { unseen } => {
                let period = u64::from(unseen) + 1;
                if events.period != period {
                    events.before.set_period(period)?;
                    events.period = period;
                }
                events.before.enable()?;
            }
            Watch::Wake => events.after.enable()?,
        }
        self.watch = watch;
        Ok(())
    }
}
