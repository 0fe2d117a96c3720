//! Virtio disks: a whole Debian boots from one, and what it flushed outlives its VMM; the driver comes and goes.

use anyhow::{Result, ensure};
use xtask::lab::Host;

use super::{Body, DEBIAN, Guest, Scenario};
use crate::host::{LabHost, quoted};

/// The root disk's system is up, and nothing in it failed.
const UP: &str = "lab-target active\n";
const FAILED: &str = "lab-failed ";

pub(super) fn table() -> Vec<Scenario> {
    let mut table = Vec::new();
    for host in [Host::Powernv9, Host::Powernv8, Host::Powernv10] {
        let elsewhere = host != Host::Powernv9;
        let killed =
            |title, body| Scenario::at(host, title, Body::Steps(body)).within(1800).ignored_if(elsewhere);
        table.extend([
            killed("disk_killed", |host| self::killed(host, "kernel")),
            killed("vmm_plane_disk_killed", |host| self::killed(host, "vmm")),
            rebind(host, "disk_rebind", "--plane kernel --memory 256M --disk path=/dev/lab/b")
                .ignored_if(elsewhere),
            rebind(host, "vmm_plane_disk_rebind", "--plane vmm --memory 256M --disk path=/dev/lab/b")
                .ignored_if(host == Host::Powernv8),
        ]);
    }
    table.push(Scenario::at(
        Host::Powernv9,
        "disk_readonly",
        Body::Guest(Guest {
            kernel: DEBIAN,
            flags: "--memory 256M --disk path=/dev/lab/b,readonly",
            cmdline: "console=hvc0 quiet lab.run=sh /tests/disk-readonly.sh",
            shows: &["readonly: 1\n", "readonly: reads\n", "readonly: does not write\n", "lab-exit 0\n"],
            hides: &[],
            exit: 0,
        }),
    ));
    table
}

/// MiB that are written: four times as much as the guest has memory.
const WRITTEN: u32 = 1024;

/// A guest on the root disk, which runs `command` when it is up.
pub(super) fn on_root(plane: &str, disk: &str, flags: &str, command: &str) -> String {
    let cmdline = format!("console=hvc0 quiet net.ifnames=0 lab.root=vda lab.run={command}");
    format!(
        "--plane {plane} --kernel {DEBIAN} --initrd /tmp/initrd --cpus 2 --memory 256M --disk path=/dev/lab/{disk} {flags} \
         --cmdline {}",
        quoted(&cmdline)
    )
}

/// What a guest on the root disk printed shows that it came up whole and ended by itself.
pub(super) fn ensure_whole(text: &str) -> Result<()> {
    ensure!(text.contains(UP), "the system on the root disk did not come up");
    ensure!(!text.contains(FAILED), "a unit of the system failed");
    ensure!(text.contains("reboot: Power down"), "the system did not shut down");
    Ok(())
}

/// A guest boots from the disk, writes and flushes; its VMM is killed in the middle of more writes. The next boot finds what was
/// flushed, shuts down, and leaves a clean file system.
fn killed(host: &mut LabHost, plane: &str) -> Result<()> {
    host.start(&on_root(plane, "a", "", &format!("sh /tests/disk-write.sh {WRITTEN}")))?;
    let printed = host.expect("\ndisk: flushed")?;
    ensure!(printed.contains(UP) && !printed.contains(FAILED), "the system on the root disk did not come up");
    host.ok("usleep 500000; kill -KILL $pid")?;
    ensure!(host.wait()?.code == 128 + 9, "cede was not killed");

    let verify = format!("sh /tests/disk-verify.sh {WRITTEN}");
    let ended = host.run(&on_root(plane, "a", "", &verify))?;
    ensure!(ended.code == 0, "cede ended with {}", ended.code);
    ensure_whole(&ended.text)?;
    ensure!(ended.text.contains("\ndisk: verified\n"), "what was flushed is not there");
    host.ok("e2fsck -fn /dev/lab/a")?;
    Ok(())
}

fn rebind(host: Host, title: &'static str, flags: &'static str) -> Scenario {
    let cmdline = "console=hvc0 quiet lab.run=sh /tests/disk-rebind.sh 20";
    let shows = &["rebind: 20 times the same\n", "lab-exit 0\n"];
    let guest = Guest { kernel: DEBIAN, flags, cmdline, shows, hides: &["rebind: FAIL"], exit: 0 };
    Scenario::at(host, title, Body::Guest(guest)).within(600)
}
