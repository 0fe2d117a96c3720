//! Which of the host's CPUs each vCPU thread may use.
//!
//! ```text
//!   /sys/devices/system/cpu, /proc/self/status ──▶ HostCpus ──┐
//!   [vcore] placement, vCPUs, threads of a vcore ─────────────┴─▶ place ──▶ a set for each vCPU, or none
//! ```
//!
//! [`place`] is pure. A vCPU thread puts its own set into force before it first enters the guest.
//!
//! What always holds: the threads of a vcore are on one core's threads wherever the host has as many, and no CPU
//! is given to two vcores.

use crate::config::{Placement, Topology};
use nix::sched::CpuSet;
use std::io;
use std::path::{Path, PathBuf};

/// The configuration's placement cannot be had on this host.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The host does not say what CPUs it has.
    #[error("cannot tell which CPUs the host has ({}); use --placement none ([vcore] placement)", path.display())]
    Unknown {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A CPU that is not there.
    #[error("CPU {cpu} is offline or not there; online are {online} (--placement, [vcore] placement)")]
    Offline {
        /// Its number.
        cpu: usize,
        /// Those that are.
        online: String,
    },
    /// A CPU of somebody else.
    #[error(
        "CPU {cpu} may not be used by this process, which may use {allowed} (--placement, [vcore] placement)"
    )]
    NotAllowed {
        /// Its number.
        cpu: usize,
        /// Those that may.
        allowed: String,
    },
    /// Fewer CPUs than vCPUs.
    #[error(
        "{vcpus} vCPUs need {vcpus} CPUs, and {named} are named; name more (--placement, [vcore] placement)"
    )]
    FewCpus {
        /// vCPUs.
        vcpus: u32,
        /// CPUs in the list.
        named: usize,
    },
    /// Fewer cores than vcores.
    #[error(
        "{vcores} vcores need {vcores} cores of the host, and there are {cores} to use; give the guest fewer \
         vCPUs, or use --placement none ([vcore] placement)"
    )]
    FewCores {
        /// vcores.
        vcores: u32,
        /// Cores of which a CPU is online and allowed, and named if there is a list.
        cores: usize,
    },
}

/// A CPU of the host that is online.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostCpu {
    number: usize,
    /// The lowest online CPU of its core, which stands for the core.
    core: usize,
    /// This process may use it.
    allowed: bool,
}

/// The host's CPUs, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCpus(Vec<HostCpu>);

const SYS: &str = "/sys/devices/system/cpu";
const STATUS: &str = "/proc/self/status";

impl HostCpus {
    /// Those of this host.
    ///
    /// # Errors
    /// [`PlacementError::Unknown`].
    pub fn read() -> Result<Self, PlacementError> {
        Self::at(Path::new(SYS), Path::new(STATUS))
    }

    /// From other files. What this process may use is read and not asked for by sched_getaffinity(2), whose
    /// usual set is too small for hosts of more than 1024 CPUs.
    fn at(sys: &Path, status: &Path) -> Result<Self, PlacementError> {
        let text = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| PlacementError::Unknown { path: path.to_owned(), source })
        };
        let list = |path: &Path, text: &str| {
            cpu_list(text).ok_or_else(|| PlacementError::Unknown {
                path: path.to_owned(),
                source: io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no list of CPUs")),
            })
        };
        let path = sys.join("online");
        let online = list(&path, &text(&path)?)?;
        let status_text = text(status)?;
        let allowed = status_text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = list(status, allowed.unwrap_or_default())?;
        let cpus = online.into_iter().map(|number| {
            let path = sys.join(format!("cpu{number}/topology/thread_siblings_list"));
            let core = list(&path, &text(&path)?)?.into_iter().min().unwrap_or(number);
            Ok(HostCpu { number, core, allowed: allowed.contains(&number) })
        });
        Ok(Self(cpus.collect::<Result<_, PlacementError>>()?))
    }

    /// The CPUs that may be used, core by core. A `cpu_set_t` has no room for others.
    fn usable(&self) -> impl Iterator<Item = &HostCpu> {
        self.0.iter().filter(|cpu| cpu.allowed && cpu.number <= Placement::MAX_CPU)
    }

    /// The most CPUs that a core has online.
    fn smt(&self) -> usize {
        let threads = |core| self.0.iter().filter(|cpu| cpu.core == core).count();
        self.0.iter().map(|cpu| threads(cpu.core)).max().unwrap_or(0)
    }

    fn find(&self, number: usize) -> Result<&HostCpu, PlacementError> {
        let show = |cpus: Vec<usize>| Placement::List(cpus).to_string();
        match self.0.iter().find(|cpu| cpu.number == number) {
            None => {
                let online = show(self.0.iter().map(|cpu| cpu.number).collect());
                Err(PlacementError::Offline { cpu: number, online })
            }
            Some(cpu) if !cpu.allowed => {
                let allowed = show(self.usable().map(|cpu| cpu.number).collect());
                Err(PlacementError::NotAllowed { cpu: number, allowed })
            }
            Some(cpu) => Ok(cpu),
        }
    }
}

/// The set of each vCPU, by number; `None` leaves it to the host's scheduler. Reads what the host has only if that
/// matters.
///
/// # Errors
/// [`PlacementError`].
pub fn cpu_sets(placement: &Placement, topology: Topology) -> Result<Vec<Option<CpuSet>>, PlacementError> {
    if *placement == Placement::None {
        return Ok(vec![None; topology.vcpus.get() as usize]);
    }
    let sets = place(placement, topology, &HostCpus::read()?)?;
    Ok(sets.into_iter().map(|cpus| (!cpus.is_empty()).then(|| set_of(&cpus))).collect())
}

fn set_of(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        // Higher numbers than a set can hold are in no list and not usable.
        let _ = set.set(cpu);
    }
    set
}

/// The CPUs of each vCPU, by number; an empty list leaves it to the host's scheduler.
///
/// - `cores`: vcore after vcore takes a core. If the core has as many CPUs as the vcore has threads, each thread
///   has its own, else all threads share what there is: on POWER8, whose cores show one CPU to run KVM on.
/// - A list: vcore after vcore takes the list's next CPUs that are of one core. If no core has enough left, it takes
///   what comes next. On a host whose cores all have fewer CPUs than a vcore has threads, it is as with `cores`.
///
/// # Errors
/// [`PlacementError`].
pub fn place(
    placement: &Placement,
    topology: Topology,
    host: &HostCpus,
) -> Result<Vec<Vec<usize>>, PlacementError> {
    let (vcpus, threads) = (topology.vcpus.get(), topology.threads.get() as usize);
    let named: Vec<&HostCpu> = match placement {
        Placement::None => return Ok(vec![Vec::new(); vcpus as usize]),
        Placement::Cores => return by_core(topology, &by_cores(host.usable())),
        Placement::List(cpus) => cpus.iter().map(|&cpu| host.find(cpu)).collect::<Result<_, _>>()?,
    };
    if host.smt() < threads {
        return by_core(topology, &by_cores(named.into_iter()));
    }
    if named.len() < vcpus as usize {
        return Err(PlacementError::FewCpus { vcpus, named: named.len() });
    }
    let mut left = named;
    let mut placed = Vec::new();
    for _ in 0..topology.cores() {
        let of = |core| left.iter().filter(move |cpu| cpu.core == core);
        let whole = left.iter().map(|cpu| cpu.core).find(|&core| of(core).count() >= threads);
        let cpus: Vec<usize> = match whole {
            Some(core) => of(core).take(threads).map(|cpu| cpu.number).collect(),
            None => left.iter().take(threads).map(|cpu| cpu.number).collect(),
        };
        left.retain(|cpu| !cpus.contains(&cpu.number));
        placed.extend(cpus.into_iter().map(|cpu| vec![cpu]));
    }
    Ok(placed)
}

/// A core for each vcore.
fn by_core(topology: Topology, cores: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, PlacementError> {
    let (vcores, threads) = (topology.cores(), topology.threads.get() as usize);
    if cores.len() < vcores as usize {
        return Err(PlacementError::FewCores { vcores, cores: cores.len() });
    }
    let placed = cores.iter().take(vcores as usize).flat_map(|core| {
        let own = core.len() >= threads;
        (0..threads).map(move |thread| if own { vec![core[thread]] } else { core.clone() })
    });
    Ok(placed.collect())
}

/// CPUs by core, cores and CPUs in the order in which they come.
fn by_cores<'a>(cpus: impl Iterator<Item = &'a HostCpu>) -> Vec<Vec<usize>> {
    let mut cores: Vec<(usize, Vec<usize>)> = Vec::new();
    for cpu in cpus {
        match cores.iter_mut().find(|(core, _)| *core == cpu.core) {
            Some((_, cpus)) => cpus.push(cpu.number),
            None => cores.push((cpu.core, vec![cpu.number])),
        }
    }
    cores.into_iter().map(|(_, cpus)| cpus).collect()
}

/// A list of CPUs as the kernel writes it, `0-3,8`; empty for an empty line.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    let ranges = parts.map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    Some(ranges.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
