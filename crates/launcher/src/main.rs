//! A KVM virtual machine monitor for POWER.

use clap::Parser;
use launcher::cli::{self, Cli, Command, usage_error};
use launcher::config::host::check_images;
use launcher::config::{Settings, VmConfig};
use launcher::control::{Load, commands};
use launcher::exit_code::Outcome;
#[cfg(not(target_arch = "x86_64"))]
use launcher::power as native;
use launcher::power::{self, PowerError};
#[cfg(target_arch = "x86_64")]
use launcher::x86 as native;
use launcher::{log, report};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

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
        Command::Run { vm } => match vm.load() {
            Ok(config) => {
                let again = vm.config.is_some().then(|| Box::new(move || vm.load()) as Load);
                run(&config, again)
            }
            Err(error) => report::failure(Outcome::Usage, &error),
        },
        Command::Fdt { output, vm } => match vm.load() {
            Ok(config) => fdt(&config, &output),
            Err(error) => report::failure(Outcome::Usage, &error),
        },
        Command::Caps { json } => caps(json),
        Command::Set { vm, tunables } => commands::set(&vm, &tunables),
        Command::Stat { vm, json, watch: None } => commands::stat(&vm, json),
        Command::Stat { vm, json, watch: Some(seconds) } => {
            commands::watch(&vm, json, Duration::from_secs(seconds))
        }
        Command::Pause { vm } => commands::pause(&vm),
        Command::Resume { vm } => commands::resume(&vm),
        Command::Balloon { vm, size } => commands::balloon(&vm, size),
        Command::Reload { vm } => commands::reload(&vm),
        Command::List { run_dir, json } => commands::running(run_dir.as_deref(), json),
    };
    outcome.into()
}

/// `cede check`: the file, its values against each other, and the images it names. What only a host with KVM
/// can tell is for `run`.
fn check(file: &Path) -> Outcome {
    let checked = cli::load_file(file).and_then(|config| check_images(&config).map(|()| config));
    let config = match checked {
        Ok(config) => config,
        Err(error) => return report::failure(Outcome::Usage, &error),
    };
    say(&format!("{} is valid\n{config}", file.display()))
}

/// `cede run`.
fn run(config: &VmConfig, again: Option<Load>) -> Outcome {
    if let Err(error) = check_images(config) {
        return report::failure(Outcome::Usage, &error);
    }
    match on_a_known_host(|| native::run(config, again)) {
        Ok(Ok(ended)) => report::ended(ended),
        Ok(Err(error)) => report::failure(error.outcome(), &error),
        Err(outcome) => outcome,
    }
}

/// `cede fdt`.
fn fdt(config: &VmConfig, output: &Path) -> Outcome {
    match power::tree(config) {
        Ok(tree) => match std::fs::write(output, tree) {
            Ok(()) => Outcome::Success,
            Err(error) => {
                eprintln!("cede: cannot write {}: {error}", output.display());
                Outcome::Usage
            }
        },
        Err(PowerError::Open(error)) => {
            eprintln!("cede: {}; or name a processor, as in --cpu power9", report::chain(&error));
            Outcome::Host
        }
        Err(error) => report::failure(error.outcome(), &error),
    }
}

/// `cede caps`.
fn caps(json: bool) -> Outcome {
    let config = match Settings::default().resolve() {
        Ok(config) => config,
        Err(error) => return report::failure(Outcome::Internal, &error),
    };
    match on_a_known_host(|| native::caps(&config)) {
        Ok(Ok(caps)) if json => match serde_json::to_string_pretty(&caps) {
            Ok(text) => say(&text),
            Err(error) => report::failure(Outcome::Internal, &error),
        },
        Ok(Ok(caps)) => say(&caps.to_string()),
        Ok(Err(error)) => report::failure(error.outcome(), &error),
        Err(outcome) => outcome,
    }
}

/// Does what needs KVM where cede knows it.
fn on_a_known_host<T>(work: impl FnOnce() -> T) -> Result<T, Outcome> {
    if cfg!(any(target_arch = "powerpc64", target_arch = "x86_64")) {
        return Ok(work());
    }
    eprintln!(
        "cede: this machine's KVM cannot run guests that cede knows; run cede on a POWER8 or later host, on an x86_64 one, \
         or in the lab of its source tree (cargo xtask demo)"
    );
    Err(Outcome::Host)
}

fn say(text: &str) -> Outcome {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => Outcome::Success,
        Err(error) => report::failure(Outcome::Internal, &error),
    }
}
