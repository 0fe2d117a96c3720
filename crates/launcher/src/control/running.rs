//! A running VM as the control socket sees it, on either plane.

use super::kernel::{HostTunables, counters};
use super::protocol::{Ballooned, Device};
use super::{Control, Inflate, VcpuStats};
use crate::config::TunableChanges;
use devices::virtio::Device as _;
use devices::virtio::balloon::Balloon;
use devices::virtio::net::Net;
use kvm::VcpuFigures;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vcore::{SharedTunables, ThreadState, Tunables};
use vmm::{Handle, VcpuStatus};

/// Whose the tunables and the figures are.
pub enum Side {
    /// cede's own.
    Own {
        /// The plane's name.
        plane: &'static str,
        /// The VM's own.
        tunables: Arc<SharedTunables>,
    },
    /// KVM's and the host's.
    Kernel(HostTunables, VcpuFigures),
}

/// A number that grows.
pub type Count = Box<dyn Fn() -> u64 + Send + Sync>;

/// The VM.
pub struct RunningVm {
    handle: Handle,
    side: Side,
    balloon: Option<Arc<Balloon>>,
    cards: Vec<Arc<Net>>,
    unclaimed: Count,
}

impl RunningVm {
    /// The VM behind `handle`, with these devices to steer and to count; `unclaimed` is how many accesses found nothing.
    #[must_use]
    pub fn new(
        handle: Handle,
        side: Side,
        balloon: Option<Arc<Balloon>>,
        cards: Vec<Arc<Net>>,
        unclaimed: Count,
    ) -> Self {
        Self { handle, side, balloon, cards, unclaimed }
    }
}

/// A card's figures, by their names.
fn figures(card: &Net) -> Device {
    let counters = card.counters();
    let named = [
        ("rx_packets", &counters.rx_packets),
        ("rx_bytes", &counters.rx_bytes),
        ("rx_dropped", &counters.rx_dropped),
        ("tx_packets", &counters.tx_packets),
        ("tx_bytes", &counters.tx_bytes),
        ("tx_dropped", &counters.tx_dropped),
    ];
    // Each is a number for itself.
    let named = named.map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)));
    Device { device: card.name().to_owned(), counters: named.into() }
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
            Side::Own { plane, .. } => plane,
            Side::Kernel(..) => "kernel",
        }
    }

    fn tunables(&self) -> Option<Tunables> {
        match &self.side {
            Side::Own { tunables, .. } => Some(tunables.get()),
            Side::Kernel(host, _) => host.get(),
        }
    }

    fn set(&self, changes: TunableChanges) -> Result<(), String> {
        match &self.side {
            Side::Own { tunables, .. } => {
                tunables.set(changes.on(tunables.get()));
                self.handle.look_again();
                Ok(())
            }
            Side::Kernel(host, _) => host.set(changes),
        }
    }

    fn vcpus(&self) -> Vec<VcpuStats> {
        let paused = self.handle.is_paused();
        let figures = |(vcpu, status): (usize, VcpuStatus)| {
            let (halt_poll_ns, stats) = match &self.side {
                Side::Own { .. } => (Some(status.halt_poll_ns), status.snapshot),
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

    fn devices(&self) -> Vec<Device> {
        self.cards.iter().map(|card| figures(card)).collect()
    }

    fn unclaimed_accesses(&self) -> u64 {
        (self.unclaimed)()
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
