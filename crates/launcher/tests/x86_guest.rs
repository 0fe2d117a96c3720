//! `cede run` with a guest of some thirty instructions on this machine's own KVM: the whole way from the command line to the guest and
//! back, on any x86 machine whose KVM runs protected mode. Where there is no KVM to use the tests say so and pass.

#![cfg(target_arch = "x86_64")]

use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The payload, at 1 MiB, in 32-bit protected mode.
const CODE: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x3e, 0xee, //       out COM1, '>'
    0xbe, 0x51, 0x00, 0x10, 0x00, //                   what the others do goes to 0x8000
    0xbf, 0x00, 0x80, 0x00, 0x00, //
    0xb9, 0x09, 0x00, 0x00, 0x00, //
    0xfc, 0xf3, 0xa4, //                               cld; rep movsb
    0xbb, 0x00, 0x03, 0xe0, 0xfe, //                   mov ebx, 0xfee00300
    0xc7, 0x03, 0x00, 0x45, 0x0c, 0x00, //             INIT to all others,
    0xc7, 0x03, 0x08, 0x46, 0x0c, 0x00, //             SIPI with page 8
    0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, //  wait: in COM1's line status; test 1
    0x74, 0xf7, //                                     jz wait
    0x66, 0xba, 0xf8, 0x03, 0xec, //                   in COM1
    0x3c, 0x72, 0x74, 0x0b, //                         'r': je reboot
    0x3c, 0x70, 0x75, 0xea, //                         not 'p': jne wait
    0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, //       out 0x600, 0x34: power-off
    0x66, 0xba, 0x02, 0x06, 0xb0, 0x01, 0xee, // reboot: out 0x602, 1
    0xf4, 0xeb, 0xfd, //                         stop: hlt; jmp stop
    0xba, 0xf8, 0x03, 0xb0, 0x61, 0xee, //             the others, in real mode: out COM1, 'a'
    0xf4, 0xeb, 0xfd, //                               hlt
];

/// Long enough for a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The payload as an ELF file with a PVH entry.
fn payload() -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    const HEADERS: u64 = 64 + 2 * 56;
    let note_at = (HEADERS + CODE.len() as u64).next_multiple_of(4);
    let note = [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), BASE as u32].map(u32::to_le_bytes).concat();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    [BASE, 64, 0].iter().for_each(|long: &u64| file.extend(long.to_le_bytes()));
    file.extend([0; 4]);
    [64, 56, 2, 64, 0, 0].iter().for_each(|half: &u16| file.extend(half.to_le_bytes()));
    for (kind, at, size, address) in
        [(1_u32, HEADERS, CODE.len() as u64, BASE), (4, note_at, note.len() as u64, 0)]
    {
        file.extend(kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        [at, address, address, size, size, 4].iter().for_each(|long| file.extend(long.to_le_bytes()));
    }
    file.extend(CODE);
    file.resize(note_at as usize, 0);
    file.extend(note);
    file
}

/// A run of `cede`, and what its guest says as it comes.
struct Guest {
    child: Child,
    output: Receiver<u8>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It has ended, or has to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    fn start(dir: &Path, flags: &[&str]) -> Self {
        let kernel = dir.join("payload");
        fs::write(&kernel, payload()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cede"))
            .args(["run", "--memory", "32M", "--kernel"])
            .arg(&kernel)
            .arg("--run-dir")
            .arg(dir)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for byte in stdout.bytes().map_while(Result::ok) {
                if sender.send(byte).is_err() {
                    return;
                }
            }
        });
        Self { child, output }
    }

    fn expect(&self, text: &str) {
        let said: String =
            text.chars().map_while(|_| self.output.recv_timeout(PATIENCE).ok()).map(char::from).collect();
        assert_eq!(said, text);
    }

    fn send(&mut self, byte: u8) {
        self.child.stdin.as_mut().unwrap().write_all(&[byte]).unwrap();
    }

    fn exit_code(mut self) -> Option<i32> {
        // What is written ends with the process.
        while self.output.recv_timeout(PATIENCE).is_ok() {}
        self.child
            .try_wait()
            .unwrap()
            .or_else(|| {
                std::thread::sleep(Duration::from_secs(1));
                self.child.try_wait().unwrap()
            })?
            .code()
    }
}

/// Whether this machine has a KVM that cede can use; says so if not.
fn is_usable() -> bool {
    let caps = Command::new(env!("CARGO_BIN_EXE_cede")).arg("caps").output().unwrap();
    if !caps.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&caps.stderr).trim());
    }
    caps.status.success()
}

#[test]
fn a_guest_reboots_and_powers_off_with_one_vcpu_and_with_several() {
    if !is_usable() {
        return;
    }
    for (cpus, says) in [("1", ">"), ("2", ">a"), ("4", ">aaa")] {
        let dir = tempfile::tempdir().unwrap();
        let mut guest = Guest::start(dir.path(), &["--cpus", cpus]);
        for _ in 0..2 {
            guest.expect(says);
            guest.send(b'r');
        }
        guest.expect(says);
        guest.send(b'p');
        assert_eq!(guest.exit_code(), Some(0), "{cpus} vCPUs");
    }
}

#[test]
fn a_reboot_that_is_not_allowed_ends_it() {
    if !is_usable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Guest::start(dir.path(), &["--no-reboot", "--cpus", "2"]);
    guest.expect(">a");
    guest.send(b'r');
    assert_eq!(guest.exit_code(), Some(5));
}

#[test]
fn what_only_power_has_is_refused() {
    for flag in [["--plane", "vmm"], ["--threads", "2"], ["--cpu", "power9"], ["--mmu", "hash"]] {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("payload");
        fs::write(&kernel, payload()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cede"));
        let output = command.arg("run").args(flag).arg("--kernel").arg(&kernel).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{says}");
        assert!(says.contains(flag[0]), "{says}");
    }
}
