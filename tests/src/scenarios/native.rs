//! What cede does on any machine: the device tree of each generation.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::lab::fetch;

use super::{Body, Place, Scenario};
use crate::runner::native_cede;

pub(super) fn table() -> Vec<Scenario> {
    let alone = |title, body| Scenario {
        place: Place::Native,
        title,
        limit: Duration::ZERO,
        ignored: false,
        body: Body::Alone(body),
    };
    vec![
        alone("tree_power8", || decompiles("power8")),
        alone("tree_power9", || decompiles("power9")),
        alone("tree_power10", || decompiles("power10")),
    ]
}

/// dtc reads the tree, has nothing to say about it, and finds the processor in it, and a disk and a card that need not be there.
fn decompiles(generation: &str) -> Result<()> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let tree = dir.path().join("tree.dtb");
    let status = Command::new(native_cede()?)
        .args(["fdt", "--cpu", generation, "--cpus", "8", "--threads", "4"])
        .args(["--disk", "path=/nowhere/disk.img", "--net", "tap=nowhere0", "-o"])
        .arg(&tree)
        .status()
        .context("cannot run cede")?;
    ensure!(status.success(), "cede fdt ended with {status}");
    let output = Command::new(fetch::image()?.program("dtc"))
        .args(["-I", "dtb", "-O", "dts"])
        .arg(&tree)
        .output()
        .context("cannot run dtc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "dtc ended with {} and said:\n{said}", output.status);
    let source = String::from_utf8_lossy(&output.stdout);
    let processor = format!("PowerPC,{}@", generation.to_uppercase());
    for node in [&*processor, "pci@", "pci1af4,1042@0 {", "pci1af4,1041@1 {"] {
        ensure!(source.contains(node), "no {node} in the tree:\n{source}");
    }
    Ok(())
}
