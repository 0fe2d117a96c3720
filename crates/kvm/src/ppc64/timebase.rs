//! The timebase, which the decrementer's expiry is given in.

/// Inline assembly for POWER is not stable in the Rust that cede is built with, so this is a function in two words:
/// `mftb r3; blr`. Its name keeps the linker from taking a section of code that nothing calls by name away.
#[cfg(target_arch = "powerpc64")]
#[unsafe(link_section = ".text.cede_timebase")]
#[unsafe(no_mangle)]
#[used]
static CEDE_TIMEBASE: [u32; 2] = [0x7c6c_42e6, 0x4e80_0020];

/// Reads the timebase: ticks since the machine started, the same on every CPU.
#[cfg(target_arch = "powerpc64")]
pub(super) fn now() -> u64 {
    // SAFETY: the words are in a section that is linked into the executable's code. They are a complete function of the
    // ELFv2 ABI without arguments: it touches no memory and only r3, the result.
    let mftb: extern "C" fn() -> u64 = unsafe { std::mem::transmute(&raw const CEDE_TIMEBASE) };
    mftb()
}

/// There is none elsewhere, and no vCPU either.
#[cfg(not(target_arch = "powerpc64"))]
pub(super) fn now() -> u64 {
    0
}

/// Nanoseconds in `ticks`, which may be negative.
pub(super) fn nanoseconds(ticks: i64, hz: u32) -> i64 {
    let ns = i128::from(ticks) * 1_000_000_000 / i128::from(hz.max(1));
    ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_and_never_wrap() {
        assert_eq!(nanoseconds(512, 512_000_000), 1000);
        assert_eq!(nanoseconds(-512_000_000, 512_000_000), -1_000_000_000);
        assert_eq!(nanoseconds(i64::MAX, 1), i64::MAX);
        assert_eq!(nanoseconds(i64::MIN, 1), i64::MIN);
        assert_eq!(nanoseconds(1, 0), 1_000_000_000);
    }
}
