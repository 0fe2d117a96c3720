//! Who runs the guests of a bench, and how long they poll.
//!
//! A bench takes [`Common`] among its own, makes a subject of each [`Row`] and its guests, and has them measured by [`Lab`], in one
//! boot of the host.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use bench_agent::{Record, Subject, Tunables};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use serde_json::json;

use super::report::{Ratio, Report};
use super::{agent, qemu, words};
use crate::cross;
use crate::lab::{Host, Run, fetch};

/// What a subject may take in a round, where the lab is slow: POWER8's guests take several times as long as others.
const SUBJECT_LIMIT: Duration = Duration::from_secs(300);

/// Memory of the host besides the guests', in MiB.
const HOST_MIB: u32 = 1024;

/// The kernel's own polling, for the whole host. POWER9 and later have none, whatever it says.
const KERNEL_HALT_POLL_NS: &str = "/sys/module/kvm/parameters/halt_poll_ns";

/// The guests' kernel in the host.
const KERNEL: &str = "/lab/vmlinux";

/// The longest poll that cede and Linux have by default on POWER.
pub const DEFAULT_NS: u32 = 10_000;

/// Who runs a guest, and who handles its H_CEDE: QEMU, or cede on one of its planes.
#[derive(Debug, PartialEq, Eq)]
pub struct Plane {
    /// As cede calls it, or `qemu`.
    name: &'static str,
    title: &'static str,
    /// It polls by itself before it sleeps; others leave that to KVM, which does so on POWER8.
    polls: bool,
    /// KVM's XIVE has to be there.
    xive: bool,
}

const QEMU: Plane = Plane { name: "qemu", title: "QEMU/KVM", polls: false, xive: false };

/// All there are.
const PLANES: [Plane; 4] = [
    QEMU,
    Plane { name: "kernel", title: "kernel", polls: false, xive: false },
    Plane { name: "assist", title: "assist", polls: true, xive: true },
    Plane { name: "vmm", title: "vmm", polls: true, xive: false },
];

/// Options of benches that let the same guests run under several monitors
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The emulated host's kind
    #[arg(long, value_enum, default_value = "powernv9")]
    pub host: Host,
    /// Rounds after the warm-up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Each guest's memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub memory: u32,
    /// Who runs the guests, the first of which the others are compared with: `qemu`, or planes of cede
    #[arg(long, value_name = "PLANE,...", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(PLANES.map(|plane| plane.name)))]
    planes: Vec<String>,
    /// The longest polls of those that poll, in nanoseconds; 0 turns it off
    #[arg(long, value_name = "NS,...", value_delimiter = ',')]
    halt_poll_ns: Vec<u32>,
    /// The host's time is its instructions, 8 ns each, one processor at a time: figures that a busy machine does not move
    #[arg(long)]
    icount: bool,
}

/// A subject in the making.
pub struct Row {
    name: String,
    plane: &'static Plane,
    /// The longest poll, if it can be chosen.
    halt_poll_ns: Option<u32>,
    kernel_polls: bool,
}

/// A guest, and its devices as options of each monitor.
pub struct Guest<'a> {
    /// A VM that has a name is told how long to poll while it runs, so that several subjects can run the same one; others have it from
    /// their start.
    pub name: Option<String>,
    pub cpus: u32,
    /// The kernel's command line.
    pub cmdline: &'a str,
    pub qemu: Vec<String>,
    pub cede: Vec<String>,
}

impl Common {
    /// The planes and polls that were asked for, or else those of these that the host offers, in this order.
    pub fn rows(&self, planes: &[&str], polls: &[u32]) -> Vec<Row> {
        let xive = matches!(self.host, Host::Powernv9 | Host::Powernv10);
        let asked: Vec<&str> = self.planes.iter().map(String::as_str).collect();
        let offered = |plane: &&Plane| !asked.is_empty() || xive || !plane.xive;
        let planes = if asked.is_empty() { planes } else { &asked[..] };
        let polls = if self.halt_poll_ns.is_empty() { polls } else { &self.halt_poll_ns[..] };
        let named = |name: &&str| PLANES.iter().find(|plane| plane.name == *name);
        let planes = planes.iter().filter_map(named).filter(offered);
        planes.flat_map(|plane| self.rows_of(plane, polls)).collect()
    }

    fn rows_of(&self, plane: &'static Plane, polls: &[u32]) -> Vec<Row> {
        let kernel_polls = !plane.polls && self.host == Host::Powernv8;
        let row = |name, halt_poll_ns| Row { name, plane, halt_poll_ns, kernel_polls };
        let title = |ns: u32| match ns {
            0 => format!("{}, polling off", plane.title),
            DEFAULT_NS => plane.title.to_owned(),
            ns => format!("{}, {} us", plane.title, f64::from(ns) / 1e3),
        };
        if !plane.polls && !kernel_polls {
            return vec![row(plane.title.to_owned(), None)];
        }
        polls.iter().map(|ns| row(title(*ns), Some(*ns))).collect()
    }
}

impl Row {
    /// The plane's name.
    pub fn plane(&self) -> &'static str {
        self.plane.name
    }

    /// The subject that runs these guests.
    pub fn subject(&self, options: &Common, guests: &[Guest]) -> Subject {
        let of_host = self.halt_poll_ns.filter(|_| self.kernel_polls);
        let of_vms = self.halt_poll_ns.filter(|_| self.plane.polls);
        let told: Vec<String> = guests.iter().filter_map(|guest| guest.name.clone()).collect();
        let told = of_vms.filter(|_| !told.is_empty()).map(|ns| Tunables { vms: told, values: tunables(ns) });
        Subject {
            name: self.name.clone(),
            guests: guests.iter().map(|guest| self.command(options, guest)).collect(),
            environment: if self.is_qemu() { qemu::environment() } else { Vec::new() },
            settings: of_host
                .map(|ns| (KERNEL_HALT_POLL_NS.to_owned(), ns.to_string()))
                .into_iter()
                .collect(),
            tunables: told,
        }
    }

    fn is_qemu(&self) -> bool {
        *self.plane == QEMU
    }

    fn command(&self, options: &Common, guest: &Guest) -> Vec<String> {
        let Guest { cpus, cmdline, .. } = *guest;
        if self.is_qemu() {
            let machine = qemu::Guest { memory_mib: options.memory, cpus, kernel: KERNEL, cmdline };
            return [qemu::command(&machine), guest.qemu.clone()].concat();
        }
        let (memory, cpus) = (format!("{}M", options.memory), cpus.to_string());
        let mut command = words(&["cede", "run", "--plane", self.plane.name, "--no-reboot"]);
        command.extend(words(&["--kernel", KERNEL, "--initrd", "/lab/initrd", "--cmdline", cmdline]));
        command.extend(words(&["--memory", &memory, "--cpus", &cpus]));
        command.extend(guest.cede.iter().cloned());
        match (&guest.name, self.halt_poll_ns.filter(|_| self.plane.polls)) {
            (Some(name), _) => command.extend(words(&["--name", name])),
            (None, Some(ns)) => command.extend(words(&["--vcore", &tunables(ns)])),
            (None, None) => {}
        }
        command
    }
}

fn tunables(halt_poll_ns: u32) -> String {
    format!("halt_poll_ns={halt_poll_ns}")
}

/// The host in which a bench's guests are measured.
pub struct Lab<'a> {
    /// The bench's name, to its agent and in its report's.
    pub bench: &'a str,
    pub options: &'a Common,
    /// The guests' initrd.
    pub initrd: &'a Path,
    /// Guests that there are at a time.
    pub guests: u32,
    pub subjects: &'a [Subject],
}

/// What was found, and in what.
pub struct Found {
    pub records: Vec<Record>,
    host: &'static str,
    kernel: String,
    qemu: String,
}

impl Lab<'_> {
    /// Boots the host, with what `more` adds to it, and has the agent do `plan` once the shell command `prepare` has succeeded.
    pub fn measure(
        &self,
        plan: &impl Serialize,
        prepare: &str,
        more: impl FnOnce(Run) -> Run,
    ) -> Result<Found> {
        ensure!(!self.subjects.is_empty(), "nobody to measure");
        let image = fetch::image()?;
        let qemu = qemu::get()?;
        cross::build_cede()?;
        let agent = cross::build("bench-agent")?;
        let Common { host, runs, memory, icount, .. } = *self.options;
        let mut run = Run::new(host)
            .memory(&format!("{}M", self.guests * memory + HOST_MIB))
            .qemu_option("-mem-prealloc")
            .time_limit(SUBJECT_LIMIT * self.subjects.len() as u32 * (runs + 1))
            .file(&agent, "bench-agent")
            .file(self.initrd, "initrd")
            .command(agent::command_after(prepare, self.bench, plan)?);
        if icount {
            run = run.icount();
        }
        for (source, name) in &qemu.files {
            run = run.file(source, name);
        }
        let records = agent::records(more(run).start()?, runs)?;
        let kernel = agent::kernel_version(&image.vmlinux())?;
        Ok(Found { records, host: host.name(), kernel, qemu: qemu.version })
    }

    /// Prints and writes what was found: `guests` are all, `heading` and `conditions` the bench's own words.
    pub fn report(
        &self,
        found: &Found,
        guests: &str,
        heading: &[String],
        conditions: serde_json::Value,
    ) -> Result<()> {
        let Found { records, host, kernel, qemu } = found;
        let Common { runs, memory, icount, .. } = self.options;
        let mut lines = vec![format!(
            "{host} lab host and guests: Linux {kernel}; {guests} of {memory} MiB; QEMU {qemu}"
        )];
        lines.extend_from_slice(heading);
        if *icount {
            lines.push("the host's time: 8 ns per instruction, one processor at a time".to_owned());
        }
        lines.push(format!("{runs} rounds after a warm-up, all in turn: median (min to max)"));
        let mut all = json!({
            "host": host, "kernel": kernel, "qemu": qemu, "runs": runs, "memory_mib": memory,
            "icount": icount,
        });
        if let (Some(all), serde_json::Value::Object(more)) = (all.as_object_mut(), conditions) {
            all.extend(more);
        }
        let report = Report {
            heading: lines,
            conditions: all,
            subjects: self.subjects.iter().map(|subject| subject.name.as_str()).collect(),
            ratio: Ratio::OtherToFirst,
        };
        report.write(records, &super::directory()?.join(format!("{}.json", self.bench)))
    }
}
