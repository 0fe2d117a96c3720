//! The kernel plane's share of [`Control`](super::Control): the tunables are the host's, the figures KVM's.

use crate::config::TunableChanges;
use kvm::{KvmStats, Parameters, StatsError, Value};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use vcore::{Snapshot, Tunables};

/// A VM's own limit of halt polling in the kernel, where it can have one (KVM_CAP_HALT_POLL).
pub trait Limit: Send + Sync {
    /// Sets it, in nanoseconds.
    ///
    /// # Errors
    /// As the kernel has them.
    fn set_limit(&self, ns: u32) -> io::Result<()>;
}

/// The limit, and what was set.
#[derive(Clone)]
struct OwnLimit {
    limit: Arc<dyn Limit>,
    /// `None` while the host's counts.
    ns: Arc<Mutex<Option<u32>>>,
}

/// The tunable that a VM can have of its own.
const HALT_POLL_NS: &str = "halt_poll_ns";

/// The tunables of the host, which hold for each of its VMs.
#[derive(Clone)]
pub struct HostTunables {
    parameters: Parameters,
    /// Linux polls for guests of this host's processor.
    polls: bool,
    /// This VM's own `halt_poll_ns`, in place of the host's.
    own: Option<OwnLimit>,
}

impl HostTunables {
    /// Those of this host. `polls` is whether Linux has halt polling for its processor; of POWER's it is POWER8's alone.
    #[must_use]
    pub fn new(parameters: Parameters, polls: bool) -> Self {
        Self { parameters, polls, own: None }
    }

    /// The same, but `halt_poll_ns` is the VM's own.
    #[must_use]
    pub fn with_own(self, limit: Arc<dyn Limit>) -> Self {
        Self { own: Some(OwnLimit { limit, ns: Arc::default() }), ..self }
    }

    /// A tunable's value.
    fn read(&self, name: &str) -> io::Result<u32> {
        let own = self.own.as_ref().filter(|_| name == HALT_POLL_NS);
        let set = own.and_then(|own| *own.ns.lock().unwrap_or_else(PoisonError::into_inner));
        set.map_or_else(|| self.parameters.get(name), Ok)
    }

    /// Sets one.
    fn write(&self, name: &str, value: u32) -> io::Result<()> {
        let Some(own) = self.own.as_ref().filter(|_| name == HALT_POLL_NS) else {
            return self.parameters.set(name, value);
        };
        own.limit.set_limit(value)?;
        *own.ns.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// The present values; `None` where Linux does not poll, or does not show them.
    #[must_use]
    pub fn get(&self) -> Option<Tunables> {
        let get = |name| self.read(name).ok();
        self.polls.then_some(())?;
        Some(Tunables {
            halt_poll_ns: get("halt_poll_ns")?,
            halt_poll_ns_grow: get("halt_poll_ns_grow")?,
            halt_poll_ns_grow_start: get("halt_poll_ns_grow_start")?,
            halt_poll_ns_shrink: get("halt_poll_ns_shrink")?,
        })
    }

    /// Changes some of them, for the whole host: all or, if one cannot be, none.
    ///
    /// # Errors
    /// Why not, and what would help, in one line.
    pub fn set(&self, changes: TunableChanges) -> Result<(), String> {
        if !self.polls {
            return Err(
                "Linux has no halt polling for guests on POWER9 and later, so on the kernel plane there \
                        is nothing to set; start the VM with --plane assist or --plane vmm ([cede] plane), where cede polls"
                    .into(),
            );
        }
        let mut undo = Vec::new();
        for (name, value) in changes.said() {
            let old = self.read(name);
            if let Err(error) = old.and_then(|old| self.write(name, value).map(|()| undo.push((name, old)))) {
                for (name, old) in undo {
                    if let Err(error) = self.write(name, old) {
                        tracing::warn!(%error, "the host's {name} cannot be set back to {old}");
                    }
                }
                return Err(self.refusal(name, value, &error));
            }
        }
        Ok(())
    }

    fn refusal(&self, name: &str, value: u32, error: &io::Error) -> String {
        let path = self.parameters.path(name).display().to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
                "on the kernel plane {name} is the host's, and this user may not write it ({path}: {error}); as \
                 root: echo {value} > {path}, for every VM of the host; or start the VM with --plane vmm ([cede] \
                 plane), where it has its own"
            ),
            io::ErrorKind::NotFound => format!("this host's KVM has no {name} ({path})"),
            _ => format!("{name}={value}: {path}: {error}"),
        }
    }
}

/// A vCPU's counters, as KVM has them.
///
/// # Errors
/// When they cannot be read.
pub fn counters(of: &KvmStats) -> Result<Snapshot, StatsError> {
    Ok(snapshot(&of.read()?))
}

/// KVM's figures of those names that vcore has too. One that this KVM does not have is zero.
fn snapshot(values: &[(&str, Value)]) -> Snapshot {
    let number = |wanted: &str| {
        values.iter().find_map(|(name, value)| match value {
            Value::Number(number) if *name == wanted => Some(*number),
            _ => None,
        })
    };
    let histogram = |wanted: &str| {
        let found = values.iter().find_map(|(name, value)| match value {
            Value::Histogram(buckets) if *name == wanted => Some(buckets.as_slice()),
            _ => None,
        });
        std::array::from_fn(|bucket| found.and_then(|found| found.get(bucket)).copied().unwrap_or(0))
    };
    let number = |name| number(name).unwrap_or(0);
    Snapshot {
        halt_successful_poll: number("halt_successful_poll"),
        halt_attempted_poll: number("halt_attempted_poll"),
        halt_poll_invalid: number("halt_poll_invalid"),
        halt_wakeup: number("halt_wakeup"),
        halt_successful_wait: number("halt_successful_wait"),
        halt_poll_success_ns: number("halt_poll_success_ns"),
        halt_poll_fail_ns: number("halt_poll_fail_ns"),
        halt_wait_ns: number("halt_wait_ns"),
        halt_poll_success_hist: histogram("halt_poll_success_hist"),
        halt_poll_fail_hist: histogram("halt_poll_fail_hist"),
        halt_wait_hist: histogram("halt_wait_hist"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A host with these parameters.
    fn host(polls: bool, parameters: &[(&str, u32)]) -> (HostTunables, Parameters, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        for (name, value) in parameters {
            fs::write(directory.path().join(name), format!("{value}\n")).unwrap();
        }
        let parameters = Parameters::at(directory.path());
        (HostTunables::new(parameters.clone(), polls), parameters, directory)
    }

    #[test]
    fn power8_has_the_hosts_own() {
        let (host, _, _directory) = host(true, &Tunables::default().named());
        assert_eq!(host.get(), Some(Tunables::default()));
        let changes: TunableChanges = "halt_poll_ns=7 halt_poll_ns_shrink=0".parse().unwrap();
        host.set(changes).unwrap();
        assert_eq!(host.get(), Some(changes.values()));
    }

    /// A limit that is written down.
    #[derive(Default)]
    struct Written(Mutex<Vec<u32>>);

    impl Limit for Written {
        fn set_limit(&self, ns: u32) -> io::Result<()> {
            self.0.lock().unwrap().push(ns);
            Ok(())
        }
    }

    #[test]
    fn a_vm_with_a_limit_of_its_own_leaves_the_hosts_alone() {
        let (host, parameters, _directory) = host(true, &Tunables::default().named());
        let written = Arc::<Written>::default();
        let host = host.with_own(Arc::clone(&written) as _);
        assert_eq!(host.get(), Some(Tunables::default()));
        host.set("halt_poll_ns=7 halt_poll_ns_grow=3".parse().unwrap()).unwrap();
        let now = Tunables { halt_poll_ns: 7, halt_poll_ns_grow: 3, ..Tunables::default() };
        assert_eq!((host.get(), written.0.lock().unwrap().as_slice()), (Some(now), &[7][..]));
        let files = ["halt_poll_ns", "halt_poll_ns_grow"].map(|name| parameters.get(name).unwrap());
        assert_eq!(files, [Tunables::default().halt_poll_ns, 3]);
    }

    #[test]
    fn later_processors_are_told_what_would_help() {
        let (host, parameters, _directory) = host(false, &Tunables::default().named());
        assert_eq!(host.get(), None);
        let error = host.set("halt_poll_ns=7".parse().unwrap()).unwrap_err();
        assert!(error.contains("no halt polling for guests on POWER9 and later"), "{error}");
        assert!(error.contains("--plane vmm"), "{error}");
        assert_eq!(parameters.get("halt_poll_ns").unwrap(), 10000, "nothing was written");
    }

    #[test]
    fn all_or_none_is_set() {
        let old = [("halt_poll_ns", 1), ("halt_poll_ns_grow", 2), ("halt_poll_ns_grow_start", 3)];
        let (host, parameters, directory) = host(true, &old);
        assert_eq!(host.get(), None, "one is not shown");
        let error = host.set(TunableChanges::all(Tunables::default())).unwrap_err();
        let path = directory.path().join("halt_poll_ns_shrink").display().to_string();
        assert_eq!(error, format!("this host's KVM has no halt_poll_ns_shrink ({path})"));
        for (name, value) in old {
            assert_eq!(parameters.get(name).unwrap(), value);
        }
    }

    #[test]
    fn who_may_not_is_told_who_may() {
        let (host, _, _directory) = host(true, &[]);
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let text = host.refusal("halt_poll_ns", 5, &denied);
        assert!(text.contains("as root: echo 5 > ") && text.contains("--plane vmm"), "{text}");
    }

    #[test]
    fn kvms_names_are_ours() {
        let names = Snapshot::default().named().map(|(name, _)| name);
        let mut values: Vec<(&str, Value)> = names.iter().copied().zip((1..).map(Value::Number)).collect();
        for (n, (name, _)) in (0..).zip(Snapshot::default().histograms()) {
            values.push((name, Value::Histogram((100 * n..100 * n + 32).collect())));
        }
        values.push(("exits", Value::Number(99)));
        let read = snapshot(&values);
        assert_eq!(read.named().map(|(_, value)| value), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(
            read.histograms().map(|(_, buckets)| (buckets[0], buckets[31])),
            [(0, 31), (100, 131), (200, 231)]
        );
        // A kernel with fewer buckets, or none.
        values.retain(|(name, _)| *name != "halt_wait_hist");
        values.push(("halt_poll_fail_hist", Value::Number(1)));
        assert_eq!(snapshot(&values).halt_wait_hist, [0; 32]);
        assert_eq!(snapshot(&[]), Snapshot::default());
    }
}
