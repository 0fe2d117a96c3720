//! Halt polling: how long to poll, and what an idle period teaches about it.
//!
//! Owns the arithmetic of the polling interval, one value per vcore, and nothing else. It is the
//! kernel's for vcores (`arch/powerpc/kvm/book3s_hv.c`, the end of `kvmppc_vcore_blocked`, with
//! `grow_halt_poll_ns` and `shrink_halt_poll_ns`), in the kernel's own widths: 32 bits for the
//! interval and the tunables, multiplication that wraps, 64 bits for the length of a block.
//!
//! | at the end of a block of length b, with interval p and maximum m | the interval becomes |
//! |---|---|
//! | m = 0 | 0 |
//! | b <= p (the poll succeeded) | p |
//! | p > 0 and b > m (polling could not have caught it) | p / `halt_poll_ns_shrink`, or 0 when that is 0 |
//! | p < m and b < m (a longer poll would have caught it) | p * `halt_poll_ns_grow`, at least `halt_poll_ns_grow_start`; p when grow is 0 |
//! | otherwise | p |
//!
//! and never more than m. Two rules are the generic code's (`virt/kvm/kvm_main.c`), where the
//! vcore code has none: an interval above a maximum that was lowered meanwhile is cut before the
//! next poll, not after it; and a wake-up that brought the guest nothing shrinks the interval.

use crate::tunables::Tunables;

/// One idle period of a vcore: from the last cede to the first wake-up. Times are in nanoseconds
/// of the driver's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// When the last thread ceded.
    pub start: u64,
    /// When the poll gave up; `start` when there was none. Meaningless unless `waited`.
    pub poll_end: u64,
    /// When the first thread woke.
    pub end: u64,
    /// Whether the vcore got as far as sleep. If not, it polled with success.
    pub waited: bool,
    /// Whether the wake-up brought the guest something (the kernel's `vcpu_valid_wakeup`).
    pub valid: bool,
}

impl Block {
    /// The whole length of the block, the kernel's `block_ns`.
    pub const fn block_ns(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The part that was slept, 0 if none was.
    pub const fn wait_ns(&self) -> u64 {
        if self.waited { self.end.saturating_sub(self.poll_end) } else { 0 }
    }
}

/// The interval for the next idle period, from the present one and the block that has just ended.
pub fn adjust(halt_poll_ns: u32, block: &Block, tunables: &Tunables) -> u32 {
    let max = tunables.halt_poll_ns;
    if max == 0 {
        return 0;
    }
    let block_ns = block.block_ns();
    let next = if !block.valid {
        shrink(halt_poll_ns, tunables)
    } else if block_ns <= u64::from(halt_poll_ns) {
        halt_poll_ns
    } else if halt_poll_ns != 0 && block_ns > u64::from(max) {
        shrink(halt_poll_ns, tunables)
    } else if halt_poll_ns < max && block_ns < u64::from(max) {
        grow(halt_poll_ns, tunables)
    } else {
        halt_poll_ns
    };
    next.min(max)
}

/// The kernel's `grow_halt_poll_ns`. Like the kernel's, the product wraps at 32 bits.
pub const fn grow(halt_poll_ns: u32, tunables: &Tunables) -> u32 {
    if tunables.halt_poll_ns_grow == 0 {
        return halt_poll_ns;
    }
    let grown = halt_poll_ns.wrapping_mul(tunables.halt_poll_ns_grow);
    if grown < tunables.halt_poll_ns_grow_start { tunables.halt_poll_ns_grow_start } else { grown }
}

/// The kernel's `shrink_halt_poll_ns`, as vcores have it: a quotient below
/// `halt_poll_ns_grow_start` stays (the generic code takes it to 0).
pub const fn shrink(halt_poll_ns: u32, tunables: &Tunables) -> u32 {
    match tunables.halt_poll_ns_shrink {
        0 => 0,
        divisor => halt_poll_ns / divisor,
    }
}
