//! Message-signalled interrupts: a vector of a device, and the route that it holds.
//!
//! ```text
//!                raise: to the route                raise: the event is kept
//!               ┌───┐                              ┌───┐
//!               │   ▼         mask                 │   ▼
//!              open ─────────────────────────────▶ masked, masked with an event pending
//!                   ◀─────────────────────────────
//!                      unmask: sends what is pending
//! ```
//!
//! Mask, pending event and route are one value, and each step on it is one atomic instruction. So:
//! 1. An event that is raised is sent once, by the raise or by the unmask: whichever step came second sees the first. Events
//!    that come while one is pending are that one, as the handler has not run yet.
//! 2. What a device wrote before a raise is there for the handler, whoever sent the interrupt: a raise writes the word even where
//!    an event is pending already, and the unmask's step reads what it wrote.
//! 3. After [`Vector::set_route`], or after the vector was masked, nothing is sent by the old route, nor at all: the change waits
//!    for those who are on their way ([`guarded`](crate::guarded) says why that is all of them, and why it ends).
//!
//! A sink never waits and never calls back, so a raise waits for nobody; whoever configures may hold locks that raises do not
//! take.

use crate::guarded::{Guarded, Step, User, VALUE_BITS};
use crate::{Line, Sink};
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

/// What a device writes to the bus to interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Message {
    /// Bus address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// Where messages lead, as the architecture decides.
pub trait Messages: Send + Sync {
    /// The line that `message` pulls; `None` where it leads nowhere.
    fn route(&self, message: Message) -> Option<Line>;
}

/// The route's number is in the low word.
const ROUTED: u64 = 1 << 32;
const MASKED: u64 = 1 << 33;
/// Only while it is masked.
const PENDING: u64 = 1 << 34;
const _: () = assert!(PENDING < 1 << VALUE_BITS);

/// A vector of a device. Whoever configures it resolves its message once; whoever raises it follows the resolved
/// route, from any thread, with no lock. At first it has no route and is not masked.
///
/// All routes of a vector lead to one sink, which is the machine's.
pub struct Vector {
    state: Guarded,
    sink: OnceLock<Arc<dyn Sink>>,
}

impl Default for Vector {
    fn default() -> Self {
        Self { state: Guarded::new(0), sink: OnceLock::new() }
    }
}

impl Vector {
    /// Raises the interrupt. Without a route nothing happens; while it is masked the event is kept.
    ///
    /// # Errors
    /// When the controller has no such source.
    pub fn raise(&self) -> io::Result<()> {
        let (value, user) = self.state.step(|value| {
            if value & MASKED != 0 {
                Step { value: value | PENDING, uses: false }
            } else {
                Step { value, uses: value & ROUTED != 0 }
            }
        });
        self.send(value, user)
    }

    /// Sets the route for every raise that begins after this returns. No raise that began before is still under way then.
    ///
    /// # Panics
    /// When the line is another sink's than an earlier one.
    pub fn set_route(&self, route: Option<Line>) {
        let route = route.map_or(0, |line| {
            let sink = self.sink.get_or_init(|| Arc::clone(&line.sink));
            assert!(Arc::ptr_eq(sink, &line.sink), "a vector's routes lead to one interrupt controller");
            ROUTED | u64::from(line.gsi)
        });
        self.state.change(|value| value & (MASKED | PENDING) | route);
    }

    /// Masks the vector, so that nothing is sent after this returns; or opens it and sends the event that is pending, if there
    /// is one and it has a route.
    ///
    /// # Errors
    /// When the controller has no such source as is to be sent to.
    pub fn set_masked(&self, masked: bool) -> io::Result<()> {
        if masked {
            self.state.change(|value| value | MASKED);
            return Ok(());
        }
        let (value, user) = self.state.step(|value| {
            let due = value & (PENDING | ROUTED) == PENDING | ROUTED;
            Step { value: value & !(MASKED | PENDING), uses: due }
        });
        self.send(value, user)
    }

    /// Whether it is masked and an event waits: its bit in the Pending Bit Array.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state.value() & PENDING != 0
    }

    /// As it was made: no route, not masked, nothing pending. No raise that began before is still under way.
    pub fn reset(&self) {
        self.state.change(|_| 0);
    }

    fn send(&self, value: u64, user: Option<User<'_>>) -> io::Result<()> {
        let (Some(_user), Some(sink)) = (user, self.sink.get()) else { return Ok(()) };
        sink.set(value as u32, true)
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.state.value();
        let route = (value & ROUTED != 0).then_some(value as u32);
        let (masked, pending) = (value & MASKED != 0, value & PENDING != 0);
        f.debug_struct("Vector")
            .field("route", &route)
            .field("masked", &masked)
            .field("pending", &pending)
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::tests::Recorder;

    #[test]
    fn a_raise_follows_the_route_of_the_moment() {
        let (recorder, vector) = (Arc::new(Recorder::default()), Vector::default());
        vector.raise().unwrap();
        assert_eq!(recorder.taken(), []);
        for gsi in [0, 0x1300, u32::MAX] {
            vector.set_route(Some(recorder.line(gsi)));
            vector.raise().unwrap();
            vector.raise().unwrap();
            assert_eq!(recorder.taken(), [(gsi, true), (gsi, true)]);
        }
        vector.set_route(None);
        vector.raise().unwrap();
        assert_eq!(recorder.taken(), []);
    }

    #[test]
    fn a_mask_keeps_one_event_for_the_route_that_is_there_when_it_opens() {
        let (recorder, vector) = (Arc::new(Recorder::default()), Vector::default());
        vector.set_route(Some(recorder.line(1)));
        vector.set_masked(true).unwrap();
        assert!(!vector.is_pending());
        vector.raise().unwrap();
        vector.raise().unwrap();
        assert!(vector.is_pending());
        vector.set_masked(true).unwrap();
        vector.set_route(Some(recorder.line(2)));
        assert!(vector.is_pending());
        assert_eq!(recorder.taken(), []);
        vector.set_masked(false).unwrap();
        assert!(!vector.is_pending());
        assert_eq!(recorder.taken(), [(2, true)]);
        vector.set_masked(false).unwrap();
        assert_eq!(recorder.taken(), [], "it was sent");
    }

    #[test]
    fn an_event_without_a_route_ends_with_the_mask() {
        let (recorder, vector) = (Arc::new(Recorder::default()), Vector::default());
        vector.set_masked(true).unwrap();
        vector.raise().unwrap();
        vector.set_masked(false).unwrap();
        assert!(!vector.is_pending());
        vector.set_route(Some(recorder.line(3)));
        assert_eq!(recorder.taken(), []);
    }

    #[test]
    fn a_reset_forgets_everything() {
        let (recorder, vector) = (Arc::new(Recorder::default()), Vector::default());
        vector.set_route(Some(recorder.line(3)));
        vector.set_masked(true).unwrap();
        vector.raise().unwrap();
        vector.reset();
        assert_eq!(format!("{vector:?}"), "Vector { route: None, masked: false, pending: false }");
        vector.raise().unwrap();
        assert_eq!(recorder.taken(), []);
    }

    #[test]
    fn the_sinks_error_is_the_raises() {
        let (recorder, vector) = (Arc::new(Recorder::default()), Vector::default());
        recorder.refuse();
        vector.set_route(Some(recorder.line(3)));
        assert_eq!(vector.raise().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[should_panic(expected = "one interrupt controller")]
    fn routes_lead_to_one_sink() {
        let vector = Vector::default();
        for recorder in [Arc::new(Recorder::default()), Arc::default()] {
            vector.set_route(Some(recorder.line(1)));
        }
    }
}
