//! Flags, their order against the file, and what help says.

use super::*;
use crate::config::devices::{Balloon, Disk, Net, Rng, Vsock};
use crate::exit_code::{Outcome, TABLE};
use clap::CommandFactory;
use std::fs;

fn load(arguments: &[&str]) -> VmConfig {
    let arguments = ["cede", "run"].iter().chain(arguments);
    match Cli::try_parse_from(arguments).unwrap().command {
        Command::Run { vm } => vm.load().unwrap(),
        other => panic!("parsed {other:?}"),
    }
}

fn refuse(arguments: &[&str]) -> String {
    usage_error(&Cli::try_parse_from(["cede"].iter().chain(arguments)).unwrap_err())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vm.toml");
    let text = "name = 'f'\n[boot]\nkernel = '/f/k'\ninitrd = '/f/i'\ncmdline = 'f'\n[memory]\nsize = '2G'\n\
                [cpu]\ncount = 8\nthreads = 4\nmodel = 'power9'\n[machine]\nmmu = 'radix'\n\
                irqchip = 'xive'\nreboot = true\n[cede]\nplane = 'kernel'\n\
                [vcore]\nhalt_poll_ns = 1\nhalt_poll_ns_shrink = 3\nplacement = 'cores'\n[console]\nbackend = 'file=/f/c'\n\
                [[disk]]\npath = '/f/d'\n[[net]]\ntap = 't0'\nmac = '02:00:00:00:00:02'\n[vsock]\ncid = 3\npath = '/f/v'\niommu = true\n\
                [rng]\niommu = true\n[balloon]\nsize = '32M'\n";
    fs::write(&file, text).unwrap();
    let config = ["--config", file.to_str().unwrap()];

    let from_file = load(&config);
    assert_eq!(from_file, load_file(&file).unwrap());
    assert_ne!(from_file, load(&[]), "the file says something");

    // Each flag changes its own value and no other.
    type Change = fn(&mut VmConfig);
    let cases: [(&[&str], Change); 24] = [
        (&["--name", "x"], |c| c.name = "x".into()),
        (&["--kernel", "k"], |c| c.boot.kernel = Some("k".into())),
        (&["--initrd", "i"], |c| c.boot.initrd = Some("i".into())),
        (&["--cmdline", "-x y"], |c| c.boot.cmdline = "-x y".into()),
        (&["--memory", "512M"], |c| c.memory = "512M".parse().unwrap()),
        (&["--cpus", "4"], |c| c.topology.vcpus = "4".parse().unwrap()),
        (&["--threads", "2"], |c| c.topology.threads = "2".parse().unwrap()),
        (&["--cpu", "power10"], |c| c.model = CpuModel::Power10),
        (&["--mmu", "hash"], |c| c.mmu = MmuChoice::Hash),
        (&["--irqchip", "xics"], |c| c.irqchip = IrqchipChoice::Xics),
        (&["--run-dir", "/r"], |c| c.run_dir = Some("/r".into())),
        (&["--plane", "vmm"], |c| c.plane = PlaneChoice::Vmm),
        // A tunable that the flag does not say is the file's.
        (&["--vcore", "halt_poll_ns=2 halt_poll_ns_grow=5"], |c| {
            c.tunables = "halt_poll_ns=2 halt_poll_ns_grow=5 halt_poll_ns_shrink=3".parse().unwrap();
        }),
        (&["--placement", "0-3"], |c| c.placement = "0-3".parse().unwrap()),
        (&["--console", "pty"], |c| c.console = ConsoleChoice::Pty),
        (&["--no-reboot"], |c| c.reboot = false),
        (&["--virtio-console", "pty"], |c| c.devices.console = Some(ConsoleChoice::Pty)),
        (&["--device-threads", "2"], |c| c.devices.threads = DeviceThreads::Shared(2)),
        // Disks and cards are added.
        (&["--disk", "path=/x,readonly", "--disk", "direct=true,path=/y"], |c| {
            let disk = |path: &str| Disk { path: path.into(), ..c.devices.disks[0].clone() };
            let (x, y) = (disk("/x"), disk("/y"));
            c.devices.disks.push(Disk { readonly: true, ..x });
            c.devices.disks.push(Disk { direct: true, ..y });
        }),
        (&["--net", "tap=t1,mac=02:00:00:00:00:01,iommu=false"], |c| {
            let mac = "02:00:00:00:00:01".parse().unwrap();
            c.devices.nets.push(Net { tap: "t1".into(), mac, iommu: false });
        }),
        // Other devices are replaced.
        (&["--vsock", "cid=4,path=/w"], |c| {
            c.devices.vsock = Some(Vsock { cid: 4, path: "/w".into(), iommu: false });
        }),
        (&["--rng"], |c| c.devices.rng = Some(Rng { iommu: false })),
        (&["--balloon"], |c| c.devices.balloon = Some(Balloon::default())),
        (&["--balloon=size=64M,deflate_on_oom=false"], |c| {
            let size = Some("64M".parse().unwrap());
            c.devices.balloon = Some(Balloon { size, deflate_on_oom: false, free_page_reporting: true });
        }),
    ];
    for (flag, change) in cases {
        let mut wanted = from_file.clone();
        change(&mut wanted);
        assert_ne!(wanted, from_file);
        assert_eq!(load(&[&config, flag].concat()), wanted, "{flag:?}");
    }
}

#[test]
fn a_usage_error_is_one_line_that_names_the_flag() {
    let cases: [(&[&str], &str); 15] = [
        (
            &["run", "--memory", "100"],
            "invalid value '100' for '--memory <SIZE>': 100 is not a multiple of 64K; for MiB write 100M; \
             see cede --help",
        ),
        (
            &["run", "--threads", "3"],
            "invalid value '3' for '--threads <N>': 3 is not a number of threads; it can be 1, 2, 4 or 8; \
             see cede --help",
        ),
        (
            &["run", "--cpus", "0"],
            "invalid value '0' for '--cpus <N>': 0 is not a number of vCPUs; it can be 1 to 2048; \
             see cede --help",
        ),
        (
            &["run", "--mmu", "flat"],
            "invalid value 'flat' for '--mmu <MMU>' [possible values: auto, radix, hash]; see cede --help",
        ),
        (
            &["run", "--memroy", "1G"],
            "unexpected argument '--memroy' found; tip: a similar argument exists: '--memory'; \
             see cede --help",
        ),
        (&["fdt"], "the following required arguments were not provided: --output <FILE>; see cede --help"),
        (
            &["run", "--vcore", "halt_poll_ns=-1"],
            "invalid value 'halt_poll_ns=-1' for '--vcore <TUNABLES>': tunable halt_poll_ns cannot be negative, \
             got -1: write 0 or more; see cede --help",
        ),
        (
            &["run", "--disk", "path=a,b"],
            "invalid value 'path=a,b' for '--disk <path=FILE,...>': unknown key \"b\"; keys: path, readonly, direct, writethrough, \
             id, iommu; a value with a comma has to be in a file; see cede --help",
        ),
        (
            &["run", "--disk", "path"],
            "invalid value 'path' for '--disk <path=FILE,...>': path has to be a string; write path=…; \
             see cede --help",
        ),
        (
            &["run", "--disk", "path=a,readonly=no"],
            "invalid value 'path=a,readonly=no' for '--disk <path=FILE,...>': readonly has to be true or false; \
             write readonly=…; see cede --help",
        ),
        (
            &["run", "--disk", "path=a,path=b"],
            "invalid value 'path=a,path=b' for '--disk <path=FILE,...>': path is there twice; see cede --help",
        ),
        (
            &["run", "--vsock", "cid=2,path=a"],
            "invalid value 'cid=2,path=a' for '--vsock <cid=N,path=SOCKET>': cid: 2 is no guest's context ID; it can \
             be 3 to 4294967294; see cede --help",
        ),
        (
            &["run", "--device-threads", "0"],
            "invalid value '0' for '--device-threads <THREADS>': 0 is not a number of threads; it can be each, or \
             1 to 64; see cede --help",
        ),
        (
            &["run", "--virtio-console", "stdio"],
            "invalid value 'stdio' for '--virtio-console <WHERE>': the second console cannot be stdio; it can be \
             pty or file=PATH; see cede --help",
        ),
        (
            &["run", "--console", "tty"],
            "invalid value 'tty' for '--console <WHERE>': \"tty\" is no console; \
             it can be stdio, pty or file=PATH; see cede --help",
        ),
    ];
    for (arguments, message) in cases {
        assert_eq!(refuse(arguments), message);
    }
}

#[test]
fn a_device_without_what_it_needs_is_named() {
    let missing = |arguments: &[&str]| match Cli::try_parse_from(["cede", "run"].iter().chain(arguments))
        .unwrap()
        .command
    {
        Command::Run { vm } => vm.load().unwrap_err().to_string(),
        other => panic!("parsed {other:?}"),
    };
    assert_eq!(
        missing(&["--disk", "path=x", "--disk", "readonly"]),
        "disk 2 has no path; write path in [[disk]], or --disk path=…"
    );
    assert_eq!(missing(&["--net", ""]), "net 1 has no tap; write tap in [[net]], or --net tap=…");
    assert_eq!(
        missing(&["--vsock", "cid=3"]),
        "the vsock has no path; write path in [vsock], or --vsock path=…"
    );
}

#[test]
fn a_running_vm_is_named_and_told() {
    let parse = |arguments: &[&str]| Cli::try_parse_from(["cede"].iter().chain(arguments)).unwrap().command;
    match parse(&["set", "--run-dir", "/r", "vm", "halt_poll_ns=5", "halt_poll_ns_grow=0"]) {
        Command::Set { vm, tunables } => {
            assert_eq!((vm.vm.as_str(), vm.run_dir), ("vm", Some("/r".into())));
            let tunables: Vec<String> = tunables.iter().map(ToString::to_string).collect();
            assert_eq!(tunables, ["halt_poll_ns=5", "halt_poll_ns_grow=0"]);
        }
        other => panic!("parsed {other:?}"),
    }
    for (arguments, seconds) in [
        (&["stat", "vm"][..], None),
        (&["stat", "vm", "--watch"], Some(1)),
        (&["stat", "vm", "--watch", "5"], Some(5)),
        (&["stat", "--watch", "5", "vm"], Some(5)),
    ] {
        match parse(arguments) {
            Command::Stat { watch, json: false, .. } => assert_eq!(watch, seconds, "{arguments:?}"),
            other => panic!("parsed {other:?}"),
        }
    }
    assert!(refuse(&["set", "vm", "halt_poll_ns=x"]).contains("tunable halt_poll_ns must be a number"));
    assert!(refuse(&["stat", "vm", "--watch", "0"]).contains("0 is not in 1..=86400"));
}

/// The help of a command, or of the whole, with its lines joined: they are wrapped for the terminal.
fn help_of(command: &str) -> String {
    let arguments: Vec<&str> = ["cede", command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
    let help = Cli::try_parse_from(arguments).unwrap_err().to_string();
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn help_has_exit_codes_keys_units_and_defaults() {
    for help in [help_of(""), help_of("run")] {
        for (outcome, meaning) in TABLE {
            assert!(help.contains(&format!("{} {meaning}", outcome as u8)), "{outcome:?} in {help}");
        }
        assert!(help.contains("powers of 1024"));
    }
    let help = help_of("run");
    assert!(help.contains("Ctrl-A x stop"));
    let defaults = Settings::default().resolve().unwrap();
    for default in [defaults.memory.to_string(), defaults.name, defaults.console.to_string()] {
        assert!(help.contains(&format!("[default: {default}]")), "{default}");
    }
}

#[test]
fn the_exit_codes_are_in_order_and_usage_is_claps() {
    for (index, (outcome, _)) in TABLE.iter().enumerate() {
        assert_eq!(*outcome as usize, index);
    }
    let error = Cli::try_parse_from(["cede", "--nonsense"]).unwrap_err();
    assert_eq!(error.exit_code(), Outcome::Usage as i32);
}

#[test]
fn log_levels() {
    let filter = |arguments: &[&str]| {
        Cli::try_parse_from(["cede", "caps"].iter().chain(arguments)).unwrap().logging.filter().to_string()
    };
    assert_eq!(filter(&[]), "warn");
    assert_eq!(filter(&["-v"]), "info");
    assert_eq!(filter(&["-vv"]), "debug");
    assert_eq!(filter(&["-vvvv"]), "trace");
    assert_eq!(filter(&["--log", "devices=debug"]), "devices=debug");
    assert!(refuse(&["caps", "--log", "devices=loud"]).starts_with("invalid value 'devices=loud'"));
}
