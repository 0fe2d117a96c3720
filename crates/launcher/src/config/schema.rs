//! Every key of the configuration file, as data: the parser, its messages and the test of the documentation
//! all read this table.

use super::values::word;
use super::{Settings, VmConfig};
use std::fmt;

/// The TOML types that a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer, not negative.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A string with a unit, or an integer in bytes.
    Size,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a string",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::Size => "a size (\"512M\", or bytes)",
        })
    }
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// The table that holds it, empty at the top level.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Checks the value, as text, and stores it; or says what is wrong with it.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
    /// Whether two configurations have the same value.
    same: fn(&VmConfig, &VmConfig) -> bool,
}

impl Key {
    /// Whether two configurations have the same value.
    #[must_use]
    pub fn is_same(&self, one: &VmConfig, other: &VmConfig) -> bool {
        (self.same)(one, other)
    }

    /// Whether it can change while the VM runs.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.table == "vcore" && self.kind == Kind::Integer
    }
}

impl fmt::Display for Key {
    /// As messages name it: `[cpu] count`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            "" => f.write_str(self.name),
            table => write!(f, "[{table}] {}", self.name),
        }
    }
}

/// A row: table, key, type, the field of [`Settings`] and how its text is read, the field of [`VmConfig`].
macro_rules! key {
    ($table:literal, $name:literal, $kind:ident, $slot:ident = $parse:expr, $($field:ident).+) => {
        Key {
            table: $table,
            name: $name,
            kind: Kind::$kind,
            set: |settings, text| store(&mut settings.$slot, $parse(text)),
            same: |one, other| one.$($field).+ == other.$($field).+,
        }
    };
}

/// The row of a tunable of halt polling, whose key is its name.
macro_rules! tunable {
    ($name:ident) => {
        Key {
            table: "vcore",
            name: stringify!($name),
            kind: Kind::Integer,
            set: |settings, text| settings.tunables.say(stringify!($name), text),
            same: |one, other| one.tunables.values().$name == other.tunables.values().$name,
        }
    };
}

/// Stores a value that was parsed.
fn store<T, E>(slot: &mut Option<T>, value: Result<T, E>) -> Result<(), E> {
    *slot = Some(value?);
    Ok(())
}

/// A boolean, which has been told from other types already.
fn boolean(text: &str) -> Result<bool, String> {
    Ok(text == "true")
}

/// All keys, in the order in which messages list them.
pub const KEYS: &[Key] = &[
    key!("", "name", Text, name = super::vm_name, name),
    key!("boot", "kernel", Text, kernel = super::path, boot.kernel),
    key!("boot", "initrd", Text, initrd = super::path, boot.initrd),
    key!("boot", "cmdline", Text, cmdline = super::cmdline, boot.cmdline),
    key!("cpu", "count", Integer, cpus = str::parse, topology.vcpus),
    key!("cpu", "threads", Integer, threads = str::parse, topology.threads),
    key!("cpu", "model", Text, model = word, model),
    key!("memory", "size", Size, memory = str::parse, memory),
    key!("machine", "mmu", Text, mmu = word, mmu),
    key!("machine", "irqchip", Text, irqchip = word, irqchip),
    key!("machine", "reboot", Boolean, reboot = boolean, reboot),
    key!("cede", "plane", Text, plane = word, plane),
    key!("cede", "run_dir", Text, run_dir = super::path, run_dir),
    tunable!(halt_poll_ns),
    tunable!(halt_poll_ns_grow),
    tunable!(halt_poll_ns_grow_start),
    tunable!(halt_poll_ns_shrink),
    key!("vcore", "placement", Text, placement = str::parse, placement),
    key!("console", "backend", Text, console = str::parse, console),
];

/// The names that `table` holds: its keys and, at the top level, the tables.
#[must_use]
pub fn names(table: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS.iter().filter(|key| key.table == table).map(|key| key.name).collect();
    if table.is_empty() {
        names.extend(KEYS.iter().map(|key| key.table).filter(|table| !table.is_empty()));
        names.dedup();
    }
    names
}
