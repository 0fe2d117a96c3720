//! The values of flags and keys. Each is checked when it is made, so whoever has one need not check it.
//!
//! A flag and a key with the same meaning share the parser here, and so take the same words.

use clap::ValueEnum;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Guest RAM comes in multiples of this: the largest page size of a Linux host on POWER.
const MEMORY_UNIT: u64 = 64 << 10;

/// vCPUs at most. Linux's own limit on POWER (`NR_CPUS`); KVM's may be lower.
const MAX_CPUS: u32 = 2048;

/// Threads of a core at most (`MAX_SMT_THREADS`).
const MAX_THREADS: u32 = 8;

/// Suffixes of a size, largest first.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// The size of guest RAM: a positive multiple of 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

impl MemorySize {
    /// 1 GiB.
    pub const DEFAULT: Self = Self(1 << 30);

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is no size; write bytes or a number with K, M, G or T, as in 512M");
        let last = text.chars().next_back().ok_or_else(wrong)?.to_ascii_uppercase();
        let (digits, shift) = match UNITS.iter().find(|(unit, _)| *unit == last) {
            Some((_, shift)) => (&text[..text.len() - 1], *shift),
            None => (text, 0),
        };
        // u64's own parser would take a plus sign.
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let bytes = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .ok_or_else(|| format!("{text} is more than 64 bits of bytes"))?;
        if bytes == 0 {
            return Err("memory has to be more than 0".into());
        }
        if bytes % MEMORY_UNIT != 0 {
            let hint = if shift == 0 && bytes < MEMORY_UNIT {
                format!("; for MiB write {text}M")
            } else {
                String::new()
            };
            return Err(format!("{text} is not a multiple of 64K{hint}"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MemorySize {
    /// With the largest unit that leaves no remainder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// How many vCPUs: 1 to 2048.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuCount(u32);

impl CpuCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for CpuCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count @ 1..=MAX_CPUS) => Ok(Self(count)),
            _ => Err(format!("{text} is not a number of vCPUs; it can be 1 to {MAX_CPUS}")),
        }
    }
}

/// How many threads a core has: 1, 2, 4 or 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadsPerCore(u32);

impl ThreadsPerCore {
    /// One.
    pub const DEFAULT: Self = Self(1);

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// One full core.
    #[must_use]
    pub fn one_core(self) -> CpuCount {
        CpuCount(self.0)
    }
}

impl FromStr for ThreadsPerCore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u32>() {
            Ok(threads) if threads.is_power_of_two() && threads <= MAX_THREADS => Ok(Self(threads)),
            _ => Err(format!("{text} is not a number of threads; it can be 1, 2, 4 or 8")),
        }
    }
}

/// Which processor the guest believes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum CpuModel {
    /// The host's
    #[default]
    Host,
    /// POWER8 (ISA 2.07)
    Power8,
    /// POWER9 (ISA 3.0)
    Power9,
    /// POWER10 (ISA 3.1)
    Power10,
}

/// How the guest translates addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum MmuChoice {
    /// Radix where the processor has it
    #[default]
    Auto,
    /// Radix trees (POWER9 and later)
    Radix,
    /// Hashed page table
    Hash,
}

/// Which interrupt controller the guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum IrqchipChoice {
    /// XIVE where the host's KVM has it
    #[default]
    Auto,
    /// XIVE, exploitation mode (POWER9 and later)
    Xive,
    /// XICS
    Xics,
}

/// Where the guest's console is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConsoleChoice {
    /// Standard input and output.
    #[default]
    Stdio,
    /// A new pty, whose path is printed.
    Pty,
    /// Output to a file, no input.
    File(PathBuf),
}

impl ConsoleChoice {
    /// The file, if it is one.
    pub(super) fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Stdio | Self::Pty => None,
        }
    }
}

impl FromStr for ConsoleChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("file=")) {
            ("stdio", _) => Ok(Self::Stdio),
            ("pty", _) => Ok(Self::Pty),
            (_, Some("")) => Err("\"file=\" has no path; write file=PATH".into()),
            (_, Some(path)) => Ok(Self::File(path.into())),
            _ => Err(format!("\"{text}\" is no console; it can be stdio, pty or file=PATH")),
        }
    }
}

impl fmt::Display for ConsoleChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::Pty => f.write_str("pty"),
            Self::File(path) => write!(f, "file={}", path.display()),
        }
    }
}

/// One of an enumeration's words, as flags take it.
pub(super) fn word<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let words: Vec<String> = T::value_variants().iter().map(name).collect();
        format!("\"{text}\" is none of {}", words.join(", "))
    })
}

/// The word of a value.
pub(super) fn name<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map_or_else(String::new, |word| word.get_name().to_owned())
}
