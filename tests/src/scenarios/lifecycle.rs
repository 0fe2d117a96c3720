//! How a guest ends: by itself, asked to, stopped, or not at all but by a reboot.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::{Body, DEBIAN, Guest, Scenario};
use crate::host::LabHost;

/// A reboot, by a guest that would do so for ever. What it prints before tells which boot it was.
const REBOOT: &str = "console=hvc0 quiet lab.run=echo booted; reboot -f";

pub(super) fn table() -> Vec<Scenario> {
    let at = |title, body| Scenario::at(Host::Powernv9, title, body);
    vec![
        at("reboot_xive", Body::Steps(|host| reboot(host, ""))),
        at("reboot_xics", Body::Steps(|host| reboot(host, "--irqchip xics"))),
        at(
            "no_reboot",
            Body::Guest(Guest {
                kernel: DEBIAN,
                flags: "--cpus 2 --no-reboot",
                cmdline: REBOOT,
                shows: &["\nbooted\n", "cede: the guest asked for a reboot\n"],
                hides: &[],
                exit: 5,
            }),
        ),
        at("power_off_on_sigterm", Body::Steps(power_off_on_sigterm)),
        at("stop_on_second_sigterm", Body::Steps(stop_on_second_sigterm)),
        at(
            "guest_panic",
            Body::Guest(Guest {
                kernel: DEBIAN,
                flags: "--cpus 2",
                cmdline: "console=hvc0 quiet panic=-1 lab.run=echo c >/proc/sysrq-trigger; sleep 600",
                shows: &["sysrq triggered crash", "cede: the guest panicked\n"],
                hides: &[],
                exit: 4,
            }),
        ),
    ]
}

/// The second boot is whole, as the first was: the tree, the CPUs, the console and its input start again, and so
/// does the power button. Without a program to answer it, the kernel itself powers off.
pub(super) fn reboot(host: &mut LabHost, flags: &str) -> Result<()> {
    host.start(&format!(
        "--kernel /lab/vmlinux --initrd /tmp/initrd --cpus 2 {flags} \
         --cmdline 'console=hvc0 quiet lab.run=sh /tests/cpus.sh; echo press enter; read line; reboot -f'"
    ))?;
    boot(host)?;
    host.type_in("\n")?;
    boot(host)?;
    host.ok("kill -TERM $pid")?;
    let ended = host.wait()?;
    ensure!(ended.text.contains("reboot: Power down"), "the guest did not power itself off");
    ensure!(ended.code == 0, "cede ended with {}", ended.code);
    Ok(())
}

fn boot(host: &mut LabHost) -> Result<()> {
    host.expect("lab-begin uname")?;
    let printed = host.expect("\npress enter")?;
    for text in ["cpus: in cpuinfo 2\n", "cpus: 0 ran a process\n", "cpus: 1 ran a process\n"] {
        ensure!(printed.contains(text), "the guest did not print {text:?}");
    }
    Ok(())
}

fn power_off_on_sigterm(host: &mut LabHost) -> Result<()> {
    press(host, "obey")?;
    let ended = host.wait()?;
    ensure!(ended.text.contains("reboot: Power down"), "the guest did not power itself off");
    ensure!(ended.code == 0, "cede ended with {}", ended.code);
    Ok(())
}

fn stop_on_second_sigterm(host: &mut LabHost) -> Result<()> {
    press(host, "ignore")?;
    host.ok("kill -0 $pid; kill -TERM $pid")?;
    let ended = host.wait()?;
    ensure!(ended.code == 6, "cede ended with {} after two signals", ended.code);
    ensure!(ended.text.contains("cede: stopped by a second signal"), "cede does not say why it ended");
    Ok(())
}

/// Ends a guest that may or may not power off when asked; gives what it printed.
pub(super) fn terminate(host: &mut LabHost) -> Result<String> {
    host.ok("kill -TERM $pid; usleep 200000; kill -TERM $pid 2>/dev/null; true")?;
    let ended = host.wait()?;
    ensure!(matches!(ended.code, 0 | 6), "cede ended with {}", ended.code);
    Ok(ended.text)
}

/// Starts a guest with a power button, and presses it by a signal.
fn press(host: &mut LabHost, answer: &str) -> Result<()> {
    host.start(&format!(
        "--kernel /lab/vmlinux --initrd /tmp/initrd --cpus 2 \
         --cmdline 'console=hvc0 quiet lab.run=sh /tests/power-button.sh {answer}'"
    ))?;
    host.expect("power-button: waiting")?;
    host.ok("kill -TERM $pid")?;
    host.expect("power-button: pressed")?;
    Ok(())
}
