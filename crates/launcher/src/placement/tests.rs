//! Hosts of every kind, by their files.

use super::*;
use std::fs;

/// A host whose cores have these CPUs online, and what the process may use.
fn host(cores: &[&[usize]], allowed: &str) -> HostCpus {
    let directory = tempfile::tempdir().unwrap();
    let online: Vec<String> = cores.iter().copied().flatten().map(ToString::to_string).collect();
    fs::write(directory.path().join("online"), online.join(",") + "\n").unwrap();
    for core in cores {
        let siblings: Vec<String> = core.iter().map(ToString::to_string).collect();
        for cpu in *core {
            let topology = directory.path().join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("thread_siblings_list"), siblings.join(",") + "\n").unwrap();
        }
    }
    let status = directory.path().join("status");
    fs::write(&status, format!("Name:\tcede\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n")).unwrap();
    HostCpus::at(directory.path(), &status).unwrap()
}

/// Where the vCPUs go, as in `0 1 8,9`.
fn places(placement: &str, vcpus: u32, threads: u32, host: &HostCpus) -> Result<String, String> {
    let topology =
        Topology { vcpus: vcpus.to_string().parse().unwrap(), threads: threads.to_string().parse().unwrap() };
    let placed = place(&placement.parse().unwrap(), topology, host).map_err(|error| error.to_string())?;
    assert_eq!(placed.len(), vcpus as usize);
    let comma = |cpus: &Vec<usize>| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(placed.iter().map(comma).collect::<Vec<_>>().join(" "))
}

/// Two cores of four threads.
fn smt4() -> HostCpus {
    host(&[&[0, 1, 2, 3], &[4, 5, 6, 7]], "0-7")
}

/// POWER8 with the threads offline that KVM wants for itself.
fn power8() -> HostCpus {
    host(&[&[0], &[8], &[16]], "0-31")
}

#[test]
fn none_is_the_schedulers() {
    assert_eq!(places("none", 2, 2, &smt4()).unwrap(), " ");
    let topology = Topology { vcpus: "2".parse().unwrap(), threads: "1".parse().unwrap() };
    assert_eq!(cpu_sets(&Placement::None, topology).unwrap(), [None, None]);
}

#[test]
fn a_core_for_each_vcore() {
    assert_eq!(places("cores", 2, 1, &smt4()).unwrap(), "0 4");
    assert_eq!(places("cores", 4, 2, &smt4()).unwrap(), "0 1 4 5");
    assert_eq!(places("cores", 8, 4, &smt4()).unwrap(), "0 1 2 3 4 5 6 7");
    assert_eq!(places("cores", 2, 1, &power8()).unwrap(), "0 8");
    // All threads of a vcore where KVM runs them: on the core's one CPU.
    assert_eq!(places("cores", 8, 4, &power8()).unwrap(), "0 0 0 0 8 8 8 8");
    // More threads than the core has: any of them, as the scheduler likes.
    assert_eq!(places("cores", 8, 8, &smt4()).unwrap(), ["0,1,2,3"; 8].join(" "));
    // What may not be used is no part of a core.
    let partly = host(&[&[0, 1, 2, 3], &[4, 5, 6, 7]], "2-4");
    assert_eq!(places("cores", 4, 2, &partly).unwrap(), "2 3 4 4");
    // Siblings need not follow each other.
    let x86 = host(&[&[0, 2], &[1, 3]], "0-3");
    assert_eq!(places("cores", 4, 2, &x86).unwrap(), "0 2 1 3");
}

#[test]
fn a_list_is_taken_in_its_order() {
    assert_eq!(places("7,0,3", 3, 1, &smt4()).unwrap(), "7 0 3");
    assert_eq!(places("7,0,3", 2, 1, &smt4()).unwrap(), "7 0");
    assert_eq!(places("0,4,1,5", 4, 1, &smt4()).unwrap(), "0 4 1 5");
    // Threads of a vcore on one core: the first that has enough left.
    assert_eq!(places("0,4,5,1", 4, 2, &smt4()).unwrap(), "0 1 4 5");
    assert_eq!(places("3,4-7", 4, 4, &smt4()).unwrap(), "4 5 6 7");
    assert_eq!(places("0-2,4-6", 4, 2, &smt4()).unwrap(), "0 1 4 5");
    // None has: then what is left, as it comes.
    assert_eq!(places("0-2,4-6", 6, 2, &smt4()).unwrap(), "0 1 4 5 2 6");
    // On POWER8 a CPU stands for its core.
    assert_eq!(places("16,0", 8, 4, &power8()).unwrap(), "16 16 16 16 0 0 0 0");
    assert_eq!(places("16,0", 2, 1, &power8()).unwrap(), "16 0");
}

#[test]
fn what_cannot_be_says_what_it_needs() {
    let place = "(--placement, [vcore] placement)";
    let error =
        |placement, vcpus, threads, host: &HostCpus| places(placement, vcpus, threads, host).unwrap_err();
    assert_eq!(
        error("cores", 3, 1, &smt4()),
        "3 vcores need 3 cores of the host, and there are 2 to use; give the guest fewer vCPUs, or use \
         --placement none ([vcore] placement)"
    );
    assert!(
        error("8", 8, 4, &power8()).starts_with("2 vcores need 2 cores of the host, and there are 1 to use;")
    );
    assert_eq!(
        error("0-2", 4, 2, &smt4()),
        format!("4 vCPUs need 4 CPUs, and 3 are named; name more {place}")
    );
    assert_eq!(
        error("0,12", 2, 1, &smt4()),
        format!("CPU 12 is offline or not there; online are 0-7 {place}")
    );
    assert_eq!(
        error("1", 1, 1, &power8()),
        format!("CPU 1 is offline or not there; online are 0,8,16 {place}")
    );
    let partly = host(&[&[0, 1, 2, 3], &[4, 5, 6, 7]], "2-4");
    assert_eq!(
        error("5", 1, 1, &partly),
        format!("CPU 5 may not be used by this process, which may use 2-4 {place}")
    );
}

#[test]
fn files_that_say_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let status = directory.path().join("status");
    let read = || {
        let error = HostCpus::at(directory.path(), &status).unwrap_err();
        crate::report::chain(&error).replace(&directory.path().display().to_string(), "D")
    };
    let none = "use --placement none ([vcore] placement)";
    assert_eq!(
        read(),
        format!(
            "cannot tell which CPUs the host has (D/online); {none}: No such file or directory (os error 2)"
        )
    );
    fs::write(directory.path().join("online"), "x\n").unwrap();
    assert_eq!(
        read(),
        format!("cannot tell which CPUs the host has (D/online); {none}: \"x\\n\" is no list of CPUs")
    );
    fs::write(directory.path().join("online"), "0\n").unwrap();
    fs::write(&status, "Cpus_allowed_list:\t0\n").unwrap();
    assert!(read().contains("D/cpu0/topology/thread_siblings_list"));
}

/// What the host really is, and a set that it takes.
#[test]
fn this_host_can_be_used() {
    let host = HostCpus::read().unwrap();
    assert!(host.usable().count() > 0 && host.smt() > 0);
    let first = host.usable().next().unwrap().number;
    let topology = Topology { vcpus: "1".parse().unwrap(), threads: "1".parse().unwrap() };
    let sets = cpu_sets(&Placement::List(vec![first]), topology).unwrap();
    let set = sets[0].unwrap();
    std::thread::spawn(move || {
        let this_thread = nix::unistd::Pid::from_raw(0);
        nix::sched::sched_setaffinity(this_thread, &set).unwrap();
        assert_eq!(nix::sched::sched_getcpu().unwrap(), first);
    })
    .join()
    .unwrap();
}
