//! A private apt: Debian packages found, downloaded and verified without root and without touching the
//! machine.
//!
//! Lists, cache, sources and preferences live below one directory of ours. The archive's address comes from
//! the machine's own apt configuration, whose proxies and the like stay in force. The dependency solver is
//! given an empty dpkg status, so that what is or is not installed (or half installed) here cannot make it
//! fail; [`Apt::closure`] then leaves out what the machine has.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};

/// The foreign architecture: that of the lab's hosts and guests.
pub const PPC64EL: &str = "ppc64el";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An exact package: what `apt-get download` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The name, without the architecture.
    pub name: String,
    /// The version.
    pub version: String,
    /// dpkg's architecture, `all` included.
    pub arch: String,
}

impl Package {
    fn spec(&self) -> String {
        match self.arch.as_str() {
            "all" => format!("{}={}", self.name, self.version),
            arch => format!("{}:{arch}={}", self.name, self.version),
        }
    }

    /// The file name that apt gives to the package: the epoch's colon is escaped.
    pub fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.arch)
    }
}

/// The private apt state.
pub struct Apt {
    dir: PathBuf,
    native: String,
}

impl Apt {
    /// Sets up the state below `dir`, for the release `codename`; `mirror` replaces the address that the
    /// machine's apt uses, `pins` is an apt preferences file.
    pub fn new(dir: &Path, codename: &str, mirror: Option<&str>, pins: &str) -> Result<Self> {
        let native = stdout(Command::new("dpkg").arg("--print-architecture"))
            .context("the lab gets its parts from Debian packages, and dpkg does not run here")?
            .trim()
            .to_owned();
        let mirror = match mirror {
            Some(mirror) => mirror.to_owned(),
            None => machine_mirror(codename)?,
        };
        for part in ["lists/partial", "cache/archives/partial", "empty"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let keyring =
            if Path::new(KEYRING).exists() { format!(" signed-by={KEYRING}") } else { String::new() };
        let options = format!("[arch={native},{PPC64EL} target=Packages{keyring}]");
        let mut sources = format!("deb {options} {mirror} {codename} main\n");
        if codename == "bookworm" {
            sources += &format!("deb {options} {mirror} {codename}-backports main\n");
        }
        fs::write(dir.join("sources.list"), sources)?;
        fs::write(dir.join("preferences"), pins)?;
        fs::write(dir.join("status"), "")?;
        Ok(Apt { dir: dir.to_owned(), native })
    }

    /// Whether this machine's own packages are the lab hosts'.
    pub fn is_power(&self) -> bool {
        self.native == PPC64EL
    }

    /// Brings the package lists up to date. `progress` is told per cents.
    pub fn update(&self, progress: &dyn Fn(f64)) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(["update", "--error-on=any"]);
        with_progress(command, progress)
            .context("apt-get update failed; is the Debian mirror reachable? (--mirror URL names another)")
    }

    /// The packages that `roots` (apt's notation: name, name=version) need to run on this machine: those that
    /// it lacks, and whatever `ours` claims, installed or not. Never the C library, which must be the
    /// machine's own.
    pub fn closure(&self, roots: &[&str], ours: &dyn Fn(&str) -> bool) -> Result<Vec<Package>> {
        let text = stdout(
            self.command("apt-get")
                .args(["--simulate", "--yes", "--no-install-recommends", "install"])
                .args(roots),
        )
        .with_context(|| format!("apt cannot find the packages {}", roots.join(" ")))?;
        let installed = installed()?;
        let mut wanted = Vec::new();
        for package in text.lines().filter_map(|line| parse_inst(line, &self.native)) {
            let provided = installed.contains(&package.name) && !ours(&package.name);
            if !provided && !["libc6", "libc-bin"].contains(&package.name.as_str()) {
                wanted.push(package);
            }
        }
        Ok(wanted)
    }

    /// The packages that `roots` need to run on a ppc64el machine that has none at all, its C library included.
    pub fn foreign_closure(&self, roots: &[&str]) -> Result<Vec<Package>> {
        let text = stdout(
            self.command("apt-get")
                .args(["-o", &format!("APT::Architecture={PPC64EL}")])
                .args(["-o", &format!("APT::Architectures={PPC64EL}")])
                .args(["--simulate", "--yes", "--no-install-recommends", "install"])
                .args(roots),
        )
        .with_context(|| format!("apt cannot find the packages {} for {PPC64EL}", roots.join(" ")))?;
        Ok(text.lines().filter_map(|line| parse_inst(line, PPC64EL)).collect())
    }

    /// The version of `name` for ppc64el that apt would choose, without its dependencies.
    pub fn foreign(&self, name: &str) -> Result<Package> {
        self.chosen(name, &format!("{name}:{PPC64EL}"))
    }

    /// The version of `name` that apt would choose for this machine, without its dependencies: for packages that are
    /// the same on all.
    pub fn package(&self, name: &str) -> Result<Package> {
        self.chosen(name, name)
    }

    fn chosen(&self, name: &str, spec: &str) -> Result<Package> {
        let record = self.record(spec)?;
        let version = field(&record, "Version").with_context(|| format!("apt knows no version of {name}"))?;
        let arch = field(&record, "Architecture").unwrap_or(PPC64EL);
        Ok(Package { name: name.to_owned(), version: version.to_owned(), arch: arch.to_owned() })
    }

    /// The package that the ppc64el metapackage `name` stands for: the first that it depends on.
    pub fn behind_metapackage(&self, name: &str) -> Result<Package> {
        let record = self.record(&format!("{name}:{PPC64EL}"))?;
        let depends = field(&record, "Depends").with_context(|| format!("{name} depends on nothing"))?;
        let target = depends.split([' ', ',', '|']).next().unwrap_or_default();
        self.foreign(target)
    }

    /// Downloads the packages into `into`; apt verifies them, and those that are there already are not
    /// fetched again.
    pub fn download(&self, packages: &[Package], into: &Path, progress: &dyn Fn(f64)) -> Result<()> {
        fs::create_dir_all(into)?;
        let mut command = self.command("apt-get");
        command.arg("download").args(packages.iter().map(Package::spec)).current_dir(into);
        with_progress(command, progress).context("apt-get download failed")?;
        for package in packages {
            ensure!(
                into.join(package.file_name()).exists(),
                "apt-get download left no {}",
                package.file_name()
            );
        }
        Ok(())
    }

    fn record(&self, spec: &str) -> Result<String> {
        stdout(self.command("apt-cache").args(["show", "--no-all-versions", spec]))
            .with_context(|| format!("apt knows no package {spec}"))
    }

    fn command(&self, program: &str) -> Command {
        let dir = |part: &str| self.dir.join(part).into_os_string();
        let options: [(&str, OsString); 15] = [
            ("Dir::State", dir("")),
            ("Dir::State::lists", dir("lists")),
            ("Dir::State::status", dir("status")),
            ("Dir::State::extended_states", dir("extended_states")),
            ("Dir::Cache", dir("cache")),
            ("Dir::Etc::sourcelist", dir("sources.list")),
            ("Dir::Etc::sourceparts", dir("empty")),
            ("Dir::Etc::preferences", dir("preferences")),
            ("Dir::Etc::preferencesparts", dir("empty")),
            ("APT::Architecture", self.native.clone().into()),
            ("APT::Architectures", format!("{},{PPC64EL}", self.native).into()),
            ("APT::Default-Release", "".into()),
            ("APT::Get::List-Cleanup", "false".into()),
            ("APT::Sandbox::User", "".into()),
            ("Acquire::Languages", "none".into()),
        ];
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env_remove("APT_CONFIG").stdin(Stdio::null());
        for (key, value) in options {
            let mut option = OsString::from(format!("{key}="));
            option.push(value);
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The release of Debian that this machine runs.
pub fn machine_codename() -> Result<String> {
    const NEEDS: &str =
        "the lab gets its parts from Debian packages; it needs Debian 12 (bookworm) or 13 (trixie)";
    let text = fs::read_to_string("/etc/os-release").context(NEEDS)?;
    let value =
        |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim_matches('"').to_owned());
    ensure!(value("ID=").as_deref() == Some("debian"), NEEDS);
    match value("VERSION_CODENAME=") {
        Some(codename) if codename == "bookworm" || codename == "trixie" => Ok(codename),
        other => bail!("{NEEDS}; this is {}", other.as_deref().unwrap_or("another release")),
    }
}

/// The address of the archive that the machine's own apt uses for the release `codename`.
fn machine_mirror(codename: &str) -> Result<String> {
    let format = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(ORIGIN)|$(COMPONENT)";
    let text =
        stdout(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))
            .context("apt-get does not run here; the lab needs Debian's apt")?;
    choose_mirror(&text, codename).with_context(|| {
        format!("this machine's apt names no Debian archive for {codename}; name one with --mirror URL or CEDE_LAB_MIRROR")
    })
}

/// Picks the archive out of `apt-get indextargets`: one line per index,
/// `uri|release|codename|origin|component`. A machine whose lists were never fetched knows neither the
/// codename nor the origin, but the release as its sources name it.
fn choose_mirror(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        let &[uri, release, of_codename, origin, component] = fields.as_slice() else { return None };
        let right_release = release == codename || (of_codename == codename && !release.contains('-'));
        let foreign_origin = !(origin == "Debian" || origin.is_empty() || origin.starts_with('$'));
        (right_release && component == "main" && !foreign_origin && !uri.starts_with("cdrom:"))
            .then(|| uri.to_owned())
    })
}

/// One line of a simulated install: `Inst name [old] (version origins [arch])`.
fn parse_inst(line: &str, native: &str) -> Option<Package> {
    let rest = line.strip_prefix("Inst ")?;
    let (name, rest) = rest.split_once(' ')?;
    let (inside, _) = rest.split_once('(')?.1.split_once(')')?;
    let version = inside.split(' ').next()?;
    let arch = inside.rsplit_once('[').map_or(native, |(_, arch)| arch.trim_end_matches(']'));
    let name = name.split(':').next()?;
    Some(Package { name: name.to_owned(), version: version.to_owned(), arch: arch.to_owned() })
}

fn field<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// The names of the packages installed on this machine. It runs the release that the lab's packages are from,
/// so their versions suffice.
fn installed() -> Result<HashSet<String>> {
    let text = stdout(Command::new("dpkg-query").args([
        "--show",
        "--showformat",
        "${db:Status-Abbrev}|${Package}\n",
    ]))?;
    let installed =
        text.lines().filter_map(|line| line.split_once('|')).filter(|(status, _)| status.starts_with("ii"));
    Ok(installed.map(|(_, name)| name.to_owned()).collect())
}

/// Runs apt with its machine-readable status on a pipe: `dlstatus:item:percent:text`.
fn with_progress(mut command: Command, progress: &dyn Fn(f64)) -> Result<()> {
    let (reader, writer) = UnixStream::pair()?;
    let fd = writer.as_raw_fd();
    command.arg("-o").arg(format!("APT::Status-Fd={fd}")).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(fd, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program(&command)))?;
    drop(writer);
    let mut stderr = child.stderr.take().context("no stderr")?;
    let errors = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    for line in BufReader::new(reader).lines() {
        let line = line?;
        if let Some(percent) =
            line.strip_prefix("dlstatus:").and_then(|rest| rest.split(':').nth(1)?.parse().ok())
        {
            progress(percent);
        }
    }
    let status = child.wait()?;
    let errors = errors.join().expect("reading does not panic")?;
    ensure!(status.success(), "{}", errors.trim());
    Ok(())
}

/// The output of a program that must succeed.
fn stdout(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", program(command)))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        program(command),
        String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The mirror that the user asks for by environment.
pub fn mirror_from_environment() -> Option<String> {
    env::var("CEDE_LAB_MIRROR").ok().filter(|mirror| !mirror.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_install_is_read() {
        let package = |name: &str, version: &str, arch: &str| Package {
            name: name.into(),
            version: version.into(),
            arch: arch.into(),
        };
        let new = "Inst qemu-system-data (1:10.0.2+ds-2 Debian Backports:oldstable-backports [all])";
        assert_eq!(parse_inst(new, "amd64"), Some(package("qemu-system-data", "1:10.0.2+ds-2", "all")));
        let upgrade = "Inst qemu-system-ppc [1:7.2-7] (1:10.0.2 Debian:12/oldstable [amd64]) []";
        assert_eq!(parse_inst(upgrade, "amd64"), Some(package("qemu-system-ppc", "1:10.0.2", "amd64")));
        assert_eq!(parse_inst("Conf qemu-system-ppc (1:10.0.2 Debian [amd64])", "amd64"), None);
        assert_eq!(package("a", "1:2.0", "amd64").file_name(), "a_1%3a2.0_amd64.deb");
        assert_eq!(package("a", "1:2.0", "all").spec(), "a=1:2.0");
    }

    #[test]
    fn the_mirror_is_the_main_archive_of_the_release() {
        let targets = "http://sec/debian-security/|bookworm-security|bookworm-security|Debian|main\n\
                       http://other/|bookworm|bookworm|Docker|stable\n\
                       http://mirror/debian/|bookworm-updates|bookworm-updates|Debian|main\n\
                       http://mirror/debian/|oldstable|bookworm|Debian|main\n";
        assert_eq!(choose_mirror(targets, "bookworm").as_deref(), Some("http://mirror/debian/"));
        assert_eq!(choose_mirror(targets, "trixie"), None);
        let never_updated = "http://mirror/debian/|trixie|$(CODENAME)|$(ORIGIN)|main\n";
        assert_eq!(choose_mirror(never_updated, "trixie").as_deref(), Some("http://mirror/debian/"));
    }
}
