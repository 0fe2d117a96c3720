//! How often to look at a vCPU's idle periods while looking does not pay.
//!
//! Where the hypervisor handles the sleep, seeing a cede costs an exit, and learning how long the guest then slept costs
//! another. While polling pays, every cede is seen. While it does not, ever more of them pass unseen between two that
//! are looked at, so that a guest that idles for good pays nothing, and one whose habits change is noticed
//! after some of its cedes, however many it makes in a second.
//!
//! ```text
//!   unseen:  0 ──does not pay──▶ 1 ──▶ 3 ──▶ 7 ──▶ … ──▶ 63
//!            ▲                   │     │     │            │
//!            └───────pays────────┴─────┴─────┴────────────┘
//! ```

/// The most cedes that pass unseen between two that are looked at.
pub const MOST_UNSEEN: u32 = 63;

/// How many cedes pass unseen before the next one is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    unseen: u32,
}

impl Sampling {
    /// With so many unseen.
    pub const fn with_unseen(unseen: u32) -> Self {
        Self { unseen: if unseen < MOST_UNSEEN { unseen } else { MOST_UNSEEN } }
    }

    /// How many pass unseen.
    pub const fn unseen(self) -> u32 {
        self.unseen
    }

    /// After a cede that was looked at, and what came of it: whether its poll succeeded, or its length lets the next one's
    /// succeed.
    #[must_use]
    pub const fn after(self, pays: bool) -> Self {
        Self::with_unseen(if pays { 0 } else { 2 * self.unseen + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pay_is_looked_at_ever_less_and_what_pays_always() {
        let mut sampling = Sampling::default();
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(sampling.unseen());
            sampling = sampling.after(false);
        }
        assert_eq!(seen, [0, 1, 3, 7, 15, 31, 63, 63, 63, 63]);
        assert_eq!(sampling.after(true), Sampling::default());
    }
}
