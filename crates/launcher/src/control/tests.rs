//! A VM that is none behind a real socket.

use super::client::{Client, ClientError, list};
use super::protocol::{self, Ballooned, Command, Device, Info, Paused, Stat, Tuned};
use super::*;
use crate::config::schema;
use crate::config::{ConfigError, Settings, VmConfig};
use crate::report::chain;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vcore::Tunables;

/// Two vCPUs of one vcore.
#[derive(Default)]
struct Fake {
    tunables: Mutex<Tunables>,
    /// Why tunables cannot be set.
    refusal: Mutex<Option<&'static str>>,
    paused: AtomicBool,
    balloon: FakeBalloon,
    devices: Mutex<Vec<Device>>,
    unclaimed: AtomicU64,
}

/// Its guest gives half of what it is asked for.
#[derive(Default)]
struct FakeBalloon(AtomicU64);

impl Inflate for FakeBalloon {
    fn ask(&self, bytes: u64) {
        self.0.store(bytes, SeqCst);
    }

    fn given(&self) -> Ballooned {
        let target = self.0.load(SeqCst);
        Ballooned { target, actual: target / 2 }
    }
}

impl Control for Fake {
    fn plane(&self) -> &'static str {
        "vmm"
    }

    fn tunables(&self) -> Option<Tunables> {
        Some(*self.tunables.lock().unwrap())
    }

    fn set(&self, changes: TunableChanges) -> Result<(), String> {
        if let Some(refusal) = *self.refusal.lock().unwrap() {
            return Err(refusal.into());
        }
        let mut tunables = self.tunables.lock().unwrap();
        *tunables = changes.on(*tunables);
        Ok(())
    }

    fn vcpus(&self) -> Vec<VcpuStats> {
        let mut stats = Snapshot { halt_attempted_poll: 20, halt_wait_ns: 3_000_000, ..Snapshot::default() };
        stats.halt_wait_hist[7] = 9;
        let idle = VcpuStats {
            vcpu: 0,
            vcore: 0,
            thread: 0,
            state: "napping".into(),
            halt_poll_ns: Some(10000),
            stats,
        };
        let busy =
            VcpuStats { vcpu: 1, thread: 1, state: "running".into(), halt_poll_ns: None, ..idle.clone() };
        vec![idle, busy]
    }

    fn devices(&self) -> Vec<Device> {
        self.devices.lock().unwrap().clone()
    }

    fn unclaimed_accesses(&self) -> u64 {
        self.unclaimed.load(SeqCst)
    }

    fn pause(&self) -> Result<(), String> {
        self.paused.store(true, SeqCst);
        Ok(())
    }

    fn resume(&self) -> Result<(), String> {
        self.paused.store(false, SeqCst);
        Ok(())
    }

    fn paused(&self) -> bool {
        self.paused.load(SeqCst)
    }

    fn balloon(&self) -> Option<&dyn Inflate> {
        Some(&self.balloon)
    }
}

/// A configuration by its file's text.
fn config(text: &str) -> Result<VmConfig, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Settings::read(file.path())?.resolve()
}

/// A VM called `name` in `base`, and what it does for a VM.
fn serve(base: &Path, name: &str) -> (Server, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let config = config(&format!("name = '{name}'\ncpu.threads = 2")).unwrap();
    let steering = Arc::new(Steering::new(fake.clone(), config, None));
    (Server::start(RunDir::claim(Some(base), name).unwrap(), steering).unwrap(), fake)
}

fn ask<T: serde::de::DeserializeOwned>(base: &Path, vm: &str, command: &Command) -> Result<T, ClientError> {
    Client::new(vm, Some(base)).ask(command)
}

fn set(text: &str) -> Command {
    let tunables = text.parse::<TunableChanges>().unwrap().said();
    Command::Set { tunables: tunables.map(|(name, value)| (name.to_owned(), value.into())).collect() }
}

/// The answer to raw bytes.
fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    // A server that has not read all of a request resets the connection, once the answer is read.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_vm_is_steered_by_its_name_and_by_its_socket() {
    let base = tempfile::tempdir().unwrap();
    let (server, fake) = serve(base.path(), "vm");
    let socket = server.dir().socket();
    for vm in ["vm", socket.to_str().unwrap()] {
        let tuned: Tuned = ask(base.path(), vm, &set("halt_poll_ns=50000 halt_poll_ns_grow=0")).unwrap();
        let wanted = Tunables { halt_poll_ns: 50000, halt_poll_ns_grow: 0, ..Tunables::default() };
        assert_eq!(tuned, Tuned { tunables: Some(protocol::named(wanted)), notes: vec![] });
        assert_eq!(*fake.tunables.lock().unwrap(), wanted);

        assert!(ask::<Paused>(base.path(), vm, &Command::Pause).unwrap().paused);
        assert!(fake.paused());
        let info = Info {
            name: "vm".into(),
            pid: std::process::id(),
            plane: "vmm".into(),
            vcpu_count: 2,
            paused: true,
        };
        assert_eq!(ask::<Info>(base.path(), vm, &Command::Info).unwrap(), info);
        assert!(!ask::<Paused>(base.path(), vm, &Command::Resume).unwrap().paused);

        let balloon = |bytes| ask::<Ballooned>(base.path(), vm, &Command::Balloon { bytes });
        let given = Ballooned { target: 64 << 20, actual: 32 << 20 };
        assert_eq!(balloon(Some(64 << 20)).unwrap(), given);
        assert_eq!(balloon(None).unwrap(), given);
        let error = chain(&balloon(Some(1 << 40)).unwrap_err());
        assert!(error.contains("leaves nothing of 1G of memory"), "{error}");
        assert!(!fake.paused());

        let stat: Stat = ask(base.path(), vm, &Command::Stat).unwrap();
        assert_eq!(stat.tunables, Some(protocol::named(wanted)));
        assert_eq!(stat.vcpus.len(), 2);
        assert_eq!(stat.vcpus[0].stats["halt_attempted_poll"], 20);
        assert_eq!(stat.vcpus[0].histograms["halt_wait_hist"][7], 9);
        assert_eq!((stat.vcpus[1].thread, stat.vcpus[1].halt_poll_ns), (1, None));
    }
}

#[test]
fn who_cannot_be_asked_is_told_why() {
    let base = tempfile::tempdir().unwrap();
    let error = |vm: &str| chain(&ask::<Stat>(base.path(), vm, &Command::Stat).unwrap_err());
    assert_eq!(error("vm"), "no VM named vm runs; none does");
    let vms = ["b", "a"].map(|name| serve(base.path(), name));
    // What was left over does not run.
    std::fs::create_dir(base.path().join("dead")).unwrap();
    drop(UnixListener::bind(base.path().join("dead/control.sock")).unwrap());
    assert_eq!(error("vm"), "no VM named vm runs; running: a, b");
    assert_eq!(error("dead"), "no VM named dead runs; running: a, b");
    assert_eq!(error("/nowhere/control.sock"), "no VM answers at /nowhere/control.sock");
    *vms[0].1.refusal.lock().unwrap() = Some("the host says no");
    let refused = ask::<Tuned>(base.path(), "b", &set("halt_poll_ns=1")).unwrap_err();
    assert_eq!(chain(&refused), "the host says no");
    assert_eq!(list(&[base.path().to_owned(), "/nowhere".into()]).len(), 2);
}

/// Answers one client with a fixed line.
fn impostor(directory: &Path, answer: &'static str) -> PathBuf {
    let socket = directory.join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    socket
}

#[test]
fn another_cede_or_none_is_told_apart() {
    for (answer, error) in [
        (
            "{\"version\":2,\"ok\":{}}\n",
            "the VM at S speaks version 2 of the protocol, this cede 1; use the cede that started it",
        ),
        ("{\"version\":1}\n", "what answers at S is no VM: it says neither ok nor error"),
        ("{}\n", "what answers at S is no VM: it has no version"),
        ("HTTP\n", "what answers at S is no VM: expected value at line 1 column 1"),
        ("", "no VM answers at S"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let socket = impostor(directory.path(), answer).display().to_string();
        let told = Client::new(&socket, None).ask::<Paused>(&Command::Pause).unwrap_err();
        assert_eq!(chain(&told).replace(&socket, "S"), error);
    }
}

#[test]
fn a_request_that_is_wrong_is_answered() {
    let base = tempfile::tempdir().unwrap();
    let (server, fake) = serve(base.path(), "vm");
    let error = |request: &str| {
        let answer = raw(&server.dir().socket(), request.as_bytes());
        assert!(answer.ends_with('\n') && answer.matches('\n').count() == 1, "{answer:?}");
        match protocol::parse_answer::<serde_json::Value>(answer.as_bytes()).unwrap_err() {
            protocol::Refused::Error(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let version = "the VM speaks version 1 of the protocol, not 2";
    assert_eq!(error("{\"version\":2,\"command\":\"pause\"}\n"), version);
    let none = "the request has no version; this VM speaks 1";
    for request in ["{\"command\":\"pause\"}\n", "[]\n", "7", "{\"version\":-1}\n", "{\"version\":\"1\"}\n"] {
        assert_eq!(error(request), none, "{request}");
    }
    assert!(error("pause\n").starts_with("this is no JSON: "));
    assert!(error(&"[".repeat(4000)).starts_with("this is no JSON: "));
    assert!(error("{\"version\":1,\"command\":\"stop\"}\n").starts_with("unknown variant `stop`"));
    assert_eq!(error("{\"version\":1,\"command\":\"set\"}\n"), "missing field `tunables`");
    for (tunables, message) in [
        ("{}", "no tunable is named; write one as in halt_poll_ns=50000"),
        ("{\"halt_poll_ns\":-1}", "tunable halt_poll_ns cannot be negative, got -1: write 0 or more"),
        (
            "{\"halt_poll_ns\":4294967296}",
            "tunable halt_poll_ns is too large, got 4294967296: the most is 4294967295",
        ),
        (
            "{\"halt_poll_ns_grow\":5,\"poll\":1}",
            "unknown tunable \"poll\": there are halt_poll_ns, halt_poll_ns_grow, halt_poll_ns_grow_start and \
             halt_poll_ns_shrink",
        ),
    ] {
        let request = format!("{{\"version\":1,\"command\":\"set\",\"tunables\":{tunables}}}\n");
        assert_eq!(error(&request), message);
    }
    for value in ["1.5", "\"5\"", "null", "[]", "true"] {
        let request =
            format!("{{\"version\":1,\"command\":\"set\",\"tunables\":{{\"halt_poll_ns\":{value}}}}}\n");
        assert!(error(&request).starts_with("tunable halt_poll_ns must be a number"), "{value}");
    }
    let long = "a request is one line of at most 4096 bytes";
    assert_eq!(error(&" ".repeat(4097)), long);
    assert_eq!(error(&format!("{}\n", " ".repeat(4096))), long);
    assert_eq!(*fake.tunables.lock().unwrap(), Tunables::default());
    assert!(!fake.paused());
    // The longest that there can be.
    let longest = format!("{{\"version\":1,\"command\":\"pause\"}}{}\n", " ".repeat(4096 - 32));
    assert_eq!(longest.len(), 4096);
    assert_eq!(raw(&server.dir().socket(), longest.as_bytes()), "{\"ok\":{\"paused\":true},\"version\":1}\n");
}

#[test]
fn clients_that_hang_are_in_nobodys_way() {
    let base = tempfile::tempdir().unwrap();
    let (server, _fake) = serve(base.path(), "vm");
    let mut hung: Vec<UnixStream> = Vec::new();
    let mut hang = || {
        let mut stream = UnixStream::connect(server.dir().socket()).unwrap();
        // Half of them in the middle of a line.
        if hung.len() % 2 == 0 {
            _ = stream.write_all(b"{\"version\":1,");
        }
        hung.push(stream);
    };
    let mut shortest = Duration::MAX;
    for _ in 0..14 {
        hang();
        // On a busy machine those that were served a moment ago may still count.
        loop {
            let begin = Instant::now();
            if ask::<Paused>(base.path(), "vm", &Command::Pause).is_ok() {
                shortest = shortest.min(begin.elapsed());
                break;
            }
        }
    }
    // Whoever waited for one that hangs waited each time.
    assert!(shortest < Duration::from_secs(4), "nobody waited for those that hang");
    let busy = loop {
        match ask::<Paused>(base.path(), "vm", &Command::Pause) {
            Err(error) => break error,
            Ok(_) => hang(),
        }
    };
    assert_eq!(busy.to_string(), "16 clients are being served; try again");
    drop(hung);
    while ask::<Paused>(base.path(), "vm", &Command::Pause).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_end_waits_for_no_client() {
    let base = tempfile::tempdir().unwrap();
    let (server, _fake) = serve(base.path(), "vm");
    let hung = UnixStream::connect(server.dir().socket()).unwrap();
    ask::<Info>(base.path(), "vm", &Command::Info).unwrap();
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0, "nothing is left");
    drop(hung);
}

#[test]
fn a_second_vm_of_the_name_is_told_who_has_it() {
    let base = tempfile::tempdir().unwrap();
    let _first = serve(base.path(), "vm");
    let taken = RunDir::for_vm(Some(base.path()), "vm").unwrap_err().to_string();
    let wanted =
        format!("a VM named vm runs already (process {}); give this one another", std::process::id());
    assert!(taken.starts_with(&wanted), "{taken}");
}

/// A steering whose file is what the cell holds.
fn with_file(fake: &Arc<Fake>, text: &'static str) -> (Steering, Arc<Mutex<&'static str>>) {
    let file = Arc::new(Mutex::new(text));
    let read = Arc::clone(&file);
    let load: Load = Box::new(move || config(*read.lock().unwrap()));
    (Steering::new(fake.clone(), config(text).unwrap(), Some(load)), file)
}

fn answer(steering: &Steering, command: &Command) -> Result<Tuned, protocol::Refused> {
    protocol::parse_answer(steering.answer(protocol::request(command).as_bytes()).as_bytes())
}

#[test]
fn the_latest_word_counts() {
    let fake = Arc::new(Fake::default());
    let tunables = || fake.tunables().unwrap();
    let (steering, file) = with_file(&fake, "vcore.halt_poll_ns = 5\nvcore.halt_poll_ns_grow = 3");
    let configured = Tunables { halt_poll_ns: 5, halt_poll_ns_grow: 3, ..Tunables::default() };
    assert_eq!(tunables(), configured);

    let tuned = answer(&steering, &set("halt_poll_ns=7 halt_poll_ns_shrink=9")).unwrap();
    assert_eq!(tunables(), Tunables { halt_poll_ns: 7, halt_poll_ns_shrink: 9, ..configured });
    let note =
        "the configuration says halt_poll_ns=5, which counts again when it is reloaded (cede reload, SIGHUP)";
    assert_eq!(tuned.notes, [note]);
    assert!(answer(&steering, &set("halt_poll_ns=5")).unwrap().notes.is_empty(), "they agree");

    // The file is the same, but a reload is the latest word now.
    answer(&steering, &set("halt_poll_ns=7")).unwrap();
    let reloaded = steering.reload().unwrap();
    assert_eq!(tunables(), configured);
    assert_eq!(reloaded.changed.to_string(), "halt_poll_ns=5 halt_poll_ns_shrink=2");
    assert_eq!((reloaded.later.len(), reloaded.warning()), (0, None));

    // What nobody says any more is as it was before.
    *file.lock().unwrap() = "vcore.halt_poll_ns = 6";
    assert_eq!(answer(&steering, &Command::Reload).unwrap().notes, Vec::<String>::new());
    assert_eq!(tunables(), Tunables { halt_poll_ns: 6, ..Tunables::default() });
}

#[test]
fn a_reload_says_what_has_to_wait() {
    let fake = Arc::new(Fake::default());
    let (steering, file) = with_file(&fake, "memory.size = '1G'");
    *file.lock().unwrap() =
        "cpu.count = 4\nmemory.size = '2G'\nvcore.halt_poll_ns = 6\nvcore.placement = 'cores'";
    let tuned = answer(&steering, &Command::Reload).unwrap();
    assert_eq!(
        tuned.notes,
        ["changed, but only for the VM's next start: [cpu] count, [memory] size, [vcore] placement"]
    );
    assert_eq!(tuned.tunables.unwrap()["halt_poll_ns"], 6);
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let fake = Arc::new(Fake::default());
    let (steering, file) = with_file(&fake, "vcore.halt_poll_ns = 5");
    let before = fake.tunables();
    *file.lock().unwrap() = "vcore.halt_poll_ns = 6\nvcore.halt_poll_ns_grow = 'x'";
    let error = steering.reload().unwrap_err();
    assert!(error.ends_with(":2:27: halt_poll_ns_grow has to be a whole number"), "{error}");
    assert_eq!(fake.tunables(), before);

    *file.lock().unwrap() = "vcore.halt_poll_ns = 6";
    *fake.refusal.lock().unwrap() = Some("no");
    assert_eq!(steering.reload().unwrap_err(), "no");
    *fake.refusal.lock().unwrap() = None;
    steering.hang_up();
    assert_eq!(fake.tunables().unwrap().halt_poll_ns, 6);

    let steering = Steering::new(fake, config("").unwrap(), None);
    assert_eq!(
        steering.reload().unwrap_err(),
        "the VM was started without --config, so there is no file to reload"
    );
}

/// Every key is compared, and only with itself.
#[test]
fn a_changed_key_is_found() {
    let old = config("").unwrap();
    for (key, text) in [
        ("name", "name = 'x'"),
        ("[boot] kernel", "boot.kernel = '/k'"),
        ("[boot] initrd", "boot.initrd = '/i'"),
        ("[boot] cmdline", "boot.cmdline = 'x'"),
        ("[cpu] count", "cpu.count = 2"),
        ("[cpu] threads", "cpu.threads = 2\ncpu.count = 2"),
        ("[cpu] model", "cpu.model = 'power9'"),
        ("[memory] size", "memory.size = '2G'"),
        ("[machine] mmu", "machine.mmu = 'hash'"),
        ("[machine] irqchip", "machine.irqchip = 'xics'"),
        ("[machine] reboot", "machine.reboot = false"),
        ("[cede] plane", "cede.plane = 'vmm'"),
        ("[cede] run_dir", "cede.run_dir = '/r'"),
        ("[vcore] halt_poll_ns", "vcore.halt_poll_ns = 1"),
        ("[vcore] halt_poll_ns_grow", "vcore.halt_poll_ns_grow = 1"),
        ("[vcore] halt_poll_ns_grow_start", "vcore.halt_poll_ns_grow_start = 1"),
        ("[vcore] halt_poll_ns_shrink", "vcore.halt_poll_ns_shrink = 1"),
        ("[vcore] placement", "vcore.placement = 'cores'"),
        ("[console] backend", "console.backend = 'pty'"),
        ("[console] virtio", "console.virtio = 'pty'"),
        ("[devices] threads", "devices.threads = 2"),
    ] {
        let new = config(text).unwrap();
        let differ = schema::KEYS.iter().filter(|key| !key.is_same(&old, &new));
        let differ: Vec<String> = differ.map(ToString::to_string).collect();
        let wanted = if key == "[cpu] threads" { vec!["[cpu] count", key] } else { vec![key] };
        assert_eq!(differ, wanted);
    }
}

/// A device is named by its table: which key of it differs is nothing that a reload could act on.
#[test]
fn changed_devices_are_found() {
    let disk = "[[disk]]\npath = '/a'\n";
    let vsock = "[vsock]\ncid = 3\npath = '/v'\n";
    for (table, old, new) in [
        ("[[disk]]", "", disk.to_owned()),
        ("[[disk]]", disk, disk.repeat(2)),
        ("[[disk]]", disk, format!("{disk}readonly = true")),
        ("[[net]]", "", "[[net]]\ntap = 'tap0'".into()),
        ("[vsock]", vsock, String::new()),
        ("[vsock]", vsock, format!("{vsock}iommu = true")),
        ("[rng]", "", "[rng]".into()),
        ("[rng]", "[rng]", "[rng]\niommu = true".into()),
        ("[balloon]", "[balloon]", "[balloon]\nsize = '64M'".into()),
    ] {
        let differ = schema::fixed_differences(&config(old).unwrap(), &config(&new).unwrap());
        assert_eq!(differ, [table], "{old:?} and {new:?}");
    }
}

#[test]
fn a_person_sees_a_table() {
    let base = tempfile::tempdir().unwrap();
    let _vm = serve(base.path(), "vm");
    let mut before: Stat = ask(base.path(), "vm", &Command::Stat).unwrap();
    let head = "vm: plane vmm, running, halt_poll_ns=10000 halt_poll_ns_grow=2 halt_poll_ns_grow_start=10000 \
                halt_poll_ns_shrink=2\n";
    assert_eq!(
        show::totals(&before),
        head.to_owned()
            + "vcpu  core  state    interval  attempted  successful  invalid  waits  wakeups  success ns  fail ns  wait ns\n\
               0     0.0   napping     10000         20           0        0      0        0           0        0  3000000\n\
               1     0.1   running         -         20           0        0      0        0           0        0  3000000\n\
               all                                   40           0        0      0        0           0        0  6000000"
    );
    let mut after = before.clone();
    after.uptime_ns += 2_000_000_000;
    after.vcpus[0].stats.insert("halt_attempted_poll".into(), 25);
    after.vcpus[1].stats.remove("halt_wakeup");
    assert_eq!(
        show::rates(&before, &after).unwrap(),
        head.to_owned()
            + "vcpu  core  state    interval  attempted  successful  invalid  waits  wakeups  success ns  fail ns  wait ns\n\
               0     0.0   napping     10000          3           0        0      0        0           0        0        0\n\
               1     0.1   running         -          0           0        0      0        -           0        0        0\n\
               all                                    3           0        0      0        0           0        0        0"
    );
    assert_eq!(show::rates(&after, &before), None, "time went back");
    before.info.pid += 1;
    assert_eq!(show::rates(&before, &after), None, "another VM of the name");
    assert_eq!(
        show::list(&[Info { pid: 17, ..after.info }]),
        "name  pid  plane  vcpus  state\nvm    17   vmm    2      running"
    );
}

/// A device has a row, and counters that another lacks; what was not there before has no rate.
#[test]
fn a_person_sees_the_devices_that_count() {
    let base = tempfile::tempdir().unwrap();
    let (_vm, fake) = serve(base.path(), "vm");
    let device = |name: &str, counters: &[(&str, u64)]| Device {
        device: name.into(),
        counters: counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
    };
    let stat = || ask::<Stat>(base.path(), "vm", &Command::Stat).unwrap();
    let tail = |text: String| text.split_once("\n\n").unwrap().1.to_owned();

    *fake.devices.lock().unwrap() =
        vec![device("net tap0", &[("rx_packets", 4)]), device("x", &[("bytes", 1000)])];
    fake.unclaimed.store(3, SeqCst);
    let before = stat();
    assert_eq!(
        tail(show::totals(&before)),
        "device    bytes  rx_packets\n\
         net tap0      -           4\n\
         x          1000           -\n\n\
         unclaimed accesses  3"
    );
    *fake.devices.lock().unwrap() = vec![device("net tap0", &[("rx_packets", 104), ("bytes", 1)])];
    let after = Stat { uptime_ns: before.uptime_ns + 10_000_000_000, ..stat() };
    assert_eq!(
        tail(show::rates(&before, &after).unwrap()),
        "device    bytes  rx_packets\n\
         net tap0      -          10"
    );
}

#[test]
fn the_documented_lines_are_the_protocols() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/control.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    let examples = documentation.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let steering = Steering::new(Arc::new(Fake::default()), config("").unwrap(), None);
    let lines: Vec<&str> = examples.lines().collect();
    assert!(lines.len() >= 6);
    for pair in lines.chunks(2) {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&steering.answer(pair[0].as_bytes())), value(pair[1]));
    }
}
