//! The command line. Flags say the same as keys of the configuration file, and win over them.

use crate::config::devices::{DeviceSettings, DeviceThreads};
use crate::config::schema::{device, second_console};
use crate::config::{
    self, ConfigError, ConsoleChoice, CpuCount, CpuModel, IrqchipChoice, MemorySize, MmuChoice, Placement,
    PlaneChoice, Settings, ThreadsPerCore, TunableChanges, VmConfig,
};
use crate::exit_code;
use clap::builder::styling::Styles;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  cede run --kernel vmlinux --initrd initrd.img --memory 2G --cpus 4 --threads 2
  cede run --config vm.toml --cmdline 'console=hvc0 quiet'
  cede run --config vm.toml --disk path=root.img --disk path=data.img,readonly --net tap=tap0
  cede check vm.toml
  cede caps
  cede set vm halt_poll_ns=50000 && cede stat vm --watch
  cede fdt --cpu power9 --memory 1G -o guest.dtb && dtc -I dtb guest.dtb

Sizes are bytes, or a number with K, M, G or T (powers of 1024): 512M, 2G.";

const ESCAPE_KEYS: &str = "\
Keys, when standard input is a terminal:
  Ctrl-A x  stop the virtual machine
  Ctrl-A a  send Ctrl-A (also Ctrl-A Ctrl-A)
  Ctrl-A h  list the keys";

fn after_help() -> String {
    format!("{EXAMPLES}\n\n{}", exit_code::help())
}

fn after_run_help() -> String {
    format!("{ESCAPE_KEYS}\n\n{}", after_help())
}

/// A KVM virtual machine monitor for POWER.
#[derive(Debug, Parser)]
#[command(name = "cede", version, after_help = after_help(), styles = Styles::plain())]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log.
    #[command(flatten)]
    pub logging: Logging,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a virtual machine
    #[command(after_help = after_run_help())]
    Run {
        /// What to run.
        #[command(flatten)]
        vm: VmArgs,
    },
    /// Say what this host's KVM can do, what cede would choose, and why
    Caps {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the device tree that a configuration gives; works on any machine
    Fdt {
        /// Where to write the flattened tree (DTB)
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// What to describe.
        #[command(flatten)]
        vm: VmArgs,
    },
    /// Change the tunables of a running VM and print what they are now
    Set {
        /// Which VM.
        #[command(flatten)]
        vm: VmRef,
        /// halt_poll_ns, halt_poll_ns_grow, halt_poll_ns_grow_start or halt_poll_ns_shrink, each 0 to
        /// 4294967295, as in halt_poll_ns=50000
        #[arg(value_name = "TUNABLE=VALUE", required = true)]
        tunables: Vec<TunableChanges>,
    },
    /// Show what the vCPUs of a running VM do: state, polling interval, polls, waits
    Stat {
        /// Which VM.
        #[command(flatten)]
        vm: VmRef,
        /// Print JSON, with KVM's names and with histograms
        #[arg(long)]
        json: bool,
        /// Show the figures per second, again and again until the VM ends (with --json: all, each time)
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=86400))]
        watch: Option<u64>,
    },
    /// Bring the vCPUs of a running VM out of the guest, and keep them there
    Pause {
        /// Which VM.
        #[command(flatten)]
        vm: VmRef,
    },
    /// Let a paused VM go on
    Resume {
        /// Which VM.
        #[command(flatten)]
        vm: VmRef,
    },
    /// Ask the guest of a running VM for memory, and say what it has given back; the VM needs a balloon
    Balloon {
        /// Which VM.
        #[command(flatten)]
        vm: VmRef,
        /// How much it is to give in all, as in 512M; 0 gives it all back [default: leave it as it is]
        size: Option<BalloonSize>,
    },
    /// Have a running VM read its configuration file again, as SIGHUP does; its tunables change at once
    Reload {
        /// Which VM.
        #[command(flatten)]
        vm: VmRef,
    },
    /// List the running VMs
    List {
        /// Where to look [default: $XDG_RUNTIME_DIR/cede and /run/cede]
        #[arg(long, value_name = "DIR")]
        run_dir: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration file and the images it names, and say what would run
    Check {
        /// The configuration file (TOML)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// A running VM.
#[derive(Debug, Args)]
pub struct VmRef {
    /// Name of the VM, or path of its control socket
    #[arg(value_name = "VM")]
    pub vm: String,
    /// Where to look for the name [default: $XDG_RUNTIME_DIR/cede and /run/cede]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

/// Bytes of a balloon: a size, or nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalloonSize(pub u64);

impl FromStr for BalloonSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "0" => Ok(Self(0)),
            _ => text.parse::<MemorySize>().map(|size| Self(size.bytes())),
        }
    }
}

/// Flags that say what to log.
#[derive(Debug, Args)]
pub struct Logging {
    /// What to log on standard error: error, warn, info, debug or trace, also per module as in
    /// warn,devices=debug [default: warn]
    #[arg(long, global = true, display_order = 100, value_name = "FILTER", value_parser = filter)]
    pub log: Option<String>,
    /// Log more: -v is info, -vv debug, -vvv trace
    #[arg(short, global = true, display_order = 101, action = ArgAction::Count, conflicts_with = "log")]
    pub verbose: u8,
}

fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl Logging {
    /// The filter that was asked for.
    #[must_use]
    pub fn filter(&self) -> EnvFilter {
        let by_count = match self.verbose {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        EnvFilter::new(self.log.as_deref().unwrap_or(by_count))
    }
}

/// A VM by flags and file.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// Configuration file (TOML); flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Flags that describe the VM.
    #[command(flatten)]
    pub flags: VmFlags,
}

/// The flags that have a key in the configuration file.
#[derive(Debug, Clone, Args)]
pub struct VmFlags {
    /// Name of the VM [default: cede]
    #[arg(long, value_parser = config::vm_name)]
    name: Option<String>,
    /// Kernel image: a powerpc64 ELF file
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line [default: empty]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = config::cmdline)]
    cmdline: Option<String>,
    /// Guest RAM, a multiple of 64K [default: 1G]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    /// Number of vCPUs, a multiple of the threads [default: one core]
    #[arg(long, value_name = "N")]
    cpus: Option<CpuCount>,
    /// Threads of a core: 1, 2, 4 or 8 [default: 1]
    #[arg(long, value_name = "N")]
    threads: Option<ThreadsPerCore>,
    /// Processor that the guest sees [default: host]
    #[arg(long, value_name = "MODEL")]
    cpu: Option<CpuModel>,
    /// Address translation [default: auto]
    #[arg(long, value_name = "MMU")]
    mmu: Option<MmuChoice>,
    /// Interrupt controller [default: auto]
    #[arg(long, value_name = "KIND")]
    irqchip: Option<IrqchipChoice>,
    /// Who handles H_CEDE: KVM, KVM with cede's polling, or cede's own scheduler [default: auto]
    #[arg(long, value_name = "PLANE")]
    plane: Option<PlaneChoice>,
    /// Directory of the control sockets [default: $XDG_RUNTIME_DIR/cede, or /run/cede for root]
    #[arg(long, value_name = "DIR", value_parser = config::path)]
    run_dir: Option<PathBuf>,
    /// Tunables of halt polling: 'halt_poll_ns=50000 halt_poll_ns_grow=0', also with halt_poll_ns_grow_start
    /// and halt_poll_ns_shrink [default: the kernel's]
    #[arg(long, value_name = "TUNABLES")]
    vcore: Option<TunableChanges>,
    /// Where vCPUs run: none, cores or a list of the host's CPUs as in 0-3,8,12 [default: none]
    #[arg(long, value_name = "WHERE")]
    placement: Option<Placement>,
    /// Guest console: stdio, pty or file=PATH [default: stdio]
    #[arg(long, value_name = "WHERE")]
    console: Option<ConsoleChoice>,
    /// A second console (virtio, hvc1): pty or file=PATH [default: none]
    #[arg(long, value_name = "WHERE", value_parser = second_console)]
    virtio_console: Option<ConsoleChoice>,
    /// A disk, after those of the file: path=FILE, and readonly, direct, writethrough, id=TEXT, iommu
    #[arg(long, value_name = "path=FILE,...", value_parser = |text: &str| device("disk", text))]
    disk: Vec<DeviceSettings>,
    /// A network card, after those of the file: tap=NAME, and mac=ADDRESS, iommu
    #[arg(long, value_name = "tap=NAME,...", value_parser = |text: &str| device("net", text))]
    net: Vec<DeviceSettings>,
    /// Sockets to the host: cid=N,path=SOCKET, and iommu
    #[arg(long, value_name = "cid=N,path=SOCKET", value_parser = |text: &str| device("vsock", text))]
    vsock: Option<DeviceSettings>,
    /// Random numbers from the host; also with iommu
    #[arg(long, value_name = "iommu", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[arg(value_parser = |text: &str| device("rng", text))]
    rng: Option<DeviceSettings>,
    /// A balloon; also with size=SIZE, deflate_on_oom=false, free_page_reporting=false
    #[arg(long, value_name = "size=SIZE,...", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[arg(value_parser = |text: &str| device("balloon", text))]
    balloon: Option<DeviceSettings>,
    /// Which threads run the devices' queues: each (one of its own for each device), or how many for all
    /// [default: each]
    #[arg(long, value_name = "THREADS")]
    device_threads: Option<DeviceThreads>,
    /// End with exit code 5 when the guest reboots
    #[arg(long)]
    no_reboot: bool,
}

impl From<VmFlags> for Settings {
    fn from(flags: VmFlags) -> Self {
        let devices = DeviceSettings {
            disks: flags.disk.into_iter().flat_map(|said| said.disks).collect(),
            nets: flags.net.into_iter().flat_map(|said| said.nets).collect(),
            vsock: flags.vsock.and_then(|said| said.vsock),
            rng: flags.rng.and_then(|said| said.rng),
            balloon: flags.balloon.and_then(|said| said.balloon),
            console: flags.virtio_console,
            threads: flags.device_threads,
        };
        Self {
            name: flags.name,
            kernel: flags.kernel,
            initrd: flags.initrd,
            cmdline: flags.cmdline,
            cpus: flags.cpus,
            threads: flags.threads,
            model: flags.cpu,
            memory: flags.memory,
            mmu: flags.mmu,
            irqchip: flags.irqchip,
            reboot: flags.no_reboot.then_some(false),
            plane: flags.plane,
            run_dir: flags.run_dir,
            tunables: flags.vcore.unwrap_or_default(),
            placement: flags.placement,
            console: flags.console,
            devices,
        }
    }
}

impl VmArgs {
    /// The VM that the flags and the file describe.
    ///
    /// # Errors
    /// When the file is wrong, or values contradict each other.
    pub fn load(&self) -> Result<VmConfig, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?;
        Settings::from(self.flags.clone()).or(file.unwrap_or_default()).resolve()
    }
}

/// The VM that a file alone describes.
///
/// # Errors
/// When the file is wrong, or values contradict each other.
pub fn load_file(path: &Path) -> Result<VmConfig, ConfigError> {
    Settings::read(path)?.resolve()
}

/// A usage error in one line. clap's own text has paragraphs: what is wrong, tips, and the usage, which
/// `--help` shows in full.
#[must_use]
pub fn usage_error(error: &clap::Error) -> String {
    let text = error.to_string();
    let parts: Vec<String> = text
        .split("\n\n")
        .filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more information"))
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let line = parts.join("; ");
    format!("{}; see cede --help", line.strip_prefix("error: ").unwrap_or(&line))
}

#[cfg(test)]
mod tests;
