//! What the configuration said, what was set since, and what both mean together.
//!
//! Of a tunable the latest word counts: the configuration's when the VM starts and at each reload, `set`'s in
//! between. One that nobody names any more goes back to what it was before this VM said anything, which is the
//! default on the vmm plane and the host's own value on the kernel plane.

use super::protocol::{self, Ballooned, Command, Info, Paused, Stat, Tuned, Vcpu};
use super::{Control, protocol::named};
use crate::config::{ConfigError, TunableChanges, VmConfig, schema};
use crate::report::chain;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use vcore::Tunables;

/// Reads the configuration again: the flags that were given, and the file as it is now.
pub type Load = Box<dyn Fn() -> Result<VmConfig, ConfigError> + Send + Sync>;

/// A VM with its configuration, ready to be steered. Shared by the socket's server and the signal.
pub struct Steering {
    control: Arc<dyn Control>,
    /// As the VM was started with.
    config: VmConfig,
    /// `None` where there is no file.
    load: Option<Load>,
    /// What the tunables were before anything was set.
    before: Option<Tunables>,
    /// Held while tunables change, so that two changes do not mix; no vCPU takes it.
    words: Mutex<Words>,
    started: Instant,
}

/// Who said what of the tunables.
#[derive(Debug, Default)]
struct Words {
    configured: TunableChanges,
    set: TunableChanges,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The tunables that changed.
    pub changed: TunableChanges,
    /// Other keys that differ from what runs, as `[cpu] count`, and devices by their tables, as `[[disk]]`.
    pub later: Vec<String>,
}

impl Reloaded {
    /// The sentence about the other keys, if there is any.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let keys = self.later.join(", ");
        (!keys.is_empty()).then(|| format!("changed, but only for the VM's next start: {keys}"))
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Steering {
    /// Takes a VM whose tunables nobody has changed yet, and sets what the configuration says. What the host does
    /// not let be set is a warning and no reason not to run.
    #[must_use]
    pub fn new(control: Arc<dyn Control>, config: VmConfig, load: Option<Load>) -> Self {
        let before = control.tunables();
        let mut words = Words::default();
        if !config.tunables.is_empty() {
            match control.set(config.tunables) {
                Ok(()) => words.configured = config.tunables,
                Err(error) => tracing::warn!("the tunables of halt polling stay as they are: {error}"),
            }
        }
        Self { control, config, load, before, words: Mutex::new(words), started: Instant::now() }
    }

    /// The answer to a request's line, with its line feed.
    #[must_use]
    pub fn answer(&self, request: &[u8]) -> String {
        let command = match protocol::parse_request(request) {
            Ok(command) => command,
            Err(error) => return protocol::answer::<()>(Err(error)),
        };
        match command {
            Command::Info => protocol::answer(Ok(self.info())),
            Command::Stat => protocol::answer(Ok(self.stat())),
            Command::Set { tunables } => {
                protocol::answer(protocol::changes(&tunables).and_then(|changes| self.set(changes)))
            }
            Command::Reload => protocol::answer(self.reload().map(|reloaded| Tuned {
                tunables: self.control.tunables().map(named),
                notes: reloaded.warning().into_iter().collect(),
            })),
            Command::Pause => protocol::answer(self.control.pause().map(|()| self.paused())),
            Command::Balloon { bytes } => protocol::answer(self.balloon(bytes)),
            Command::Resume => protocol::answer(self.control.resume().map(|()| self.paused())),
        }
    }

    fn balloon(&self, bytes: Option<u64>) -> Result<Ballooned, String> {
        let balloon = self.control.balloon();
        let balloon = balloon.ok_or("this VM has no balloon; start it with --balloon ([balloon])")?;
        let memory = self.config.memory;
        match bytes {
            Some(bytes) if bytes >= memory.bytes() => {
                return Err(format!(
                    "a balloon of {bytes} bytes leaves nothing of {memory} of memory; ask for less"
                ));
            }
            Some(bytes) => balloon.ask(bytes),
            None => {}
        }
        Ok(balloon.given())
    }

    fn info(&self) -> Info {
        Info {
            name: self.config.name.clone(),
            pid: std::process::id(),
            plane: self.control.plane().to_owned(),
            vcpu_count: self.config.topology.vcpus.get() as usize,
            paused: self.control.paused(),
        }
    }

    fn stat(&self) -> Stat {
        Stat {
            info: self.info(),
            uptime_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            tunables: self.control.tunables().map(named),
            vcpus: self.control.vcpus().iter().map(Vcpu::from).collect(),
            devices: self.control.devices(),
            unclaimed_accesses: self.control.unclaimed_accesses(),
        }
    }

    fn paused(&self) -> Paused {
        Paused { paused: self.control.paused() }
    }

    /// Sets tunables until the next reload or `set` says something else.
    fn set(&self, changes: TunableChanges) -> Result<Tuned, String> {
        if changes.is_empty() {
            return Err("no tunable is named; write one as in halt_poll_ns=50000".into());
        }
        let mut words = self.words();
        self.control.set(changes)?;
        tracing::info!("set {changes}");
        words.set = changes.or(words.set);
        let overruled = words.configured.only(changes).without(changes);
        let note = format!(
            "the configuration says {overruled}, which counts again when it is reloaded (cede reload, SIGHUP)"
        );
        Ok(Tuned {
            tunables: self.control.tunables().map(named),
            notes: (self.load.is_some() && !overruled.is_empty()).then_some(note).into_iter().collect(),
        })
    }

    /// Reads the configuration again. The tunables are set to what it says now; other keys wait for the next start.
    ///
    /// # Errors
    /// Why nothing was changed, in one line: no file, a wrong one, or a host that refuses.
    pub fn reload(&self) -> Result<Reloaded, String> {
        let load =
            self.load.as_ref().ok_or("the VM was started without --config, so there is no file to reload")?;
        let config = load().map_err(|error| chain(&error))?;
        let mut words = self.words();
        let unsaid = match self.before {
            Some(before) => TunableChanges::all(before).only(words.configured.or(words.set)),
            None => TunableChanges::default(),
        };
        let mut changed = config.tunables.or(unsaid);
        if let Some(present) = self.control.tunables() {
            changed = changed.without(TunableChanges::all(present));
        }
        if !changed.is_empty() {
            self.control.set(changed)?;
        }
        *words = Words { configured: config.tunables, set: TunableChanges::default() };
        Ok(Reloaded { changed, later: schema::fixed_differences(&self.config, &config) })
    }

    /// What SIGHUP does: a reload, whose outcome is logged.
    pub fn hang_up(&self) {
        match self.reload() {
            Ok(reloaded) => {
                tracing::info!("the configuration is read again; changed tunables: {}", reloaded.changed);
                if let Some(warning) = reloaded.warning() {
                    tracing::warn!("the configuration: {warning}");
                }
            }
            Err(error) => tracing::error!("nothing is reloaded: {error}"),
        }
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        // Each change is whole before the lock is given back.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
