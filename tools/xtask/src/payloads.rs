//! Building the bare-metal guest payloads, as `tests/payloads/README.md` says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{cross, paths};

/// What every payload is compiled with: freestanding, and no unit of the processor that needs switching on.
const FLAGS: &str = "-std=gnu11 -O2 -Wall -Wextra -Werror -Wno-main -mcpu=power8 -mabi=elfv2 -msoft-float -mno-altivec \
    -mno-vsx -Wa,-mregnames -ffreestanding -fno-builtin -fno-stack-protector -fno-asynchronous-unwind-tables \
    -fvisibility=hidden -nostdlib -T lib/payload.lds -Wl,--build-id=none -Wl,-z,norelro -Wl,-z,noexecstack";

/// One line of `payloads.list`.
#[derive(Debug, PartialEq, Eq)]
struct Payload<'a> {
    name: &'a str,
    order: &'a str,
    kind: &'a str,
    link: &'a str,
    load: &'a str,
}

/// Builds all payloads and tells the name and the file of each.
pub fn build() -> Result<Vec<(String, PathBuf)>> {
    let source = paths::root().join("tests/payloads");
    let out = paths::root().join("target/payloads");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let list = source.join("payloads.list");
    let list = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    parse(&list)?
        .iter()
        .map(|payload| {
            let file = out.join(payload.name);
            compile(payload, &source, &file)?;
            Ok((payload.name.to_owned(), file))
        })
        .collect()
}

fn parse(list: &str) -> Result<Vec<Payload<'_>>> {
    list.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, order, kind, link, load] => Ok(Payload { name, order, kind, link, load }),
            _ => bail!("payloads.list: {line:?} has not five columns"),
        })
        .collect()
}

fn compile(payload: &Payload, source: &Path, file: &Path) -> Result<()> {
    let Payload { name, order, kind, link, load } = payload;
    let mode: &[&str] = match *kind {
        "exec" => &["-fno-pie", "-no-pie", "-static"],
        "dyn" => &["-fpie", "-static-pie"],
        other => bail!("payloads.list: {name} has the type {other:?}, which is neither exec nor dyn"),
    };
    let status = cross::gcc()?
        .current_dir(source)
        .args(FLAGS.split_whitespace())
        .arg(format!("-m{order}-endian"))
        .args(mode)
        .args([format!("-Wl,--defsym=BASE={link}"), format!("-Wl,--defsym=PHYS={load}")])
        .arg("-o")
        .arg(file)
        .arg(format!("{name}.c"))
        .args(sources(source, name)?)
        .args(sources(source, "lib")?)
        .status()
        .context("cannot run the cross compiler")?;
    ensure!(status.success(), "the payload {name} does not build");
    Ok(())
}

/// The C and assembly files of a folder, in a fixed order; none if there is no such folder.
fn sources(source: &Path, folder: &str) -> Result<Vec<PathBuf>> {
    let dir = source.join(folder);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c" || extension == "S") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_five_columns_and_may_be_a_comment() {
        let list = "# name, order\n\nhang  little exec 0xc000000000000000  0x0\n";
        let hang =
            Payload { name: "hang", order: "little", kind: "exec", link: "0xc000000000000000", load: "0x0" };
        assert_eq!(parse(list).unwrap(), [hang]);
        assert!(parse("hang little exec").unwrap_err().to_string().contains("hang little exec"));
    }
}
