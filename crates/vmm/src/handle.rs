//! What other threads may do to a VM while it runs.

use crate::gate::Gate;
use crate::vcores::{Vcores, VcpuStatus};
use std::sync::Arc;

/// A VM, for those who watch and steer it. Lives as long as anybody holds it; once the VM has ended it does nothing.
#[derive(Clone)]
pub struct Handle {
    pub(crate) gate: Arc<Gate>,
    pub(crate) vcores: Arc<Vcores>,
    pub(crate) vcpus: usize,
}

impl Handle {
    /// Stops every vCPU where it is, naps included, and returns when all have stopped. The guest's clock goes on.
    pub fn pause(&self) {
        self.gate.pause(|| self.vcores.request_exit());
    }

    /// Lets them run again.
    pub fn resume(&self) {
        self.gate.resume();
    }

    /// Has every vCPU look at what was changed for it: brings it out of the guest, or out of a nap, for a moment.
    pub fn look_again(&self) {
        self.vcores.request_exit();
    }

    /// Whether the VM is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.gate.is_paused()
    }

    /// Every vCPU, by index.
    #[must_use]
    pub fn status(&self) -> Vec<VcpuStatus> {
        (0..self.vcpus).map(|vcpu| self.vcores.status(vcpu)).collect()
    }
}
