//! Bad input and poor hosts: one line that names the file or the key, the right exit code, and nothing started.

use xtask::lab::Host;

use super::{Body, Refusal, Scenario};

/// Wrong input: nothing was started.
const USAGE: i32 = 2;
/// The host lacks something.
const HOST: i32 = 3;

pub(super) fn table() -> Vec<Scenario> {
    INPUT.iter().chain(HOSTS).map(|row| row.scenario()).collect()
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
];
