//! A running VM as the control socket sees it, on either plane.

use super::kernel::{HostTunables, counters};
use super::protocol::Ballooned;
use super::{Control, Inflate, VcpuStats};
use crate::config::TunableChanges;
use devices::virtio::balloon::Balloon;
use kvm::VcpuFigures;
use std::sync::Arc;
use vcore::{SharedTunables, ThreadState, Tunables};
use vmm::{Handle, VcpuStatus};

/// Whose the tunables and the figures are.
pub enum Side {
    /// cede's own.
    Vmm(Arc<SharedTunables>),
    /// KVM's and the host's.
    Kernel(HostTunables, VcpuFigures),
}

/// The VM.
pub struct RunningVm {
    handle: Handle,
    side: Side,
    balloon: Option<Arc<Balloon>>,
}

impl RunningVm {
    /// The VM behind `handle`.
    #[must_use]
    pub fn new(handle: Handle, side: Side, balloon: Option<Arc<Balloon>>) -> Self {
        Self { handle, side, balloon }
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// In a word what a vCPU does.
fn state(status: &VcpuStatus, paused: bool) -> &'static str {
    match status.state {
        ThreadState::Offline => "offline",
        ThreadState::Host if paused => "paused",
        ThreadState::Host => "host",
        ThreadState::Running => "guest",
        ThreadState::Napping if status.polling => "polling",
        ThreadState::Napping => "napping",
    }
}

impl Inflate for Balloon {
    fn ask(&self, bytes: u64) {
        self.set_target(bytes);
    }

    fn given(&self) -> Ballooned {
        Ballooned { target: self.target(), actual: self.actual() }
    }
}

impl Control for RunningVm {
    fn plane(&self) -> &'static str {
        match self.side {
            Side::Vmm(_) => "vmm",
            Side::Kernel(..) => "kernel",
        }
    }

    fn tunables(&self) -> Option<Tunables> {
        match &self.side {
            Side::Vmm(tunables) => Some(tunables.get()),
            Side::Kernel(host, _) => host.get(),
        }
    }

    fn set(&self, changes: TunableChanges) -> Result<(), String> {
        match &self.side {
            Side::Vmm(tunables) => {
                tunables.set(changes.on(tunables.get()));
                Ok(())
            }
            Side::Kernel(host, _) => host.set(changes),
        }
    }

    fn vcpus(&self) -> Vec<VcpuStats> {
        let paused = self.handle.is_paused();
        let figures = |(vcpu, status): (usize, VcpuStatus)| {
            let (halt_poll_ns, stats) = match &self.side {
                Side::Vmm(_) => (Some(status.halt_poll_ns), status.snapshot),
                Side::Kernel(_, figures) => {
                    let kvm = figures.with(vcpu, counters).and_then(Result::ok);
                    (None, kvm.unwrap_or(status.snapshot))
                }
            };
            VcpuStats {
                vcpu: small(vcpu),
                vcore: small(status.vcore),
                thread: small(status.thread),
                state: state(&status, paused).to_owned(),
                halt_poll_ns,
                stats,
            }
        };
        self.handle.status().into_iter().enumerate().map(figures).collect()
    }

    fn pause(&self) -> Result<(), String> {
        self.handle.pause();
        Ok(())
    }

    fn resume(&self) -> Result<(), String> {
        self.handle.resume();
        Ok(())
    }

    fn paused(&self) -> bool {
        self.handle.is_paused()
    }

    fn balloon(&self) -> Option<&dyn Inflate> {
        self.balloon.as_deref().map(|balloon| balloon as _)
    }
}
