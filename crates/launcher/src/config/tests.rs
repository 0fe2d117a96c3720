//! The configuration file, the defaults and the checks, as tables of inputs and exact answers.

use super::host::{check_images, check_memory, host_memory};
use super::schema::{DEVICE_TABLES, KEYS, heading, names};
use super::*;
use std::fs;

/// Reads `text` from a file called `vm.toml`; a message has that name without its directory.
pub(super) fn read(text: &str) -> Result<VmConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.toml");
    fs::write(&path, text).unwrap();
    let directory = format!("{}/", dir.path().display());
    Settings::read(&path)
        .and_then(Settings::resolve)
        .map_err(|error| crate::report::chain(&error).replace(&directory, ""))
}

const FULL: &str = r#"
name = "build-1"

[boot]
kernel = "/boot/vmlinux"
initrd = "/boot/initrd.img"
cmdline = "console=hvc0 quiet"

[cpu]
count = 8
threads = 4
model = "power9"

[memory]
size = "1536M"

[machine]
mmu = "hash"
irqchip = "xics"
reboot = false

[cede]
plane = "vmm"
run_dir = "/run/vms"

[vcore]
halt_poll_ns = 50_000
halt_poll_ns_grow = 0
halt_poll_ns_grow_start = 0x1388
halt_poll_ns_shrink = 4294967295
placement = "8,0-3"

[console]
backend = "file=/var/log/vm.log"
virtio = "file=/var/log/hvc1.log"

[devices]
threads = 2

[[disk]]
path = "/vm/root.img"

[[disk]]
path = "/dev/vdb"
readonly = true
direct = true
writethrough = true
id = "data-1"
iommu = true

[[net]]
tap = "tap0"
mac = "52:54:00:aB:00:01"
iommu = true

[vsock]
cid = 3
path = "/run/vm.vsock"
iommu = true

[rng]
iommu = true

[balloon]
size = "512M"
deflate_on_oom = false
free_page_reporting = false
"#;

#[test]
fn every_key_is_read() {
    let config = read(FULL).unwrap();
    let wanted = VmConfig {
        name: "build-1".into(),
        boot: Boot {
            kernel: Some("/boot/vmlinux".into()),
            initrd: Some("/boot/initrd.img".into()),
            cmdline: "console=hvc0 quiet".into(),
        },
        topology: Topology { vcpus: "8".parse().unwrap(), threads: "4".parse().unwrap() },
        model: CpuModel::Power9,
        memory: "1536M".parse().unwrap(),
        mmu: MmuChoice::Hash,
        irqchip: IrqchipChoice::Xics,
        reboot: false,
        plane: PlaneChoice::Vmm,
        run_dir: Some("/run/vms".into()),
        tunables: "halt_poll_ns=50000 halt_poll_ns_grow=0 halt_poll_ns_grow_start=5000 \
                   halt_poll_ns_shrink=4294967295"
            .parse()
            .unwrap(),
        placement: Placement::List(vec![8, 0, 1, 2, 3]),
        console: ConsoleChoice::File("/var/log/vm.log".into()),
        devices: devices::tests::full(),
    };
    assert_eq!(config, wanted);
    for key in KEYS {
        assert!(FULL.contains(&format!("{} = ", key.name)), "{} is in the example", key.name);
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = read("").unwrap();
    assert_eq!(
        config.to_string(),
        "name     cede\n\
         kernel   none; run needs --kernel FILE\n\
         initrd   none\n\
         cmdline  \"\"\n\
         cpu      1 vCPUs, 1 cores of 1 threads, model host\n\
         memory   1G\n\
         machine  mmu auto, irqchip auto, starts again at reboot\n\
         cede     plane auto, run directory the usual\n\
         vcore    halt_poll_ns=10000 halt_poll_ns_grow=2 halt_poll_ns_grow_start=10000 halt_poll_ns_shrink=2, \
         placement none\n\
         console  stdio"
    );
    assert_eq!(
        config.boot.kernel().unwrap_err().to_string(),
        "there is no kernel; name one with --kernel FILE or kernel in [boot]"
    );
}

#[test]
fn cpus_are_one_core_unless_said_otherwise() {
    let topology = read("[cpu]\nthreads = 4").unwrap().topology;
    assert_eq!((topology.vcpus.get(), topology.cores()), (4, 1));
}

#[test]
fn relative_paths_start_at_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.toml");
    fs::write(&path, "boot.kernel = 'vmlinux'\nboot.initrd = '/i'\nconsole.backend = 'file=log'").unwrap();
    let settings = Settings::read(&path).unwrap();
    assert_eq!(settings.kernel.unwrap(), dir.path().join("vmlinux"));
    assert_eq!(settings.initrd.unwrap(), Path::new("/i"));
    assert_eq!(settings.console, Some(ConsoleChoice::File(dir.path().join("log"))));
}

#[test]
fn each_mistake_has_its_line() {
    let cases = [
        // Keys.
        ("\n[memory]\nmemroy = '1G'", "vm.toml:3:1: unknown key \"memroy\" in [memory]; keys: size"),
        (
            "[cpu]\n  cuont = 2",
            "vm.toml:2:3: unknown key \"cuont\" in [cpu] (did you mean \"count\"?); keys: count, threads, model",
        ),
        (
            "kernel = 'x'",
            "vm.toml:1:1: unknown key \"kernel\" in the top level (did you mean kernel in [boot]?); \
             keys: name, boot, cpu, memory, machine, cede, vcore, console, devices, disk, net, \
             vsock, rng, balloon",
        ),
        (
            "[machine]\nname = 'x'",
            "vm.toml:2:1: unknown key \"name\" in [machine] (did you mean name at the top level?); \
             keys: mmu, irqchip, reboot",
        ),
        (
            "[memroy]\nsize = '1G'",
            "vm.toml:1:2: unknown key \"memroy\" in the top level (did you mean \"memory\"?); \
             keys: name, boot, cpu, memory, machine, cede, vcore, console, devices, disk, net, \
             vsock, rng, balloon",
        ),
        ("[[memory]]\nsize = '1G'", "vm.toml:1:1: memory is a table; write [memory] with keys: size"),
        ("memory = '1G'", "vm.toml:1:10: memory is a table; write [memory] with keys: size"),
        (
            "\"ä\\nb\" = 1",
            "vm.toml:1:1: unknown key \"ä\\nb\" in the top level; \
             keys: name, boot, cpu, memory, machine, cede, vcore, console, devices, disk, net, \
             vsock, rng, balloon",
        ),
        // The first mistake of the text is told, whatever the order of the names.
        ("[machine]\nmmu = 1\nirqchip = 1", "vm.toml:2:7: mmu has to be a string"),
        // Types.
        ("[cpu]\ncount = '4'", "vm.toml:2:9: count has to be a whole number"),
        ("[cpu]\ncount = -1", "vm.toml:2:9: count has to be a whole number"),
        ("[cpu]\ncount = 1.0", "vm.toml:2:9: count has to be a whole number"),
        ("[machine]\nreboot = 'no'", "vm.toml:2:10: reboot has to be true or false"),
        ("[memory]\nsize = true", "vm.toml:2:8: size has to be a size (\"512M\", or bytes)"),
        ("name = ['a']", "vm.toml:1:8: name has to be a string"),
        // Values.
        ("[memory]\nsize = 0", "vm.toml:2:8: size: memory has to be more than 0"),
        ("[memory]\nsize = 512", "vm.toml:2:8: size: 512 is not a multiple of 64K; for MiB write 512M"),
        ("[memory]\nsize = 65537", "vm.toml:2:8: size: 65537 is not a multiple of 64K"),
        ("[memory]\nsize = '33K'", "vm.toml:2:8: size: 33K is not a multiple of 64K"),
        (
            "[memory]\nsize = '1GB'",
            "vm.toml:2:8: size: \"1GB\" is no size; write bytes or a number with K, M, G or T, as in 512M",
        ),
        ("[memory]\nsize = '17000000T'", "vm.toml:2:8: size: 17000000T is more than 64 bits of bytes"),
        ("[cpu]\ncount = 0", "vm.toml:2:9: count: 0 is not a number of vCPUs; it can be 1 to 2048"),
        ("[cpu]\ncount = 2049", "vm.toml:2:9: count: 2049 is not a number of vCPUs; it can be 1 to 2048"),
        ("[cpu]\nthreads = 3", "vm.toml:2:11: threads: 3 is not a number of threads; it can be 1, 2, 4 or 8"),
        (
            "[cpu]\nthreads = 16",
            "vm.toml:2:11: threads: 16 is not a number of threads; it can be 1, 2, 4 or 8",
        ),
        (
            "[cpu]\nmodel = 'power7'",
            "vm.toml:2:9: model: \"power7\" is none of host, power8, power9, power10",
        ),
        ("[machine]\nmmu = 'RADIX'", "vm.toml:2:7: mmu: \"RADIX\" is none of auto, radix, hash"),
        ("[machine]\nirqchip = ''", "vm.toml:2:11: irqchip: \"\" is none of auto, xive, xics"),
        (
            "[console]\nbackend = 'tty'",
            "vm.toml:2:11: backend: \"tty\" is no console; it can be stdio, pty or file=PATH",
        ),
        ("[console]\nbackend = 'file='", "vm.toml:2:11: backend: \"file=\" has no path; write file=PATH"),
        ("[cede]\nplane = 'user'", "vm.toml:2:9: plane: \"user\" is none of auto, kernel, assist, vmm"),
        (
            "[vcore]\nhalt_pol_ns = 1",
            "vm.toml:2:1: unknown key \"halt_pol_ns\" in [vcore] (did you mean \"halt_poll_ns\"?); keys: \
             halt_poll_ns, halt_poll_ns_grow, halt_poll_ns_grow_start, halt_poll_ns_shrink, placement",
        ),
        ("[vcore]\nhalt_poll_ns = '1'", "vm.toml:2:16: halt_poll_ns has to be a whole number"),
        (
            "[vcore]\nhalt_poll_ns_grow = 4294967296",
            "vm.toml:2:21: halt_poll_ns_grow: tunable halt_poll_ns_grow is too large, got 4294967296: \
             the most is 4294967295",
        ),
        (
            "[vcore]\nplacement = 'core'",
            "vm.toml:2:13: placement: \"core\" is no placement; it can be none, cores or a list of CPUs as in \
             0-3,8,12",
        ),
        ("[vcore]\nplacement = '3-0'", "vm.toml:2:13: placement: 3-0 counts down; write 0-3"),
        ("[vcore]\nplacement = '0-3,2'", "vm.toml:2:13: placement: CPU 2 is there twice"),
        (
            "[vcore]\nplacement = '1024'",
            "vm.toml:2:13: placement: CPU 1024 is too high; the highest possible is 1023",
        ),
        ("[boot]\nkernel = ''", "vm.toml:2:10: kernel: the path is empty"),
        ("[boot]\ninitrd = \"a\\u0000\"", "vm.toml:2:10: initrd: the path has a zero byte"),
        ("[boot]\ncmdline = \"a\\u0000\"", "vm.toml:2:11: cmdline: the command line has a zero byte"),
        (
            "name = '../x'",
            "vm.toml:1:8: name: \"../x\" is no name; it can be 1 to 63 letters, digits, '-', '_' and '.', \
             not first a '.'",
        ),
        // Values against each other.
        (
            "[cpu]\ncount = 6\nthreads = 4",
            "6 vCPUs do not fill cores of 4 threads; make --cpus ([cpu] count) a multiple of \
             --threads ([cpu] threads)",
        ),
        (
            "cpu.model = 'power8'\nmachine.mmu = 'radix'",
            "power8 has no radix MMU; choose hash with --mmu ([machine] mmu), or a later --cpu ([cpu] model)",
        ),
        (
            "cpu.model = 'power8'\nmachine.irqchip = 'xive'",
            "power8 has no XIVE; choose xics with --irqchip ([machine] irqchip), or a later --cpu ([cpu] model)",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(read(text).unwrap_err(), message, "for {text:?}");
    }
}

/// The words are the TOML parser's; what matters is the place, and that it is one line.
#[test]
fn broken_toml_is_one_line_with_its_place() {
    for (text, place) in [
        ("name = \"a", "vm.toml:1:"),
        ("[cpu]\ncount = ", "vm.toml:2:"),
        ("\n\n[cpu\ncount = 1", "vm.toml:3:"),
        ("name = 'a'\nname = 'b'", "vm.toml:2:1:"),
        ("[cpu]\n[cpu]", "vm.toml:2:"),
        ("ä = = 1", "vm.toml:1:"),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.starts_with(place), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_command_line_may_be_as_long_as_linux_takes() {
    let cmdline = |len| read(&format!("[boot]\ncmdline = '{}'", "x".repeat(len)));
    assert_eq!(cmdline(2047).unwrap().boot.cmdline.len(), 2047);
    assert_eq!(
        cmdline(2048).unwrap_err(),
        "vm.toml:2:11: cmdline: 2048 bytes are too long; 2047 are allowed"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Settings::read(Path::new("/nowhere/vm.toml")).unwrap_err();
    assert_eq!(
        crate::report::chain(&error),
        "cannot read the configuration file /nowhere/vm.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn sizes() {
    for (text, bytes, shown) in [
        ("64K", 65536, "64K"),
        ("65536", 65536, "64K"),
        ("512m", 512 << 20, "512M"),
        ("2G", 2 << 30, "2G"),
        ("1024M", 1 << 30, "1G"),
        ("1T", 1 << 40, "1T"),
    ] {
        let size: MemorySize = text.parse().unwrap();
        assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown));
    }
    for text in ["", "M", "+64K", "-1", " 64K", "6 4K", "0x10000", "1.5G", "64Ki", "é"] {
        assert!(text.parse::<MemorySize>().unwrap_err().contains("is no size"), "{text:?}");
    }
}

#[test]
fn tunables_that_are_not_said_stay() {
    let host = vcore::Tunables { halt_poll_ns: 7, halt_poll_ns_shrink: 0, ..vcore::Tunables::default() };
    let changes: TunableChanges = " halt_poll_ns_grow=0x10\nhalt_poll_ns=1 halt_poll_ns=2".parse().unwrap();
    assert_eq!(changes.to_string(), "halt_poll_ns=2 halt_poll_ns_grow=16");
    assert_eq!(
        changes.on(host),
        vcore::Tunables { halt_poll_ns: 2, halt_poll_ns_grow: 16, halt_poll_ns_shrink: 0, ..host }
    );
    assert!("".parse::<TunableChanges>().unwrap().is_empty());
    let first: TunableChanges = "halt_poll_ns=5".parse().unwrap();
    assert_eq!(first.or(changes).to_string(), "halt_poll_ns=5 halt_poll_ns_grow=16");
}

#[test]
fn placements() {
    for (text, shown) in [
        ("none", "none"),
        ("cores", "cores"),
        ("0", "0"),
        ("0-3,8,12", "0-3,8,12"),
        ("3,2,1", "3,2,1"),
        ("0,1,2,64-64", "0-2,64"),
        ("1023", "1023"),
    ] {
        assert_eq!(text.parse::<Placement>().unwrap().to_string(), shown);
    }
    for text in ["", ",", "0,", "+1", "0-", "-1", "0-1-2", "0 1", "0x1", "99999999999999999999"] {
        assert!(text.parse::<Placement>().unwrap_err().contains("is no placement"), "{text:?}");
    }
}

#[test]
fn a_host_that_has_too_little_is_told_in_its_own_numbers() {
    let check = |text| check_memory(&read(text).unwrap(), 4 << 30).map_err(|error| error.to_string());
    assert_eq!(check("memory.size = '4G'"), Ok(()));
    assert_eq!(
        check("memory.size = '4194368K'").unwrap_err(),
        "4194368K of memory is more than the host has (4096 MiB); lower --memory ([memory] size)"
    );
    assert_eq!(
        ConfigError::Cpus { wanted: 9, limit: 8 }.to_string(),
        "9 vCPUs are more than this host's KVM allows (8); lower --cpus ([cpu] count)"
    );
    assert_eq!(
        ConfigError::Threads { wanted: 2, mask: 0b101 }.to_string(),
        "this host's KVM has no cores of 2 threads; set --threads ([cpu] threads) to 1, 4"
    );
}

#[test]
fn this_host_has_memory() {
    assert!(host_memory() > 64 << 20);
}

#[test]
fn images_have_to_be_readable_files() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = dir.path().join("vmlinux");
    fs::write(&kernel, "").unwrap();
    let images = |kernel: &Path, initrd: &str| {
        let text = format!("[boot]\nkernel = {kernel:?}\ninitrd = '{initrd}'");
        check_images(&read(&text).unwrap()).map_err(|error| crate::report::chain(&error))
    };
    assert_eq!(images(&kernel, kernel.to_str().unwrap()), Ok(()));
    assert_eq!(
        images(&kernel, "/nowhere/initrd").unwrap_err(),
        "cannot read the initrd /nowhere/initrd (--initrd, or initrd in [boot]): \
         No such file or directory (os error 2)"
    );
    assert_eq!(
        images(Path::new("/"), "/nowhere/initrd").unwrap_err(),
        "cannot read the kernel / (--kernel, or kernel in [boot]): not a regular file"
    );
}

/// A key is documented by a row of its table's section that begins with it and says its TOML type.
#[test]
fn the_documentation_has_every_key_and_no_other() {
    let documentation =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md")).unwrap();
    let mut table = None;
    let mut documented = Vec::new();
    for line in documentation.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            table = Some(title.trim_matches('`').replace("Top level", "[]"));
        } else if line.starts_with("## ") {
            table = None;
        }
        if let (Some(table), Some(row)) = (&table, line.strip_prefix("| `")) {
            documented.push((table.clone(), row[..row.find('`').unwrap()].to_owned()));
        }
    }
    let keys: Vec<_> = KEYS.iter().map(|key| (heading(key.table), key.name.to_owned())).collect();
    assert_eq!(documented, keys);
    let mut tables = vec!["name", "boot", "cpu", "memory", "machine", "cede", "vcore", "console", "devices"];
    tables.extend(DEVICE_TABLES.iter().map(|table| table.name));
    assert_eq!(names(""), tables);
}

#[test]
fn the_documented_example_is_valid() {
    let documentation =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md")).unwrap();
    let examples: Vec<&str> =
        documentation.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        read(example).unwrap();
    }
}

#[test]
fn the_documentation_has_every_exit_code() {
    for file in ["README.md", "docs/config.md"] {
        let path = format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"));
        let documentation = fs::read_to_string(path).unwrap();
        for (outcome, meaning) in crate::exit_code::TABLE {
            let row = format!("| {} | {meaning} |", outcome as u8);
            assert!(documentation.contains(&row), "{file} has no row {row}");
        }
    }
}
