//! A running VM as the control socket sees it, on either plane.

use super::kernel::{HostTunables, vcpu_stats};
use super::{Control, VcpuStats};
use crate::config::TunableChanges;
use kvm::ppc64::VcpuFigures;
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
}

impl RunningVm {
    /// The VM behind `handle`.
    #[must_use]
    pub fn new(handle: Handle, side: Side) -> Self {
        Self { handle, side }
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
        let vcpus = self.handle.status();
        let threads = vcpus.iter().map(|status| small(status.thread) + 1).max().unwrap_or(1);
        let figures = |(vcpu, status): (usize, &VcpuStatus)| {
            let state = state(status, paused).to_owned();
            let ours = VcpuStats {
                vcpu: small(vcpu),
                vcore: small(status.vcore),
                thread: small(status.thread),
                state: state.clone(),
                halt_poll_ns: Some(status.halt_poll_ns),
                stats: status.snapshot,
            };
            match &self.side {
                Side::Vmm(_) => ours,
                Side::Kernel(_, figures) => figures
                    .with(vcpu, |kvm| vcpu_stats(small(vcpu), threads, state, kvm))
                    .and_then(Result::ok)
                    .unwrap_or(VcpuStats { halt_poll_ns: None, ..ours }),
            }
        };
        vcpus.iter().enumerate().map(figures).collect()
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
}
