//! A VM's name and its CPUs: who has them, and what is left of a VM that was killed.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::lifecycle::terminate;
use super::{Body, DEBIAN, Scenario};
use crate::host::LabHost;

pub(super) fn table() -> Vec<Scenario> {
    vec![Scenario::at(Host::Powernv9, "one_vm_of_a_name", Body::Steps(one_vm_of_a_name))]
}

/// Its vCPUs run where they are told to; a second VM of the name is refused while it runs; once it was killed, the next
/// one takes its place and leaves nothing.
fn one_vm_of_a_name(host: &mut LabHost) -> Result<()> {
    start(host)?;
    let threads =
        "for task in /proc/$pid/task/*; do echo $(cat $task/comm; grep Cpus_allowed_list $task/status); done";
    let threads = host.ok(threads)?;
    for (name, cpu) in [("vcpu0", 1), ("vcpu1", 0)] {
        let line = format!("{name} Cpus_allowed_list: {cpu}\n");
        ensure!(threads.contains(&line), "{line:?} is not among the threads:\n{threads}");
    }

    let second = host.sh(&format!("cede run --name ada --kernel {DEBIAN} 2>&1"))?;
    let told = "cede: a VM named ada runs already (process ";
    ensure!(second.code == 2 && second.text.starts_with(told), "{second:?}");
    ensure!(host.ok("cede list")?.contains("\nada "), "the first VM is not listed any more");

    host.ok("kill -KILL $pid")?;
    ensure!(host.wait()?.code == 137, "the VM was not killed");
    let gone = host.sh("cede stat ada 2>&1")?;
    ensure!(gone.code == 2 && gone.text == "cede: no VM named ada runs; none does\n", "{gone:?}");
    host.ok("test -e /run/cede/ada/control.sock")?;

    start(host)?;
    ensure!(host.ok("cede list")?.contains("\nada "), "the VM is not listed");
    terminate(host)?;
    ensure!(host.ok("ls /run/cede")?.is_empty(), "something is left of the VM");
    Ok(())
}

fn start(host: &mut LabHost) -> Result<()> {
    host.start(&format!(
        "--name ada --kernel {DEBIAN} --initrd /tmp/initrd --cpus 2 --placement 1,0 \
         --cmdline 'console=hvc0 quiet lab.run=echo up; sleep 600'"
    ))?;
    host.expect("\nup")?;
    Ok(())
}
