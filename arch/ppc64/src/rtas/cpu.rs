//! start-cpu, stop-self, query-cpu-stopped-state (PAPR 7.3.8).

use super::{Rtas, status};
use crate::cpus::CpuState;
use crate::hcall::Effect;

/// server → 0 stopped, 1 stopping, 2 running.
pub(super) fn query_cpu_stopped_state(rtas: &mut Rtas<'_>) -> i32 {
    let cpus = &rtas.platform.cpus;
    let Some(index) = cpus.by_server(u64::from(rtas.args[0])) else {
        return status::PARAMETER_ERROR;
    };
    rtas.rets[0] = cpus.state(index) as u32;
    status::SUCCESS
}

/// server, address, r3.
pub(super) fn start_cpu(rtas: &mut Rtas<'_>) -> i32 {
    let &[server, pc, r3] = rtas.args else { return status::PARAMETER_ERROR };
    let cpus = &rtas.platform.cpus;
    let Some(vcpu) = cpus.by_server(u64::from(server)) else { return status::PARAMETER_ERROR };
    if !cpus.try_start(vcpu) {
        return status::HARDWARE_ERROR;
    }
    rtas.effect = Effect::Start { vcpu, pc: u64::from(pc), r3: u64::from(r3) };
    status::SUCCESS
}

/// The caller stops; it comes back by start-cpu only.
pub(super) fn stop_self(rtas: &mut Rtas<'_>) -> i32 {
    rtas.platform.cpus.set(rtas.vcpu, CpuState::Stopping);
    rtas.effect = Effect::Park;
    status::SUCCESS
}
