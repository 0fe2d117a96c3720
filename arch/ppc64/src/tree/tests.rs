//! What a guest must find in the tree, for every generation, MMU and interrupt controller that go together.

use super::*;
use crate::layout;
use fdt::{Node, Tree, Value};

const PAGES_4K: &[Page] = &[
    Page { shift: 12, pte_encoding: 0 },
    Page { shift: 16, pte_encoding: 7 },
    Page { shift: 24, pte_encoding: 0x38 },
];
const PAGES_64K: &[Page] = &[Page { shift: 16, pte_encoding: 1 }, Page { shift: 24, pte_encoding: 8 }];
const PAGES_16M: &[Page] = &[Page { shift: 24, pte_encoding: 0 }];
const SEGMENTS: &[Segment] = &[
    Segment { shift: 12, slb_encoding: 0, pages: PAGES_4K },
    Segment { shift: 16, slb_encoding: 0x110, pages: PAGES_64K },
    Segment { shift: 24, slb_encoding: 0x100, pages: PAGES_16M },
];

const HASH: Mmu = Mmu::Hash(HashMmu {
    htab_order: 24,
    slb_size: 32,
    one_tib_segments: true,
    segments: SEGMENTS,
    page_shift_max: Some(16),
});
const RADIX: Mmu =
    Mmu::Radix { ap_encodings: &[0xc, 0xa000_0010, 0x2000_0015, 0x4000_001e, 0, 0], gtse: true };
const XIVE: InterruptController = InterruptController::Xive {
    tima_user: layout::XIVE_TIMA_USER,
    tima_os: layout::XIVE_TIMA_OS,
    first_ipi: layout::IRQ_IPI,
    ipis: 4,
};

const RTAS: Rtas = Rtas {
    base: 0x0fff_0000,
    size: 0x1_0000,
    entry: 0x0fff_0000,
    functions: &[
        ("power-off", 0x2003),
        ("ibm,os-term", 0x201f),
        ("check-exception", 0x200e),
        ("ibm,query-interrupt-source-number", 0x2018),
    ],
    hypercalls: &["hcall-pft", "hcall-term", "hcall-splpar", "hcall-set-mode"],
};

fn spec(generation: Generation, mmu: Mmu<'static>, interrupts: InterruptController) -> TreeSpec<'static> {
    TreeSpec {
        identity: Identity { model: "IBM pSeries (cede)", uuid: None, name: None },
        boot: Boot {
            cmdline: "console=hvc0",
            initrd: Some(Initrd { start: 0x1000_0000, end: 0x1012_3456 }),
            rng_seed: Some([7; 32]),
        },
        topology: Topology { vcpus: 4, threads: 2, stride: 8 },
        cpu: Cpu {
            generation,
            version: Version::Architecture,
            timebase_hz: 512_000_000,
            clock_hz: 3_800_000_000,
            dcache: Cache { size: 0x8000, line: 128 },
            icache: Cache { size: 0x8000, line: 128 },
            large_decrementer: None,
            facilities: Facilities::default(),
        },
        mmu,
        memory: Memory { size: 0x8000_0000, rma: 0x4000_0000 },
        interrupts,
        rtas: RTAS,
        pci: &[],
        vtys: &[Vty { reg: layout::VIO_REG, interrupt: Some(layout::IRQ_VIO) }],
        events: Events { epow: Some(layout::IRQ_EPOW), hotplug: None },
        random: true,
    }
}

/// Every combination that exists.
fn all() -> Vec<TreeSpec<'static>> {
    let mut specs = vec![spec(Generation::Power8, HASH, InterruptController::Xics)];
    for generation in [Generation::Power9, Generation::Power10] {
        for mmu in [HASH, RADIX] {
            specs.extend([InterruptController::Xics, XIVE].map(|intc| spec(generation, mmu, intc)));
        }
    }
    specs
}

pub(super) fn power9() -> TreeSpec<'static> {
    spec(Generation::Power9, RADIX, XIVE)
}

pub(super) fn cells(tree: &Tree, path: &str, property: &str) -> Vec<u32> {
    let value = tree.node(path).unwrap_or_else(|| panic!("no {path}")).get(property);
    value.unwrap_or_else(|| panic!("no {property} in {path}")).to_cells().unwrap()
}

fn cpus(tree: &Tree) -> Vec<&Node> {
    tree.node("/cpus").unwrap().iter_children().collect()
}

#[test]
fn every_tree_has_what_linux_stops_without() {
    for spec in all() {
        let tree = build(&spec).unwrap();
        assert_eq!(tree.root().get("device_type"), Some(&Value::String("chrp".into())));
        let rtas = tree.node("/rtas").unwrap();
        let Some(Value::StringList(sets)) = rtas.get("ibm,hypertas-functions") else {
            panic!("no hypercalls")
        };
        assert!(sets.iter().any(|set| set == "hcall-set-mode"));
        assert!(cpus(&tree).iter().all(|cpu| cpu.get("ibm,vmx") == Some(&Value::Cells(vec![2.into()]))));
        assert_eq!(cells(&tree, "/memory@0", "reg"), [0, 0, 0, 0x4000_0000]);
        let controllers: Vec<_> =
            tree.root().iter_children().filter(|n| n.name().starts_with("interrupt-controller")).collect();
        assert_eq!(controllers.len(), 1);
        assert!(controllers[0].get_phandle().is_some());
    }
}

#[test]
fn every_tree_flattens_and_its_boot_cpu_is_a_server() {
    for spec in all() {
        let tree = build(&spec).unwrap();
        tree.to_dtb().unwrap();
        let servers: Vec<u32> = cpus(&tree)
            .iter()
            .flat_map(|cpu| cpu.get("ibm,ppc-interrupt-server#s").unwrap().to_cells().unwrap())
            .collect();
        assert_eq!(servers, [0, 1, 8, 9]);
        assert!(servers.contains(&tree.boot_cpuid_phys()));
    }
}

/// Only where dtc is installed. (Of its further checks, property_name_chars_strict dislikes the '#' in PAPR's
/// `ibm,ppc-interrupt-server#s`.)
#[test]
fn dtc_has_nothing_to_complain_of() {
    for (n, spec) in all().iter().enumerate() {
        let file = std::env::temp_dir().join(format!("cede-tree-{}-{n}.dtb", std::process::id()));
        std::fs::write(&file, build(spec).unwrap().to_dtb().unwrap()).unwrap();
        let mut dtc = std::process::Command::new("dtc");
        let output = dtc.args(["-I", "dtb", "-O", "dts", "-W", "node_name_chars_strict"]).arg(&file).output();
        std::fs::remove_file(&file).unwrap();
        let Ok(output) = output else {
            eprintln!("skipped: no dtc; the Debian package is device-tree-compiler");
            return;
        };
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaints.is_empty(), "{:?}: {complaints}", spec.cpu.generation);
    }
}

#[test]
fn server_numbers() {
    let topology = Topology { vcpus: 4, threads: 2, stride: 8 };
    assert_eq!([0, 1, 2, 3].map(|n| topology.server(n)), [0, 1, 8, 9]);
    assert_eq!(topology.server_limit(), 10);
    let tree = build(&power9()).unwrap();
    assert_eq!(cpus(&tree)[1].name(), "PowerPC,POWER9@8");
    assert_eq!(cells(&tree, "/cpus/PowerPC,POWER9@8", "reg"), [8]);
    assert_eq!(cells(&tree, "/cpus/PowerPC,POWER9@8", "ibm,ppc-interrupt-gserver#s"), [8, 0, 9, 0]);
}

#[test]
fn vec_5_states_the_mmu_and_the_interrupt_controller() {
    for spec in all() {
        let tree = build(&spec).unwrap();
        let vector = tree.node("/chosen").unwrap().get("ibm,architecture-vec-5").unwrap().to_bytes();
        let radix = matches!(spec.mmu, Mmu::Radix { .. });
        let xive = spec.interrupts != InterruptController::Xics;
        let mut wanted = vec![0; 27];
        (wanted[0], wanted[2]) = (25, 0xc0);
        wanted[23] = if xive { 0x40 } else { 0 };
        (wanted[24], wanted[26]) = if radix { (0x40, 0x40) } else { (0, 0) };
        assert_eq!(vector, wanted);
    }
    let mut spec = power9();
    spec.mmu = Mmu::Radix { ap_encodings: &[12], gtse: false };
    spec.rtas.hypercalls = &["hcall-set-mode", "hcall-rpt-invalidate"];
    let tree = build(&spec).unwrap();
    let vector = tree.node("/chosen").unwrap().get("ibm,architecture-vec-5").unwrap().to_bytes();
    assert_eq!((vector[2], vector[24], vector[26]), (0x80, 0x40, 0), "no splpar, radix, no GTSE");
}

#[test]
fn each_mmu_has_its_own_properties_alone() {
    let hash =
        ["ibm,pft-size", "ibm,segment-page-sizes", "ibm,processor-segment-sizes", "ibm,slb-size", "slb-size"];
    let radix = ["ibm,processor-radix-AP-encodings"];
    for spec in all() {
        let tree = build(&spec).unwrap();
        let (has, has_not): (&[&str], &[&str]) =
            if matches!(spec.mmu, Mmu::Radix { .. }) { (&radix, &hash) } else { (&hash, &radix) };
        for cpu in cpus(&tree) {
            assert!(has.iter().all(|name| cpu.get(name).is_some()));
            assert!(has_not.iter().all(|name| cpu.get(name).is_none()));
        }
    }
    let tree = build(&power9()).unwrap();
    let encodings = cells(&tree, "/cpus/PowerPC,POWER9@0", radix[0]);
    assert_eq!(encodings, [0xc, 0xa000_0010, 0x2000_0015, 0x4000_001e]);
}

#[test]
fn hash_pages_are_no_larger_than_their_backing() {
    let sizes = |page_shift_max| {
        let Mmu::Hash(hash) = HASH else { unreachable!() };
        let mmu = Mmu::Hash(HashMmu { page_shift_max, ..hash });
        let tree = build(&spec(Generation::Power8, mmu, InterruptController::Xics))?;
        Ok::<_, Error>(cells(&tree, "/cpus/PowerPC,POWER8@0", "ibm,segment-page-sizes"))
    };
    assert_eq!(sizes(Some(12)).unwrap(), [12, 0, 1, 12, 0]);
    assert_eq!(sizes(Some(16)).unwrap(), [12, 0, 2, 12, 0, 16, 7, 16, 0x110, 1, 16, 1]);
    let everything = sizes(None).unwrap();
    assert_eq!(
        everything,
        [12, 0, 3, 12, 0, 16, 7, 24, 0x38, 16, 0x110, 2, 16, 1, 24, 8, 24, 0x100, 1, 24, 0]
    );
    assert_eq!(sizes(Some(11)), Err(Error::NoPageSizes { least: 0x1000 }));
}

#[test]
fn pa_features_of_each_generation() {
    let bytes = |spec: &TreeSpec| {
        let tree = build(spec).unwrap();
        cpus(&tree)[0].get("ibm,pa-features").unwrap().to_bytes()
    };
    let power8 = bytes(&spec(Generation::Power8, HASH, InterruptController::Xics));
    let isa_2_07 = [
        24, 0, 0xf6, 0x1f, 0xc7, 0xc0, 0, 0xf0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x80, 0, 0x80, 0,
        0, 0,
    ];
    assert_eq!(power8, isa_2_07);

    let power9 = bytes(&power9());
    assert_eq!((power9.len(), power9[0]), (68, 66));
    assert_eq!(power9[2..26], isa_2_07[2..]);
    assert_eq!(power9[2 + 40], 0x80, "radix");
    assert_eq!(bytes(&spec(Generation::Power9, HASH, XIVE))[2 + 40], 0, "no radix for a hash guest");

    let mut power10 = spec(Generation::Power10, RADIX, XIVE);
    assert_eq!(bytes(&power10)[2 + 64..], [0, 0, 0, 0, 0xce, 0, 0, 0, 0x80, 0]);
    power10.cpu.facilities =
        Facilities { cache_inhibited_large_pages: true, transactional_memory: true, second_dawr: true };
    let all = bytes(&power10);
    assert_eq!((all[2 + 1], all[2 + 22], all[2 + 64]), (0x3f, 0x80, 0x80));
}

#[test]
fn cpu_version_is_the_chips_or_the_architectures() {
    for (generation, logical) in [
        (Generation::Power8, 0x0f00_0004),
        (Generation::Power9, 0x0f00_0005),
        (Generation::Power10, 0x0f00_0006),
    ] {
        let mut spec = spec(generation, HASH, InterruptController::Xics);
        let path = format!("/cpus/PowerPC,{}@0", generation.name());
        assert_eq!(cells(&build(&spec).unwrap(), &path, "cpu-version"), [logical]);
        spec.cpu.version = Version::Chip(0x004e_1202);
        assert_eq!(cells(&build(&spec).unwrap(), &path, "cpu-version"), [0x004e_1202]);
    }
}

#[test]
fn the_large_decrementer_is_there_only_when_given() {
    let mut spec = power9();
    assert!(cpus(&build(&spec).unwrap())[0].get("ibm,dec-bits").is_none());
    spec.cpu.large_decrementer = Some(56);
    assert_eq!(cells(&build(&spec).unwrap(), "/cpus/PowerPC,POWER9@0", "ibm,dec-bits"), [56]);
}

#[test]
fn xics_and_xive_nodes() {
    let xics = build(&spec(Generation::Power9, RADIX, InterruptController::Xics)).unwrap();
    assert_eq!(cells(&xics, "/interrupt-controller", "ibm,interrupt-server-ranges"), [0, 10]);
    assert!(xics.root().get("ibm,plat-res-int-priorities").is_none());

    let xive = build(&power9()).unwrap();
    let path = "/interrupt-controller@60302031b0000";
    let [user, os] = [[0x6_0302, 0x031b_0000, 0, 0x1_0000], [0x6_0302, 0x031a_0000, 0, 0x1_0000]];
    assert_eq!(cells(&xive, path, "reg"), [user, os].concat());
    assert_eq!(cells(&xive, path, "ibm,xive-eq-sizes"), [16]);
    assert_eq!(cells(&xive, path, "ibm,xive-lisn-ranges"), [0, 4]);
    assert_eq!(cells(&xive, "/", "ibm,plat-res-int-priorities"), [7, 0xf8]);
}

#[test]
fn memory_is_one_node_or_two() {
    let mut spec = power9();
    spec.memory = Memory { size: 0x1_8000_0000, rma: 0x4000_0000 };
    let tree = build(&spec).unwrap();
    assert_eq!(cells(&tree, "/memory@0", "reg"), [0, 0, 0, 0x4000_0000]);
    assert_eq!(cells(&tree, "/memory@40000000", "reg"), [0, 0x4000_0000, 1, 0x4000_0000]);
    spec.memory.rma = spec.memory.size;
    let tree = build(&spec).unwrap();
    assert_eq!(cells(&tree, "/memory@0", "reg"), [0, 0, 1, 0x8000_0000]);
    assert!(!tree.root().iter_children().any(|n| n.name() == "memory@40000000"));
}

#[test]
fn rtas_functions_are_properties() {
    let tree = build(&power9()).unwrap();
    assert_eq!(cells(&tree, "/rtas", "power-off"), [0x2003]);
    assert_eq!(cells(&tree, "/rtas", "ibm,query-interrupt-source-number"), [0x2018]);
    assert_eq!(cells(&tree, "/rtas", "linux,rtas-entry"), [0x0fff_0000]);
    let rtas = tree.node("/rtas").unwrap();
    assert!(rtas.get("ibm,extended-os-term").is_some(), "ibm,os-term is there");
    assert!(rtas.get("ibm,change-msix-capable").is_none(), "ibm,change-msi is not");
    assert_eq!(tree.reservations(), [fdt::Reservation { address: 0x0fff_0000, size: 0x1_0000 }]);
}

#[test]
fn what_is_handed_to_the_kernel() {
    let tree = build(&power9()).unwrap();
    let chosen = tree.node("/chosen").unwrap();
    assert_eq!(chosen.get("bootargs"), Some(&Value::String("console=hvc0".into())));
    assert_eq!(chosen.get("linux,initrd-start"), Some(&Value::U64(0x1000_0000)));
    assert_eq!(chosen.get("linux,initrd-end"), Some(&Value::U64(0x1012_3456)));
    assert_eq!(chosen.get("rng-seed"), Some(&Value::Bytes(vec![7; 32])));
    let Some(Value::String(console)) = chosen.get("stdout-path") else { panic!("no stdout-path") };
    assert_eq!(cells(&tree, console, "interrupts"), [0x1100, 0]);
    assert_eq!(cells(&tree, "/event-sources/epow-events", "interrupts"), [0x1000, 0]);
    assert_eq!(cells(&tree, "/event-sources", "interrupt-ranges"), [0x1000, 1]);
}

#[test]
fn what_is_absent_has_no_node() {
    let mut spec = power9();
    (spec.vtys, spec.events, spec.random) = (&[], Events::default(), false);
    (spec.boot.initrd, spec.boot.rng_seed) = (None, None);
    let tree = build(&spec).unwrap();
    assert!(tree.node("/event-sources").is_none());
    assert!(tree.node("/ibm,platform-facilities").is_none());
    let chosen = tree.node("/chosen").unwrap();
    for property in ["stdout-path", "linux,initrd-start", "linux,initrd-end", "rng-seed"] {
        assert!(chosen.get(property).is_none(), "{property}");
    }
    spec.vtys = &[Vty { reg: 0x7100_0000, interrupt: None }];
    assert!(build(&spec).unwrap().node("/vdevice/vty@71000000").unwrap().get("interrupts").is_none());
}

/// The error that a change to a valid specification brings.
fn refused(change: impl FnOnce(&mut TreeSpec<'static>)) -> Error {
    let mut spec = power9();
    change(&mut spec);
    build(&spec).unwrap_err()
}

#[test]
fn numbers_of_vcpus_that_cannot_be() {
    let topology = |vcpus, threads, stride| refused(|s| s.topology = Topology { vcpus, threads, stride });
    assert_eq!(topology(0, 1, 1), Error::WholeCores { vcpus: 0, threads: 1 });
    assert_eq!(topology(3, 2, 8), Error::WholeCores { vcpus: 3, threads: 2 });
    for (threads, stride) in [(3, 4), (4, 2), (0, 1), (2, 6)] {
        assert_eq!(topology(12, threads, stride), Error::Threads { threads, stride });
    }
    let vcpus = 1 << 30;
    assert_eq!(topology(vcpus, 1, 8), Error::TooManyServers { vcpus, stride: 8 });
    assert_eq!(topology(5, 1, 1), Error::TooFewIpis { ipis: 4, vcpus: 5 });
}

#[test]
fn memory_that_cannot_be() {
    let memory = |size, rma| refused(|s| s.memory = Memory { size, rma });
    assert_eq!(memory(0, 0), Error::MemorySize { size: 0 });
    assert_eq!(memory(0x1_8000, 0x1_0000), Error::MemorySize { size: 0x1_8000 });
    for rma in [0, 0x8000, 0x3_0000] {
        assert_eq!(memory(0x2_0000, rma), Error::Rma { rma, size: 0x2_0000 });
    }
}

#[test]
fn rtas_that_cannot_be() {
    let rtas = |change: fn(&mut Rtas)| refused(|s| change(&mut s.rtas));
    let place = |base, size, entry| Error::RtasPlace { base, size, entry };
    assert_eq!(rtas(|r| r.size = 0), place(0x0fff_0000, 0, 0x0fff_0000));
    assert_eq!(rtas(|r| r.entry = 0x1000_0000), place(0x0fff_0000, 0x1_0000, 0x1000_0000));
    let beyond = rtas(|r| (r.base, r.entry) = (0x4000_0000, 0x4000_0000));
    assert_eq!(beyond, place(0x4000_0000, 0x1_0000, 0x4000_0000), "in memory, but not in the real-mode area");
    for token in [0, u32::MAX] {
        let functions: &[(&str, u32)] = if token == 0 { &[("a", 0)] } else { &[("a", u32::MAX)] };
        assert_eq!(refused(|s| s.rtas.functions = functions), Error::Token { name: "a".into(), token });
    }
    assert_eq!(rtas(|r| r.hypercalls = &[]), Error::NoHypercalls);
    let twice = rtas(|r| r.functions = &[("rtas-size", 1)]);
    let wanted = fdt::Error::DuplicateProperty { path: "/rtas".into(), name: "rtas-size".into() };
    assert_eq!(twice, Error::Tree(wanted));
}

#[test]
fn initrds_that_cannot_be() {
    let initrd = |start, end| refused(|s| s.boot.initrd = Some(Initrd { start, end }));
    let place = |start, end| Error::InitrdPlace { start, end, size: 0x8000_0000 };
    assert_eq!(initrd(0x1000, 0x1000), place(0x1000, 0x1000));
    assert_eq!(initrd(0x2000, 0x1000), place(0x2000, 0x1000));
    assert_eq!(initrd(0x1000, 0x8000_0001), place(0x1000, 0x8000_0001));
    let over = |start, end| Error::InitrdOverRtas { start, end, base: 0x0fff_0000 };
    assert_eq!(initrd(0x0ffe_0000, 0x0fff_0001), over(0x0ffe_0000, 0x0fff_0001));
    assert_eq!(initrd(0x0fff_ffff, 0x2000_0000), over(0x0fff_ffff, 0x2000_0000));
}

#[test]
fn processors_lack_what_came_later() {
    let power8 = |mmu, interrupts| build(&spec(Generation::Power8, mmu, interrupts)).unwrap_err();
    let lacks = |what| Error::NotOnThisProcessor { generation: "POWER8", what };
    assert_eq!(power8(RADIX, InterruptController::Xics), lacks("radix translation"));
    assert_eq!(power8(HASH, XIVE), lacks("XIVE"));
    assert_eq!(refused(|s| s.mmu = Mmu::Radix { ap_encodings: &[12], gtse: false }), Error::NoInvalidation);
}
