//! A user at a terminal: the escape key ends the VM, and the terminal is as it was.

use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::lab::{Host, Run, Session};

use super::{Body, Place, Scenario};
use crate::runner::BOOT_ATTEMPTS;

pub(super) fn table() -> Vec<Scenario> {
    vec![Scenario {
        place: Place::Lab(Host::Powernv9),
        title: "escape_key_restores_the_terminal",
        limit: LIMIT,
        ignored: false,
        body: Body::Alone(escape),
    }]
}

/// Its own boot is in it.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs at the terminal. The settings are compared in the host, where they are.
const SCRIPT: &str = "
echo host: up
stty -a >/tmp/before
cede run --kernel /lab/vmlinux --initrd /lab/initrd --cmdline 'console=hvc0 quiet lab.shell'
code=$?
stty -a >/tmp/after
cmp /tmp/before /tmp/after && echo terminal: same
echo cede: ended with $code.
";

fn escape() -> Result<()> {
    let mut session = boot()?;
    session.expect("lab-begin date")?;
    session.expect("# ")?;
    // ^C is the guest's: it ends the sleep and not cede.
    session.send(b"sleep 600\r")?;
    session.expect("sleep 600")?;
    std::thread::sleep(Duration::from_secs(2));
    session.send(b"\x03")?;
    session.expect("# ")?;
    session.send(b"echo $((6*7))\r")?;
    session.expect("\n42\r")?;
    session.send(b"\x01x")?;
    let end = session.expect("ended with 6.")?;
    ensure!(end.contains("terminal: same"), "the terminal was left changed: {end}");
    session.finish()?;
    Ok(())
}

/// The host with a terminal; once more if it does not come up.
fn boot() -> Result<Session> {
    let mut attempt = 1;
    loop {
        let run = Run::new(Host::Powernv9).tty().time_limit(LIMIT).command(["sh", "-c", SCRIPT]);
        let mut session = run.start()?;
        match session.expect("host: up") {
            Ok(_) => return Ok(session),
            Err(error) if attempt == BOOT_ATTEMPTS => return Err(error.into()),
            Err(_) => attempt += 1,
        }
    }
}
