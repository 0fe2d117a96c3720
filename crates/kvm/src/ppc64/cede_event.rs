//! The perf events that bring a thread out of KVM_RUN when its vCPU cedes, or wakes (POWER9 and later).
//!
//! KVM handles H_CEDE itself on these processors, and sleeps in KVM_RUN. Just before it does, and only if there is
//! nothing to wake up for, it hits the tracepoint `kvm_hv:kvmppc_vcore_blocked` with `where` = 0. A perf event on it,
//! of the vCPU's own thread and with O_ASYNC, sends that thread SIGIO, so the sleep ends before it begins and
//! KVM_RUN returns EINTR. The guest's registers are then as after H_CEDE: r3 = 0, MSR\[EE\] = 1.
//!
//! ```text
//!   guest ──H_CEDE──▶ KVM: something pending? ──yes──▶ guest
//!                              │ no
//!                        tracepoint ──▶ perf ──signal──┐
//!                              ▼                       ▼
//!                         schedule() ◀── does not sleep; KVM_RUN returns EINTR
//! ```
//!
//! The same tracepoint with `where` = 1 follows the sleep. An event on that one brings the thread out when KVM has slept.
//!
//! What must hold: losing the event costs no wake-up. Then KVM sleeps as it would without us, and wakes for the external
//! interrupt's level (KVM_INTERRUPT), the decrementer and signals. perf itself drops events when more come in
//! one tick than `kernel.perf_event_max_sample_rate` allows.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Where tracefs is mounted, by custom and by older custom.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

const TRACEPOINT: &str = "events/kvm_hv/kvmppc_vcore_blocked/id";

/// `struct perf_event_attr` up to the end of its first version, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// `_IO('$', 0)`, `_IO('$', 1)`, `_IOW('$', 4, __u64)` and `_IOW('$', 6, char *)` with powerpc's encoding.
const PERF_EVENT_IOC_ENABLE: u32 = 0x2000_2400;
const PERF_EVENT_IOC_DISABLE: u32 = 0x2000_2401;
const PERF_EVENT_IOC_PERIOD: u32 = 0x8008_2404;
const PERF_EVENT_IOC_SET_FILTER: u32 = 0x8008_2406;

/// Of the attribute's flags: the event is opened switched off.
const DISABLED: u64 = native_first_bit();

/// The first bit of a C bit field in 64 bits: the lowest one on little-endian machines, the highest on big-endian ones.
const fn native_first_bit() -> u64 {
    if cfg!(target_endian = "big") { 1 << 63 } else { 1 }
}

/// Which side of KVM's sleep an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// KVM is about to sleep.
    Before,
    /// KVM has slept.
    After,
}

/// The event of one thread. Closed with the vCPU.
#[derive(Debug)]
pub(super) struct CedeEvent {
    fd: OwnedFd,
    /// How many cedes were seen.
    seen: u64,
}

impl CedeEvent {
    /// Opens that of cedes for the calling thread, switched on.
    pub fn open(tracepoint: u64) -> io::Result<Self> {
        let event = Self::open_disabled(tracepoint, Side::Before)?;
        event.enable()?;
        Ok(event)
    }

    /// Opens one for the calling thread, switched off.
    pub fn open_disabled(tracepoint: u64, side: Side) -> io::Result<Self> {
        let attr = PerfEventAttr {
            kind: PERF_TYPE_TRACEPOINT,
            size: size_of::<PerfEventAttr>() as u32,
            config: tracepoint,
            sample_period: 1,
            flags: DISABLED,
            wakeup_events: 1,
            ..Default::default()
        };
        let (this_thread, any_cpu, no_group) = (0, -1, -1);
        // SAFETY: `attr` is as long as its size says; the other arguments are numbers.
        let fd = unsafe {
            let (nr, attr) = (libc::SYS_perf_event_open, &raw const attr);
            libc::syscall(nr, attr, this_thread, any_cpu, no_group, PERF_FLAG_FD_CLOEXEC)
        };
        let fd = libc::c_int::try_from(check(fd)?).map_err(io::Error::other)?;
        // SAFETY: perf_event_open made this descriptor for us just now, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let raw = fd.as_raw_fd();
        // One side only: the other would send a second signal.
        let filter = match side {
            Side::Before => c"where == 0",
            Side::After => c"where == 1",
        };
        // SAFETY: the argument is a zero-terminated string that outlives the call, which only reads it.
        check(unsafe { libc::ioctl(raw, PERF_EVENT_IOC_SET_FILTER as _, filter.as_ptr()) }.into())?;
        let owner = Owner { kind: F_OWNER_TID, pid: gettid() };
        // SAFETY: the structure is the kernel's f_owner_ex and outlives the call, which only reads it.
        check(unsafe { libc::fcntl(raw, F_SETOWN_EX, &raw const owner) }.into())?;
        // SAFETY: no pointers. The signal is the default one, SIGIO.
        check(unsafe { libc::fcntl(raw, libc::F_SETFL, libc::O_ASYNC) }.into())?;
        Ok(Self { fd, seen: 0 })
    }

    /// Switches it on.
    pub fn enable(&self) -> io::Result<()> {
        // SAFETY: no pointers; 0 is the event itself and not its group.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), PERF_EVENT_IOC_ENABLE as _, 0) }.into()).map(drop)
    }

    /// Switches it off. A signal that is under way may still come.
    pub fn disable(&self) -> io::Result<()> {
        // SAFETY: as for `enable`.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), PERF_EVENT_IOC_DISABLE as _, 0) }.into()).map(drop)
    }

    /// Of an event that is switched off: lets so many pass from when it is switched on, and signals the last of them, and so
    /// on. (perf counts anew when an event whose period was set is switched on.)
    pub fn set_period(&self, period: u64) -> io::Result<()> {
        // SAFETY: the kernel reads 64 bits from the address, which outlive the call.
        let set = unsafe { libc::ioctl(self.fd.as_raw_fd(), PERF_EVENT_IOC_PERIOD as _, &raw const period) };
        check(set.into()).map(drop)
    }

    /// Whether the thread has ceded since the last call. The signal alone does not say so: perf sends it from an interrupt
    /// of its own, which may come when another signal has told of the cede already.
    pub fn ceded(&mut self) -> io::Result<bool> {
        let mut count = 0u64;
        // SAFETY: `count` is as long as said, and any bits are valid for it.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        check(read as libc::c_long)?;
        Ok(std::mem::replace(&mut self.seen, count) != count)
    }
}

/// `struct f_owner_ex`.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    pid: libc::pid_t,
}

const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

fn gettid() -> libc::pid_t {
    // SAFETY: no arguments; it cannot fail.
    unsafe { libc::gettid() }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The tracepoint's number, when an event on it can be opened by this process; else what is missing and how to get it.
pub(super) fn probe() -> Result<u64, String> {
    let id = tracepoint(&TRACEFS.map(Path::new))?;
    CedeEvent::open(id).map(|_| id).map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "the perf event kvm_hv:kvmppc_vcore_blocked may not be opened; run as root, give the program CAP_PERFMON \
             (setcap cap_perfmon+ep) or set the sysctl kernel.perf_event_paranoid to -1"
                .into()
        }
        Some(libc::ENOSYS) => "the kernel has no perf events (CONFIG_PERF_EVENTS)".into(),
        _ => format!("the perf event kvm_hv:kvmppc_vcore_blocked cannot be opened: {error}"),
    })
}

fn tracepoint(places: &[&Path]) -> Result<u64, String> {
    // Mounted or not, the directory is there; what is in it tells.
    let Some(tracefs) = places.iter().find(|place| place.join("events").exists()) else {
        return Err(match std::fs::read_dir(places[0]).map_err(|error| error.kind()) {
            Err(io::ErrorKind::PermissionDenied) => format!(
                "{} may not be read; run as root or mount it for this user's group (mount -o remount,gid=GID,mode=750)",
                places[0].display()
            ),
            _ => format!(
                "tracefs is not mounted, or hidden from this user; mount it: mount -t tracefs nodev {}",
                places[0].display()
            ),
        });
    };
    let path = tracefs.join(TRACEPOINT);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| format!("{} holds no number", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(
            "the kernel has no event kvm_hv:kvmppc_vcore_blocked; load kvm_hv, of a kernel with CONFIG_TRACEPOINTS"
                .into(),
        ),
        Err(error) => Err(format!("{} cannot be read ({error}); run as root", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_number_is_found_where_tracefs_is() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        let id = second.join(TRACEPOINT);
        fs::create_dir_all(id.parent().unwrap()).unwrap();
        fs::create_dir_all(&first).unwrap();
        fs::write(&id, "1234\n").unwrap();
        assert_eq!(tracepoint(&[&first, &second]), Ok(1234));
        fs::write(&id, "many\n").unwrap();
        assert!(tracepoint(&[&first, &second]).unwrap_err().contains("no number"));
    }

    #[test]
    fn what_is_missing_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = tracepoint(&[dir.path()]).unwrap_err();
        assert!(error.contains("mount -t tracefs"), "{error}");
        fs::create_dir_all(dir.path().join("events/sched")).unwrap();
        let error = tracepoint(&[dir.path()]).unwrap_err();
        assert!(error.contains("load kvm_hv"), "{error}");
    }
}
