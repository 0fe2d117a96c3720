//! The tunables of halt polling, as module parameters have them.
//!
//! Owns their names, units, defaults and text form (`halt_poll_ns=10000 halt_poll_ns_grow=2 …`),
//! and the shared copy that a running VM reads ([`SharedTunables`]). One set per VM; the kernel has
//! one per host. A change is seen by the next idle period of each vcore. The four values are
//! separate words, so an idle period that runs beside a change may see old and new ones mixed, as
//! it may in the kernel.

use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicU32, Ordering};

/// A name as it was given, cut to what fits: an error must own it, and nothing here allocates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Given {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Given {
    const MAX: usize = 40;

    fn new(text: &str) -> Self {
        let mut given = Self { bytes: [0; Self::MAX], len: 0 };
        for c in text.chars() {
            let (start, end) = (given.len as usize, given.len as usize + c.len_utf8());
            if end > Self::MAX {
                break;
            }
            c.encode_utf8(&mut given.bytes[start..end]);
            given.len = end as u8;
        }
        given
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or_default())
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A text that sets tunables could not be read. Nothing was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTunablesError {
    /// The key is none of the four.
    #[error(
        "unknown tunable {0:?}: there are halt_poll_ns, halt_poll_ns_grow, halt_poll_ns_grow_start and halt_poll_ns_shrink"
    )]
    UnknownKey(Given),
    /// There is no value behind the key.
    #[error("tunable {0} has no value: write {0}=NUMBER")]
    NoValue(Given),
    /// A number below zero.
    #[error("tunable {key} cannot be negative, got {value}: write 0 or more")]
    Negative {
        /// The tunable.
        key: &'static str,
        /// What was given.
        value: Given,
    },
    /// More than 32 bits.
    #[error("tunable {key} is too large, got {value}: the most is 4294967295")]
    Overflow {
        /// The tunable.
        key: &'static str,
        /// What was given.
        value: Given,
    },
    /// Not a number.
    #[error(
        "tunable {key} must be a number, got {value:?}: write decimal digits, or 0x and hexadecimal ones"
    )]
    NotANumber {
        /// The tunable.
        key: &'static str,
        /// What was given.
        value: Given,
    },
}

/// One set of values. The names, units and meanings are the kernel's
/// (Documentation/virt/kvm/halt-polling.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// The longest time to poll before sleeping, in nanoseconds. 0: never poll.
    pub halt_poll_ns: u32,
    /// What the interval is multiplied with when it grows. 0: it never grows.
    pub halt_poll_ns_grow: u32,
    /// What the interval becomes at least when it grows, in nanoseconds.
    pub halt_poll_ns_grow_start: u32,
    /// What the interval is divided by when it shrinks. 0: it shrinks to 0.
    pub halt_poll_ns_shrink: u32,
}

impl Tunables {
    /// The defaults on POWER: `KVM_HALT_POLL_NS_DEFAULT` of arch/powerpc; `halt_poll_ns_shrink` is
    /// 2 as in Linux 6.11 and later (0 before).
    pub const POWERPC: Self = Self {
        halt_poll_ns: 10_000,
        halt_poll_ns_grow: 2,
        halt_poll_ns_grow_start: 10_000,
        halt_poll_ns_shrink: 2,
    };

    /// The defaults on x86, which differ in `halt_poll_ns` alone.
    pub const X86: Self = Self { halt_poll_ns: 200_000, ..Self::POWERPC };

    /// No polling: every idle period goes straight to sleep.
    pub const NO_POLL: Self = Self { halt_poll_ns: 0, ..Self::POWERPC };

    /// The four by name, in the order of the text form.
    pub const fn named(&self) -> [(&'static str, u32); 4] {
        [
            ("halt_poll_ns", self.halt_poll_ns),
            ("halt_poll_ns_grow", self.halt_poll_ns_grow),
            ("halt_poll_ns_grow_start", self.halt_poll_ns_grow_start),
            ("halt_poll_ns_shrink", self.halt_poll_ns_shrink),
        ]
    }

    /// This set with what `text` changes: assignments apart by white space, a later one wins.
    /// Keys that `text` does not name keep their value.
    pub fn with(mut self, text: &str) -> Result<Self, ParseTunablesError> {
        for assignment in text.split_whitespace() {
            let (key, value) = assignment.split_once('=').unwrap_or((assignment, ""));
            let (name, slot) = self.slot(key).ok_or(ParseTunablesError::UnknownKey(Given::new(key)))?;
            if value.is_empty() {
                return Err(ParseTunablesError::NoValue(Given::new(key)));
            }
            *slot = parse_uint(name, value)?;
        }
        Ok(self)
    }

    fn slot(&mut self, key: &str) -> Option<(&'static str, &mut u32)> {
        let slots = [
            &mut self.halt_poll_ns,
            &mut self.halt_poll_ns_grow,
            &mut self.halt_poll_ns_grow_start,
            &mut self.halt_poll_ns_shrink,
        ];
        let names = Self::POWERPC.named().map(|(name, _)| name);
        names.into_iter().zip(slots).find(|(name, _)| *name == key)
    }
}

/// As a module's `uint` parameter is read: decimal or 0x hexadecimal, 32 bits, no sign.
fn parse_uint(key: &'static str, text: &str) -> Result<u32, ParseTunablesError> {
    let value = Given::new(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.chars().all(|c| c.is_digit(radix)) {
        return Err(ParseTunablesError::NotANumber { key, value });
    }
    if unsigned.len() != digits.len() {
        return Err(ParseTunablesError::Negative { key, value });
    }
    u32::from_str_radix(digits, radix).map_err(|_| ParseTunablesError::Overflow { key, value })
}

impl Default for Tunables {
    fn default() -> Self {
        Self::POWERPC
    }
}

impl FromStr for Tunables {
    type Err = ParseTunablesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::default().with(text)
    }
}

impl fmt::Display for Tunables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.named().into_iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// The set that a VM's vcores read and that may be changed while they run. `Relaxed`
/// throughout: each value stands alone and publishes nothing else. These are always core's
/// atomics, not the facade's: no interleaving of them is of interest to the model checker.
#[derive(Debug)]
pub struct SharedTunables {
    halt_poll_ns: AtomicU32,
    halt_poll_ns_grow: AtomicU32,
    halt_poll_ns_grow_start: AtomicU32,
    halt_poll_ns_shrink: AtomicU32,
}

impl SharedTunables {
    /// A shared copy of `tunables`.
    pub const fn new(tunables: Tunables) -> Self {
        Self {
            halt_poll_ns: AtomicU32::new(tunables.halt_poll_ns),
            halt_poll_ns_grow: AtomicU32::new(tunables.halt_poll_ns_grow),
            halt_poll_ns_grow_start: AtomicU32::new(tunables.halt_poll_ns_grow_start),
            halt_poll_ns_shrink: AtomicU32::new(tunables.halt_poll_ns_shrink),
        }
    }

    /// The longest time to poll; what an idle period needs before it starts.
    pub fn halt_poll_ns(&self) -> u32 {
        self.halt_poll_ns.load(Ordering::Relaxed)
    }

    /// All four.
    pub fn get(&self) -> Tunables {
        Tunables {
            halt_poll_ns: self.halt_poll_ns(),
            halt_poll_ns_grow: self.halt_poll_ns_grow.load(Ordering::Relaxed),
            halt_poll_ns_grow_start: self.halt_poll_ns_grow_start.load(Ordering::Relaxed),
            halt_poll_ns_shrink: self.halt_poll_ns_shrink.load(Ordering::Relaxed),
        }
    }

    /// Sets all four. The next idle period of every vcore sees them.
    pub fn set(&self, tunables: Tunables) {
        self.halt_poll_ns.store(tunables.halt_poll_ns, Ordering::Relaxed);
        self.halt_poll_ns_grow.store(tunables.halt_poll_ns_grow, Ordering::Relaxed);
        self.halt_poll_ns_grow_start.store(tunables.halt_poll_ns_grow_start, Ordering::Relaxed);
        self.halt_poll_ns_shrink.store(tunables.halt_poll_ns_shrink, Ordering::Relaxed);
    }
}

impl Default for SharedTunables {
    fn default() -> Self {
        Self::new(Tunables::default())
    }
}
