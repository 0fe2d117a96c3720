//! The payload `idle` under other hypervisors than cede: the oracles for what it prints.
//!
//! `tests/payloads/README.md` says what the cases show, and where the hypervisors differ.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::bench::qemu;
use crate::lab::{Host, Run, fetch};
use crate::{cross, paths, payloads};

/// What QEMU's own hypervisor (10.0) gets wrong or cannot promise; the README tells each.
pub const TCG_SKIPS: &str = "skip=prod-self,prod-before,prod-race,confer-all";

/// A guest of QEMU's own takes a few seconds; a wait that has to end by itself takes a minute.
const TCG_LIMIT: Duration = Duration::from_secs(200);

/// How long one guest in the lab host may take.
const GUEST_LIMIT: u32 = 400;

/// Options of the comparison
#[derive(Args, Debug)]
pub struct Options {
    /// The emulated host's kind
    #[arg(long, value_enum, default_value = "powernv9")]
    host: Host,
    /// vCPUs
    #[arg(long, value_name = "N", default_value_t = 4)]
    cpus: u32,
    /// Threads per vcore
    #[arg(long, value_name = "T", default_value_t = 1)]
    threads: u32,
    /// Boot arguments of the payload
    #[arg(long, value_name = "TEXT", default_value = "steps=20000")]
    cmdline: String,
}

/// Runs the payload everywhere and prints a table; fails if two of the outputs differ.
pub fn run(options: &Options) -> Result<ExitCode> {
    let payload = built()?;
    let cpu = match options.host {
        Host::Powernv8 => "power8",
        Host::Powernv9 | Host::PseriesNested => "power9",
        Host::Powernv10 => "power10",
    };
    let smp = smp(options.cpus, options.threads);
    let mut columns = vec![("QEMU TCG".to_owned(), tcg(&payload, cpu, &smp, &options.cmdline)?)];
    columns.extend(in_the_lab(options, &payload)?);
    Ok(if report(&columns) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the payload.
pub fn built() -> Result<PathBuf> {
    let payloads = payloads::build()?;
    let idle = payloads.into_iter().find(|(name, _)| name == "idle");
    Ok(idle.context("there is no payload idle")?.1)
}

/// QEMU's `-smp` for cores of so many threads.
pub fn smp(cpus: u32, threads: u32) -> String {
    format!("{cpus},cores={},threads={threads}", cpus / threads)
}

/// What the payload prints under QEMU's own hypervisor, on this machine.
pub fn tcg(payload: &Path, cpu: &str, smp: &str, cmdline: &str) -> Result<String> {
    let image = fetch::image()?;
    let mut child = Command::new(image.program("qemu-system-ppc64"))
        .arg("-L")
        .arg(image.qemu_data())
        .args(["-M", "pseries,ic-mode=xics", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", smp])
        .args(["-m", "256M", "-display", "none", "-nodefaults", "-serial", "stdio", "-monitor", "none"])
        .arg("-no-reboot")
        .arg("-bios")
        .arg(firmware()?)
        .arg("-kernel")
        .arg(payload)
        .args(["-append", cmdline])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start QEMU")?;
    let mut stdout = child.stdout.take().context("QEMU has no stdout")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let ended = in_time(&mut child);
    let text = reader.join().expect("reading does not panic").context("cannot read QEMU's output")?;
    ensure!(ended?, "QEMU was stopped after {} s; it printed:\n{text}", TCG_LIMIT.as_secs());
    Ok(text.replace('\r', ""))
}

/// Waits for the end, and makes it come; whether it came by itself.
fn in_time(child: &mut Child) -> Result<bool> {
    let begin = Instant::now();
    while begin.elapsed() < TCG_LIMIT {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

/// QEMU enters firmware at 0x100 and loads a kernel at 4 MiB. This firmware goes there at once, with r5 = 0, as a kernel
/// without Open Firmware is entered.
fn firmware() -> Result<PathBuf> {
    const ENTRY: usize = 0x100;
    const INSTRUCTIONS: [u32; 4] = [
        0x38a0_0000, // li    r5,0
        0x3c80_0040, // lis   r4,0x40
        0x7c89_03a6, // mtctr r4
        0x4e80_0420, // bctr
    ];
    let mut image = vec![0; ENTRY];
    INSTRUCTIONS.iter().for_each(|word| image.extend(word.to_be_bytes()));
    let path = paths::root().join("target/payloads/firmware.bin");
    fs::write(&path, image).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Each guest in turn, in one boot of the host; the text of each, by its name.
fn in_the_lab(options: &Options, payload: &Path) -> Result<Vec<(String, String)>> {
    let Options { host, cpus, threads, cmdline } = options;
    cross::build_cede()?;
    let qemu = qemu::get()?;
    let cede = |plane: &str| {
        format!(
            "cede run --plane {plane} --irqchip xics --kernel /lab/idle --memory 256M --cpus {cpus} --threads {threads} \
             --cmdline '{cmdline}'"
        )
    };
    let guests = [
        ("QEMU/KVM", qemu_kvm(&smp(*cpus, *threads), cmdline)),
        ("cede, kernel", cede("kernel")),
        ("cede, vmm", cede("vmm")),
    ];
    let mut script = qemu::PREPARE.to_owned();
    for (name, command) in &guests {
        script +=
            &format!("\necho '{MARKER}{name}'\ntimeout {GUEST_LIMIT} {command} </dev/null 2>/dev/null\n");
    }
    let limit = Duration::from_secs(u64::from(GUEST_LIMIT) * guests.len() as u64);
    let run =
        Run::new(*host).bare().time_limit(limit).file(payload, "idle").file(&firmware()?, "firmware.bin");
    let run = qemu.files.iter().fold(run, |run, (source, name)| run.file(source, name));
    let outcome = run.command(["sh", "-c", &script]).start()?.finish()?;
    let text = outcome.stdout.replace('\r', "");
    let parts: Vec<&str> = text.split(MARKER).skip(1).collect();
    if parts.len() != guests.len() {
        bail!("the lab host said:\n{text}{}", outcome.stderr);
    }
    let named = guests.iter().zip(parts).map(|((name, _), part)| ((*name).to_owned(), part.to_owned()));
    Ok(named.collect())
}

/// Begins the name of what comes next.
const MARKER: &str = "@guest ";

fn qemu_kvm(smp: &str, cmdline: &str) -> String {
    let environment: Vec<String> =
        qemu::environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!(
        "env {} /lab/qemu/qemu-system-ppc64 -L /lab/qemu/share \
         -M pseries,accel=kvm,ic-mode=xics,cap-ccf-assist=off,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken -cpu host \
         -m 256M -smp {smp} -nodefaults -display none -serial stdio -monitor none -no-reboot -bios /lab/firmware.bin \
         -kernel /lab/idle -append '{cmdline}'",
        environment.join(" ")
    )
}

/// The cases and their results, in their order.
fn results(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("idle: "))
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .collect()
}

/// Prints the results side by side; whether all are the same.
fn report(columns: &[(String, String)]) -> bool {
    let columns: Vec<(&str, Vec<(&str, &str)>)> =
        columns.iter().map(|(name, text)| (name.as_str(), results(text))).collect();
    let mut cases: Vec<&str> = Vec::new();
    for (case, _) in columns.iter().flat_map(|(_, results)| results) {
        if !cases.contains(case) {
            cases.push(case);
        }
    }
    let mut same = true;
    for case in cases {
        let seen: Vec<&str> = columns
            .iter()
            .map(|(_, results)| {
                results.iter().find(|(name, _)| *name == case).map_or("nothing", |(_, said)| said)
            })
            .collect();
        if seen.iter().all(|said| *said == seen[0]) {
            println!("{case:20} {}", seen[0]);
            continue;
        }
        same = false;
        println!("{case:20} differs:");
        columns.iter().zip(seen).for_each(|((name, _), said)| println!("    {name:16} {said}"));
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_from_other_lines() {
        let text =
            "@x\nidle: 4 cpus\nidle: ring: ok\nother\nidle: random: ok, 5 steps, checksum 0x1\nidle: done\n";
        let expected =
            [("4 cpus", ""), ("ring", "ok"), ("random", "ok, 5 steps, checksum 0x1"), ("done", "")];
        assert_eq!(results(text), expected);
    }

    #[test]
    fn a_column_that_differs_is_noticed() {
        let column = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let ok = "idle: ring: ok\n";
        assert!(report(&[column("a", ok), column("b", ok)]));
        assert!(!report(&[column("a", ok), column("b", "idle: ring: FAIL cpu 0: x 1\n")]));
        assert!(!report(&[column("a", ok), column("b", "")]));
    }
}
