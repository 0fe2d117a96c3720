//! `cargo xtask demo`: a Debian guest under cede, on whatever machine this is.
//!
//! On POWER with `/dev/kvm` the guest runs right here; anywhere else in the lab. With a terminal the guest gives a
//! shell; without one it runs a short session by itself and powers off.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::lab::{Host, Run, cli, initramfs, terminal};
use crate::paths;

/// What the guest does when nobody types.
const SCRIPT: &str = "echo; echo This guest runs on KVM under cede.; uptime; free -m; ls /; true";

/// Runs the demo; the exit code is cede's.
pub fn run(host: Host) -> Result<ExitCode> {
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let cmdline = match interactive {
        true => "console=hvc0 quiet lab.shell".to_owned(),
        false => format!("console=hvc0 quiet lab.run={SCRIPT}"),
    };
    if cfg!(target_arch = "powerpc64") && Path::new("/dev/kvm").exists() {
        return natively(&cmdline);
    }
    crate::cross::build_cede()?;
    eprintln!("demo: an emulated {} host boots Debian, cede boots a Debian guest on its KVM", host.name());
    if interactive {
        eprintln!("demo: leave the guest with exit, or with Ctrl-A x");
    }
    let vm = ["--kernel", "/lab/vmlinux", "--initrd", "/lab/initrd", "--memory", "1G", "--cpus", "2"];
    let command = ["cede", "run"].into_iter().chain(vm).chain(["--cmdline", &cmdline]);
    let run = Run::new(host).command(command);
    let run = if interactive { run.tty() } else { run };
    let session = run.start()?;
    let raw = if interactive { terminal::Raw::stdin()? } else { None };
    cli::attend(session, false, raw)
}

fn natively(cmdline: &str) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(paths::root())
        .args(["build", "--release", "--package", "cede"])
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "cede does not build");
    let guest = initramfs::guest()?;
    let status = Command::new(paths::root().join("target/release/cede"))
        .args(["run", "--memory", "1G", "--cpus", "2", "--cmdline", cmdline])
        .arg("--kernel")
        .arg(guest.kernel)
        .arg("--initrd")
        .arg(guest.initrd)
        .status()
        .context("cannot run cede")?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(125)).unwrap_or(125)))
}
