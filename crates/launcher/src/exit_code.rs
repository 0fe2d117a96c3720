//! How the process ends: one table, which `--help` and the documentation show.

use std::fmt::Write;

/// Why the process ends. The value is the exit code, which scripts rely on: none of them ever changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The guest powered off, or a command other than `run` did its work.
    Success = 0,
    /// Something failed that neither the guest nor the user did.
    Internal = 1,
    /// The command line, the configuration or an image is wrong. What clap uses, too.
    Usage = 2,
    /// The host lacks something.
    Host = 3,
    /// The guest said that it panicked.
    GuestPanic = 4,
    /// The guest asked for a reboot that the configuration does not allow.
    RebootRefused = 5,
    /// The user stopped the VM without the guest's consent.
    Stopped = 6,
}

/// Every outcome and what it means.
pub const TABLE: [(Outcome, &str); 7] = [
    (Outcome::Success, "the guest powered off; a command other than run did its work"),
    (Outcome::Internal, "internal error: KVM or a system call failed while the VM ran"),
    (
        Outcome::Usage,
        "usage or configuration error: a flag, a key, an image, a tap or a size; nothing was started",
    ),
    (
        Outcome::Host,
        "the host lacks something: /dev/kvm absent or not permitted, kvm_hv not loaded, a capability, /dev/net/tun for a tap",
    ),
    (Outcome::GuestPanic, "the guest panicked"),
    (Outcome::RebootRefused, "the guest asked for a reboot and --no-reboot was given"),
    (Outcome::Stopped, "stopped by the user: Ctrl-A x, or a second signal"),
];

impl From<Outcome> for std::process::ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// The table as `--help` shows it.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (outcome, meaning) in TABLE {
        // Writing to a String cannot fail.
        _ = writeln!(text, "  {}  {meaning}", outcome as u8);
    }
    text.push_str("  128+N  killed by signal N, as the shell reports it");
    text
}
