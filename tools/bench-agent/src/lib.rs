//! What the bench's two halves tell each other: a [`Plan`] goes into the lab host as JSON on the command
//! line, [`Record`]s come back as JSON lines on stdout.

use serde::{Deserialize, Serialize};

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

/// One measured value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The monitor.
    pub subject: String,
    /// The round; 0 warms up.
    pub round: u32,
    /// What was measured.
    pub figure: Figure,
    /// In the figure's unit.
    pub value: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// CPU time of all the process's threads, user and system, from exec to the guest's first instruction.
    FirstInstructionCpu,
    /// Time from exec to the guest's first instruction.
    FirstInstructionWall,
    /// Instructions that the processor completed for the process in that time, in user space and in the
    /// kernel.
    FirstInstructionInstructions,
    /// System calls of the process in that time.
    FirstInstructionSyscalls,
    /// Page faults of the process in that time.
    FirstInstructionFaults,
    /// Time from exec to the first line of the guest's user space.
    UserSpaceWall,
    /// CPU time of the process, its guest included, in that time.
    UserSpaceCpu,
    /// Resident memory of the process but for the guest's RAM, while the guest idles.
    MemoryRss,
    /// The same, with pages that several processes share divided among them.
    MemoryPss,
    /// The process's page tables.
    MemoryPageTables,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Just a number.
    Count,
    /// Bytes.
    Bytes,
}

impl Figure {
    /// All, in the order of the report.
    pub const ALL: [Figure; 10] = [
        Figure::FirstInstructionCpu,
        Figure::FirstInstructionWall,
        Figure::FirstInstructionInstructions,
        Figure::FirstInstructionSyscalls,
        Figure::FirstInstructionFaults,
        Figure::UserSpaceWall,
        Figure::UserSpaceCpu,
        Figure::MemoryRss,
        Figure::MemoryPss,
        Figure::MemoryPageTables,
    ];

    /// Its name in a table.
    pub fn title(self) -> &'static str {
        match self {
            Figure::FirstInstructionCpu => "exec to first guest instruction, CPU time",
            Figure::FirstInstructionWall => "exec to first guest instruction, wall time",
            Figure::FirstInstructionInstructions => "exec to first guest instruction, instructions",
            Figure::FirstInstructionSyscalls => "exec to first guest instruction, system calls",
            Figure::FirstInstructionFaults => "exec to first guest instruction, page faults",
            Figure::UserSpaceWall => "exec to guest user space, wall time",
            Figure::UserSpaceCpu => "exec to guest user space, CPU time with the guest's",
            Figure::MemoryRss => "memory beyond guest RAM, RSS",
            Figure::MemoryPss => "memory beyond guest RAM, PSS",
            Figure::MemoryPageTables => "the process's page tables",
        }
    }

    /// Its unit.
    pub fn unit(self) -> Unit {
        match self {
            Figure::FirstInstructionCpu
            | Figure::FirstInstructionWall
            | Figure::UserSpaceWall
            | Figure::UserSpaceCpu => Unit::Time,
            Figure::FirstInstructionInstructions
            | Figure::FirstInstructionSyscalls
            | Figure::FirstInstructionFaults => Unit::Count,
            Figure::MemoryRss | Figure::MemoryPss | Figure::MemoryPageTables => Unit::Bytes,
        }
    }
}
