//! A KVM virtual machine monitor for POWER.

use clap::Parser;
use launcher::cli::{self, Cli, Command, usage_error};
use launcher::config::host::check_images;
use launcher::exit_code::Outcome;
use launcher::{log, report};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // --help and --version are on standard output and no error.
        Err(help) if !help.use_stderr() => {
            return match help.print() {
                Ok(()) => Outcome::Success.into(),
                Err(_) => Outcome::Internal.into(),
            };
        }
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{error}");
            return Outcome::Usage.into();
        }
        Err(error) => {
            eprintln!("cede: {}", usage_error(&error));
            return Outcome::Usage.into();
        }
    };
    log::start(cli.logging.filter());
    let outcome = match cli.command {
        Command::Check { file } => check(&file),
        Command::Run { vm } | Command::Fdt { vm, .. } => match vm.load() {
            Ok(_) => unavailable(),
            Err(error) => report::failure(Outcome::Usage, &error),
        },
        Command::Caps { .. } => unavailable(),
    };
    outcome.into()
}

/// The command is not part of this build.
fn unavailable() -> Outcome {
    eprintln!("cede: this build cannot do that; only check works");
    Outcome::Internal
}

/// `cede check`: the file, its values against each other, and the images it names. What only a host with KVM
/// can tell is for `run`.
fn check(file: &Path) -> Outcome {
    let checked = cli::load_file(file).and_then(|config| check_images(&config).map(|()| config));
    let config = match checked {
        Ok(config) => config,
        Err(error) => return report::failure(Outcome::Usage, &error),
    };
    match writeln!(io::stdout(), "{} is valid\n{config}", file.display()) {
        Ok(()) => Outcome::Success,
        Err(error) => report::failure(Outcome::Internal, &error),
    }
}
