//! The lab itself: each host boots, has KVM, and hands the command's streams and exit code over unharmed.
//!
//! They boot emulated machines and fetch packages, so they run only when asked for: `cargo test -p xtask -- --ignored`.

use std::time::{Duration, Instant};

use xtask::cross;
use xtask::lab::{Host, Run, RunError, root};

const CREATES_A_VM: &str = r#"
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
int main(void) {
    int kvm = open("/dev/kvm", O_RDWR);
    if (kvm < 0) return 1;
    return ioctl(kvm, KVM_CREATE_VM, 0) < 0 ? 2 : 0;
}
"#;

#[test]
#[ignore = "boots every lab host"]
fn every_host_creates_a_vm() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("vm.c"), dir.path().join("vm"));
    std::fs::write(&source, CREATES_A_VM).unwrap();
    let status = cross::gcc().unwrap().args(["-static", "-o"]).arg(&program).arg(&source).status().unwrap();
    assert!(status.success());
    for host in Host::ALL {
        let session = Run::new(host).file(&program, "vm").command(["/lab/vm"]).start().unwrap();
        let outcome = session.finish().unwrap();
        assert_eq!(outcome.code, 0, "{}: {}", host.name(), outcome.stderr);
    }
}

#[test]
#[ignore = "boots a lab host"]
fn streams_arguments_and_exit_code_arrive_unharmed() {
    let script = r#"printf '%s|' "$@"; cat; echo to-stderr >/dev/stderr; exit 7"#;
    let arguments = ["sh", "-c", script, "sh", "a  b", "it's", "$HOME", "", "two\nlines"];
    let mut session = Run::new(Host::Powernv9).bare().command(arguments).start().unwrap();
    let typed: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let mut input = session.input().unwrap();
    let text = typed.clone();
    let typist = std::thread::spawn(move || {
        std::io::Write::write_all(&mut input, text.as_bytes()).unwrap();
        input.close().unwrap();
    });
    let passed = session.expect("line 1\n").unwrap();
    assert!(passed.ends_with("line 0\nline 1\n"));
    let outcome = session.finish().unwrap();
    typist.join().unwrap();
    assert_eq!(outcome.stdout, format!("a  b|it's|$HOME||two\nlines|{typed}"));
    assert_eq!(outcome.stderr, "to-stderr\n");
    assert_eq!(outcome.code, 7);
}

#[test]
#[ignore = "boots a lab host"]
fn a_hang_ends_at_the_time_limit_and_shows_what_was_printed() {
    let limit = Duration::from_secs(30);
    let begin = Instant::now();
    let run = Run::new(Host::Powernv9).bare().time_limit(limit).command([
        "sh",
        "-c",
        "echo last words; sleep 1000",
    ]);
    let error = run.start().unwrap().finish().unwrap_err();
    assert!(begin.elapsed() < limit + Duration::from_secs(10));
    assert!(matches!(error, RunError::TimeLimit { .. }));
    assert!(error.to_string().contains("last words"), "{error}");
}

#[test]
#[ignore = "boots a lab host"]
fn a_host_that_panics_is_an_error_and_not_an_exit_code() {
    let run =
        Run::new(Host::Powernv9).bare().command(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000"]);
    let error = run.start().unwrap().finish().unwrap_err();
    assert!(matches!(error, RunError::HostDown { .. }));
    assert!(error.to_string().contains("sysrq triggered crash"), "{error}");
}

const BOOTS_FROM_THE_ROOT_DISK: &str = "
qemu-kvm -m 256M -smp 2 -kernel /lab/vmlinux -initrd /lab/initrd -drive if=none,id=root,format=raw,file=/dev/lab/root \\
    -device virtio-blk-pci,drive=root -append 'console=hvc0 quiet lab.root=vda lab.run=echo 3 rescue >/root/written; sync' </dev/null
e2fsck -fn /dev/lab/root && mount -t ext4 -o ro /dev/lab/root /mnt && cat /mnt/root/written";

/// The words `3` and `rescue` are ones that systemd would take for itself if it saw them.
#[test]
#[ignore = "boots lab hosts"]
fn the_root_disk_boots_to_multi_user_and_shuts_down_clean() {
    let disk = root::disk().unwrap();
    for host in [Host::Powernv8, Host::Powernv9, Host::Powernv10] {
        let script = format!("mkdir /mnt; {BOOTS_FROM_THE_ROOT_DISK}");
        let run = Run::new(host).block(&disk, "root").with_qemu().unwrap().command(["sh", "-c", &script]);
        let outcome = run.start().unwrap().finish().unwrap();
        let shown = format!("{}: {}\n{}", host.name(), outcome.stdout, outcome.stderr);
        for text in ["lab-target active\r\n", "lab-exit 0\r\n", "reboot: Power down", "3 rescue\n"] {
            assert!(outcome.stdout.contains(text), "{text:?} {shown}");
        }
        assert!(!outcome.stdout.contains("lab-failed"), "{shown}");
        assert_eq!(outcome.code, 0, "{shown}");
    }
}

/// One image under two names is two disks, and the image keeps nothing of what is written to either.
#[test]
#[ignore = "boots every lab host"]
fn disks_are_copies_and_a_bridge_has_ports() {
    const SCRIPT: &str = "
set -e
printf changed | dd of=/dev/lab/a conv=notrunc 2>/dev/null
dd if=/dev/lab/a bs=7 count=1 2>/dev/null; echo
dd if=/dev/lab/b bs=7 count=1 2>/dev/null; echo
lab-bridge br0 tap0 tap1
lab-bridge br0 tap1 tap2
ls /sys/class/net/br0/brif
ls /sys/class/misc/vhost-net";
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image, with a comma");
    std::fs::write(&image, "pristine".repeat(1 << 16)).unwrap();
    for host in Host::ALL {
        let run = Run::new(host).bare().block(&image, "a").block(&image, "b").command(["sh", "-c", SCRIPT]);
        let outcome = run.start().unwrap().finish().unwrap();
        assert_eq!(outcome.code, 0, "{}: {}{}", host.name(), outcome.stdout, outcome.stderr);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines[..5], ["changed", "pristin", "tap0", "tap1", "tap2"], "{}", host.name());
    }
    assert!(std::fs::read_to_string(&image).unwrap().starts_with("pristine"));
}
