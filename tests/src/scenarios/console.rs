//! The guest's console in its three forms, and its clock, which is read over it.

use anyhow::{Context, Result, ensure};
use xtask::lab::Host;

use super::{Body, Scenario};
use crate::host::LabHost;

pub(super) fn table() -> Vec<Scenario> {
    let steps = |title, body| Scenario::at(Host::Powernv9, title, Body::Steps(body));
    vec![steps("console_input_and_clock", stdio), steps("console_file", file), steps("console_pty", pty)]
}

const SHELL: &str = "--kernel /lab/vmlinux --initrd /tmp/initrd --cmdline 'console=hvc0 quiet lab.shell'";
const PROMPT: &str = "# ";

/// Longer than any buffer on the way: the vty takes 16 bytes at a time.
const PASTED_LINES: usize = 100;

fn stdio(host: &mut LabHost) -> Result<()> {
    host.start(SHELL)?;
    host.expect("lab-begin date")?;
    host.expect(PROMPT)?;
    host.type_in("echo $((6*7))\n")?;
    // The echo of what was typed, then the answer.
    host.expect("echo $((6*7))")?;
    host.expect("\n42\r\n")?;
    paste(host)?;
    clock(host)?;
    host.type_in("exit\n")?;
    let ended = host.wait()?;
    ensure!(ended.code == 0, "cede ended with {}", ended.code);
    Ok(())
}

/// Types lines faster than the guest reads them; it counts and sums what arrived.
fn paste(host: &mut LabHost) -> Result<()> {
    let text: String = (0..PASTED_LINES).map(|n| format!("pasted line {n:03} 0123456789abcdef\n")).collect();
    host.expect(PROMPT)?;
    // The shell edits its lines with the terminal raw; the word comes when it has put the terminal back.
    host.type_in("stty -echo; echo re''ady; md5sum; stty echo\n")?;
    host.expect("ready\r\n")?;
    host.type_in(&text)?;
    host.type_in("\x04")?;
    let sum = host.expect("-\r\n")?;
    let expected = host.ok(&format!("printf %s '{text}' | md5sum"))?;
    ensure!(
        sum.trim() == expected.trim(),
        "{} bytes were pasted; md5sum {sum:?}, not {expected:?}",
        text.len()
    );
    Ok(())
}

/// The guest's date against the host's, right before and right after.
fn clock(host: &mut LabHost) -> Result<()> {
    let before = seconds(&host.ok("date -u +%s")?)?;
    host.type_in("echo now=$(date -u +%s)=\n")?;
    host.expect("\nnow=")?;
    let guest = seconds(&host.expect("=")?.replace('=', ""))?;
    let after = seconds(&host.ok("date -u +%s")?)?;
    ensure!(
        (before - 2..=after + 2).contains(&guest),
        "the guest's clock says {guest}, the host's {before} to {after}"
    );
    Ok(())
}

fn seconds(text: &str) -> Result<i64> {
    text.trim().parse().with_context(|| format!("no time: {text:?}"))
}

fn file(host: &mut LabHost) -> Result<()> {
    host.ok("echo old contents >/tmp/console")?;
    let ended = host.run(
        "--console file=/tmp/console --kernel /lab/vmlinux --initrd /tmp/initrd --cmdline 'console=hvc0 quiet lab.run=echo sum=$((6*7))'",
    )?;
    let printed = host.ok("cat /tmp/console")?;
    ensure!(ended.code == 0, "cede ended with {}; the file:\n{printed}", ended.code);
    ensure!(printed.contains("sum=42\n") && printed.contains("lab-exit 0"), "the file has:\n{printed}");
    ensure!(!printed.contains("old contents"), "the file was not emptied first:\n{printed}");
    ensure!(ended.text.is_empty(), "something went elsewhere: {}", ended.text);
    Ok(())
}

fn pty(host: &mut LabHost) -> Result<()> {
    host.start(&format!("--console pty {SHELL}"))?;
    host.expect("the guest's console is ")?;
    let path = host.expect("\n")?.trim().to_owned();
    // Whoever opens it reads and types; the reader hands the output to the stream that the guest's is expected on.
    // No cat: busybox's uses sendfile(2), which keeps the pipe locked while it waits for the terminal, so that
    // nobody can read what is in the pipe already.
    host.ok(&format!("dd if={path} bs=256 >&3 2>/dev/null & reader=$!; exec 5>{path}"))?;
    host.expect("lab-begin date")?;
    host.expect(PROMPT)?;
    host.ok("echo 'echo $((6*7))' >&5")?;
    host.expect("\n42\r\n")?;
    host.ok("echo exit >&5")?;
    let ended = host.wait()?;
    host.ok("exec 5>&-; wait $reader; true")?;
    ensure!(ended.code == 0, "cede ended with {}", ended.code);
    Ok(())
}
