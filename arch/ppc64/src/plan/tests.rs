//! Which machine comes out, for which host and which wish, and every refusal.

use super::*;
use crate::boot::Placement;
use crate::tree_spec::{assumed_host, dtb};
use Generation::{Power8, Power9, Power10};
use Irqchip::{Xics, Xive};
use MmuKind::{Hash, Radix};
use arch_api::ppc64::CedeRoute;

const GIB: u64 = 1 << 30;

fn wish() -> Wish {
    Wish {
        name: "ada".into(),
        cpus: 4,
        threads: 1,
        memory: GIB,
        cpu: None,
        mmu: None,
        irqchip: None,
        plane: None,
        polls: false,
        cmdline: "console=hvc0".into(),
    }
}

type Asked = (Option<Generation>, Option<MmuKind>, Option<Irqchip>);
type Chosen = (Generation, bool, MmuKind, Irqchip);

fn choose(host: &Host, (cpu, mmu, irqchip): Asked) -> Result<Plan, PlanError> {
    Plan::choose(Wish { cpu, mmu, irqchip, ..wish() }, host)
}

fn chosen(plan: &Plan) -> Chosen {
    let mmu = if plan.spec.mmu == Mmu::Radix { Radix } else { Hash };
    (plan.generation, plan.spec.compat.is_some(), mmu, plan.spec.irqchip)
}

const NOT_P8: PlanError = PlanError::NoXive("a POWER8 guest does not know it");

/// (host, wish) → (generation, whether by its level, MMU, interrupt controller).
#[test]
fn decisions() {
    let newer = |wanted, host| Err(PlanError::Newer { wanted, host });
    let table: &[(Generation, Asked, Result<Chosen, PlanError>)] = &[
        (Power8, (None, None, None), Ok((Power8, false, Hash, Xics))),
        (Power8, (Some(Power8), Some(Hash), Some(Xics)), Ok((Power8, false, Hash, Xics))),
        (Power8, (None, Some(Radix), None), Err(PlanError::NoRadix)),
        (Power8, (None, None, Some(Xive)), Err(NOT_P8)),
        (Power8, (Some(Power9), None, None), newer("POWER9", "POWER8")),
        (Power9, (None, None, None), Ok((Power9, false, Radix, Xive))),
        (Power9, (None, Some(Hash), None), Ok((Power9, false, Hash, Xive))),
        (Power9, (None, None, Some(Xics)), Ok((Power9, false, Radix, Xics))),
        (Power9, (None, Some(Hash), Some(Xics)), Ok((Power9, false, Hash, Xics))),
        (Power9, (Some(Power8), None, None), Ok((Power8, true, Hash, Xics))),
        (Power9, (Some(Power8), Some(Radix), None), Err(PlanError::NoRadix)),
        (Power9, (Some(Power8), None, Some(Xive)), Err(NOT_P8)),
        (Power9, (Some(Power10), None, None), newer("POWER10", "POWER9")),
        (Power10, (None, None, None), Ok((Power10, false, Radix, Xive))),
        (Power10, (Some(Power9), None, None), Ok((Power9, true, Radix, Xive))),
        (Power10, (Some(Power9), Some(Hash), Some(Xics)), Ok((Power9, true, Hash, Xics))),
        (Power10, (Some(Power8), None, None), Ok((Power8, true, Hash, Xics))),
    ];
    for (host, asked, expected) in table {
        let plan = choose(&assumed_host(*host), *asked);
        assert_eq!(plan.as_ref().map(chosen), expected.as_ref().copied(), "{host:?} {asked:?}");
        if let Ok(plan) = plan {
            assert_eq!(plan.reasons.len(), 4, "{:?}", plan.reasons);
            // Nothing is planned that the tree cannot describe.
            dtb(&plan, &Placement::NOMINAL, &[], None).unwrap();
        }
    }
}

/// A host that lacks something.
#[test]
fn what_the_host_lacks() {
    type Lack = fn(&mut Host);
    let anything = (None, None, None);
    let table: &[(Lack, Asked, Result<Chosen, PlanError>)] = &[
        (|h| h.radix = false, anything, Ok((Power9, false, Hash, Xive))),
        (|h| h.radix = false, (None, Some(Radix), None), Err(PlanError::NoRadix)),
        (|h| h.hash = false, anything, Ok((Power9, false, Radix, Xive))),
        (|h| h.hash = false, (None, Some(Hash), None), Err(PlanError::NoHash)),
        (|h| h.hash = false, (Some(Power8), None, None), Err(PlanError::NoHash)),
        (|h| (h.hash, h.radix) = (false, false), anything, Err(PlanError::NoHash)),
        (|h| h.xive = false, anything, Ok((Power9, false, Radix, Xics))),
        (
            |h| h.xive = false,
            (None, None, Some(Xive)),
            Err(PlanError::NoXive("the host's KVM has none (KVM_CAP_PPC_IRQ_XIVE is 0)")),
        ),
        (|h| h.page_size = 4096, anything, Ok((Power9, false, Radix, Xics))),
        (
            |h| h.page_size = 4096,
            (None, None, Some(Xive)),
            Err(PlanError::NoXive("the host's pages are not 64 KiB, as the controller's are")),
        ),
        (|h| h.xics = false, anything, Ok((Power9, false, Radix, Xive))),
        (|h| h.xics = false, (None, None, Some(Xics)), Err(PlanError::NoXics)),
        (|h| (h.xics, h.xive) = (false, false), anything, Err(PlanError::NoXics)),
    ];
    for (index, (lack, asked, expected)) in table.iter().enumerate() {
        let mut host = assumed_host(Power9);
        lack(&mut host);
        let plan = choose(&host, *asked);
        assert_eq!(plan.as_ref().map(chosen), expected.as_ref().copied(), "row {index}");
    }
}

#[test]
fn refusals_say_what_to_ask_for() {
    let table: &[(PlanError, &str)] = &[
        (
            PlanError::Newer { wanted: "POWER10", host: "POWER9" },
            "the guest is to see a POWER10, this host is a POWER9; ask for that or an older one",
        ),
        (
            PlanError::Threads { threads: 3, mask: 0b1011 },
            "3 threads per core are not possible here; KVM allows 1, 2, 8",
        ),
        (
            PlanError::PartialCore { cpus: 6, threads: 4 },
            "6 vCPUs do not fill cores of 4 threads; give a multiple",
        ),
        (
            PlanError::TooManyCpus { cpus: 9, max: 8 },
            "9 vCPUs are more than this host's KVM allows, which is 8",
        ),
        (
            PlanError::PartialPage { memory: 70_000 },
            "70000 bytes of memory do not fill pages of 64 KiB; give a multiple of 64 KiB",
        ),
        (
            PlanError::NoRadix,
            "a radix MMU needs a guest CPU of POWER9 or later and a host that has one; ask for hash",
        ),
        (
            PlanError::NoHash,
            "this host's KVM cannot run hash guests (KVM_CAP_PPC_MMU_HASH_V3 is 0); \
             ask for radix and a guest CPU of POWER9 or later",
        ),
        (NOT_P8, "XIVE is not possible here: a POWER8 guest does not know it; ask for xics"),
        (
            PlanError::NoVmmPlane("tracefs is not mounted".into()),
            "the vmm plane is not possible here: tracefs is not mounted; or ask for the kernel plane (--plane kernel)",
        ),
        (
            PlanError::XiveOnVmmPlane,
            "the vmm plane has a XICS and no XIVE, which only KVM can give; ask for xics, or for the kernel plane",
        ),
        (PlanError::NoXics, "this host's KVM has no XICS (KVM_CAP_IRQ_XICS is 0)"),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), *text);
    }
}

#[test]
fn reasons_are_given_in_a_line_each() {
    let reasons = |asked| choose(&assumed_host(Power9), asked).unwrap().reasons;
    assert_eq!(
        reasons((None, None, None)),
        [
            "cpu: POWER9, the host's own",
            "mmu: radix, host and guest have it",
            "plane: kernel, it costs least where polling does not pay; assist is possible, and polls before it sleeps",
            "irqchip: xive, the host's KVM has it"
        ]
    );
    assert_eq!(
        reasons((Some(Power8), None, None)),
        [
            "cpu: POWER8, as asked, by its architecture level",
            "mmu: hash, POWER8 has nothing else",
            "plane: kernel, its interrupt controller spares the guest exits; vmm is possible, and polls before it sleeps",
            "irqchip: xics, a POWER8 guest does not know it"
        ]
    );
    assert_eq!(
        reasons((Some(Power9), Some(Hash), Some(Xics))),
        [
            "cpu: POWER9, the host's own",
            "mmu: hash, as asked",
            "plane: kernel, its interrupt controller spares the guest exits; vmm is possible, and polls before it sleeps",
            "irqchip: xics, as asked"
        ]
    );
}

#[test]
fn processors_without_a_pvr_for_guests_show_their_level() {
    let power11 = Host { pvr: 0x0082_0200, ..assumed_host(Power10) };
    let plan = choose(&power11, (None, None, None)).unwrap();
    assert_eq!(plan.spec.compat, Some(0x0f00_0006));
    let level = |cpu| choose(&assumed_host(Power10), (Some(cpu), None, None)).unwrap().spec.compat;
    assert_eq!([Power8, Power9, Power10].map(level), [Some(0x0f00_0004), Some(0x0f00_0005), None]);
}

#[test]
fn topologies() {
    let host = |smt_possible| Host { smt_possible, max_vcpus: 16, max_vcpu_id: 64, ..assumed_host(Power9) };
    let try_it = |cpus, threads, mask| {
        let plan = Plan::choose(Wish { cpus, threads, ..wish() }, &host(mask));
        plan.map(|plan| plan.spec.servers)
    };
    assert_eq!(try_it(4, 4, 0b1111), Ok(vec![0, 1, 2, 3]));
    assert_eq!(try_it(16, 8, 0b1111), Ok((0..16).collect()));
    for (threads, mask) in
        [(0, 0b1111), (3, 0b1111), (16, 0b1_1111), (2, 0b1101), (8, 0b0111), (u32::MAX, 0b1111)]
    {
        assert_eq!(
            try_it(16, threads, mask),
            Err(PlanError::Threads { threads, mask }),
            "{threads} {mask:#b}"
        );
    }
    for (cpus, threads) in [(0, 1), (6, 4), (1, 2)] {
        assert_eq!(try_it(cpus, threads, 0b1111), Err(PlanError::PartialCore { cpus, threads }));
    }
    for cpus in [17, u32::MAX] {
        assert_eq!(try_it(cpus, 1, 0b1111), Err(PlanError::TooManyCpus { cpus, max: 16 }));
    }
}

#[test]
fn memory_is_whole_pages() {
    for memory in [0, 1, 4096, GIB + 4096, u64::MAX] {
        let plan = Plan::choose(Wish { memory, ..wish() }, &assumed_host(Power9)).map(|_| ());
        assert_eq!(plan, Err(PlanError::PartialPage { memory }));
    }
}

#[test]
fn the_hash_table_is_a_128th_of_memory() {
    let table = [
        (64 << 10, 18),
        (32 << 20, 18),
        (64 << 20, 19),
        (GIB, 23),
        (GIB + 1, 24),
        (2 * GIB, 24),
        (3 * GIB, 25),
        (1 << 46, 39),
        (u64::MAX, 46),
    ];
    for (memory, order) in table {
        assert_eq!(htab_order(memory), order, "{memory:#x}");
    }
}

#[test]
fn the_real_mode_area_is_what_the_hash_table_can_map() {
    let rma = |mmu, page_size, memory| {
        let host = Host { page_size, xive: false, ..assumed_host(Power9) };
        Plan::choose(Wish { mmu: Some(mmu), memory, ..wish() }, &host).unwrap().rma()
    };
    assert_eq!(rma(Radix, 4096, 64 * GIB), 64 * GIB);
    // 2^23 bytes of table have 2^16 groups; an eighth of their entries maps as many pages.
    assert_eq!(rma(Hash, 4096, GIB), GIB / 4);
    assert_eq!(rma(Hash, 64 << 10, GIB), GIB);
    assert_eq!(rma(Hash, 4096, 4 << 20), 4 << 20, "a small guest's least table maps it all");
}

#[test]
fn sources_ascend_and_ipis_are_for_xive_guests() {
    let sources = |irqchip| choose(&assumed_host(Power9), (None, None, Some(irqchip))).unwrap().sources();
    let edge = |numbers: &[u32]| numbers.iter().map(|&number| (number, Trigger::Edge)).collect::<Vec<_>>();
    assert_eq!(sources(Xics), edge(&[0x1000, 0x1100]));
    assert_eq!(sources(Xive), edge(&[0, 1, 2, 3, 0x1000, 0x1100]));
}

#[test]
fn kvm_takes_the_hcalls_and_rtas_calls_that_it_has() {
    let host = assumed_host(Power9);
    let spec =
        |irqchip, hwrng| choose(&Host { hwrng, ..host.clone() }, (None, None, Some(irqchip))).unwrap().spec;
    assert!(spec(Xive, true).hcalls.contains(&H_RANDOM));
    assert!(!spec(Xive, false).hcalls.contains(&H_RANDOM));
    assert_eq!(spec(Xive, true).rtas, []);
    let names: Vec<_> = spec(Xics, true).rtas.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, rtas::XICS_CALLS);
    let ours = crate::hcall::TABLE.iter().map(|hcall| hcall.nr);
    let both: Vec<_> = ours.filter(|nr| KERNEL_HCALLS.contains(nr)).collect();
    assert_eq!(both, [crate::papr::nr::H_SET_MODE], "KVM passes on only what H_SET_MODE leaves");
}

#[test]
fn planes() {
    let plane = |host: &Host, plane, irqchip| Plan::choose(Wish { plane, irqchip, ..wish() }, host);
    let mut host = assumed_host(Power9);
    let plan = plane(&host, Some(PlaneKind::Vmm), None).unwrap();
    assert_eq!((plan.spec.plane, plan.spec.irqchip), (Plane::Vmm(CedeRoute::Event(0)), Xics));
    assert!(plan.spec.rtas.is_empty(), "the XICS's calls are cede's own");
    assert!(plan.hypertas(true).contains(&"hcall-join"));
    assert!(plan.reasons.contains(&"irqchip: xics, the vmm plane's own".into()), "{:?}", plan.reasons);
    assert_eq!(plane(&host, Some(PlaneKind::Vmm), Some(Xive)).unwrap_err(), PlanError::XiveOnVmmPlane);
    // KVM's XICS is not needed there.
    (host.xics, host.xive) = (false, false);
    assert!(plane(&host, Some(PlaneKind::Vmm), Some(Xics)).is_ok());

    let power8 = plane(&assumed_host(Power8), Some(PlaneKind::Vmm), None).unwrap();
    assert_eq!(power8.spec.plane, Plane::Vmm(CedeRoute::Hcall));

    let mut host = assumed_host(Power10);
    host.cede = Err("tracefs is not mounted".into());
    let refused = PlanError::NoVmmPlane("tracefs is not mounted".into());
    assert_eq!(plane(&host, Some(PlaneKind::Vmm), None).unwrap_err(), refused);
    for asked in [None, Some(PlaneKind::Kernel)] {
        let plan = plane(&host, asked, None).unwrap();
        assert_eq!((plan.spec.plane, plan.spec.irqchip), (Plane::Kernel, Xive));
        assert!(!plan.hypertas(true).contains(&"hcall-join"), "a joined vCPU could not be woken");
        let told = plan
            .reasons
            .contains(&"plane: kernel, vmm and assist are not possible: tracefs is not mounted".into());
        assert_eq!(told, asked.is_none(), "{:?}", plan.reasons);
    }
}

#[test]
fn the_assist_plane_needs_a_xive_and_the_event() {
    let assist = |host: &Host, cpu, irqchip| {
        Plan::choose(Wish { plane: Some(PlaneKind::Assist), cpu, irqchip, ..wish() }, host)
    };
    for generation in [Power9, Power10] {
        let plan = assist(&assumed_host(generation), None, None).unwrap();
        assert_eq!((plan.spec.plane, plan.spec.irqchip), (Plane::Assist(0), Xive));
        assert!(!plan.hypertas(true).contains(&"hcall-join"), "KVM owns H_PROD");
        assert!(plan.reasons.contains(&"plane: assist, as asked".into()), "{:?}", plan.reasons);
    }
    let refused = |host: &Host, cpu, irqchip, why: &str| {
        let error = assist(host, cpu, irqchip).unwrap_err();
        assert!(matches!(&error, PlanError::NoAssistPlane(text) if text.contains(why)), "{error}");
        assert!(error.to_string().contains("--plane kernel"), "{error}");
    };
    let host = assumed_host(Power9);
    refused(&assumed_host(Power8), None, None, "a POWER8 guest does not know it");
    refused(&host, Some(Power8), None, "a POWER8 guest does not know it");
    refused(&host, None, Some(Xics), "ask for xive");
    refused(&Host { xive: false, ..host.clone() }, None, None, "KVM_CAP_PPC_IRQ_XIVE");
    refused(&Host { cede: Err("no tracefs".into()), ..host.clone() }, None, None, "no tracefs");
    refused(&Host { cede: Ok(CedeRoute::Hcall), ..host }, None, None, "POWER8");
}

/// On POWER9 and later only cede polls, and of its planes the assist plane costs least.
#[test]
fn who_sets_halt_poll_ns_gets_a_plane_that_polls() {
    let plane = |host: &Host, polls, irqchip| {
        let plan = Plan::choose(Wish { polls, irqchip, ..wish() }, host).unwrap();
        (plan.spec.plane, plan.reasons.iter().find(|reason| reason.starts_with("plane: ")).unwrap().clone())
    };
    let host = assumed_host(Power9);
    assert_eq!(plane(&host, true, None).0, Plane::Assist(0));
    assert_eq!(plane(&host, false, None).0, Plane::Kernel);
    assert_eq!(plane(&assumed_host(Power8), true, None).0, Plane::Kernel);
    let (kernel, why) = plane(&host, true, Some(Xics));
    assert_eq!(kernel, Plane::Kernel);
    assert!(why.contains("without halt polling") && why.contains("ask for xive"), "{why}");
    let (kernel, why) = plane(&Host { cede: Err("no tracefs".into()), ..host }, true, None);
    assert!(kernel == Plane::Kernel && why.contains("no tracefs"), "{why}");
}
