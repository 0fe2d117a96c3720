//! The lab's parts: which Debian packages, and the directory they are unpacked into.
//!
//! ```text
//! <cache>/apt/      the private apt state
//! <cache>/debs/     the packages as downloaded; they may be deleted once the image is complete
//! <cache>/image/    everything unpacked, and its stamp
//!     bin/          wrappers: run these
//!     tools/        programs for this machine
//!     kernel-64k/   kernel-4k/   busybox/   e2fsck/     for ppc64el
//!     headers/      the kernel's headers for programs, to compare bindings with
//!     modules/      the kernel's modules that hosts and guests load, decompressed, and their order
//! <cache>/NAME/     what else is made of packages when it is needed: trees for ppc64el, the root disk
//! ```
//! The image is built beside its place and renamed, stamp included: it is complete or absent, never half
//! there.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt::{self, Apt, Package};
use super::modules;
use super::progress::Phase;
use crate::paths;

/// Changes with the shape of the image: an older one is then made anew.
const RECIPE: &str = "6";

/// What a release of Debian offers. On bookworm the compiler that matches the ppc64el standard library is a
/// package of its own.
struct Recipe {
    tools: &'static [&'static str],
    rust_std: &'static str,
    pins: &'static str,
}

/// The packages whose files must be the lab's own, in one tree, even if the machine has them.
const OURS: [&str; 6] = ["qemu-", "rustc", "libstd-rust", "device-tree-compiler", "libfdt1", "libllvm"];

const BOOKWORM: Recipe = Recipe {
    tools: &[
        "qemu-system-ppc",
        "gcc-powerpc64le-linux-gnu",
        "libc6-dev-ppc64el-cross",
        "device-tree-compiler",
        "xz-utils",
        "e2fsprogs",
        "rustc-web",
        "libstd-rust-web-dev",
    ],
    rust_std: "libstd-rust-web-dev",
    // QEMU and the kernels are backports'; the compiler stays at the version that exists for ppc64el too. A
    // pin without an architecture is for this machine's alone.
    pins: "Package: src:qemu\nPin: release n=bookworm-backports\nPin-Priority: 990\n\n\
           Package: linux-image-*:ppc64el linux-libc-dev\nPin: release n=bookworm-backports\nPin-Priority: 990\n\n\
           Package: rustc-web libstd-rust-web-* libstd-rust-web-*:ppc64el\nPin: version 1.85.0*\nPin-Priority: 1001\n",
};

const TRIXIE: Recipe = Recipe {
    tools: &[
        "qemu-system-ppc",
        "gcc-powerpc64le-linux-gnu",
        "libc6-dev-ppc64el-cross",
        "device-tree-compiler",
        "xz-utils",
        "e2fsprogs",
        "rustc",
        "libstd-rust-dev",
    ],
    rust_std: "libstd-rust-dev",
    pins: "",
};

/// Programs and their files below `tools`.
const WRAPPERS: [(&str, &str); 5] = [
    ("qemu-system-ppc64", "usr/bin/qemu-system-ppc64"),
    ("dtc", "usr/bin/dtc"),
    ("rustc", "usr/bin/rustc"),
    ("powerpc64le-linux-gnu-gcc", "usr/bin/powerpc64le-linux-gnu-gcc"),
    ("powerpc64le-linux-gnu-objdump", "usr/bin/powerpc64le-linux-gnu-objdump"),
];

/// Programs that most machines have, in one of the system's directories; the packages bring them to the others.
const SYSTEM_PROGRAMS: [&str; 3] = ["mke2fs", "debugfs", "e2fsck"];
const SYSTEM_DIRS: [&str; 2] = ["usr/sbin", "sbin"];

/// The lab's parts, complete.
#[derive(Clone, Debug)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// A program: a wrapper that finds its libraries and data from wherever the image is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// QEMU's firmware and device trees.
    pub fn qemu_data(&self) -> PathBuf {
        self.dir.join("tools/usr/share/qemu")
    }

    /// Debian's kernel with 64 KiB pages: the hosts', and the guests' by default.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux-64k")
    }

    /// Debian's kernel with 4 KiB pages.
    pub fn vmlinux_4k(&self) -> PathBuf {
        self.dir.join("vmlinux-4k")
    }

    /// A statically linked busybox for ppc64el.
    pub fn busybox(&self) -> PathBuf {
        self.dir.join("busybox/bin/busybox")
    }

    /// One of the programs for ext4: mke2fs, debugfs, e2fsck.
    pub fn system_program(&self, name: &str) -> PathBuf {
        let own = self.program(name);
        let machine = SYSTEM_DIRS.iter().map(|dir| Path::new("/").join(dir).join(name));
        std::iter::once(own).chain(machine).find(|path| path.exists()).unwrap_or_else(|| name.into())
    }

    /// A statically linked e2fsck for ppc64el.
    pub fn static_e2fsck(&self) -> PathBuf {
        self.dir.join("e2fsck/sbin/e2fsck.static")
    }

    /// The headers of that kernel for programs (`uapi`), with powerpc's `asm`.
    pub fn uapi(&self) -> PathBuf {
        self.dir.join("headers/usr/include")
    }

    /// Modules of that kernel, and the lists of them in the order of loading.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }

    /// A module of that kernel that is on no list and needs no other, decompressed.
    pub fn module(&self, name: &str) -> Result<Vec<u8>> {
        modules::single(&self.dir.join("kernel-64k"), name, &xz(&self.dir.join("tools")))
    }
}

/// What a fetch may be told.
#[derive(Default)]
pub struct Options {
    /// The Debian mirror, instead of the one that the machine's apt uses.
    pub mirror: Option<String>,
    /// Fetch anew what is there.
    pub force: bool,
}

/// The lab's parts; they are fetched first if they are missing.
pub fn image() -> Result<Image> {
    fetch(&Options { mirror: apt::mirror_from_environment(), force: false })
}

/// Fetches what is missing.
pub fn fetch(options: &Options) -> Result<Image> {
    let cache = paths::lab();
    let image = Image { dir: cache.join("image") };
    if !options.force && is_complete(&image.dir) {
        return Ok(image);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _lock = lock(&cache.join("lock"))?;
    // Somebody else may have fetched while this one waited.
    if !options.force && is_complete(&image.dir) {
        return Ok(image);
    }
    let (apt, recipe) = private_apt(&cache, options)?;

    let phase = Phase::new("package lists");
    apt.update(&|percent| phase.percent(percent))?;
    phase.done();

    // A POWER machine needs no tools for another: only what a guest boots from.
    let tools = if apt.is_power() { Vec::new() } else { apt.closure(recipe.tools, &is_ours)? };
    let parts = Parts {
        tools,
        rust_std: apt.foreign(recipe.rust_std)?,
        kernel_64k: apt.behind_metapackage("linux-image-powerpc64le-64k")?,
        kernel_4k: apt.behind_metapackage("linux-image-powerpc64le")?,
        busybox: apt.foreign("busybox-static")?,
        e2fsck: apt.foreign("e2fsck-static")?,
        headers: apt.package("linux-libc-dev")?,
    };
    parts.check_rust()?;
    let debs = cache.join("debs");
    let phase = Phase::new("packages");
    apt.download(&parts.all(), &debs, &|percent| phase.percent(percent))?;
    phase.done();

    let new = cache.join("image.new");
    remove(&new)?;
    parts.unpack(&debs, &new)?;
    remove(&image.dir)?;
    fs::rename(&new, &image.dir)?;
    Ok(image)
}

/// The private apt of the cache, and what it is to bring.
fn private_apt(cache: &Path, options: &Options) -> Result<(Apt, Recipe)> {
    let codename = apt::machine_codename()?;
    let recipe = if codename == "bookworm" { BOOKWORM } else { TRIXIE };
    let apt = Apt::new(&cache.join("apt"), &codename, options.mirror.as_deref(), recipe.pins)?;
    Ok((apt, recipe))
}

/// Packages for ppc64el with all that they depend on, unpacked into `<cache>/NAME`; they are fetched first if they are missing.
pub fn foreign_tree(name: &str, roots: &[&str]) -> Result<PathBuf> {
    keep(name, &is_current, |new, source| {
        let packages = source.packages(roots, &|_| true)?;
        let phase = Phase::new("unpacking");
        for (n, package) in packages.iter().enumerate() {
            phase.percent(100.0 * n as f64 / packages.len() as f64);
            extract(&source.debs.join(package.file_name()), new)?;
        }
        phase.done();
        Ok(stamp(&packages))
    })
}

/// Where packages for ppc64el come from, while the cache is locked.
pub(super) struct Source {
    apt: Apt,
    /// The downloads.
    pub debs: PathBuf,
}

impl Source {
    /// Downloads `roots` with all that they depend on but what is not `wanted`, by name.
    pub fn packages(&self, roots: &[&str], wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Package>> {
        let phase = Phase::new("package lists");
        self.apt.update(&|percent| phase.percent(percent))?;
        phase.done();
        let mut packages = self.apt.foreign_closure(roots)?;
        packages.retain(|package| wanted(&package.name));
        let phase = Phase::new("packages");
        self.apt.download(&packages, &self.debs, &|percent| phase.percent(percent))?;
        phase.done();
        Ok(packages)
    }
}

/// The directory `<cache>/NAME`. Unless its stamp is `current`, `make` fills it anew, beside its place, and gives the stamp.
pub(super) fn keep(
    name: &str,
    current: &dyn Fn(&str) -> bool,
    make: impl FnOnce(&Path, &Source) -> Result<String>,
) -> Result<PathBuf> {
    let cache = paths::lab();
    let dir = cache.join(name);
    let complete = || fs::read_to_string(dir.join("stamp")).is_ok_and(|stamp| current(&stamp));
    if complete() {
        return Ok(dir);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _lock = lock(&cache.join("lock"))?;
    if complete() {
        return Ok(dir);
    }
    let options = Options { mirror: apt::mirror_from_environment(), force: false };
    let (apt, _) = private_apt(&cache, &options)?;
    let source = Source { apt, debs: cache.join("debs") };
    let new = cache.join(format!("{name}.new"));
    remove(&new)?;
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let stamp = make(&new, &source)?;
    fs::write(new.join("stamp"), stamp)?;
    remove(&dir)?;
    fs::rename(&new, &dir)?;
    Ok(dir)
}

/// The packages an image consists of.
struct Parts {
    tools: Vec<Package>,
    rust_std: Package,
    kernel_64k: Package,
    kernel_4k: Package,
    busybox: Package,
    e2fsck: Package,
    headers: Package,
}

impl Parts {
    fn all(&self) -> Vec<Package> {
        let foreign =
            [&self.rust_std, &self.kernel_64k, &self.kernel_4k, &self.busybox, &self.e2fsck, &self.headers];
        self.tools.iter().chain(foreign).cloned().collect()
    }

    /// A compiler takes the standard library of its own version alone.
    fn check_rust(&self) -> Result<()> {
        if self.tools.is_empty() {
            return Ok(());
        }
        let upstream = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
        let compiler = self.tools.iter().find(|package| package.name.starts_with("rustc"));
        let compiler = upstream(&compiler.context("apt brings no rustc")?.version);
        let std = upstream(&self.rust_std.version);
        ensure!(
            compiler == std,
            "Debian has rustc {compiler} for this machine and the standard library {std} for ppc64el; they must match"
        );
        Ok(())
    }

    fn unpack(&self, debs: &Path, image: &Path) -> Result<()> {
        let tools = image.join("tools");
        let phase = Phase::new("unpacking");
        let jobs: Vec<(&Package, PathBuf)> = self
            .tools
            .iter()
            .map(|package| (package, tools.clone()))
            .chain([
                (&self.rust_std, tools.clone()),
                (&self.kernel_64k, image.join("kernel-64k")),
                (&self.kernel_4k, image.join("kernel-4k")),
                (&self.busybox, image.join("busybox")),
                (&self.e2fsck, image.join("e2fsck")),
                (&self.headers, image.join("headers")),
            ])
            .collect();
        for (n, (package, into)) in jobs.iter().enumerate() {
            phase.percent(100.0 * n as f64 / jobs.len() as f64);
            extract(&debs.join(package.file_name()), into)?;
        }
        for pages in ["64k", "4k"] {
            let kernel = modules::kernel_image(&image.join(format!("kernel-{pages}")))?;
            let name = kernel.strip_prefix(image)?.to_owned();
            std::os::unix::fs::symlink(name, image.join(format!("vmlinux-{pages}")))?;
        }
        modules::prepare(&image.join("kernel-64k"), &image.join("modules"), &xz(&tools))?;
        if !self.tools.is_empty() {
            wrappers(image)?;
        }
        fs::write(image.join("stamp"), stamp(&self.all()))?;
        phase.done();
        Ok(())
    }
}

/// The machine's, or the one among `tools`.
fn xz(tools: &Path) -> PathBuf {
    let own = tools.join("usr/bin/xz");
    if own.exists() { own } else { PathBuf::from("xz") }
}

fn extract(deb: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let output = Command::new("dpkg-deb")
        .arg("--extract")
        .args([deb, into])
        .output()
        .context("cannot run dpkg-deb")?;
    ensure!(
        output.status.success(),
        "cannot unpack {}: {}",
        deb.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// What tells whether a part of the cache is as this recipe makes it.
pub(super) fn stamp(packages: &[Package]) -> String {
    let packages: String =
        packages.iter().map(|p| format!("{} {} {}\n", p.name, p.version, p.arch)).collect();
    format!("recipe {RECIPE}\n{packages}")
}

fn is_ours(name: &str) -> bool {
    name.ends_with("powerpc64le-linux-gnu")
        || name.ends_with("-ppc64el-cross")
        || OURS.iter().any(|prefix| name.starts_with(prefix))
}

fn is_complete(image: &Path) -> bool {
    fs::read_to_string(image.join("stamp")).is_ok_and(|stamp| is_current(&stamp))
}

/// Whether a stamp is of this recipe.
pub(super) fn is_current(stamp: &str) -> bool {
    stamp.lines().next() == Some(&format!("recipe {RECIPE}"))
}

/// Programs unpacked away from their place need to be told where their libraries are; a wrapper tells only
/// them, so that what they start (a build script, the machine's own linker) is not affected more than it must
/// be.
fn wrappers(image: &Path) -> Result<()> {
    let mut libraries = Vec::new();
    for parent in ["usr/lib", "lib"] {
        let Ok(entries) = fs::read_dir(image.join("tools").join(parent)) else { continue };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with("-linux-gnu") {
                libraries.push(format!("$image/tools/{parent}/{name}"));
            }
        }
    }
    let bin = image.join("bin");
    fs::create_dir_all(&bin)?;
    let libraries = libraries.join(":");
    for (name, target) in WRAPPERS {
        ensure!(image.join("tools").join(target).exists(), "the packages brought no {target}");
        wrapper(&bin.join(name), target, &libraries)?;
    }
    for name in SYSTEM_PROGRAMS {
        let targets = SYSTEM_DIRS.map(|dir| format!("{dir}/{name}"));
        if let Some(target) = targets.iter().find(|target| image.join("tools").join(target).exists()) {
            wrapper(&bin.join(name), target, &libraries)?;
        }
    }
    Ok(())
}

fn wrapper(path: &Path, target: &str, libraries: &str) -> Result<()> {
    let mut file = File::create(path)?;
    writeln!(file, "#!/bin/sh")?;
    writeln!(file, "image=$(dirname \"$(readlink -f \"$0\")\")/..")?;
    writeln!(file, "export LD_LIBRARY_PATH=\"{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"")?;
    writeln!(file, "exec \"$image/tools/{target}\" \"$@\"")?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Removes a directory, which may be absent.
pub(super) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Two fetches into one cache take turns. The lock ends with the file's last descriptor.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    // SAFETY: flock takes a descriptor that `file` keeps open.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    ensure!(locked == 0, "cannot lock {}: {}", path.display(), std::io::Error::last_os_error());
    Ok(file)
}
