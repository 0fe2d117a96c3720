//! From what the user wants and what the host can, to one machine.

use arch_api::x86_64::Host;

/// APIC ids have 8 bits in an xAPIC, and 255 is everybody.
const MOST_CPUS: u32 = 254;

/// The least that a kernel starts in, with room for what [`boot`](crate::boot) puts beside it.
const LEAST_MEMORY: u64 = 16 << 20;

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// vCPUs.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// The kernel's command line.
    pub cmdline: String,
}

/// No such machine on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// KVM is too old, or not a whole one.
    #[error("this host's KVM lacks {}", .0.join(", "))]
    Missing(Vec<&'static str>),
    /// More than there can be.
    #[error("{cpus} vCPUs are more than {max}")]
    TooManyCpus {
        /// Wanted.
        cpus: u32,
        /// Possible.
        max: u32,
    },
    /// Less than anything starts in.
    #[error("{0} bytes of memory are less than {LEAST_MEMORY}")]
    TooLittleMemory(u64),
}

/// A machine that the host can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub wish: Wish,
    /// The host.
    pub host: Host,
    /// Why it is so.
    pub reasons: Vec<String>,
}

impl Plan {
    /// Decides.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn choose(wish: Wish, host: &Host) -> Result<Self, PlanError> {
        if !host.missing.is_empty() {
            return Err(PlanError::Missing(host.missing.clone()));
        }
        let max = host.max_vcpus.min(MOST_CPUS);
        if wish.cpus > max {
            return Err(PlanError::TooManyCpus { cpus: wish.cpus, max });
        }
        if wish.memory < LEAST_MEMORY {
            return Err(PlanError::TooLittleMemory(wish.memory));
        }
        let polling = match host.halt_poll {
            true => "halt polling: KVM's, with a limit of this VM's own (KVM_CAP_HALT_POLL)",
            false => "halt polling: KVM's, as the host's kvm module says",
        };
        let timer = match host.tsc_deadline {
            true => "timer: TSC deadline, as KVM has it",
            false => "timer: the local APIC's counter; KVM has no TSC deadline",
        };
        let reasons = vec![
            "plane: kernel; KVM has the interrupt controllers and handles HLT".into(),
            polling.into(),
            timer.into(),
        ];
        Ok(Self { wish, host: host.clone(), reasons })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { cpus: 4, memory: 1 << 30, cmdline: String::new() }
    }

    fn host() -> Host {
        Host { max_vcpus: 1024, tsc_deadline: true, ..Host::default() }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refusal = |wish, host: &Host| Plan::choose(wish, host).unwrap_err();
        let lacking = Host { missing: vec!["KVM_CAP_IRQCHIP"], ..host() };
        assert_eq!(refusal(wish(), &lacking).to_string(), "this host's KVM lacks KVM_CAP_IRQCHIP");
        let many = Wish { cpus: 255, ..wish() };
        assert_eq!(refusal(many, &host()), PlanError::TooManyCpus { cpus: 255, max: 254 });
        let few = Host { max_vcpus: 2, ..host() };
        assert_eq!(refusal(wish(), &few), PlanError::TooManyCpus { cpus: 4, max: 2 });
        assert_eq!(refusal(Wish { memory: 1, ..wish() }, &host()), PlanError::TooLittleMemory(1));
    }

    #[test]
    fn the_reasons_say_what_the_host_has() {
        let reasons = |host: &Host| {
            Plan::choose(wish(), host).unwrap().reasons.join(
                "
",
            )
        };
        assert!(reasons(&host()).contains("as the host's kvm module says"));
        assert!(reasons(&Host { halt_poll: true, ..host() }).contains("KVM_CAP_HALT_POLL"));
    }
}
