//! A block device of the host: a loop device, where the test may make one. Where it may not it says that it did nothing.

use super::*;

/// A loop device over an image.
struct Loop {
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Loop {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(image(directory.path())).output();
        let output = output.ok().filter(|output| output.status.success())?;
        let path = String::from_utf8(output.stdout).unwrap().trim().into();
        Some(Self { path, _directory: directory })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[test]
fn a_block_device_is_a_disk() {
    let Some(device) = Loop::new() else {
        eprintln!("no loop device may be made: nothing is tested");
        return;
    };
    let write = options(&device.path);
    let read = Options { read_only: true, ..write.clone() };
    let image = Image::open(&write).unwrap();
    assert_eq!((image.sectors(), image.logical_block()), (SECTORS, 512));
    assert!(refusal(&write).contains("is in use"));
    assert!(refusal(&read).contains("is in use"));

    let mut sector = [0; 512];
    image.read(&mut sector, 8 * SECTOR).unwrap();
    assert_eq!(sector, [8; 512]);
    image.zero(8 * SECTOR, SECTOR * 8, false).unwrap();
    image.zero(24 * SECTOR, SECTOR * 8, true).unwrap();
    image.discard(64 * SECTOR, SECTOR * 64).unwrap();
    image.discard(0, 0).unwrap();
    for (at, expected) in [(7, 7), (8, 0), (15, 0), (16, 16), (24, 0), (32, 32), (63, 63), (128, 128)] {
        image.read(&mut sector, at * SECTOR).unwrap();
        assert_eq!(sector, [expected; 512], "sector {at}");
    }
    image.write(&[1; 512], (SECTORS - 1) * SECTOR).unwrap();
    assert!(image.write(&[1; 512], SECTORS * SECTOR).is_err());
    image.sync().unwrap();
    drop(image);
    let readers = [Image::open(&read).unwrap(), Image::open(&read).unwrap()];
    assert!(!readers[0].discards());
}
