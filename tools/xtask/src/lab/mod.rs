//! The lab: KVM on POWER, for real, on a machine that has no POWER.
//!
//! QEMU emulates a POWER host (powernv, or pseries for nested KVM); a stock Debian kernel boots on it with a
//! small initramfs, loads KVM HV and runs one command. [`Run`] says what to run and where, [`Session`] is the
//! run itself.
//!
//! ```no_run
//! use xtask::lab::{Host, Run};
//! let mut session = Run::new(Host::Powernv9).command(["sh"]).start()?;
//! session.send(b"uname -m\n")?;
//! session.expect("ppc64le\n")?;
//! session.close_input()?;
//! assert_eq!(session.finish()?.code, 0);
//! # Ok::<(), anyhow::Error>(())
//! ```

pub mod apt;
pub mod cli;
pub mod cpio;
pub mod fetch;
mod host;
pub mod initramfs;
mod modules;
mod progress;
mod qemu;
pub mod root;
mod run;
mod session;
pub mod terminal;

pub use host::Host;
pub use initramfs::{Guest, guest};
pub use run::{Run, parse_block, parse_file};
pub use session::{Event, Input, Outcome, RunError, Session, Stream};
