//! The root disk: a small Debian for ppc64el that boots to multi-user, as one image of ext4, made without root.
//!
//! ```text
//!  packages ── unpack ──► tree ── configure ──► tree ── mke2fs -d, debugfs ──► <cache>/debian/disk.img
//! ```
//! The packages are unpacked and never installed: their scripts would have to run on POWER. What those would have made and the
//! system cannot do without is a table here. Every file belongs to root, whoever makes the image. It has no kernel and no
//! modules: the guest's initrd loads what it needs and switches to the disk.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::fetch::{self, Image, Source};
use super::progress::Phase;

/// Changes with how the image is made.
const RECIPE: &str = "root 3";

/// The size of the file system in MiB. The image's holes take no space.
const SIZE_MIB: u32 = 1400;

/// What the system consists of, and what tests and benches run in it.
const ROOTS: [&str; 28] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "e2fsprogs",
    "findutils",
    "fio",
    "grep",
    "gzip",
    "hostname",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "libc-bin",
    "mawk",
    "mount",
    "ncurses-base",
    "netcat-openbsd",
    "procps",
    "qperf",
    "sed",
    "sockperf",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
];

/// Dependencies of scripts that never run here, by how their names begin.
const UNWANTED: [&str; 8] =
    ["perl", "libperl", "python", "libpython", "usrmerge", "debconf", "dpkg", "adduser"];

/// What no guest reads.
const PRUNED: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/i18n",
    "usr/share/zoneinfo",
    "usr/lib/udev/hwdb.d",
];

/// Directories of the merged /usr, which a system without the package `usrmerge` is born with.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Directories that no package brings.
const DIRECTORIES: [&str; 4] = ["etc/systemd/system/multi-user.target.wants", "var/tmp", "mnt", "root"];

/// Files that the packages' scripts, or an administrator, would have made: where, what, permissions.
const FILES: [(&str, &str, u32); 8] = [
    ("etc/hostname", "lab\n", 0o644),
    ("etc/hosts", "127.0.0.1 localhost lab\n", 0o644),
    ("etc/fstab", "", 0o644),
    // With an ID, systemd does not take the boot for the first.
    ("etc/machine-id", "6c616220726f6f74206469736b206f6b\n", 0o444),
    ("etc/shadow", "root::19000:0:99999:7:::\n", 0o600),
    ("etc/systemd/system/lab.service", include_str!("../../../lab/root/lab.service"), 0o644),
    (
        "etc/systemd/system/serial-getty@.service.d/lab.conf",
        include_str!("../../../lab/root/getty.conf"),
        0o644,
    ),
    ("usr/lib/lab/run", include_str!("../../../lab/root/run"), 0o755),
];

/// Files that packages bring as models of those that their scripts make: the model and the file.
const COPIES: [(&str, &str); 3] = [
    ("usr/share/base-passwd/passwd.master", "etc/passwd"),
    ("usr/share/base-passwd/group.master", "etc/group"),
    ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
];

/// Groups that udev's rules and systemd's temporary files name, and their packages' scripts make.
const GROUPS: &str = "input:x:101:\nsgx:x:102:\nkvm:x:103:\nrender:x:104:\nsystemd-journal:x:105:\n";

/// Links: where and what to. Those that exist stay.
const LINKS: [(&str, &str); 9] = [
    ("usr/bin/sh", "dash"),
    ("usr/bin/awk", "mawk"),
    ("usr/bin/nc", "nc.openbsd"),
    ("etc/mtab", "../proc/self/mounts"),
    ("var/run", "/run"),
    ("var/lock", "/run/lock"),
    ("etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target"),
    ("etc/systemd/system/multi-user.target.wants/lab.service", "../lab.service"),
    // Where the initrd puts the tests' scripts.
    ("tests", "/run/lab/tests"),
];

/// Units that systemd is to leave alone: for what is not here (D-Bus, which logins need; terminals; a modprobe; autofs), and for
/// what only takes time.
const MASKED: [&str; 8] = [
    "systemd-logind.service",
    "systemd-timesyncd.service",
    "getty-static.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
];

/// The image; it is made first if it is missing.
pub fn disk() -> Result<PathBuf> {
    let image = fetch::image()?;
    let files: String = FILES.iter().map(|(name, text, _)| format!("{name}\n{text}")).collect();
    let current = |stamp: &str| fetch::is_current(stamp) && stamp.contains(RECIPE) && stamp.contains(&files);
    let dir = fetch::keep("debian", &current, |new, source| {
        let tree = new.join("tree");
        let packages = unpack(source, &tree)?;
        let phase = Phase::new("root disk");
        configure(&tree)?;
        phase.percent(20.0);
        make_image(&image, &tree, &new.join("disk.img"))?;
        fetch::remove(&tree)?;
        phase.done();
        Ok(format!("{packages}{RECIPE}\n{files}"))
    })?;
    Ok(dir.join("disk.img"))
}

/// Unpacks the packages; gives their stamp.
fn unpack(source: &Source, tree: &Path) -> Result<String> {
    let wanted = |name: &str| !UNWANTED.iter().any(|prefix| name.starts_with(prefix));
    let packages = source.packages(&ROOTS, &wanted)?;
    for name in MERGED {
        fs::create_dir_all(tree.join("usr").join(name))?;
        symlink(format!("usr/{name}"), tree.join(name))?;
    }
    let phase = Phase::new("unpacking");
    for (n, package) in packages.iter().enumerate() {
        phase.percent(100.0 * n as f64 / packages.len() as f64);
        extract(&source.debs.join(package.file_name()), tree)?;
    }
    phase.done();
    Ok(fetch::stamp(&packages))
}

/// As dpkg-deb --extract does, but what belongs into /bin goes through the link.
fn extract(deb: &Path, tree: &Path) -> Result<()> {
    let failed = || format!("cannot unpack {}", deb.display());
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    let archive = reader.stdout.take().context("no stdout")?;
    let tar = Command::new("tar")
        .args(["-x", "-p", "--keep-directory-symlink", "--no-same-owner", "--warning=no-timestamp"])
        .arg("-C")
        .arg(tree)
        .stdin(archive)
        .output()
        .with_context(failed)?;
    let read = reader.wait()?;
    ensure!(
        read.success() && tar.status.success(),
        "{}: {}",
        failed(),
        String::from_utf8_lossy(&tar.stderr).trim()
    );
    Ok(())
}

/// Makes the tree a system that boots.
fn configure(tree: &Path) -> Result<()> {
    PRUNED.iter().try_for_each(|dir| fetch::remove(&tree.join(dir)))?;
    for dir in DIRECTORIES {
        fs::create_dir_all(tree.join(dir))?;
    }
    for (model, name) in COPIES {
        let model = tree.join(model);
        fs::copy(&model, tree.join(name)).with_context(|| format!("no {}", model.display()))?;
    }
    for (name, text, permissions) in FILES {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("a file has a directory"))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(permissions))?;
    }
    // A root without a password, who has no shadow of another.
    let passwd = fs::read_to_string(tree.join("etc/passwd"))?.replace("root:*:", "root::");
    fs::write(tree.join("etc/passwd"), passwd)?;
    let group = fs::read_to_string(tree.join("etc/group"))? + GROUPS;
    fs::write(tree.join("etc/group"), group)?;
    let masked = MASKED.map(|unit| (format!("etc/systemd/system/{unit}"), "/dev/null"));
    // No network is configured here, and its users do not exist.
    let network = ("etc/tmpfiles.d/systemd-network.conf".to_owned(), "/dev/null");
    let links = LINKS.map(|(name, target)| (name.to_owned(), target));
    for (name, target) in links.into_iter().chain(masked).chain([network]) {
        match symlink(target, tree.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make the link {name}"));
            }
            _ => {}
        }
    }
    // Newer than /usr, so that nothing is brought up to date at the boot.
    for dir in ["etc", "var"] {
        fs::write(tree.join(dir).join(".updated"), "")?;
    }
    Ok(())
}

/// Makes the image of the tree.
fn make_image(image: &Image, tree: &Path, disk: &Path) -> Result<()> {
    // Tables that were not written now would be by the guest, behind its tests' back.
    let options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
    run(Command::new(image.system_program("mke2fs"))
        .args(["-q", "-F", "-t", "ext4", "-L", "lab-root", "-U", "6c616220-726f-6f74-2064-69736b206f6b"])
        .args(["-b", "4096", "-m", "0", "-E", options, "-d"])
        .args([tree, disk])
        .arg(format!("{SIZE_MIB}M")))?;
    if fs::metadata(tree)?.uid() != 0 {
        give_to_root(image, tree, disk)?;
    }
    run(Command::new(image.system_program("e2fsck")).args(["-f", "-n"]).arg(disk))
}

/// mke2fs takes the owners over from the tree.
fn give_to_root(image: &Image, tree: &Path, disk: &Path) -> Result<()> {
    let mut commands = String::new();
    let mut dirs = vec![tree.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            let name = entry.path();
            let name = name.strip_prefix(tree)?.to_string_lossy();
            commands += &format!("sif \"/{name}\" uid 0\nsif \"/{name}\" gid 0\n");
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    let script = disk.with_extension("debugfs");
    fs::write(&script, commands)?;
    run(Command::new(image.system_program("debugfs")).arg("-w").arg("-f").args([&script, disk]))?;
    fs::remove_file(script)?;
    Ok(())
}

/// Runs a program that has to succeed.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| {
        format!("cannot run {program}; `cargo xtask lab fetch --force` brings it if the machine has none")
    })?;
    ensure!(
        output.status.success(),
        "{program} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
