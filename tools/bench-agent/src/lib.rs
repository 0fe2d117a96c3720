//! What the benches' two halves tell each other: a plan goes into the lab host as JSON on the command line,
//! [`Record`]s come back as JSON lines on stdout.
//!
//! | module | is the plan of |
//! |---|---|
//! | [`blk`] | `cargo xtask bench blk`: what a disk does, and what its requests cost |
//! | [`boot`] | `cargo xtask bench boot`: what a monitor costs until its guest runs |
//! | [`idle`] | `cargo xtask bench idle`: what a guest costs that has little or nothing to do |
//! | [`net`] | `cargo xtask bench net`: how soon a guest answers another, and what that costs |
//!
//! `bench-agent count` stands alone: it gives [`Counts`], as JSON too.

#[path = "plan/blk.rs"]
pub mod blk;
#[path = "plan/boot.rs"]
pub mod boot;
mod counts;
#[path = "plan/guests.rs"]
mod guests;
#[path = "plan/idle.rs"]
pub mod idle;
#[path = "plan/net.rs"]
pub mod net;

pub use counts::Counts;
pub use guests::{Plan, Subject, Tunables};

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The monitor, and how it was set.
    pub subject: String,
    /// The round; 0 warms up.
    pub round: u32,
    /// What was measured.
    pub figure: Figure,
    /// In the unit that the figure's unit says values are in.
    pub value: f64,
}

/// What is measured, as a table names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Figure {
    /// Its name in a table.
    pub title: Cow<'static, str>,
    /// Its unit.
    pub unit: Unit,
}

impl Figure {
    /// A figure with a fixed name.
    pub const fn new(title: &'static str, unit: Unit) -> Self {
        Self { title: Cow::Borrowed(title), unit }
    }

    /// A figure whose name depends on what was found.
    pub fn named(title: String, unit: Unit) -> Self {
        Self { title: Cow::Owned(title), unit }
    }
}

/// What values are in, and how they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nanoseconds, shown as milliseconds.
    Milliseconds,
    /// Nanoseconds, shown as microseconds.
    Microseconds,
    /// A whole number.
    Count,
    /// A number with a fraction.
    Number,
    /// Bytes, shown as MiB.
    Bytes,
}
