//! What a VM is to be: flags and configuration file in, one checked [`VmConfig`] out.
//!
//! ```text
//!  flags ─────────> Settings ─┐
//!  file ──schema──> Settings ─┴─ flags first ──> resolve ──> VmConfig ──> check_images, check_memory
//! ```
//!
//! [`Settings`] is what was said, each value checked by itself; [`VmConfig`] has every default filled in and
//! its values checked against each other. The rest of the program sees only [`VmConfig`]. Whether the host
//! can run it is asked apart ([`host`]), because a configuration can be checked on any machine.

pub mod devices;
mod file;
pub mod host;
pub mod schema;
#[cfg(test)]
mod tests;
mod tuning;
mod values;

use devices::{DeviceSettings, Devices, DevicesError};
pub use tuning::{Placement, PlaneChoice, TunableChanges};
pub use values::{ConsoleChoice, CpuCount, CpuModel, IrqchipChoice, MemorySize, MmuChoice, ThreadsPerCore};

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A kernel command line's bytes at most, the final zero not counted (Linux's `COMMAND_LINE_SIZE` on POWER).
const MAX_CMDLINE: usize = 2047;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in the file.
    #[error("{}:{line}:{column}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// Cores that are not full.
    #[error(
        "{cpus} vCPUs do not fill cores of {threads} threads; make --cpus ([cpu] count) a multiple of \
         --threads ([cpu] threads)"
    )]
    Topology {
        /// vCPUs.
        cpus: u32,
        /// Threads of a core.
        threads: u32,
    },
    /// Something the processor does not have.
    #[error("power8 has no {what}; choose {instead} with {flag}, or a later --cpu ([cpu] model)")]
    Power8 {
        /// What it lacks.
        what: &'static str,
        /// What it has.
        instead: &'static str,
        /// Where to say so.
        flag: &'static str,
    },
    /// The devices.
    #[error(transparent)]
    Devices(#[from] DevicesError),
    /// Nothing to boot.
    #[error("there is no kernel; name one with --kernel FILE or kernel in [boot]")]
    NoKernel,
    /// An image file.
    #[error("cannot read the {what} {} (--{what}, or {what} in [boot])", path.display())]
    Image {
        /// Its flag and key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too much memory for the host.
    #[error("{wanted} of memory is more than the host has ({mib} MiB); lower --memory ([memory] size)")]
    Memory {
        /// Guest RAM.
        wanted: MemorySize,
        /// The host's RAM.
        mib: u64,
    },
    /// Too many vCPUs for KVM.
    #[error("{wanted} vCPUs are more than this host's KVM allows ({limit}); lower --cpus ([cpu] count)")]
    Cpus {
        /// vCPUs.
        wanted: u32,
        /// KVM's limit.
        limit: u32,
    },
    /// Something that only POWER guests have.
    #[error("x86_64 guests have no choice of this kind yet: {what}; leave it out")]
    NotOnX86 {
        /// What was asked for, with its flag and key.
        what: &'static str,
    },
    /// Threads that the host cannot give a core.
    #[error("this host's KVM has no cores of {wanted} threads; set --threads ([cpu] threads) to {}", possible(*mask))]
    Threads {
        /// Threads of a core.
        wanted: u32,
        /// What is possible, a bit for each number: bit value 4 is four threads.
        mask: u32,
    },
}

fn possible(mask: u32) -> String {
    let numbers = (0..4).map(|bit| 1_u32 << bit).filter(|number| number & mask != 0);
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}

/// What flags or a file said. A value that is there is good by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The VM's name.
    pub name: Option<String>,
    /// Kernel image.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: Option<String>,
    /// vCPUs.
    pub cpus: Option<CpuCount>,
    /// Threads of a core.
    pub threads: Option<ThreadsPerCore>,
    /// Processor.
    pub model: Option<CpuModel>,
    /// RAM.
    pub memory: Option<MemorySize>,
    /// Address translation.
    pub mmu: Option<MmuChoice>,
    /// Interrupt controller.
    pub irqchip: Option<IrqchipChoice>,
    /// Whether the guest may reboot.
    pub reboot: Option<bool>,
    /// Who handles H_CEDE.
    pub plane: Option<PlaneChoice>,
    /// Where the control sockets are.
    pub run_dir: Option<PathBuf>,
    /// Halt polling.
    pub tunables: TunableChanges,
    /// Where vCPUs run.
    pub placement: Option<Placement>,
    /// Console.
    pub console: Option<ConsoleChoice>,
    /// Devices.
    pub devices: DeviceSettings,
}

impl Settings {
    /// Reads a configuration file. Relative paths in it start at its own directory.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or has an unknown key or a bad value.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        file::read(path)
    }

    /// These settings of flags, and `other`'s where these say nothing. Of devices that there can be several of all count, `other`'s
    /// first.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            name: self.name.or(other.name),
            kernel: self.kernel.or(other.kernel),
            initrd: self.initrd.or(other.initrd),
            cmdline: self.cmdline.or(other.cmdline),
            cpus: self.cpus.or(other.cpus),
            threads: self.threads.or(other.threads),
            model: self.model.or(other.model),
            memory: self.memory.or(other.memory),
            mmu: self.mmu.or(other.mmu),
            irqchip: self.irqchip.or(other.irqchip),
            reboot: self.reboot.or(other.reboot),
            plane: self.plane.or(other.plane),
            run_dir: self.run_dir.or(other.run_dir),
            tunables: self.tunables.or(other.tunables),
            placement: self.placement.or(other.placement),
            console: self.console.or(other.console),
            devices: self.devices.or(other.devices),
        }
    }

    /// Fills in the defaults and checks the values against each other.
    ///
    /// # Errors
    /// When two values contradict each other.
    pub fn resolve(self) -> Result<VmConfig, ConfigError> {
        let threads = self.threads.unwrap_or(ThreadsPerCore::DEFAULT);
        let vcpus = self.cpus.unwrap_or(threads.one_core());
        if vcpus.get() % threads.get() != 0 {
            return Err(ConfigError::Topology { cpus: vcpus.get(), threads: threads.get() });
        }
        let (model, mmu, irqchip) =
            (self.model.unwrap_or_default(), self.mmu.unwrap_or_default(), self.irqchip.unwrap_or_default());
        if model == CpuModel::Power8 && mmu == MmuChoice::Radix {
            return Err(ConfigError::Power8 {
                what: "radix MMU",
                instead: "hash",
                flag: "--mmu ([machine] mmu)",
            });
        }
        if model == CpuModel::Power8 && irqchip == IrqchipChoice::Xive {
            return Err(ConfigError::Power8 {
                what: "XIVE",
                instead: "xics",
                flag: "--irqchip ([machine] irqchip)",
            });
        }
        let name = self.name.unwrap_or_else(|| DEFAULT_NAME.into());
        let memory = self.memory.unwrap_or(MemorySize::DEFAULT);
        let console = self.console.unwrap_or_default();
        let devices = self.devices.resolve(&name, memory, &console)?;
        Ok(VmConfig {
            name,
            boot: Boot {
                kernel: self.kernel,
                initrd: self.initrd,
                cmdline: self.cmdline.unwrap_or_default(),
            },
            topology: Topology { vcpus, threads },
            model,
            memory,
            mmu,
            irqchip,
            reboot: self.reboot.unwrap_or(true),
            plane: self.plane.unwrap_or_default(),
            run_dir: self.run_dir,
            tunables: self.tunables,
            placement: self.placement.unwrap_or_default(),
            console,
            devices,
        })
    }

    /// Makes relative paths start at `directory`.
    fn rebase(&mut self, directory: &Path) {
        let console = self.console.as_mut().and_then(ConsoleChoice::path_mut);
        let paths = [self.kernel.as_mut(), self.initrd.as_mut(), self.run_dir.as_mut(), console];
        for path in paths.into_iter().flatten().chain(self.devices.paths()) {
            // An absolute path stays as it is.
            *path = directory.join(&*path);
        }
    }
}

/// The name of a VM that was given none.
pub const DEFAULT_NAME: &str = "cede";

/// What is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Kernel image. A device tree can be built without; nothing can be run.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line: no zero byte, at most 2047 bytes.
    pub cmdline: String,
}

impl Boot {
    /// The kernel, for those who cannot do without.
    ///
    /// # Errors
    /// [`ConfigError::NoKernel`].
    pub fn kernel(&self) -> Result<&Path, ConfigError> {
        self.kernel.as_deref().ok_or(ConfigError::NoKernel)
    }
}

/// vCPUs and how they share cores. Every core is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// All of them.
    pub vcpus: CpuCount,
    /// How many share a core.
    pub threads: ThreadsPerCore,
}

impl Topology {
    /// How many cores there are.
    #[must_use]
    pub fn cores(self) -> u32 {
        self.vcpus.get() / self.threads.get()
    }
}

/// A VM as it is to be, every value checked and every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// The VM's name: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// What is booted.
    pub boot: Boot,
    /// vCPUs and cores.
    pub topology: Topology,
    /// Processor.
    pub model: CpuModel,
    /// RAM.
    pub memory: MemorySize,
    /// Address translation. Not radix on POWER8.
    pub mmu: MmuChoice,
    /// Interrupt controller. Not XIVE on POWER8.
    pub irqchip: IrqchipChoice,
    /// Whether the guest may reboot; else a reboot ends the process.
    pub reboot: bool,
    /// Who handles H_CEDE.
    pub plane: PlaneChoice,
    /// Where the control sockets are, if not in the usual place.
    pub run_dir: Option<PathBuf>,
    /// Which tunables of halt polling were said; [`TunableChanges::values`] has the defaults for the others.
    pub tunables: TunableChanges,
    /// Where vCPUs run.
    pub placement: Placement,
    /// Console.
    pub console: ConsoleChoice,
    /// Devices.
    pub devices: Devices,
}

impl fmt::Display for VmConfig {
    /// A few lines for a person, the last one not ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = |path: &Option<PathBuf>, none: &str| {
            path.as_ref().map_or_else(|| none.to_owned(), |path| path.display().to_string())
        };
        let Topology { vcpus, threads } = self.topology;
        writeln!(f, "name     {}", self.name)?;
        writeln!(f, "kernel   {}", file(&self.boot.kernel, "none; run needs --kernel FILE"))?;
        writeln!(f, "initrd   {}", file(&self.boot.initrd, "none"))?;
        writeln!(f, "cmdline  {:?}", self.boot.cmdline)?;
        writeln!(
            f,
            "cpu      {} vCPUs, {} cores of {} threads, model {}",
            vcpus.get(),
            self.topology.cores(),
            threads.get(),
            values::name(&self.model)
        )?;
        writeln!(f, "memory   {}", self.memory)?;
        let reboot = if self.reboot { "starts again" } else { "ends" };
        writeln!(
            f,
            "machine  mmu {}, irqchip {}, {reboot} at reboot",
            values::name(&self.mmu),
            values::name(&self.irqchip)
        )?;
        let plane = values::name(&self.plane);
        writeln!(f, "cede     plane {plane}, run directory {}", file(&self.run_dir, "the usual"))?;
        writeln!(f, "vcore    {}, placement {}", self.tunables.values(), self.placement)?;
        write!(f, "console  {}{}", self.console, self.devices)
    }
}

/// Checks a VM's name, which becomes part of thread names and of paths.
pub(crate) fn vm_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !(1..=63).contains(&text.len()) || !text.bytes().all(allowed) || text.starts_with('.') {
        return Err(format!(
            "{text:?} is no name; it can be 1 to 63 letters, digits, '-', '_' and '.', not first a '.'"
        ));
    }
    Ok(text.to_owned())
}

/// Checks a path.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("the path is empty".into()),
        text if text.contains('\0') => Err("the path has a zero byte".into()),
        text => Ok(text.into()),
    }
}

/// Checks a kernel command line.
pub(crate) fn cmdline(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("the command line has a zero byte".into());
    }
    if text.len() > MAX_CMDLINE {
        return Err(format!("{} bytes are too long; {MAX_CMDLINE} are allowed", text.len()));
    }
    Ok(text.to_owned())
}
