//! What is shown, as tables. Each module holds one subject; [`all`] puts those of one host together.

mod assist_plane;
mod boot;
mod console;
mod control;
mod counts;
mod disk;
mod idle;
mod lifecycle;
mod native;
mod net;
mod oracle;
mod payloads;
mod refusals;
mod terminal;
mod vmm_plane;

use std::time::Duration;

use anyhow::Result;
use xtask::lab::Host;

use crate::host::LabHost;

/// The stock kernel in every host.
pub const DEBIAN: &str = "/lab/vmlinux";

/// A guest takes about ten seconds where nothing else runs; emulated POWER8, and a slow machine, several times that.
const LIMIT: Duration = Duration::from_secs(180);

/// Where a scenario runs. Those of one place share a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the machine that runs the tests.
    Native,
    /// In a lab host.
    Lab(Host),
}

/// One thing that is shown.
pub struct Scenario {
    /// Where.
    pub place: Place,
    /// What, in a few words.
    pub title: &'static str,
    /// How long it may take; a boot of the host does not count.
    pub limit: Duration,
    /// It runs with `--include-ignored` only: it takes long, and what it shows is shown on another host too.
    pub ignored: bool,
    /// How.
    pub body: Body,
}

/// How a scenario goes.
pub enum Body {
    /// A guest that runs to its end by itself.
    Guest(Guest),
    /// A command that has to be refused.
    Refusal(Refusal),
    /// Whatever needs more than a table: typing, signals, two commands in turn.
    Steps(fn(&mut LabHost) -> Result<()>),
    /// The same, without the shared host.
    Alone(fn() -> Result<()>),
}

/// A guest and what it has to print.
pub struct Guest {
    /// The kernel's path in the host; [`DEBIAN`] gets the initrd too.
    pub kernel: &'static str,
    /// Further flags of `cede run`.
    pub flags: &'static str,
    /// The kernel's command line.
    pub cmdline: &'static str,
    /// Texts that must be in the output, of the guest or of `cede run` itself.
    pub shows: &'static [&'static str],
    /// Texts that must not be there.
    pub hides: &'static [&'static str],
    /// The exit code of `cede run`.
    pub exit: i32,
}

/// A command line that cede has to refuse, in one line, with nothing started.
pub struct Refusal {
    /// What the host's shell does before.
    pub prepare: &'static str,
    /// The command.
    pub command: &'static str,
    /// What undoes `prepare`, for the scenarios that follow.
    pub restore: &'static str,
    /// What the message has to say.
    pub says: &'static [&'static str],
    /// The exit code.
    pub exit: i32,
}

impl Scenario {
    /// The name as it is reported, and filtered by.
    pub fn name(&self) -> String {
        let place = match self.place {
            Place::Native => "native",
            Place::Lab(host) => host.name(),
        };
        format!("{place}::{}", self.title)
    }

    fn at(host: Host, title: &'static str, body: Body) -> Self {
        Scenario { place: Place::Lab(host), title, limit: LIMIT, ignored: false, body }
    }

    fn ignored_if(self, ignored: bool) -> Self {
        Scenario { ignored, ..self }
    }

    fn within(self, seconds: u64) -> Self {
        Scenario { limit: Duration::from_secs(seconds), ..self }
    }
}

/// Every scenario; those that need no emulated host come first.
pub fn all() -> Vec<Scenario> {
    let mut all = native::table();
    all.extend(assist_plane::table());
    all.extend(boot::table());
    all.extend(console::table());
    all.extend(control::table());
    all.extend(idle::table());
    all.extend(counts::table());
    all.extend(disk::table());
    all.extend(lifecycle::table());
    all.extend(net::table());
    all.extend(oracle::table());
    all.extend(payloads::table());
    all.extend(refusals::table());
    all.extend(terminal::table());
    all.extend(vmm_plane::table());
    all
}
