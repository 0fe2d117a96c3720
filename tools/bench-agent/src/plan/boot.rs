//! `bench boot`: start-up and memory.

use serde::{Deserialize, Serialize};

use crate::{Figure, Unit};

/// What to run and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Rounds after the warm-up, which is round 0.
    pub rounds: u32,
    /// The guest's memory in bytes, by which its mapping is known.
    pub ram: u64,
    /// How the first instruction is made to show itself.
    pub probe: Probe,
    /// A line of the guest's console that begins so is the first of its user space.
    pub user_space: String,
    /// A line that begins so says that the guest now idles.
    pub idle: String,
    /// The monitors, in the order of the first round; each round reverses it.
    pub subjects: Vec<Subject>,
}

/// A kernel whose first page is overlaid with a few instructions that make one hypercall and cede for ever.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// The kernel as it is.
    pub kernel: String,
    /// The page to overlay.
    pub page: String,
    /// Where in the kernel's file the page at guest physical address 0 is.
    pub offset: u64,
    /// Where the result goes.
    pub into: String,
}

/// A monitor and its two command lines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Its name in the results.
    pub name: String,
    /// Runs a guest whose first instruction is the probe's.
    pub probe: Vec<String>,
    /// Runs the guest.
    pub guest: Vec<String>,
    /// Set in its environment.
    pub environment: Vec<(String, String)>,
}

/// CPU time of all the process's threads, user and system, from exec to the guest's first instruction.
pub const FIRST_INSTRUCTION_CPU: Figure =
    Figure::new("exec to first guest instruction, CPU time", Unit::Milliseconds);
/// Time from exec to the guest's first instruction.
pub const FIRST_INSTRUCTION_WALL: Figure =
    Figure::new("exec to first guest instruction, wall time", Unit::Milliseconds);
/// Instructions that the processor completed for the process in that time, in user space and in the kernel.
pub const FIRST_INSTRUCTION_INSTRUCTIONS: Figure =
    Figure::new("exec to first guest instruction, instructions", Unit::Count);
/// System calls of the process in that time.
pub const FIRST_INSTRUCTION_SYSCALLS: Figure =
    Figure::new("exec to first guest instruction, system calls", Unit::Count);
/// Page faults of the process in that time.
pub const FIRST_INSTRUCTION_FAULTS: Figure =
    Figure::new("exec to first guest instruction, page faults", Unit::Count);
/// Time from exec to the first line of the guest's user space.
pub const USER_SPACE_WALL: Figure = Figure::new("exec to guest user space, wall time", Unit::Milliseconds);
/// CPU time of the process, its guest included, in that time.
pub const USER_SPACE_CPU: Figure =
    Figure::new("exec to guest user space, CPU time with the guest's", Unit::Milliseconds);
/// Resident memory of the process but for the guest's RAM, while the guest idles.
pub const MEMORY_RSS: Figure = Figure::new("memory beyond guest RAM, RSS", Unit::Bytes);
/// The same, with pages that several processes share divided among them.
pub const MEMORY_PSS: Figure = Figure::new("memory beyond guest RAM, PSS", Unit::Bytes);
/// The process's page tables.
pub const MEMORY_PAGE_TABLES: Figure = Figure::new("the process's page tables", Unit::Bytes);
