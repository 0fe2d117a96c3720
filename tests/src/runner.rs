//! The harness: picks scenarios, boots a host for each group of them, tells the results as libtest does.
//!
//! ```text
//!  for each place ── boot ──► scenario ── ok ──► next scenario, same boot
//!                     ▲           │
//!                     └── failed ─┘   whatever the scenario left running goes with its host
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use xtask::lab::{Host, cpio};
use xtask::{cross, paths, payloads};

use crate::host::{Files, LabHost, quoted};
use crate::scenarios::{self, Body, Guest, Place, Refusal, Scenario};

/// A host is up in ten seconds on a machine that does nothing else.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// An emulated host that hangs in its own boot, as happens now and then, says nothing about cede; it is booted again.
/// After so many failures in turn the rest of its scenarios is given up.
pub(crate) const BOOT_ATTEMPTS: u32 = 3;

/// Entry point of the test program.
pub fn main() -> ExitCode {
    match Options::parse(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(101),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(101)
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    list: bool,
    /// Those that take long run too.
    ignored: bool,
    /// A scenario runs if its name holds one of them; all run if there is none.
    filters: Vec<String>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Options::default();
        for argument in arguments {
            match argument.as_str() {
                "--list" => options.list = true,
                "--include-ignored" => options.ignored = true,
                // The default here: a scenario's output is shown when it fails.
                "--nocapture" | "--no-capture" => {}
                flag if flag.starts_with('-') => {
                    bail!("{flag}: the scenarios take --list, --include-ignored and filters")
                }
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }

    fn takes(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

/// Runs what was asked for; whether all of it passed.
fn run(options: &Options) -> Result<bool> {
    let all = scenarios::all();
    let named = all.iter().filter(|scenario| options.takes(&scenario.name()));
    let (chosen, ignored): (Vec<&Scenario>, Vec<_>) =
        named.partition(|scenario| options.ignored || !scenario.ignored);
    if options.list {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name()));
        return Ok(true);
    }
    let bench = if chosen.is_empty() { None } else { Some(Bench::new()?) };
    println!("\nrunning {} scenarios", chosen.len());
    let begin = Instant::now();
    let mut failures = Vec::new();
    if let Some(bench) = &bench {
        for place in places(&chosen) {
            let group = chosen.iter().filter(|scenario| scenario.place == place);
            bench.run_group(group.copied(), &mut failures);
        }
    }
    report(&failures);
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failures.len(),
        failures.len(),
        ignored.len(),
        all.len() - chosen.len() - ignored.len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(failures.is_empty())
}

/// The places in the order of their first scenario.
fn places(scenarios: &[&Scenario]) -> Vec<Place> {
    let mut places = Vec::new();
    for scenario in scenarios {
        if !places.contains(&scenario.place) {
            places.push(scenario.place);
        }
    }
    places
}

struct Failure {
    name: String,
    error: anyhow::Error,
    transcript: String,
}

fn report(failures: &[Failure]) {
    if failures.is_empty() {
        return;
    }
    println!("\nfailures:");
    for Failure { name, error, transcript } in failures {
        println!("\n---- {name} ----\n{error:#}\n{transcript}");
    }
    println!("\nfailures:");
    failures.iter().for_each(|failure| println!("    {}", failure.name));
}

/// What all hosts share: the binaries, the payloads and the guest's scripts.
struct Bench {
    files: Files,
    _dir: TempDir,
}

impl Bench {
    /// Builds everything, so that what runs is what the tree says.
    fn new() -> Result<Self> {
        cross::build_cede()?;
        let mut files = payloads::build()?.into_iter().map(|(name, file)| (file, name)).collect::<Files>();
        files.push((cross::build("bench-agent")?, "bench-agent".to_owned()));
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let scripts = dir.path().join("scripts.cpio");
        fs::write(&scripts, guest_scripts()?)
            .with_context(|| format!("cannot write {}", scripts.display()))?;
        files.push((scripts, "scripts.cpio".to_owned()));
        Ok(Bench { files, _dir: dir })
    }

    /// Runs the scenarios of one place, on one boot as long as they pass.
    fn run_group<'a>(&self, group: impl Iterator<Item = &'a Scenario>, failures: &mut Vec<Failure>) {
        let mut host = None;
        let mut failed_boots = 0;
        for scenario in group {
            print!("test {} ... ", scenario.name());
            // A line that is shown late is no harm.
            let _ = io::stdout().flush();
            let begin = Instant::now();
            let result = match (&scenario.body, scenario.place) {
                (Body::Alone(body), _) => body(),
                (_, Place::Native) => Err(anyhow::anyhow!("only a scenario that stands alone runs natively")),
                (_, Place::Lab(_)) if failed_boots == BOOT_ATTEMPTS => {
                    Err(anyhow::anyhow!("not tried: the host failed to boot {BOOT_ATTEMPTS} times"))
                }
                (body, Place::Lab(kind)) => self.on_host(&mut host, kind, &mut failed_boots, |host| {
                    host.begin(scenario.limit);
                    run_body(body, host)
                }),
            };
            let seconds = begin.elapsed().as_secs_f64();
            match result {
                Ok(()) => println!("ok <{seconds:.1}s>"),
                Err(error) => {
                    println!("FAILED <{seconds:.1}s>");
                    let transcript = host.take().map(|host: LabHost| host.transcript()).unwrap_or_default();
                    failures.push(Failure { name: scenario.name(), error, transcript });
                }
            }
        }
    }

    /// Runs `body` on the host, which is booted if the one before is gone.
    fn on_host(
        &self,
        host: &mut Option<LabHost>,
        kind: Host,
        failed_boots: &mut u32,
        body: impl FnOnce(&mut LabHost) -> Result<()>,
    ) -> Result<()> {
        loop {
            if let Some(host) = host {
                return body(host);
            }
            match LabHost::boot(kind, &self.files, BOOT_LIMIT) {
                Ok(booted) => {
                    *host = Some(booted);
                    *failed_boots = 0;
                }
                Err(error) => {
                    *failed_boots += 1;
                    if *failed_boots >= BOOT_ATTEMPTS {
                        return Err(error.context("the host did not boot"));
                    }
                    eprintln!("the host {} did not boot, once more: {error:#}", kind.name());
                }
            }
        }
    }
}

fn run_body(body: &Body, host: &mut LabHost) -> Result<()> {
    match body {
        Body::Guest(guest) => run_guest(guest, host),
        Body::Refusal(refusal) => run_refusal(refusal, host),
        Body::Steps(steps) => steps(host),
        Body::Alone(body) => body(),
    }
}

fn run_guest(guest: &Guest, host: &mut LabHost) -> Result<()> {
    let ended = host.run(&guest.arguments())?;
    for text in guest.shows {
        ensure!(ended.text.contains(text), "the guest did not print {text:?}");
    }
    for text in guest.hides {
        ensure!(!ended.text.contains(text), "the guest printed {text:?}");
    }
    ensure!(ended.code == guest.exit, "cede ended with {} and not with {}", ended.code, guest.exit);
    Ok(())
}

/// One line, the right code, and nothing started: neither a process nor a file of the VM stays.
pub(crate) fn run_refusal(refusal: &Refusal, host: &mut LabHost) -> Result<()> {
    host.ok(refusal.prepare)?;
    let ended = host.sh(&format!("timeout 60 {} 2>&1", refusal.command))?;
    host.ok(refusal.restore)?;
    let lines: Vec<&str> = ended.text.lines().collect();
    ensure!(lines.len() == 1, "{} lines instead of one:\n{}", lines.len(), ended.text);
    ensure!(lines[0].starts_with("cede: "), "the line does not begin with the program's name");
    for word in refusal.says {
        ensure!(lines[0].contains(word), "the message does not say {word:?}: {}", lines[0]);
    }
    ensure!(ended.code == refusal.exit, "exit code {} and not {}", ended.code, refusal.exit);
    Ok(())
}

/// The scripts of `tests/guest` as an archive that the kernel unpacks over the lab's initrd; they are in /tests.
fn guest_scripts() -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::new(Vec::new());
    archive.directory("tests")?;
    let dir = paths::root().join("tests/guest");
    let mut scripts: Vec<PathBuf> = fs::read_dir(&dir)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .with_context(|| format!("cannot read {}", dir.display()))?;
    scripts.sort();
    for script in scripts {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.file(&format!("tests/{name}"), &script)?;
    }
    Ok(archive.finish()?)
}

/// Builds `cede` for this machine and tells where it is: beside the directory that this program is in.
pub fn native_cede() -> Result<PathBuf> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(paths::root())
        .args(["build", "--quiet", "--package", "cede"])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cede does not build for this machine");
    let this = env::current_exe().context("cannot tell where this program is")?;
    let cede = this.parent().and_then(Path::parent).map(|dir| dir.join("cede"));
    cede.filter(|path| path.is_file()).context("cede is not where cargo puts it")
}

impl Guest {
    /// The arguments of `cede run`, as a shell reads them.
    fn arguments(&self) -> String {
        let kernel = self.kernel;
        let console = if kernel == scenarios::DEBIAN { " --initrd /tmp/initrd" } else { "" };
        format!("--kernel {kernel}{console} {} --cmdline {}", self.flags, quoted(self.cmdline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<Options> {
        Options::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn filters_choose_by_part_of_the_name() {
        let none = options(&[]).unwrap();
        assert!(none.takes("powernv9::threads"));
        let some = options(&["powernv8", "threads"]).unwrap();
        assert!(some.takes("powernv9::threads") && some.takes("powernv8::panic"));
        assert!(!some.takes("powernv9::panic"));
    }

    #[test]
    fn an_unknown_flag_is_an_error() {
        assert!(options(&["--list"]).unwrap().list);
        assert!(options(&["--frobnicate"]).is_err());
    }

    #[test]
    fn names_are_unique_and_every_script_that_a_guest_runs_exists() {
        let all = scenarios::all();
        let mut names: Vec<String> = all.iter().map(Scenario::name).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for scenario in &all {
            let Body::Guest(guest) = &scenario.body else { continue };
            for word in guest.cmdline.split_whitespace().filter(|word| word.starts_with("/tests/")) {
                let script = word.trim_end_matches(';').replacen("/tests/", "tests/guest/", 1);
                assert!(paths::root().join(&script).is_file(), "{}: no {script}", scenario.name());
            }
        }
    }
}
