//! The values that decide what an idle guest costs: who handles H_CEDE, how it polls, where it runs.

use clap::ValueEnum;
use std::fmt;
use std::str::FromStr;
use vcore::Tunables;

/// Who handles H_CEDE, and with it owns the interrupt controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PlaneChoice {
    /// What suits the host best
    #[default]
    Auto,
    /// KVM
    Kernel,
    /// KVM, but cede polls before KVM sleeps
    Assist,
    /// cede's own scheduler for virtual cores
    Vmm,
}

/// Some of the tunables of halt polling with their new values. What is not said stays as it is, which on the
/// kernel plane is the host's own setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunableChanges([Option<u32>; 4]);

impl TunableChanges {
    /// Sets one, as in `halt_poll_ns` and `50000`.
    ///
    /// # Errors
    /// What is wrong with the name or the number.
    pub(super) fn say(&mut self, name: &str, value: &str) -> Result<(), String> {
        *self = format!("{name}={value}").parse::<Self>()?.or(*self);
        Ok(())
    }

    /// These changes, and `other`'s where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n].or(other.0[n])))
    }

    /// `tunables` with these changes.
    #[must_use]
    pub fn on(self, tunables: Tunables) -> Tunables {
        let [halt_poll_ns, grow, grow_start, shrink] = self.0;
        Tunables {
            halt_poll_ns: halt_poll_ns.unwrap_or(tunables.halt_poll_ns),
            halt_poll_ns_grow: grow.unwrap_or(tunables.halt_poll_ns_grow),
            halt_poll_ns_grow_start: grow_start.unwrap_or(tunables.halt_poll_ns_grow_start),
            halt_poll_ns_shrink: shrink.unwrap_or(tunables.halt_poll_ns_shrink),
        }
    }

    /// The defaults with these changes.
    #[must_use]
    pub fn values(self) -> Tunables {
        self.on(Tunables::default())
    }

    /// What is said, by name.
    pub fn said(self) -> impl Iterator<Item = (&'static str, u32)> {
        let names = Tunables::default().named().map(|(name, _)| name);
        names.into_iter().zip(self.0).filter_map(|(name, value)| Some((name, value?)))
    }

    /// Every one of them is said.
    #[must_use]
    pub fn all(tunables: Tunables) -> Self {
        Self(tunables.named().map(|(_, value)| Some(value)))
    }

    /// What is said of those that `others` names too.
    #[must_use]
    pub fn only(self, others: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n].filter(|_| others.0[n].is_some())))
    }

    /// What is said but by `others` in the same way.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n].filter(|_| self.0[n] != others.0[n])))
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl FromStr for TunableChanges {
    type Err = String;

    /// Assignments apart by white space, as module parameters have them; a later one wins.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut changes = Self::default();
        for assignment in text.split_whitespace() {
            let tunables = Tunables::default().with(assignment).map_err(|error| error.to_string())?;
            let name = assignment.split('=').next().unwrap_or_default();
            for (slot, (named, value)) in changes.0.iter_mut().zip(tunables.named()) {
                if named == name {
                    *slot = Some(value);
                }
            }
        }
        Ok(changes)
    }
}

impl fmt::Display for TunableChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.said().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Which of the host's CPUs vCPU threads may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Placement {
    /// All that the process may: the host's scheduler decides.
    #[default]
    None,
    /// Each vcore has a core of the host to itself, as far as this VM goes.
    Cores,
    /// These CPUs, in this order. Not empty, none twice.
    List(Vec<usize>),
}

impl Placement {
    /// The highest CPU number that can be named: what a `cpu_set_t` has room for.
    pub const MAX_CPU: usize = 1023;
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "cores" => Ok(Self::Cores),
            list => cpus(list).map(Self::List),
        }
    }
}

fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let wrong =
        || format!("{text:?} is no placement; it can be none, cores or a list of CPUs as in 0-3,8,12");
    // usize's own parser would take a plus sign.
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<usize>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last > Placement::MAX_CPU {
            return Err(format!("CPU {last} is too high; the highest possible is {}", Placement::MAX_CPU));
        }
        if first > last {
            return Err(format!("{part} counts down; write {last}-{first}"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is there twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Cores => f.write_str("cores"),
            Self::List(cpus) => {
                for (index, run) in cpus.chunk_by(|a, b| a + 1 == *b).enumerate() {
                    f.write_str(if index == 0 { "" } else { "," })?;
                    match run {
                        [first, .., last] => write!(f, "{first}-{last}")?,
                        [only] => write!(f, "{only}")?,
                        [] => {}
                    }
                }
                Ok(())
            }
        }
    }
}
