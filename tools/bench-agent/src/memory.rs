//! The memory of a monitor, apart from its guest's.

use std::fs;

use anyhow::{Context, Result};

/// In bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, shared pages counted in full.
    pub rss: u64,
    /// Resident, shared pages divided by their users.
    pub pss: u64,
    /// The page tables of the process.
    pub page_tables: u64,
}

/// What process `pid` has in memory besides the mapping that is its guest's RAM.
pub fn beyond(pid: u32, ram: u64) -> Result<Memory> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let (rss, pss) = sum(&read("smaps")?, ram).context("no mapping has the size of the guest's RAM")?;
    let page_tables = kib(&read("status")?, "VmPTE:").context("no VmPTE")?;
    Ok(Memory { rss, pss, page_tables })
}

/// RSS and PSS of all mappings but the guest's RAM: the private anonymous one of `ram` bytes, which must be
/// there exactly once.
///
/// The kernel may merge neighbours; then no mapping has the size, and there is no figure instead of a wrong
/// one.
fn sum(smaps: &str, ram: u64) -> Option<(u64, u64)> {
    let (mut rss, mut pss, mut found) = (0, 0, 0);
    let (mut anonymous, mut is_ram) = (false, false);
    for line in smaps.lines() {
        if let Some(size) = kib(line, "Size:") {
            is_ram = anonymous && size == ram;
            found += u32::from(is_ram);
        } else if let Some(value) = kib(line, "Rss:") {
            rss += if is_ram { 0 } else { value };
        } else if let Some(value) = kib(line, "Pss:") {
            pss += if is_ram { 0 } else { value };
        } else if let Some(private_and_unnamed) = header(line) {
            anonymous = private_and_unnamed;
        }
    }
    (found == 1).then_some((rss, pss))
}

/// Whether a mapping's first line, `range permissions offset device inode [name]`, is that of private memory
/// without a name; nothing for other lines.
fn header(line: &str) -> Option<bool> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    if range.ends_with(':') || !range.contains('-') {
        return None;
    }
    Some(permissions.ends_with('p') && fields.nth(3).is_none())
}

/// The value of the line that begins with `key`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
10000000-10010000 r-xp 00000000 00:02 12 /usr/bin/cede
Size:                 64 kB
KernelPageSize:       64 kB
Rss:                  64 kB
Pss:                  32 kB
Pss_Dirty:             0 kB
7fff00000000-7fff40000000 rw-p 00000000 00:00 0
Size:            1048576 kB
Rss:               65536 kB
Pss:               65536 kB
7fff40000000-7fff80000000 rw-s 00040000 00:0f 90     anon_inode:kvm-xive-native
Size:            1048576 kB
Rss:                   0 kB
Pss:                   0 kB
7fff90000000-7fff90040000 rw-p 00000000 00:00 0
Size:                256 kB
Rss:                 128 kB
Pss:                 128 kB
";

    #[test]
    fn guest_ram_is_left_out() {
        assert_eq!(sum(SMAPS, 1 << 30), Some((192 << 10, 160 << 10)));
    }

    #[test]
    fn ram_that_cannot_be_told_apart_gives_no_figure() {
        assert_eq!(sum(SMAPS, 2 << 30), None);
    }
}
