//! Who may know whom, which the compiler cannot say: arrows between our packages point down only, one crate
//! knows the host's architecture, and unsafe code is where it has to be.
//!
//! The tables are the rule. Whoever needs another row changes it here, where it is seen.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Package and what it may depend on, in any kind of dependency. `*` is all of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("cede-vcore", &[]),
    ("cede-fdt", &[]),
    ("cede-arch-api", &["cede-vcore"]),
    ("cede-irq", &["cede-vcore"]),
    ("cede-devices", &["cede-irq"]),
    ("cede-kvm", &["cede-arch-api"]),
    ("cede-arch-ppc64", &["cede-arch-api", "cede-devices", "cede-fdt", "cede-irq", "cede-vcore"]),
    ("cede-arch-x86_64", &["cede-arch-api", "cede-devices", "cede-irq"]),
    ("cede-vmm", &["cede-arch-api", "cede-devices", "cede-irq", "cede-kvm", "cede-vcore"]),
    ("cede", &["*"]),
    // They drive the program from outside.
    ("bench-agent", &[]),
    ("cede-fuzz", &["cede-devices", "cede-irq"]),
    ("cede-sim", &["cede-vcore"]),
    ("cede-tests", &["bench-agent", "cede-sim", "xtask"]),
    ("xtask", &["bench-agent"]),
];

/// Where `target_arch` may be asked for: below KVM's structures, and where the concrete machine is chosen.
const TARGET_ARCH: &[&str] = &[
    "crates/kvm/",
    "crates/launcher/",
    // Whether this machine can run guests itself, or needs the lab.
    "tools/xtask/",
];

/// Where unsafe code may be. A package without a row forbids it at its root.
const UNSAFE: &[&str] = &[
    // Every ioctl and mapping of KVM.
    "crates/kvm/",
    // madvise on guest RAM; a borrowed eventfd; tgkill(2).
    "crates/vmm/src/memory.rs",
    "crates/vmm/src/control.rs",
    "crates/vmm/src/vcores.rs",
    // The terminal comes back from a signal handler.
    "crates/devices/src/console/",
    "crates/devices/tests/terminal.rs",
    // System calls that read and write guest memory; a disk's ioctls, and its transfers that are in flight.
    "crates/devices/src/virtio/vectors.rs",
    "crates/devices/src/virtio/block/",
    // A tap's ioctls; readv and writev on guest memory.
    "crates/devices/src/virtio/net/tap.rs",
    "crates/devices/src/virtio/net/gather.rs",
    // futex(2), getrusage(2), and what tests need to be sure of them.
    "crates/vcore/src/futex.rs",
    "crates/vcore/src/contention.rs",
    "crates/vcore/tests/",
    "crates/vcore/benches/",
    // signalfd(2), to block as KVM_RUN does.
    "crates/vmm/tests/support/mod.rs",
    // sysconf(3).
    "crates/launcher/src/config/host.rs",
    // No part of the VMM.
    "tools/bench-agent/",
    "tools/xtask/",
    // libFuzzer's entry, which its crate's macro makes.
    "tools/fuzz/src/bin/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the workspace").to_owned()
}

fn metadata() -> Value {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = cargo
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Every arrow that no row allows, and every package without a row, a line each.
fn forbidden_arrows(metadata: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            wrong.push(format!("package {name} has no row in ARROWS; say what it may depend on"));
            continue;
        };
        // Only packages of the workspace come by a path.
        for dependency in list(package, "dependencies").iter().filter(|d| d["path"].is_string()) {
            let to = text(dependency, "name");
            if allowed.contains(&"*") || allowed.contains(&to) {
                continue;
            }
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            let rule = if allowed.is_empty() { "no package of ours".into() } else { allowed.join(", ") };
            wrong.push(format!("{name} -> {to} ({kind} dependency), but {name} may depend on {rule}"));
        }
    }
    wrong
}

#[test]
fn arrows_point_down() {
    let metadata = metadata();
    assert!(list(&metadata, "packages").len() >= 10, "the workspace has more packages than {metadata}");
    let wrong = forbidden_arrows(&metadata);
    assert!(wrong.is_empty(), "arrows that tests/layering.rs does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_up_is_found_and_named() {
    let metadata = serde_json::json!({ "packages": [
        { "name": "cede-vcore", "dependencies": [
            { "name": "libc", "kind": null },
            { "name": "cede-irq", "kind": "dev", "path": "/crates/irq" },
        ] },
        { "name": "cede-irq", "dependencies": [
            { "name": "cede-vcore", "kind": null, "path": "/crates/vcore" },
            { "name": "cede-kvm", "kind": null, "path": "/crates/kvm" },
        ] },
        { "name": "cede", "dependencies": [{ "name": "cede-vmm", "kind": null, "path": "/crates/vmm" }] },
        { "name": "cede-new", "dependencies": [] },
    ] });
    let expected = [
        "cede-vcore -> cede-irq (dev dependency), but cede-vcore may depend on no package of ours",
        "cede-irq -> cede-kvm (normal dependency), but cede-irq may depend on cede-vcore",
        "package cede-new has no row in ARROWS; say what it may depend on",
    ];
    assert_eq!(forbidden_arrows(&metadata), expected);
}

/// Every Rust source of the workspace: its path from the root, and its text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut directories: Vec<_> = ["arch", "crates", "tests", "tools"].map(|d| root.join(d)).into();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the workspace") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                // A target directory of somebody's own is not ours to read.
                if path.file_name().is_some_and(|name| name != "target") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The lines, counted from 1, on which `word` stands alone outside comments and string literals.
fn lines_with(text: &str, word: &str) -> Vec<usize> {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let has_word = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            // A string literal is open where the quotes before, but for escaped ones, are odd in number.
            let quoted = (before.matches('"').count() - before.matches("\\\"").count()) % 2 == 1;
            !quoted && !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        })
    };
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    (1..).zip(text.lines()).filter(|(_, line)| has_word(&code(line))).map(|(number, _)| number).collect()
}

fn is_within(path: &str, rows: &[&str]) -> bool {
    rows.iter().any(|row| path == *row || (row.ends_with('/') && path.starts_with(row)))
}

/// Each line with `word` in a source that no row names.
fn strays(word: &str, rows: &[&str]) -> Vec<String> {
    let sources = sources();
    assert!(sources.len() > 50, "only {} sources found", sources.len());
    let strays = sources.iter().filter(|(path, _)| !is_within(path, rows));
    strays
        .flat_map(|(path, text)| lines_with(text, word).into_iter().map(move |line| format!("{path}:{line}")))
        .collect()
}

#[test]
fn the_hosts_architecture_is_known_where_it_has_to_be() {
    let strays = strays("target_arch", TARGET_ARCH);
    let rule = "an operation of one architecture belongs into its crate; target_arch may be used under";
    assert!(strays.is_empty(), "{rule} {}:\n{}", TARGET_ARCH.join(", "), strays.join("\n"));
}

#[test]
fn unsafe_code_is_where_it_has_to_be() {
    let strays = strays("unsafe", UNSAFE);
    let rule = "unsafe code is for system calls and KVM; it may be in";
    assert!(strays.is_empty(), "{rule} {}:\n{}", UNSAFE.join(", "), strays.join("\n"));
}

/// The compiler holds a package to it that has no row.
#[test]
fn packages_without_unsafe_code_forbid_it() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in list(&metadata, "packages") {
        for target in list(package, "targets") {
            let is_root = list(target, "kind").iter().any(|kind| kind == "lib" || kind == "bin");
            let path = Path::new(text(target, "src_path")).strip_prefix(root()).expect("below the root");
            let sources = path.parent().expect("a directory").display().to_string();
            let has_row = UNSAFE.iter().any(|row| row.starts_with(&sources) || sources.starts_with(row));
            if is_root && !has_row {
                let text = std::fs::read_to_string(root().join(path)).expect("a crate root");
                if !text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
                    wrong.push(path.display().to_string());
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "without a row in UNSAFE a crate says #![forbid(unsafe_code)]:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn words_are_found_in_code_only() {
    let code = [
        "unsafe { x() }",
        "// unsafe in a comment",
        "let a = \"unsafe\"; // and unsafe",
        "#![forbid(unsafe_code)]",
        "let b = unsafe { y() };",
        "not_unsafe(); unsafely();",
        "let c = \"a\".len() + unsafe { z() };",
    ]
    .join("\n");
    assert_eq!(lines_with(&code, "unsafe"), [1, 5, 7]);
}

#[test]
fn rows_name_files_or_folders() {
    assert!(is_within("crates/kvm/src/fd.rs", &["crates/kvm/"]));
    assert!(!is_within("crates/kvm2/src/fd.rs", &["crates/kvm/"]));
    assert!(is_within("crates/vmm/src/memory.rs", &["crates/vmm/src/memory.rs"]));
    assert!(!is_within("crates/vmm/src/memory.rs.rs", &["crates/vmm/src/memory.rs"]));
}
