//! What the host does not have is told by its table; what it has comes onto a bus in order.

use super::*;
use crate::config::Settings;
use crate::report::chain;
use devices::dma::{self, Untranslated};
use devices::pci::Function;
use std::fs;
use vm_memory::{GuestAddress, GuestMemoryMmap};

fn config(text: &str) -> Devices {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.toml");
    fs::write(&path, text).unwrap();
    Settings::read(&path).unwrap().resolve().unwrap().devices
}

fn refusal(text: &str) -> (String, Outcome) {
    let error = OpenDevices::open(&config(text)).map(|_| ()).unwrap_err();
    (chain(&error), error.outcome())
}

#[test]
fn devices_are_on_the_bus_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.img");
    fs::write(&image, [0; 4096]).unwrap();
    let text = format!(
        "[vsock]\ncid = 3\npath = '{}'\n[rng]\niommu = true\n[balloon]\nsize = '64M'\n[console]\nvirtio = 'file={}'\n[devices]\nthreads = 2\n\
         [[disk]]\npath = '{}'",
        dir.path().join("vsock").display(),
        dir.path().join("hvc1.log").display(),
        image.display()
    );
    let devices = OpenDevices::open(&config(&text)).unwrap();
    assert_eq!(devices.balloon().unwrap().target(), 64 << 20);
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let bus = devices.bus(Vec::new(), &dma::memory(ram, Arc::new(Untranslated))).unwrap();
    let shown = |bus: &Bus| -> Vec<_> {
        let function = |(devfn, function): (u8, &Arc<dyn Function>)| {
            (devfn, function.identity(), function.bars().to_vec(), function.vectors())
        };
        bus.functions().map(function).collect()
    };
    let outline = OpenDevices::outline(&config(&text), Vec::new()).unwrap();
    assert_eq!(shown(&outline), shown(&bus), "what `cede fdt` shows is what the guest gets");
    let found: Vec<_> =
        bus.functions().map(|(devfn, function)| (devfn, function.identity().device)).collect();
    // Disk, vsock, rng, balloon, console: 0x1040 and virtio's types.
    assert_eq!(found, [(0, 0x1042), (8, 0x1053), (16, 0x1044), (24, 0x1045), (32, 0x1043)]);
    assert!(OpenDevices::open(&Devices::default()).unwrap().balloon().is_none());
}

/// Nothing of the host's is needed to look: neither the tap nor an image.
#[test]
fn an_outline_needs_nothing_of_the_host() {
    let text = "[[net]]\ntap = 'nowhere0'\n[[disk]]\npath = '/nowhere/a.img'";
    let bus = OpenDevices::outline(&config(text), Vec::new()).unwrap();
    let found: Vec<_> = bus.functions().map(|(_, function)| function.identity().device).collect();
    assert_eq!(found, [0x1042, 0x1041]);
}

#[test]
fn what_cannot_be_had_is_told_by_its_table() {
    let (message, outcome) = refusal("[[disk]]\npath = '/nowhere/a.img'");
    assert!(
        message.starts_with("disk 1 ([[disk]], --disk) cannot be had: /nowhere/a.img: there is no such file")
    );
    assert_eq!(outcome, Outcome::Usage);
    let (message, outcome) = refusal("[console]\nvirtio = 'file=/nowhere/log'");
    assert!(
        message.starts_with("the second console (virtio in [console], --virtio-console) cannot be had: ")
    );
    assert_eq!(outcome, Outcome::Usage);
    let (message, outcome) = refusal("[vsock]\ncid = 3\npath = '/nowhere/vsock'");
    assert!(
        message.starts_with("the vsock ([vsock], --vsock) cannot be had: the vsock cannot listen at"),
        "{message}"
    );
    assert_eq!(outcome, Outcome::Usage);
    let (message, outcome) = refusal("[[net]]\ntap = 'lo'");
    assert!(message.starts_with("net 1 ([[net]], --net) cannot be had: "), "{message}");
    assert!(matches!(outcome, Outcome::Usage | Outcome::Host));
}

/// Two disks of one image that only its lock can tell, since the paths are one at a time.
#[test]
fn an_image_that_somebody_writes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.img");
    fs::write(&image, [0; 4096]).unwrap();
    let text = format!("[[disk]]\npath = '{}'", image.display());
    let first = OpenDevices::open(&config(&text)).unwrap();
    let (message, outcome) = refusal(&text);
    assert!(message.contains("is in use by"), "{message}");
    assert_eq!(outcome, Outcome::Usage);
    drop(first);
    OpenDevices::open(&config(&text)).unwrap();
}
