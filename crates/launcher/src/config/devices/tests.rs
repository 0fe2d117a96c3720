//! Device tables: what they say, and what they may not.

use super::super::tests::read;
use super::super::{Settings, host::check_images};
use super::*;
use std::fs;

/// What the example of all keys says.
pub(in crate::config) fn full() -> Devices {
    let root = Disk {
        path: "/vm/root.img".into(),
        readonly: false,
        direct: false,
        writethrough: false,
        id: None,
        iommu: false,
    };
    let data = Disk {
        path: "/dev/vdb".into(),
        readonly: true,
        direct: true,
        writethrough: true,
        id: Some("data-1".into()),
        iommu: true,
    };
    Devices {
        disks: vec![root, data],
        nets: vec![Net { tap: "tap0".into(), mac: "52:54:00:ab:00:01".parse().unwrap(), iommu: true }],
        vsock: Some(Vsock { cid: 3, path: "/run/vm.vsock".into(), iommu: true }),
        rng: Some(Rng { iommu: true }),
        balloon: Some(Balloon {
            size: Some("512M".parse().unwrap()),
            deflate_on_oom: false,
            free_page_reporting: false,
        }),
        console: Some(ConsoleChoice::File("/var/log/hvc1.log".into())),
        threads: DeviceThreads::Shared(2),
    }
}

#[test]
fn a_person_sees_every_device() {
    assert_eq!(
        full().to_string(),
        "\n\
         disk 1   /vm/root.img\n\
         disk 2   /dev/vdb, readonly, direct, writethrough, iommu, id data-1\n\
         net 1    tap0, mac 52:54:00:ab:00:01, iommu\n\
         vsock    /run/vm.vsock, cid 3, iommu\n\
         rng      the host's, iommu\n\
         balloon  512M\n\
         virtio   console file=/var/log/hvc1.log\n\
         threads  2 for all devices"
    );
    assert_eq!(
        read("[rng]\n[balloon]").unwrap().devices.to_string(),
        "\n\
         rng      the host's\n\
         balloon  0, deflate on OOM, free page reporting\n\
         threads  one for each device"
    );
    assert_eq!(Devices::default().to_string(), "");
}

#[test]
fn an_empty_table_is_a_device() {
    let devices = read("rng = {}\n[balloon]").unwrap().devices;
    assert_eq!(devices.rng, Some(Rng { iommu: false }));
    assert_eq!(
        devices.balloon,
        Some(Balloon { size: None, deflate_on_oom: true, free_page_reporting: true })
    );
    assert_eq!(devices.threads, DeviceThreads::Each);
}

#[test]
fn a_card_has_an_address_that_stays() {
    let mac = |name: &str, tap: &str| {
        read(&format!("name = '{name}'\n[[net]]\ntap = '{tap}'")).unwrap().devices.nets[0].mac
    };
    let one = mac("a", "tap0");
    assert_eq!(one, mac("a", "tap0"));
    assert_eq!(one.bytes()[0], 2, "locally administered, of one card");
    assert_eq!(one.to_string().parse(), Ok(one));
    assert!(one != mac("b", "tap0") && one != mac("a", "tap1"));
    assert_ne!(mac("ab", "c"), mac("a", "bc"));
}

#[test]
fn relative_paths_start_at_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.toml");
    let text = "console.virtio = 'file=c'\n[[disk]]\npath = 'a'\n[[disk]]\npath = '/b'\n[vsock]\npath = 'v'";
    fs::write(&path, text).unwrap();
    let mut devices = Settings::read(&path).unwrap().devices;
    let paths: Vec<_> = devices.paths().map(|path| path.clone()).collect();
    assert_eq!(paths, [dir.path().join("a"), "/b".into(), dir.path().join("v"), dir.path().join("c")]);
}

#[test]
fn each_mistake_has_its_place() {
    let long = format!("[vsock]\ncid = 3\npath = '/{}'", "x".repeat(96));
    let too_long = format!(
        "the path of the vsock, /{}, is 97 bytes long; at most 96 are possible (path in [vsock], or --vsock path=…)",
        "x".repeat(96)
    );
    let cases = [
        // Tables.
        (
            "[disk]\npath = '/a'",
            "vm.toml:1:1: disk is a list of tables; write [[disk]] with keys: path, readonly, direct, writethrough, id, iommu",
        ),
        (
            "disk = ['a']",
            "vm.toml:1:8: disk is a list of tables; write [[disk]] with keys: path, readonly, direct, writethrough, id, iommu",
        ),
        ("[[rng]]", "vm.toml:1:1: rng is a table; write [rng] with keys: iommu"),
        ("rng = true", "vm.toml:1:7: rng is a table; write [rng] with keys: iommu"),
        (
            "[[disk]]\npath = '/a'\n[[disk]]\npaht = '/b'",
            "vm.toml:4:1: unknown key \"paht\" in [[disk]] (did you mean \"path\"?); keys: path, readonly, direct, writethrough, id, iommu",
        ),
        (
            "[rng]\ntap = 'a'",
            "vm.toml:2:1: unknown key \"tap\" in [rng] (did you mean tap in [[net]]?); keys: iommu",
        ),
        // Values.
        ("[[disk]]\npath = ''", "vm.toml:2:8: path: the path is empty"),
        ("[[disk]]\nreadonly = 'yes'", "vm.toml:2:12: readonly has to be true or false"),
        (
            "[[disk]]\nid = 'a b'",
            "vm.toml:2:6: id: \"a b\" is no disk's id; it can be 1 to 20 ASCII characters without spaces",
        ),
        (
            "[[net]]\ntap = 'tap%d'",
            "vm.toml:2:7: tap: \"tap%d\" is no interface's name; it can be 1 to 15 ASCII characters without '/', ':', \
             '%' and spaces",
        ),
        (
            "[[net]]\nmac = '52:54:00:12:34'",
            "vm.toml:2:7: mac: \"52:54:00:12:34\" is no MAC address; write six bytes as in 52:54:00:12:34:56",
        ),
        (
            "[[net]]\nmac = '01:54:00:12:34:56'",
            "vm.toml:2:7: mac: 01:54:00:12:34:56 is the address of a group; a card's has an even first byte, as \
             52:54:00:12:34:56",
        ),
        (
            "[[net]]\nmac = '00:00:00:00:00:00'",
            "vm.toml:2:7: mac: no card has the address zero; write one as 52:54:00:12:34:56, or leave it out",
        ),
        (
            "[vsock]\ncid = 4294967295",
            "vm.toml:2:7: cid: 4294967295 is no guest's context ID; it can be 3 to 4294967294",
        ),
        ("[balloon]\nsize = 1", "vm.toml:2:8: size: 1 is not a multiple of 64K; for MiB write 1M"),
        ("[devices]\nthreads = true", "vm.toml:2:11: threads has to be a string or a whole number"),
        (
            "[devices]\nthreads = 65",
            "vm.toml:2:11: threads: 65 is not a number of threads; it can be each, or 1 to 64",
        ),
        (
            "[devices]\nthreads = 'all'",
            "vm.toml:2:11: threads: all is not a number of threads; it can be each, or 1 to 64",
        ),
        (
            "[console]\nvirtio = 'stdio'",
            "vm.toml:2:10: virtio: the second console cannot be stdio; it can be pty or file=PATH",
        ),
        // What is missing.
        (
            "[[disk]]\npath = '/a'\n[[disk]]\nreadonly = true",
            "disk 2 has no path; write path in [[disk]], or --disk path=…",
        ),
        ("[[net]]", "net 1 has no tap; write tap in [[net]], or --net tap=…"),
        ("[vsock]\npath = '/v'", "the vsock has no cid; write cid in [vsock], or --vsock cid=…"),
        (&long, &too_long),
        // Devices against each other.
        (
            "[[net]]\ntap = 'a'\n[[net]]\ntap = 'b'\n[[net]]\ntap = 'a'",
            "net 1 and net 3 have the same tap (a); each needs its own",
        ),
        (
            "[[net]]\ntap = 'a'\nmac = '52:54:00:00:00:0A'\n[[net]]\ntap = 'b'\nmac = '52:54:00:00:00:0a'",
            "net 1 and net 2 have the same mac (52:54:00:00:00:0a); each needs its own",
        ),
        (
            "[[disk]]\npath = '/a'\n[[disk]]\npath = '/b'\nid = 'x'\n[[disk]]\npath = '/c'\nid = 'x'",
            "disk 2 and disk 3 have the same id (x); each needs its own",
        ),
        (
            "memory.size = '64M'\n[balloon]\nsize = '64M'",
            "a balloon of 64M leaves nothing of 64M of memory; lower size in [balloon] (--balloon size=…)",
        ),
        (
            "[console]\nbackend = 'file=/c'\nvirtio = 'file=/c'",
            "both consoles are file=/c; choose another place for one of them (--console, --virtio-console; backend \
             and virtio in [console])",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(read(text).unwrap_err(), message, "for {text:?}");
    }
    read("[console]\nbackend = 'pty'\nvirtio = 'pty'").expect("each pty is a new one");
    read("[vsock]\ncid = 4294967294\npath = '/v'").unwrap();
}

#[test]
fn images_of_disks_have_to_be_usable_and_different() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.img");
    fs::write(&image, [0; 512]).unwrap();
    fs::write(dir.path().join("short.img"), [0; 1000]).unwrap();
    std::os::unix::fs::symlink(&image, dir.path().join("b.img")).unwrap();
    let directory = format!("{}/", dir.path().display());
    let check = |disks: &[&str]| {
        let text: String =
            disks.iter().map(|disk| format!("[[disk]]\npath = '{directory}{disk}\n")).collect();
        check_images(&read(&text).unwrap())
            .map_err(|error| crate::report::chain(&error).replace(&directory, ""))
    };
    assert_eq!(check(&["a.img'"]), Ok(()));
    assert_eq!(check(&["a.img'\nreadonly = true", "b.img'\nreadonly = true"]), Ok(()));
    assert_eq!(
        check(&["a.img'\nreadonly = true", "b.img'"]).unwrap_err(),
        "disks 1 and 2 are the same image, b.img; give it once, or both times as readonly"
    );
    assert_eq!(
        check(&["a.img'", "c.img'"]).unwrap_err(),
        "disk 2 ([[disk]], --disk) cannot be had: c.img: there is no such file; `truncate -s 8G c.img` makes an \
         empty disk of 8 GiB"
    );
    assert_eq!(
        check(&["short.img'"]).unwrap_err(),
        "disk 1 ([[disk]], --disk) cannot be had: short.img has 1000 bytes, and a disk has a multiple of 512 and \
         more than 0; `truncate -s %512 short.img` rounds up"
    );
    assert_eq!(
        check(&["'"]).unwrap_err(),
        "disk 1 ([[disk]], --disk) cannot be had:  is a directory; a disk is a raw image file or a block device"
    );
}
