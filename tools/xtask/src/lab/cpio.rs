//! Writing cpio archives in the "newc" format, which the Linux kernel unpacks as its initramfs.
//!
//! The archive is written directly, never from a tree on disk, so device nodes and root's ownership need no
//! privilege. Every entry belongs to root and has time 0: the same contents give the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const SYMLINK: u32 = 0o120_000;

/// The header and the data are each padded to this many bytes.
const ALIGN: u64 = 4;

/// A newc archive on its way to `out`.
pub struct Archive<W> {
    out: W,
    inode: u32,
    position: u64,
    directories: BTreeSet<String>,
}

/// What the header of one entry says.
struct Entry<'a> {
    name: &'a str,
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// An archive that begins at the current end of `out`, which must be a multiple of four bytes.
    pub fn new(out: W) -> Self {
        Archive { out, inode: 0, position: 0, directories: BTreeSet::new() }
    }

    /// Adds the directory `name` and the ones above it, unless they are there already.
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        let mut end = 0;
        while end < name.len() {
            end = name[end..].find('/').map_or(name.len(), |at| end + at);
            let prefix = &name[..end];
            if !prefix.is_empty() && self.directories.insert(prefix.to_owned()) {
                self.header(&Entry {
                    name: prefix,
                    mode: DIRECTORY | 0o755,
                    links: 2,
                    size: 0,
                    device: (0, 0),
                })?;
            }
            end += 1;
        }
        Ok(())
    }

    /// Adds a regular file.
    pub fn bytes(&mut self, name: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.reader(name, permissions, data.len() as u64, data)
    }

    /// Adds the file at `source`, with its permissions.
    pub fn file(&mut self, name: &str, source: &Path) -> io::Result<()> {
        let file = fs::File::open(source)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        self.reader(name, metadata.permissions().mode() & 0o777, metadata.len(), file)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.parents(name)?;
        let size = size_field(target.len() as u64)?;
        self.header(&Entry { name, mode: SYMLINK | 0o777, links: 1, size, device: (0, 0) })?;
        self.put(target.as_bytes())?;
        self.pad()
    }

    /// Adds a character device node.
    pub fn character(&mut self, name: &str, permissions: u32, device: (u32, u32)) -> io::Result<()> {
        self.parents(name)?;
        self.header(&Entry { name, mode: CHARACTER | permissions, links: 1, size: 0, device })
    }

    /// Writes the trailer and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header(&Entry { name: "TRAILER!!!", mode: 0, links: 1, size: 0, device: (0, 0) })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn reader(&mut self, name: &str, permissions: u32, size: u64, data: impl Read) -> io::Result<()> {
        self.parents(name)?;
        let size_in_header = size_field(size)?;
        self.header(&Entry {
            name,
            mode: REGULAR | permissions,
            links: 1,
            size: size_in_header,
            device: (0, 0),
        })?;
        let copied = io::copy(&mut data.take(size), &mut self.out)?;
        self.position += copied;
        if copied != size {
            // The header already promised `size` bytes.
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{name} became shorter while it was read"),
            ));
        }
        self.pad()
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        match name.rfind('/') {
            Some(at) => self.directory(&name[..at]),
            None => Ok(()),
        }
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let Entry { name, mode, links, size, device: (major, minor) } = entry;
        self.inode += 1;
        let name_size = name.len() + 1;
        let header = format!(
            "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{time:08x}{size:08x}\
             {dev_major:08x}{dev_minor:08x}{major:08x}{minor:08x}{name_size:08x}{check:08x}{name}\0",
            inode = self.inode,
            uid = 0,
            gid = 0,
            time = 0,
            dev_major = 0,
            dev_minor = 0,
            check = 0,
        );
        self.put(header.as_bytes())?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = (ALIGN - self.position % ALIGN) % ALIGN;
        self.put(&[0; ALIGN as usize][..missing as usize])
    }
}

/// The format's sizes have eight hexadecimal digits.
fn size_field(size: u64) -> io::Result<u32> {
    u32::try_from(size).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "a cpio archive holds no file of 4 GiB or more")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the header at `at`: mode, size, name; and where its data begins.
    fn parse(archive: &[u8], at: usize) -> (u32, usize, String, usize) {
        let text = std::str::from_utf8(&archive[at..at + 110]).unwrap();
        assert_eq!(&text[..6], "070701");
        let field = |n: usize| u32::from_str_radix(&text[6 + 8 * n..14 + 8 * n], 16).unwrap();
        let name_size = field(11) as usize;
        let name = String::from_utf8(archive[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
        (field(1), field(6) as usize, name, (at + 110 + name_size).next_multiple_of(4))
    }

    fn walk(archive: &[u8]) -> Vec<(u32, String, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            let (mode, size, name, data) = parse(archive, at);
            if name == "TRAILER!!!" {
                assert_eq!(data, archive.len());
                return entries;
            }
            entries.push((mode, name, archive[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
    }

    #[test]
    fn entries_come_back_as_they_went_in() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("lab/a/tool", 0o755, b"12345").unwrap();
        archive.bytes("lab/a/data", 0o644, b"").unwrap();
        archive.symlink("bin", "usr/bin").unwrap();
        archive.character("dev/console", 0o600, (5, 1)).unwrap();
        let entries = walk(&archive.finish().unwrap());
        let expected: [(u32, &str, &[u8]); 7] = [
            (0o040_755, "lab", b""),
            (0o040_755, "lab/a", b""),
            (0o100_755, "lab/a/tool", b"12345"),
            (0o100_644, "lab/a/data", b""),
            (0o120_777, "bin", b"usr/bin"),
            (0o040_755, "dev", b""),
            (0o020_600, "dev/console", b""),
        ];
        let expected: Vec<_> = expected.iter().map(|(m, n, d)| (*m, n.to_string(), d.to_vec())).collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_device_keeps_its_numbers() {
        let mut archive = Archive::new(Vec::new());
        archive.character("null", 0o666, (1, 3)).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[6 + 8 * 9..6 + 8 * 11], b"0000000100000003");
    }

    #[test]
    fn a_file_that_is_a_directory_is_refused() {
        let error = Archive::new(Vec::new()).file("x", Path::new("/")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
