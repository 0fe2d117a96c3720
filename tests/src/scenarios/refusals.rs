//! Bad input and poor hosts: one line that names the file or the key, the right exit code, and nothing started.

use anyhow::{Result, bail, ensure};
use xtask::lab::Host;

use super::{Body, Refusal, Scenario};
use crate::host::LabHost;
use crate::runner::run_refusal;

/// Wrong input: nothing was started.
const USAGE: i32 = 2;
/// The host lacks something.
const HOST: i32 = 3;

pub(super) fn table() -> Vec<Scenario> {
    let mut table: Vec<_> = INPUT.iter().chain(HOSTS).map(|row| row.scenario()).collect();
    let held = Body::Steps(what_a_running_vm_has);
    table.push(Scenario::at(Host::Powernv9, "refuses_what_a_running_vm_has", held));
    let noticed = Body::Steps(an_end_is_noticed);
    table.push(Scenario::at(Host::Powernv9, "refuses_and_is_not_waited_for", noticed));
    table
}

/// One refusal; `prepare` and `restore` are empty where the files are there already.
struct Row {
    title: &'static str,
    prepare: &'static str,
    command: &'static str,
    restore: &'static str,
    exit: i32,
    says: &'static [&'static str],
}

impl Row {
    fn scenario(&self) -> Scenario {
        let word = |text: &'static str| if text.is_empty() { "true" } else { text };
        let refusal = Refusal {
            prepare: word(self.prepare),
            command: self.command,
            restore: word(self.restore),
            says: self.says,
            exit: self.exit,
        };
        Scenario::at(Host::Powernv9, self.title, Body::Refusal(refusal))
    }
}

const fn input(
    title: &'static str,
    prepare: &'static str,
    command: &'static str,
    says: &'static [&'static str],
) -> Row {
    Row { title, prepare, command, restore: "", exit: USAGE, says }
}

const INPUT: &[Row] = &[
    input("refuses_kernel_absent", "", "cede run --kernel /tmp/absent", &["/tmp/absent", "No such file"]),
    input("refuses_kernel_not_elf", "echo text >/tmp/k", "cede run --kernel /tmp/k", &["/tmp/k", "ELF"]),
    input(
        "refuses_kernel_for_x86",
        // The machine field of the ELF header says x86-64.
        r"head -c 1048576 /lab/vmlinux >/tmp/k; printf '\076\000' | dd of=/tmp/k bs=1 seek=18 conv=notrunc 2>/dev/null",
        "cede run --kernel /tmp/k",
        &["/tmp/k", "x86"],
    ),
    input(
        "refuses_kernel_truncated",
        "head -c 1048576 /lab/vmlinux >/tmp/k",
        "cede run --kernel /tmp/k",
        &["/tmp/k", "truncated"],
    ),
    input(
        "refuses_kernel_larger_than_memory",
        "",
        "cede run --memory 16M --kernel /lab/vmlinux",
        &["/lab/vmlinux", "memory"],
    ),
    input(
        "refuses_initrd_absent",
        "",
        "cede run --kernel /lab/vmlinux --initrd /tmp/absent",
        &["/tmp/absent", "No such file"],
    ),
    input(
        "refuses_initrd_larger_than_memory",
        "truncate -s 300M /tmp/big",
        "cede run --memory 256M --kernel /lab/vmlinux --initrd /tmp/big",
        &["/tmp/big", "memory"],
    ),
    input("refuses_memory_0", "", "cede run --memory 0 --kernel /lab/vmlinux", &["--memory", "more than 0"]),
    input(
        "refuses_memory_unaligned",
        "",
        "cede run --memory 100000 --kernel /lab/vmlinux",
        &["memory", "64"],
    ),
    input(
        "refuses_memory_above_the_hosts",
        "",
        "cede run --memory 64G --kernel /lab/vmlinux",
        &["memory", "host"],
    ),
    input("refuses_cpus_0", "", "cede run --cpus 0 --kernel /lab/vmlinux", &["cpu", "0"]),
    input(
        "refuses_cpus_above_kvms_limit",
        "",
        "cede run --cpus 5000 --kernel /lab/vmlinux",
        &["cpu", "5000"],
    ),
    input("refuses_threads_3", "", "cede run --cpus 3 --threads 3 --kernel /lab/vmlinux", &["threads", "3"]),
    input(
        "refuses_cpus_that_are_offline",
        "",
        "cede run --placement 0,99 --kernel /lab/vmlinux",
        &["CPU 99 is offline", "--placement"],
    ),
    input(
        "refuses_more_vcores_than_cores",
        "",
        "cede run --cpus 64 --placement cores --kernel /lab/vmlinux",
        &["64 vcores need 64 cores", "--placement none"],
    ),
    input(
        "refuses_unknown_key",
        r#"printf '[cpu]\nsockets = 2\n' >/tmp/vm.toml"#,
        "cede run --config /tmp/vm.toml",
        &["/tmp/vm.toml", "sockets", "count", "threads", "model"],
    ),
    input(
        "refuses_disk_absent",
        "",
        "cede run --kernel /lab/hang --disk path=/tmp/absent",
        &["disk 1 ([[disk]], --disk)", "/tmp/absent: there is no such file", "truncate -s 8G /tmp/absent"],
    ),
    input(
        "refuses_disk_that_ends_in_a_sector",
        "truncate -s 1000 /tmp/short",
        "cede run --kernel /lab/hang --disk path=/tmp/short",
        &["disk 1 ([[disk]], --disk)", "/tmp/short has 1000 bytes", "truncate -s %512 /tmp/short"],
    ),
    input(
        "refuses_second_disk_of_the_same_image",
        "truncate -s 1M /tmp/disk",
        "cede run --kernel /lab/hang --disk path=/tmp/disk --disk path=/tmp/disk,readonly",
        &["disks 1 and 2 are the same image, /tmp/disk", "readonly"],
    ),
];

const HOSTS: &[Row] = &[
    Row {
        title: "refuses_without_dev_kvm",
        prepare: "mv /dev/kvm /dev/kvm.away",
        command: "cede run --kernel /lab/vmlinux",
        restore: "mv /dev/kvm.away /dev/kvm",
        exit: HOST,
        says: &["/dev/kvm", "modprobe kvm_hv"],
    },
    Row {
        title: "refuses_without_permission",
        prepare: "echo 'nobody:x:65534:65534::/:/bin/sh' >/etc/passwd; chmod 600 /dev/kvm",
        command: "su nobody -c 'cede run --kernel /lab/vmlinux'",
        restore: "rm /etc/passwd; chmod 666 /dev/kvm",
        exit: HOST,
        says: &["/dev/kvm may not be opened", "group"],
    },
    Row {
        title: "refuses_without_kvm_hv",
        prepare: "rmmod kvm_hv",
        command: "cede run --kernel /lab/vmlinux",
        restore: "insmod /lib/modules/kvm_hv.ko",
        exit: HOST,
        says: &["no Book3S HV", "modprobe kvm_hv"],
    },
    Row {
        title: "refuses_vmm_plane_without_tracefs",
        prepare: "umount /sys/kernel/tracing; mount --bind /tmp /sys/kernel/debug",
        command: "cede run --plane vmm --kernel /lab/vmlinux",
        restore: "umount /sys/kernel/debug; mount -t tracefs nodev /sys/kernel/tracing",
        exit: HOST,
        says: &[
            "vmm plane is not possible",
            "tracefs is not mounted",
            "mount -t tracefs nodev /sys/kernel/tracing",
        ],
    },
    Row {
        title: "refuses_vmm_plane_without_perfmon",
        prepare: "mkdir -m 777 /tmp/nobody; echo 'nobody:x:65534:65534::/:/bin/sh' >/etc/passwd; chmod 666 /dev/kvm; chmod -R a+rX /sys/kernel/tracing/events/kvm_hv; \
                  chmod 755 /sys/kernel/tracing /sys/kernel/tracing/events",
        command: "su nobody -c 'cede run --run-dir /tmp/nobody --plane vmm --kernel /lab/vmlinux'",
        restore: "rm /etc/passwd; rm -rf /tmp/nobody; chmod 700 /sys/kernel/tracing",
        exit: HOST,
        says: &["vmm plane is not possible", "CAP_PERFMON", "perf_event_paranoid"],
    },
    Row {
        title: "refuses_tap_without_tun",
        prepare: "lab-bridge br0; mv /dev/net/tun /dev/net/tun.away",
        command: "cede run --kernel /lab/hang --net tap=tap0",
        restore: "mv /dev/net/tun.away /dev/net/tun",
        exit: HOST,
        says: &["net 1 ([[net]], --net)", "no /dev/net/tun", "modprobe tun"],
    },
    // Root would be given a new one.
    Row {
        title: "refuses_tap_absent",
        prepare: "lab-bridge br0; chmod 666 /dev/net/tun /dev/kvm; mkdir -m 777 /tmp/nobody; \
                  echo 'nobody:x:65534:65534::/:/bin/sh' >/etc/passwd",
        command: "su nobody -c 'cede run --run-dir /tmp/nobody --kernel /lab/hang --net tap=absent'",
        restore: "rm /etc/passwd; rm -rf /tmp/nobody",
        exit: USAGE,
        says: &["net 1 ([[net]], --net)", "there is no tap absent", "ip tuntap add dev absent mode tap"],
    },
];

/// The tests themselves do not wait for what a VM that was refused will never print.
fn an_end_is_noticed(host: &mut LabHost) -> Result<()> {
    host.start("--kernel /tmp/absent")?;
    let Err(error) = host.expect("a word of the guest") else {
        bail!("there was a word of a guest that is none")
    };
    let error = format!("{error:#}");
    ensure!(error == "cede ended with 2 before there was \"a word of the guest\"", "{error}");
    let ended = host.wait()?;
    ensure!(ended.code == USAGE && ended.text.contains("/tmp/absent"), "{ended:?}");
    Ok(())
}

/// An image and a tap of a VM that runs are its own, until it is killed.
fn what_a_running_vm_has(host: &mut LabHost) -> Result<()> {
    const HAS: &str = "--name first --memory 64M --kernel /lab/hang --disk path=/tmp/held --net tap=held0,mac=52:54:00:00:00:01";
    let refused = |command, says| Refusal { prepare: "true", command, restore: "true", says, exit: USAGE };
    let second = [
        refused(
            "cede run --name second --kernel /lab/hang --disk path=/tmp/held",
            &["disk 1 ([[disk]], --disk)", "/tmp/held is in use by", "make both read-only"],
        ),
        refused(
            "cede run --name second --kernel /lab/hang --disk path=/tmp/held,readonly",
            &["disk 1 ([[disk]], --disk)", "/tmp/held is in use by"],
        ),
        refused(
            "cede run --name second --kernel /lab/hang --net tap=held0",
            &["net 1 ([[net]], --net)", "tap held0 is in use", "another VM"],
        ),
    ];
    host.ok("truncate -s 1M /tmp/held; lab-bridge br0 held0")?;
    for _ in 0..2 {
        host.start(HAS)?;
        host.expect("hang: looping\n")?;
        second.iter().try_for_each(|refusal| run_refusal(refusal, host))?;
        host.ok("kill -KILL $pid")?;
        ensure!(host.wait()?.code == 128 + 9, "cede was not killed");
    }
    host.ok("rm /tmp/held")?;
    Ok(())
}
