//! The end-to-end scenarios, with a harness of their own: scenarios of one host share its boot.
//!
//! `cargo test -p cede-tests --test lab -- [--list] [FILTER]…`

use std::process::ExitCode;

fn main() -> ExitCode {
    cede_tests::runner::main()
}
