//! Every key of the configuration file, as data: the parser, its messages and the test of the documentation
//! all read this table.

use super::Settings;
use super::values::word;
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
}

/// A row of the table.
const fn key(
    table: &'static str,
    name: &'static str,
    kind: Kind,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Key {
    Key { table, name, kind, set }
}

/// Stores a value that was parsed.
fn store<T, E>(slot: &mut Option<T>, value: Result<T, E>) -> Result<(), E> {
    *slot = Some(value?);
    Ok(())
}

/// All keys, in the order in which messages list them.
pub const KEYS: &[Key] = &[
    key("", "name", Kind::Text, |s, v| store(&mut s.name, super::vm_name(v))),
    key("boot", "kernel", Kind::Text, |s, v| store(&mut s.kernel, super::path(v))),
    key("boot", "initrd", Kind::Text, |s, v| store(&mut s.initrd, super::path(v))),
    key("boot", "cmdline", Kind::Text, |s, v| store(&mut s.cmdline, super::cmdline(v))),
    key("cpu", "count", Kind::Integer, |s, v| store(&mut s.cpus, v.parse())),
    key("cpu", "threads", Kind::Integer, |s, v| store(&mut s.threads, v.parse())),
    key("cpu", "model", Kind::Text, |s, v| store(&mut s.model, word(v))),
    key("memory", "size", Kind::Size, |s, v| store(&mut s.memory, v.parse())),
    key("machine", "mmu", Kind::Text, |s, v| store(&mut s.mmu, word(v))),
    key("machine", "irqchip", Kind::Text, |s, v| store(&mut s.irqchip, word(v))),
    key("machine", "reboot", Kind::Boolean, |s, v| store(&mut s.reboot, Ok::<_, String>(v == "true"))),
    key("cede", "plane", Kind::Text, |s, v| store(&mut s.plane, word(v))),
    key("vcore", "halt_poll_ns", Kind::Integer, |s, v| s.tunables.say("halt_poll_ns", v)),
    key("vcore", "halt_poll_ns_grow", Kind::Integer, |s, v| s.tunables.say("halt_poll_ns_grow", v)),
    key("vcore", "halt_poll_ns_grow_start", Kind::Integer, |s, v| {
        s.tunables.say("halt_poll_ns_grow_start", v)
    }),
    key("vcore", "halt_poll_ns_shrink", Kind::Integer, |s, v| s.tunables.say("halt_poll_ns_shrink", v)),
    key("vcore", "placement", Kind::Text, |s, v| store(&mut s.placement, v.parse())),
    key("console", "backend", Kind::Text, |s, v| store(&mut s.console, v.parse())),
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
