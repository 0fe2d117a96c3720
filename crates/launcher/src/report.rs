//! One line for whoever started the process.

use crate::exit_code::Outcome;
use std::error::Error;

/// The error and everything that caused it, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A transparent error and its source say the same.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Says why the process ends, on standard error, and passes the outcome on.
pub fn failure(outcome: Outcome, error: &dyn Error) -> Outcome {
    eprintln!("cede: {}", chain(error));
    outcome
}

/// Says how the guest ended, where that is not what everybody expects, and gives the exit code.
#[must_use]
pub fn ended(how: vmm::Outcome) -> Outcome {
    let (outcome, what) = match how {
        vmm::Outcome::PoweredOff => return Outcome::Success,
        vmm::Outcome::Panicked => (Outcome::GuestPanic, "the guest panicked"),
        vmm::Outcome::RebootRequested => (Outcome::RebootRefused, "the guest asked for a reboot"),
        vmm::Outcome::Quit => (Outcome::Stopped, "stopped at the console"),
        vmm::Outcome::Terminated => (Outcome::Stopped, "stopped by a second signal"),
    };
    eprintln!("cede: {what}");
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start\nthe VM")]
    struct Top(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Middle(#[from] Bottom);

    #[derive(Debug, thiserror::Error)]
    #[error("KVM_CREATE_VM failed")]
    struct Bottom(#[source] io::Error);

    #[test]
    fn the_whole_chain_is_one_line() {
        let error = Top(Middle(Bottom(io::Error::from_raw_os_error(libc::EINVAL))));
        assert_eq!(
            chain(&error),
            "cannot start the VM: KVM_CREATE_VM failed: Invalid argument (os error 22)"
        );
    }
}
