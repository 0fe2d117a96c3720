//! A scheduler for virtual cores: H_CEDE napping, shared wait queues, halt polling.
//!
//! What an idle guest costs is decided here. A vcore is the vCPUs that share a core, up to eight
//! threads. A thread that cedes naps without touching its siblings; only when the last online one
//! has ceded is the vcore idle, and then one thread polls for all for a while that adapts, before
//! the vcore sleeps on its one wait queue. Wakers may be device threads and signal handlers.
//!
//! | module | owns |
//! |---|---|
//! | [`word`] | the state of a vcore in 64 bits, and its invariants |
//! | [`machine`] | every change of it: one pure transition function; `step(now, event) -> actions` |
//! | [`poll`] | the polling interval's arithmetic, the kernel's |
//! | [`sampling`] | how often to look at idle periods that the hypervisor handles |
//! | [`tunables`] | `halt_poll_ns` and its like: text form, and the copy that a running VM reads |
//! | [`stats`] | the counters and histograms, under the kernel's names |
//! | [`timer`] | the policy of a timer that follows its vCPU |
//! | [`driver`] | the vcore that real threads use, on atomics and a [`port`] |
//! | [`sync`] | the atomics' facade and the table of orderings |
//! | [`futex`], [`contention`] | feature `std`: the port on Linux, and how a poller notices that it is in the way |
//!
//! The core is `no_std` and allocates nothing. docs/vcore.md has the argument and the figures.
//!
//! A vCPU thread's loop, for POWER:
//!
//! ```
//! use vcore::{Cause, Entry, FutexPort, NoKick, SharedTunables, Thread, Vcore};
//!
//! let port = FutexPort::new(0, 4, std::sync::Arc::new(SharedTunables::default()), NoKick);
//! let vcore: Vcore<_> = Vcore::new(4, port);
//! let me = Thread::new(0).unwrap();
//! match vcore.enter(me)? {
//!     Entry::Guest => { /* KVM_RUN; it came back with H_CEDE: */ }
//!     Entry::Host(causes) => { /* KVM_INTERRUPT for what is in there, or leave the loop */ }
//! }
//! vcore.wake(me, Cause::External); // in truth from a device thread
//! let causes = vcore.cede(me, None)?; // returns at once: something is pending
//! assert!(causes.contains(Cause::External));
//! # Ok::<(), vcore::WrongState>(())
//! ```

#![cfg_attr(not(any(feature = "std", loom, test)), no_std)]

#[cfg(feature = "std")]
pub mod contention;
pub mod driver;
#[cfg(all(feature = "std", not(loom)))]
pub mod futex;
pub mod machine;
pub mod poll;
pub mod port;
pub mod sampling;
pub mod stats;
pub mod sync;
pub mod timer;
mod trace;
pub mod tunables;
pub mod word;

pub use driver::{Conferred, Entry, Look, Polled, Vcore, WrongState};
#[cfg(all(feature = "std", not(loom)))]
pub use futex::{FutexPort, Kick, NoKick};
pub use machine::{Actions, Event, Machine, Outcome};
pub use port::{Port, Waited};
pub use sampling::Sampling;
pub use stats::{Snapshot, Stats};
pub use tunables::{ParseTunablesError, SharedTunables, Tunables};
pub use word::{Cause, Causes, Thread, ThreadMask, ThreadState, VcoreState, Word};
