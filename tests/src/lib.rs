//! End-to-end scenarios: guests that run under the real `cede` on real KVM, on each of the lab's hosts.
//!
//! ```text
//!  scenarios   what is shown, as tables: where, how cede is started, what the guest must print
//!     │
//!  runner ───► host      a shell in a lab host that stays up from scenario to scenario; the guest's console
//! ```
//! What a scenario asserts on is what the guest itself printed, and cede's exit code. Scripts that run in the guest
//! are in `guest/`; the bare-metal guests are in `payloads/`.

#![forbid(unsafe_code)]

pub mod host;
pub mod runner;
mod scenarios;

pub use scenarios::{Body, Guest, Place, Refusal, Scenario, all};
